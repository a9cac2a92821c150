//! How far this replica's log is: on disk, chosen, shown; and how it goes back where its disk took
//! something back.

use super::history::Base;
use super::message::Action;
use super::node::{Node, Role, Turn};

impl Node {
    /// Marks before this index are known by their sum only from now on: they are committed, and
    /// whoever needs what stands before takes it as it is. To be called where a log's start has
    /// moved on; of a long history the node does it by itself.
    pub fn compact(&mut self, index: i64) {
        assert!(index <= self.committed, "what is not committed stays");
        self.history.compact(index);
    }

    /// The log on this disk begins here, durably: the group has decided it, or there was nobody
    /// else to ask. Whoever takes the log as it is hears of it.
    pub fn begins_at(&mut self, offset: i64) {
        self.log_start = self.log_start.max(offset);
    }

    /// What of the log is on disk, as an index. The base's where batches before it are missing.
    pub(super) fn flushed_index(&self) -> i64 {
        let by_batches = self.history.index_of(self.durable_offset);
        let by_marks = self.history.index_behind_marks(self.durable_marks);
        let index = by_batches.min(by_marks).min(self.history.end().index());
        index.max(self.history.base().at.index())
    }

    /// Whether all batches before the history's base are on disk.
    pub(super) fn is_whole(&self) -> bool {
        self.durable_offset >= self.history.base().at.offset
    }

    pub(super) fn flushed_more(&mut self, turn: &mut Turn) {
        let index = self.flushed_index();
        if self.is_restoring && self.is_whole() {
            self.is_restoring = false;
        } else if index <= self.flushed {
            return;
        }
        self.flushed = index;
        match (self.role, self.leader) {
            (Role::Leader, _) => self.advance(turn),
            (_, Some(leader)) => self.tell_leader(turn, leader),
            _ => {}
        }
    }

    /// The log lost what was not flushed, as by a restart.
    pub(super) fn taken_back(&mut self, turn: &mut Turn, end_offset: i64) {
        let index = self.history.index_of(end_offset);
        let end = self.history.end();
        if index >= end.index() {
            return;
        }
        assert!(index >= self.flushed, "what was flushed is taken back");
        self.history.truncate(index);
        // What the log still has may wait to be written.
        self.durable_offset = self.durable_offset.min(end_offset);
        self.committed = self.committed.min(index);
        self.matched = self.matched.min(index);
        let to = self.history.end();
        if to.marks < end.marks {
            self.durable_marks = self.durable_marks.min(to.marks);
            self.know_members();
            turn.ask(Action::Truncate { to });
        }
        match self.role {
            // An offset of an epoch is given once: whoever has seen what is gone must never take
            // what comes in its place for the same.
            Role::Leader if self.sent > index || to.epoch < self.epoch => {
                self.follow(turn, self.epoch, None);
                if self.members().is_sole_voter(&self.id) {
                    self.campaign(turn, false, false);
                }
            }
            // It asked for votes by a log that it has no more.
            Role::Candidate | Role::PreCandidate => self.follow(turn, self.epoch, None),
            _ => {}
        }
    }

    /// Raises what clients may see: committed by what the leader says, and flushed here.
    pub(super) fn raise_high_watermark(&mut self, turn: &mut Turn, offset: i64) {
        if !self.is_whole() {
            return;
        }
        let below = |index| self.history.at(index).map_or(0, |at| at.offset);
        let offset = offset.min(below(self.flushed)).min(below(self.committed));
        if offset > self.high_watermark {
            self.high_watermark = offset;
            turn.ask(Action::HighWatermark { offset });
        }
    }

    /// Raises the commit, and forgets marks that nobody is likely to ask for.
    pub(super) fn raise_committed(&mut self, index: i64) {
        let before = self.committed;
        self.committed = before.max(index);
        let moved = self.history.log_start_between(before, self.committed);
        self.log_start = self.log_start.max(moved.unwrap_or(0));
        if let Some(oldest) = self.history.oldest_mark_to_keep() {
            self.compact(oldest.min(self.committed));
        }
    }

    /// The base that a snapshot for others is made of: committed, and on disk here.
    pub(super) fn snapshot(&self) -> Option<Base> {
        let mut base = self.history.base_at(self.committed.min(self.flushed))?;
        base.log_start = self.log_start.min(base.at.offset);
        Some(base)
    }
}
