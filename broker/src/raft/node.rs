//! One replica's view of its group: all control flow in one place.

use super::message::{Action, Input};
use super::quorum;

/// What this replica is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes writes, at this epoch.
    Leader,
    /// Was leader; its log has ended. Serves what is committed until a restart.
    Resigned,
}

/// One replica of one group.
#[derive(Debug)]
pub struct Node {
    role: Role,
    epoch: i32,
    min_insync_replicas: usize,
    flushed_end: i64,
    high_watermark: i64,
}

impl Node {
    /// The node of a group whose only voter is this replica. It leads at once, at an epoch above
    /// all that its log holds (`last_epoch`: that of the last batch, if any), and everything
    /// that is flushed is committed.
    pub fn sole_voter(
        last_epoch: Option<i32>,
        flushed_end: i64,
        min_insync_replicas: usize,
    ) -> Self {
        let epoch = last_epoch.map_or(0, |epoch| epoch.saturating_add(1));
        assert!(epoch >= 0, "an epoch in the log is below -1");
        Self {
            role: Role::Leader,
            epoch,
            min_insync_replicas,
            flushed_end,
            high_watermark: flushed_end,
        }
    }

    /// From now on a commit needs so many replicas, or all where they are fewer. What is committed
    /// stays committed.
    pub fn set_min_insync_replicas(&mut self, min_insync_replicas: usize) {
        self.min_insync_replicas = min_insync_replicas;
    }

    /// What this replica is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The leader epoch: what is stamped into batches, and what clients are fenced by.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The first offset that is not committed.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Takes one input; what must be done in answer, in order.
    pub fn step(&mut self, input: Input) -> Option<Action> {
        match input {
            Input::Flushed { end_offset } => {
                assert!(end_offset >= self.flushed_end, "a flushed end went back");
                self.flushed_end = end_offset;
                self.advance()
            }
            Input::LogEnded => {
                self.role = Role::Resigned;
                Some(Action::Resign)
            }
        }
    }

    fn advance(&mut self) -> Option<Action> {
        let committed = quorum::flushed_on(&[self.flushed_end], self.min_insync_replicas)?;
        if committed <= self.high_watermark {
            return None;
        }
        assert!(committed <= self.flushed_end, "committed beyond what is flushed here");
        self.high_watermark = committed;
        Some(Action::HighWatermark { offset: committed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sole_voter_leads_above_its_log_and_commits_what_is_flushed() {
        let mut node = Node::sole_voter(Some(4), 10, 1);
        assert_eq!((node.role(), node.epoch(), node.high_watermark()), (Role::Leader, 5, 10));
        assert_eq!(node.step(Input::Flushed { end_offset: 10 }), None);
        let advanced = node.step(Input::Flushed { end_offset: 12 });
        assert_eq!(advanced, Some(Action::HighWatermark { offset: 12 }));
    }

    #[test]
    fn an_ended_log_resigns_and_keeps_what_was_committed() {
        let mut node = Node::sole_voter(None, 3, 1);
        assert_eq!(node.epoch(), 0);
        assert_eq!(node.step(Input::LogEnded), Some(Action::Resign));
        assert_eq!((node.role(), node.high_watermark()), (Role::Resigned, 3));
    }
}
