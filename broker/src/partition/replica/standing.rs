//! How far the members of a group are, as its leader sees it.

use vltava_storage::ReplicatedBatches;

use super::Replica;
use crate::raft::Refusal;
use crate::raft::membership::{Membership, ReplicaId, Seat};
use crate::runtime::Runtime;

/// A member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who; in a group of one that keeps nothing, node -1.
    pub id: ReplicaId,
    /// It has a vote, also once the change that is under way is through.
    pub is_voter: bool,
    /// Below this offset it has the log on its disk; -1: it has said nothing yet.
    pub flushed_end: i64,
    /// It has all that is committed.
    pub is_caught_up: bool,
}

impl<R: Runtime> Replica<R> {
    /// Who belongs to the group, by the newest entry of the log that says it.
    pub fn members(&self) -> Membership {
        self.raft.borrow().members().clone()
    }

    /// Who leads the group, where it can be talked to.
    pub fn live_leader(&self) -> Option<ReplicaId> {
        self.raft.borrow().live_leader()
    }

    /// Begins a change of the members: the voters and learners of `next`.
    ///
    /// # Errors
    /// Where this replica cannot, or cannot yet.
    pub fn change_members(&self, next: &Membership) -> Result<(), Refusal> {
        let actions = self.raft.borrow_mut().change_members(self.now_ms(), next)?;
        self.perform(actions, ReplicatedBatches::default());
        Ok(())
    }

    /// All members, where this replica leads.
    pub fn standings(&self) -> Option<Vec<Standing>> {
        let raft = self.raft.borrow();
        raft.leads()?;
        let committed = raft.high_watermark();
        let standing = |seat: &Seat| {
            let flushed_end = raft.end_of(&seat.id);
            let is_caught_up = flushed_end >= committed;
            Standing { id: seat.id, is_voter: seat.is_voter, flushed_end, is_caught_up }
        };
        Some(raft.members().seats().iter().map(standing).collect())
    }
}
