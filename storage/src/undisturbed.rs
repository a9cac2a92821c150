//! Reads of batches that a truncation overtakes.

use crate::error::{StorageError, StorageResult};
use crate::io::Disk;
use crate::state::LogInner;

/// A read that so many truncations overtook is given up.
const TRIES_MAX: usize = 8;

impl<D: Disk> LogInner<D> {
    /// Runs a read of what stands at `from` and behind it. What it gives stood in the log all the
    /// time: where the log was cut meanwhile, it is run again. Memory that was given out keeps what
    /// it holds; a range of a file does not.
    pub(crate) async fn undisturbed<T>(
        &self,
        from: i64,
        read: impl AsyncFn() -> StorageResult<T>,
    ) -> StorageResult<T> {
        for _ in 0..TRIES_MAX {
            let is_cut_now = self.state.borrow().truncating;
            if is_cut_now {
                drop(self.writer.lock().await);
            }
            let generation = self.state.borrow().generation;
            let result = read().await;
            let (is_as_before, first_batch) = {
                let state = self.state.borrow();
                (state.generation == generation, state.first_batch)
            };
            match result {
                // It was made shorter meanwhile: what was not found may simply be gone.
                Err(StorageError::Corrupt(_) | StorageError::Unreadable(_))
                    if from < first_batch => {}
                result if is_as_before => return result,
                _ => {}
            }
        }
        Err(StorageError::Truncating)
    }
}
