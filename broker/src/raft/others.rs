//! The other members: what is known of each, and which of their nodes can be talked to.

use super::actions::Actions;
use super::membership::ReplicaId;
use super::node::{Node, Role, Turn};

/// What is known of another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Other {
    pub(super) id: ReplicaId,
    /// What it said when it was asked for its vote.
    pub(super) vote: Option<bool>,
    /// From where on it is sent.
    pub(super) next: i64,
    /// Its log is the leader's, and on its disk, below this index.
    pub(super) flushed: i64,
    /// Where its log agrees is not known: one message at a time asks for it.
    pub(super) is_probing: bool,
    /// Such a message is out.
    pub(super) has_asked: bool,
    /// It has said something since it was looked for who has not.
    pub(super) has_moved: bool,
    /// What it was told of commit and high watermark.
    pub(super) told: (i64, i64),
}

impl Node {
    /// Whether this node can be talked to, as far as the group was told.
    pub fn knows_up(&self, node: i32) -> bool {
        self.up.contains(&node)
    }

    pub(super) fn is_up(&self, id: &ReplicaId) -> bool {
        *id == self.id || self.up.contains(&id.node)
    }

    /// What is known of another member.
    pub(super) fn other(&self, id: &ReplicaId) -> Option<&Other> {
        self.others.iter().find(|other| other.id == *id)
    }

    /// Knows its members anew: who is one still is known as before.
    pub(super) fn know_members(&mut self) {
        let (known, own) = (std::mem::take(&mut self.others), self.id);
        let next = self.history.end().index();
        let other = |id: ReplicaId| {
            let known = known.iter().find(|other| other.id == id);
            let unknown = Other {
                id,
                vote: None,
                next,
                flushed: -1,
                is_probing: true,
                has_asked: false,
                has_moved: false,
                told: (0, 0),
            };
            known.copied().unwrap_or(unknown)
        };
        self.others = self.members().ids().filter(|id| *id != own).map(other).collect();
    }

    pub(super) fn peer_up(&mut self, turn: &mut Turn, node: i32) {
        if !self.up.contains(&node) {
            self.up.push(node);
        }
        self.ask_for_epochs(turn);
        if self.role == Role::Leader {
            self.forget_what_was_told(turn, node);
        } else if self.leader.is_some_and(|leader| leader.node == node) {
            // It says so itself if it still leads.
            self.follow(turn, self.epoch, None);
        }
    }

    /// As leader: a replica on this node was opened anew. Its disk may have lost what it told
    /// before, and it does not know who leads.
    pub(super) fn forget_what_was_told(&mut self, turn: &mut Turn, node: i32) {
        for other in self.others.iter_mut().filter(|other| other.id.node == node) {
            (other.is_probing, other.has_asked, other.flushed) = (true, false, -1);
        }
        self.replicate(turn);
    }

    /// A node that was not among the members' is: it can be talked to, in a session of before.
    pub fn meet(&mut self, now: u64, node: i32) -> Actions {
        let mut turn = Turn::new(now);
        if self.role != Role::Ended && !self.up.contains(&node) {
            self.up.push(node);
            if self.role == Role::Leader {
                self.replicate(&mut turn);
            }
        }
        turn.actions
    }

    pub(super) fn peer_down(&mut self, turn: &mut Turn, node: i32) {
        self.up.retain(|other| *other != node);
        if self.role == Role::Leader {
            if self.members().is_quorum(|id| self.is_up(id)) {
                self.watch_members(turn);
            } else {
                self.follow(turn, self.epoch, None);
            }
        } else if self.leader.is_some_and(|leader| leader.node == node) {
            self.wait_for_turn(turn.now);
        }
    }
}
