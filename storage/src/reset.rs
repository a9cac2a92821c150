//! Giving up all content, for a snapshot that a leader sent.
//!
//! Order: the record of what the log begins with is made durable; from then on nothing else in the
//! directory counts, and recovery would do the rest. What was queued goes before, as in a
//! truncation. Where there is no space, or no descriptor, for the rest nothing is appended until it
//! is done: the caller resets the log again later.

use crate::error::{StorageError, StorageResult};
use crate::io::Disk;
use crate::refused::RefusedProducers;
use crate::reset_record::{LogBeginning, ResetRecord};
use crate::state::LogInner;

impl<D: Disk> LogInner<D> {
    /// Makes the log empty, with this beginning.
    pub(crate) async fn reset_to(&self, beginning: LogBeginning) -> StorageResult<()> {
        let _writer = self.writer.lock().await;
        self.state.borrow().check_open()?;
        self.take_back(Vec::new());
        self.retire_buffer(false);
        let (was_under_way, generation) = {
            let mut state = self.state.borrow_mut();
            (std::mem::replace(&mut state.truncating, true), state.generation)
        };
        let done = match self.end_zeros().await {
            Ok(()) => self.reset_files(beginning).await,
            Err(error) => Err(self.fail(error)),
        };
        let mut state = self.state.borrow_mut();
        let has_record = was_under_way || state.generation != generation;
        state.truncating = has_record && done.as_ref().is_err_and(is_for_later);
        done
    }

    async fn reset_files(&self, beginning: LogBeginning) -> StorageResult<()> {
        let _files = self.files.lock().await;
        let record = ResetRecord {
            topic_id: self.topic_id,
            generation: self.state.borrow().generation + 1,
            write_bytes_max: self.environment.options.write_bytes_max as u64,
            beginning,
        };
        let written = record.write(&self.environment.disk, &self.directory).await;
        written.map_err(|error| self.fail(StorageError::from_write(error)))?;
        {
            let mut state = self.state.borrow_mut();
            state.generation = record.generation;
            state.refused = RefusedProducers::default();
            state.epochs_written = None;
            state.first_batch = record.beginning.base_offset;
            state.segments.values().for_each(|segment| segment.close_files());
        }
        self.zero_ahead.borrow_mut().begin_file();
        self.environment.cache.forget_from(self.number, i64::MIN, 0);
        let options = self.state.borrow().options.clone();
        let reloaded = self.reload(record.to_checkpoint(), &options, None).await;
        reloaded.map_err(|error| match error {
            error if is_for_later(&error) => error,
            error => self.fail(self.half_done("reset", error)),
        })
    }
}

/// Whether the same may succeed later: there was no room, of the disk or for descriptors.
fn is_for_later(error: &StorageError) -> bool {
    matches!(error, StorageError::Full(_) | StorageError::NoDescriptor(_))
}
