//! What is decided from outside, where a group cannot decide any more: a majority of its voters is
//! gone, and one that is left leads with what it has.
//!
//! Whoever decides it (the controller by a record of the partition; of group 0, an operator) names
//! the replica and an epoch that is above all that anybody knows, by so much that nobody who has
//! not heard of it gets there. With it a *generation* of the group begins. Its leader's first entry
//! there ([`What::Forced`]) names the members anew: itself alone as voter.
//!
//! What others had chosen is void where that leader lacks it. So that nobody else says so:
//! - Replicas listen to those of their own generation only ([`Node::hears`]): who has not heard of
//!   the decision neither follows its leader nor disturbs it.
//! - Who hears of it knows nothing of what is committed any more, as after a restart; nothing else
//!   lets a log be cut below that (`follower::truncate`).
//! - Who has no entry of its generation has no say in elections: its members are those of before,
//!   and two such replicas would elect a leader beside the one that was named.
//! - A log whose beginning is known by its sum only, and may not be in the leader's, is taken anew
//!   from there.

use super::actions::Actions;
use super::history::{Base, History, What};
use super::membership::{Membership, ReplicaId};
use super::message::{Action, Message};
use super::node::{Node, Role, Turn};
use super::position::Position;

impl Node {
    /// The epoch with which the newest generation began that this replica has heard of; -1: the
    /// group is as it was founded.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Whether what a replica of this generation says is for this one.
    pub fn hears(&self, generation: i32) -> bool {
        self.generation == generation
    }

    /// Whether its log has something of its generation. Nothing of that is there before, since
    /// nobody came near those epochs.
    pub fn is_of_generation(&self) -> bool {
        self.history.end().epoch >= self.generation
    }

    /// Whether this replica could lead with what it has, where it was named.
    pub fn can_be_named(&self) -> bool {
        let has_all = self.is_whole() && self.lost.is_none() && self.unheard.is_empty();
        has_all && self.role != Role::Ended
    }

    /// This replica was named as the leader with which a generation begins: it leads at that epoch
    /// or a later one, with what it has, as the only voter; `learners` get its log. Where it lacks
    /// something of what it had, it only enters the generation.
    pub fn force(
        &mut self,
        now: u64,
        generation: i32,
        learners: impl IntoIterator<Item = ReplicaId>,
    ) -> Actions {
        let is_done = generation == self.generation && self.is_of_generation();
        if generation < self.generation || is_done || self.role == Role::Ended {
            return Actions::default();
        }
        // Where it has begun to before, and lost that, somebody may have seen what it lost.
        let is_again = generation == self.generation;
        let epoch = if is_again { self.epoch.saturating_add(1) } else { generation };
        if epoch <= self.epoch || !self.can_be_named() {
            return self.enter(now, generation);
        }
        let mut turn = Turn::new(now);
        self.generation = generation;
        self.follow(&mut turn, epoch, None);
        // What it was told is chosen, and has not on disk yet, only others had.
        self.committed = self.committed.min(self.flushed);
        let members = Membership::new([self.id], learners);
        self.lead_from(&mut turn, What::Forced(Box::new(members)));
        turn.actions
    }

    /// A generation begins with this epoch, with another replica as its leader: what is known of
    /// what is committed is void. Where this replica is beyond that epoch already it takes no part
    /// any more: that is nothing that can be.
    pub fn enter(&mut self, now: u64, generation: i32) -> Actions {
        let mut turn = Turn::new(now);
        if generation <= self.generation || self.role == Role::Ended {
            return turn.actions;
        }
        if self.epoch >= generation {
            self.end(&mut turn);
            return turn.actions;
        }
        self.generation = generation;
        self.follow(&mut turn, generation, None);
        let base = self.history.base();
        (self.committed, self.high_watermark) = (base.at.index(), base.log_start);
        if !self.is_whole() {
            // What was being fetched is not what this leader has.
            self.forget_log();
            turn.ask(Action::Restore { kept: 0 });
        }
        turn.actions
    }

    /// As if this replica had never had anything.
    pub(super) fn forget_log(&mut self) {
        assert!(!self.is_of_generation(), "a log is given up that nobody has made void");
        let members = self.members().clone();
        self.history = History::new(Base { at: Position::ZERO, members, log_start: 0 });
        (self.durable_offset, self.durable_marks, self.flushed) = (0, 0, 0);
        (self.matched, self.committed) = (0, 0);
        (self.high_watermark, self.log_start) = (0, 0);
        self.is_restoring = false;
        self.know_members();
    }

    /// Epoch and vote of this disk were lost: it may have voted for any of these, and must not vote
    /// again where it has. Each of them knows the epochs in which it asked; so this replica takes
    /// part in nothing before all of them have said theirs, and votes in none of those. To be
    /// called before [`Node::start`].
    pub fn lose_votes(&mut self, others: impl IntoIterator<Item = ReplicaId>) {
        let own = self.id;
        self.unheard = others.into_iter().filter(|other| *other != own).collect();
    }

    /// Only these may belong to the group now: nobody else is waited for.
    pub fn narrow(&mut self, now: u64, members: &[ReplicaId]) -> Actions {
        let mut turn = Turn::new(now);
        if !self.unheard.is_empty() {
            self.unheard.retain(|other| members.contains(other));
            self.know_votes(&mut turn);
        }
        turn.actions
    }

    /// Asks those of whom it is not known which epoch they know: would they elect one who has
    /// nothing?
    pub(super) fn ask_for_epochs(&mut self, turn: &mut Turn) {
        if self.unheard.is_empty() || self.role == Role::Ended {
            return;
        }
        let epoch = self.epoch.max(0).saturating_add(1).min(i32::MAX - 1);
        let (is_pre, is_transfer, log_end) = (true, false, Position::ZERO);
        for other in self.unheard.iter().filter(|other| self.is_up(other)) {
            turn.send(*other, Message::Vote { epoch, is_pre, is_transfer, log_end });
        }
        self.wait_for_leader(turn.now);
    }

    /// Somebody says something: whoever says it knows this epoch, and no newer one.
    pub(super) fn heard_epoch(&mut self, turn: &mut Turn, from: ReplicaId, message: &Message) {
        if let Message::Vote { is_pre, .. } = *message {
            // It names an epoch that nobody has yet. Who asks may have lost its votes, too: what
            // this one asked for before it was started again, nobody counts any more.
            let (epoch, is_granted) = (self.epoch.max(0), false);
            return turn.send(from, Message::VoteReply { epoch, is_pre, is_granted });
        }
        self.unheard.retain(|other| *other != from);
        self.epoch = self.epoch.max(message.epoch());
        self.know_votes(turn);
    }

    /// Once all were heard: in the newest epoch that any of them knows it has voted, for all that
    /// it knows.
    fn know_votes(&mut self, turn: &mut Turn) {
        if self.unheard.is_empty() {
            (self.epoch, self.vote) = (self.epoch.max(0), Some(self.id));
            self.persist(turn);
            self.wait_for_leader(turn.now);
        }
    }
}
