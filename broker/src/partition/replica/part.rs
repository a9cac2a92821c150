//! A replica that belongs to its group no more, or whose partition is deleted.

use super::Replica;
use crate::partition::error::PartitionError;
use crate::raft::membership::Membership;
use crate::raft::message::Input;
use crate::runtime::Runtime;

impl<R: Runtime> Replica<R> {
    /// Takes no part in its group any more, as if its node were gone: nothing is said, taken or
    /// kept after this returns.
    pub async fn leave_group(&self) {
        // Who waits for what was written looks elsewhere.
        self.refuse_queued(&PartitionError::NotLeader);
        self.step(Input::LogEnded);
        self.agenda.borrow_mut().end();
        // What waits for a leader waits no more.
        self.agenda_changes.notify();
        loop {
            let rested = self.agenda_changes.listen();
            if self.agenda.borrow().is_at_rest() {
                return;
            }
            rested.await;
        }
    }

    /// Removes the log of a replica that belongs to its group no more, and has left it: the group
    /// has these members now. What it promised stays kept: others may not know yet that it is gone.
    ///
    /// # Errors
    /// What the disk says. Nothing of the log is removed before the promise is durable.
    pub async fn give_away(&self, members: Membership) -> Result<(), PartitionError> {
        assert!(self.agenda.borrow().is_at_rest(), "a replica is removed that takes part");
        let kept = {
            let raft = self.raft.borrow();
            let log_end = raft.history().at(raft.flushed()).unwrap_or(raft.history().end());
            let kept = self.agenda.borrow().kept().cloned();
            kept.map(|kept| kept.given_away(log_end, members))
        };
        if let (Some(kept), Some(near)) = (kept, &self.surroundings) {
            near.journal.set(self.key(), Some(kept.to_bytes().into())).await?;
        }
        self.remove().await
    }

    /// Removes the log, and all that is kept of the group, of a partition that is deleted.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn forget(&self) -> Result<(), PartitionError> {
        self.leave_group().await;
        let is_kept = self.agenda.borrow().kept().is_some();
        self.remove().await?;
        if let Some(near) = self.surroundings.as_ref().filter(|_| is_kept) {
            near.journal.set(self.key(), None).await?;
        }
        Ok(())
    }
}
