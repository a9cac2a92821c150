//! What a replica tells its driver of itself.

use super::history::History;
use super::membership::{Membership, ReplicaId};
use super::node::{Node, Role};

impl Node {
    /// What this replica is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The newest epoch that it knows: its own where it leads.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Who leads, as far as it knows.
    pub fn leader(&self) -> Option<ReplicaId> {
        self.leader
    }

    /// The leader, where it can be talked to: it may be this replica.
    pub fn live_leader(&self) -> Option<ReplicaId> {
        self.leader.filter(|leader| *leader == self.id || self.is_up(leader))
    }

    /// What its log holds.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The first offset that may not be served. Never above what is flushed here, and never back.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Whether the high watermark is not below one that somebody was told before, by this replica
    /// or by who led: it reaches into the epoch, and a follower has heard of it from who leads now,
    /// and shows as much of that as it has on its disk.
    pub fn knows_high_watermark(&self) -> bool {
        let reaches = self.high_watermark >= self.epoch_begin();
        let told = self.leader_high_watermark;
        let flushed = self.history.at(self.flushed).map_or(0, |at| at.offset);
        let is_told = told >= self.epoch_begin() && self.high_watermark >= told.min(flushed);
        reaches && (self.role == Role::Leader || is_told)
    }

    /// The offset at which its epoch began; of a follower that has nothing of it, its log's end.
    pub fn epoch_begin(&self) -> i64 {
        let begun = self.history.end_of_epoch(self.epoch - 1);
        begun.unwrap_or(self.history.base().at).offset
    }

    /// Below this index nothing of the log is missing on this disk.
    pub fn flushed(&self) -> i64 {
        self.flushed
    }

    /// Below this index entries are chosen.
    pub fn committed(&self) -> i64 {
        self.committed
    }

    /// Offsets below this are gone for good, in all replicas.
    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    /// Whether it follows a leader that can be talked to, and has all that it should have.
    pub fn follows(&self) -> bool {
        self.role == Role::Follower && self.has_live_leader() && self.is_whole()
    }

    /// The members, by the newest entry of the log that names them.
    pub fn members(&self) -> &Membership {
        self.history.members()
    }

    /// Whether nobody else belongs to the group: then nothing of it needs to be kept but the log.
    pub fn is_alone(&self) -> bool {
        self.members().is_alone(&self.id)
    }

    /// When `Input::Deadline` is due; `None`: nothing is. An idle group has none.
    pub fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Whether batches may be appended here.
    pub fn takes_writes(&self) -> bool {
        self.role == Role::Leader && self.handing_over.is_none()
    }

    /// `min.insync.replicas`.
    pub fn min_insync_replicas(&self) -> usize {
        self.options.min_insync_replicas
    }
}
