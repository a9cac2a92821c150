//! A leader gives its place to another replica, in order: nobody waits for an election.

use std::time::Duration;

use vltava_storage::ReplicatedBatches;

use super::Replica;
use super::group::ELECTION_MS;
use crate::raft::membership::ReplicaId;
use crate::runtime::Runtime;

impl<R: Runtime> Replica<R> {
    /// The nodes whose replicas could lead at once in place of this one: voters that are there and
    /// caught up. Empty where this replica does not lead.
    pub fn successors(&self) -> Vec<i32> {
        self.heirs().into_iter().map(|id| id.node).collect()
    }

    fn heirs(&self) -> Vec<ReplicaId> {
        let Some(near) = &self.surroundings else { return Vec::new() };
        let raft = self.raft.borrow();
        if raft.leads().is_none() {
            return Vec::new();
        }
        let votes = |id: &ReplicaId| raft.members().voters().any(|voter| voter == *id);
        // A node that is there may have another disk by now.
        let has_disk = |id: &ReplicaId| {
            near.peers.introduction_of(id.node).is_some_and(|it| it.disk_id == id.disk)
        };
        raft.caught_up().filter(|id| votes(id) && has_disk(id)).collect()
    }

    /// Whether another voter's node is there, so that it may yet catch up.
    pub fn has_company(&self) -> bool {
        let Some(near) = &self.surroundings else { return false };
        let raft = self.raft.borrow();
        let mut others = raft.members().voters().filter(|id| *id != near.own);
        others.any(|id| near.peers.session(id.node).is_some())
    }

    /// Hands leadership to this node's replica; whether this one leads no more when it completes,
    /// which is within an election's time. Meanwhile nothing is appended here; what was, is
    /// committed before the other leads, or refused.
    pub async fn hand_over(&self, to: i32) -> bool {
        let Some(epoch) = self.leads() else { return true };
        let Some(target) = self.heirs().into_iter().find(|id| id.node == to) else { return false };
        let begun = self.raft.borrow_mut().hand_over(self.now_ms(), target);
        let Ok(actions) = begun else { return false };
        self.perform(actions, ReplicatedBatches::default());
        let time = Duration::from_millis(ELECTION_MS);
        let until = self.runtime.now().after(time);
        while self.leads() == Some(epoch) && self.runtime.now() < until {
            let changed = self.leadership_changes();
            if self.leads() == Some(epoch) {
                self.runtime.before(until, changed).await;
            }
        }
        self.leads() != Some(epoch)
    }
}
