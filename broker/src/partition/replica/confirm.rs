//! What a leader says for good only where it still leads.
//!
//! A process that stood still goes on as the leader that it was, and its clients' requests may be
//! handled before the word that another leads. What it acknowledges waits for a majority; what it
//! refuses does not. Clients take some refusals for final: a batch that is out of order, a read of
//! what is not there. A leader that was deposed has only missed what they speak of. And where the
//! process has just stood still, nor may it say where its log ends, or what a coordinator knows.

use super::Replica;
use crate::partition::error::PartitionError;
use crate::partition::standstill::DOUBT;
use crate::runtime::Runtime;

/// Longer than a session lasts that the other side has ended: so many own beats, as those of
/// sessions are counted (`peer/liveness.rs`), since of time a process misses what it stood still.
const BEATS: u32 = 10;

impl<R: Runtime> Replica<R> {
    /// Where this replica leads a group of several: whether it still does once it must have heard
    /// that it does not.
    ///
    /// # Errors
    /// [`PartitionError::NotLeader`]: it does not.
    pub async fn confirm_leads(&self) -> Result<(), PartitionError> {
        let Some(epoch) = self.leads().filter(|_| self.is_shared()) else { return Ok(()) };
        for _ in 0..BEATS {
            self.runtime.sleep(DOUBT / BEATS).await;
            if self.leads() != Some(epoch) {
                return Err(PartitionError::NotLeader);
            }
        }
        Ok(())
    }

    /// Whether this replica leads a group of several in a process that has just stood still: then
    /// another may lead it by now.
    pub fn is_lead_doubtful(&self) -> bool {
        self.surroundings.as_ref().is_some_and(|near| {
            near.standstill.is_doubtful(self.runtime.now())
                && self.is_shared()
                && self.leads().is_some()
        })
    }

    /// What a leader knows is of now: where the process has just stood still, only once it must
    /// have heard of another leader.
    ///
    /// # Errors
    /// [`PartitionError::NotLeader`]: there is another.
    pub(in crate::partition) async fn settle_doubt(&self) -> Result<(), PartitionError> {
        if self.is_lead_doubtful() { self.confirm_leads().await } else { Ok(()) }
    }
}
