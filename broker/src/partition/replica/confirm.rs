//! What a leader says for good only where it still leads.
//!
//! A process that stood still goes on as the leader that it was, and its clients' requests may be
//! handled before the word that another leads. What it acknowledges waits for a majority; what it
//! refuses does not. Clients take some refusals for final: a batch that is out of order, a read of
//! what is not there. A leader that was deposed has only missed what they speak of.

use std::time::Duration;

use super::Replica;
use crate::partition::error::PartitionError;
use crate::runtime::Runtime;

/// Longer than a session lasts that the other side has ended: so many own beats, as those of
/// sessions are counted (`peer/liveness.rs`), since of time a process misses what it stood still.
const BEATS: u32 = 10;
const BEAT: Duration = Duration::from_millis(50);

impl<R: Runtime> Replica<R> {
    /// Where this replica leads a group of several: whether it still does once it must have heard
    /// that it does not.
    ///
    /// # Errors
    /// [`PartitionError::NotLeader`]: it does not.
    pub(in crate::partition) async fn confirm_leads(&self) -> Result<(), PartitionError> {
        let Some(epoch) = self.leads().filter(|_| self.is_shared()) else { return Ok(()) };
        for _ in 0..BEATS {
            self.runtime.sleep_until(self.runtime.now().after(BEAT)).await;
            if self.leads() != Some(epoch) {
                return Err(PartitionError::NotLeader);
            }
        }
        Ok(())
    }
}
