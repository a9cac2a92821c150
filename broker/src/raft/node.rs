//! One replica's view of its group: its state, and which part answers to what.
//!
//! What it does as voter and candidate stands in `election`, as follower in `follower`, as leader
//! in `leader`; how far its log is, in `progress`; whom it can talk to, in `others`; what its
//! driver can ask of it, in `standing`.

use super::actions::Actions;
use super::history::History;
use super::membership::{Membership, ReplicaId};
use super::message::{Action, Input, Message};
use super::others::Other;
use super::position::Position;

/// What this replica is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes the log from a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks to be.
    Candidate,
    /// Takes writes, at its epoch.
    Leader,
    /// Its log has ended: it serves what is committed until a restart.
    Ended,
}

/// How a group is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// How long a replica that asked for votes waits before it asks again, or another does, in
    /// milliseconds; each waits up to twice as long.
    pub election_ms: u64,
    /// How long a replica lets each of those ask first that should rather lead, in milliseconds.
    pub turn_ms: u64,
    /// How many should rather lead than this replica.
    pub rank: u32,
    /// How long a leader waits for a member that is behind, before it asks again, in milliseconds.
    pub retry_ms: u64,
    /// `min.insync.replicas`: clients see what so many replicas have flushed, or all where they
    /// are fewer; never less than a majority.
    pub min_insync_replicas: usize,
}

/// What a replica's disk held as it was started.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// The newest epoch it knew; -1: none.
    pub epoch: i32,
    /// Who got its vote in that.
    pub vote: Option<ReplicaId>,
    /// What its log holds. All of it is flushed, but where the log ends before the history's base.
    pub history: History,
    /// Where the log's batches end.
    pub end_offset: i64,
    /// The log was lost or damaged, and begun anew: what was said of it before does not hold.
    pub is_lost: bool,
    /// The newest generation that it knew; -1: the group as it was founded.
    pub generation: i32,
}

impl Found {
    /// Of a replica that never had anything.
    pub fn nothing(history: History) -> Self {
        Self { epoch: -1, vote: None, history, end_offset: 0, is_lost: false, generation: -1 }
    }

    /// Of a group to which nobody else belongs, and of which nothing is kept but the log: its
    /// epochs, each with the offset of its first batch, and where it ends.
    pub fn alone(id: ReplicaId, leader_epochs: &[(i32, i64)], end_offset: i64) -> Self {
        let members = Membership::new([id], []);
        let history = History::of_epochs(members, leader_epochs, end_offset);
        Self { epoch: -1, vote: None, history, end_offset, is_lost: false, generation: -1 }
    }
}

/// One input's time, and what it brings about.
pub(super) struct Turn {
    pub(super) now: u64,
    pub(super) actions: Actions,
}

impl Turn {
    pub(super) fn new(now: u64) -> Self {
        Self { now, actions: Actions::default() }
    }

    pub(super) fn ask(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn send(&mut self, to: ReplicaId, message: Message) {
        self.ask(Action::Send { to, message });
    }
}

/// One replica of one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub(super) id: ReplicaId,
    pub(super) options: Options,
    random: u64,
    pub(super) role: Role,
    pub(super) epoch: i32,
    pub(super) vote: Option<ReplicaId>,
    pub(super) leader: Option<ReplicaId>,
    /// When something is to be done if nothing happens before.
    pub(super) deadline: Option<u64>,
    pub(super) history: History,
    /// What is on disk here: batches below this offset,
    pub(super) durable_offset: i64,
    /// and so many marks.
    pub(super) durable_marks: i64,
    /// What that is as an index: below it nothing of the log is missing on disk.
    pub(super) flushed: i64,
    /// Of a follower: below this its log is the leader's of this epoch.
    pub(super) matched: i64,
    pub(super) committed: i64,
    /// The log's start, by what is committed.
    pub(super) log_start: i64,
    pub(super) high_watermark: i64,
    /// What the leader said of it; -1: nothing yet.
    pub(super) leader_high_watermark: i64,
    /// Of a leader: below this somebody may have seen its log.
    pub(super) sent: i64,
    /// The driver fetches what a snapshot stands for.
    pub(super) is_restoring: bool,
    /// Its log was lost, and with it what it has told others that it has: it has no say in
    /// elections until its log is on disk again below this index ([`Node::regain`]).
    pub(super) lost: Option<i64>,
    /// See [`Node::generation`].
    pub(super) generation: i32,
    /// Its votes were lost: it takes part in nothing before each of these has said which epoch it
    /// knows. See [`Node::lose_votes`].
    pub(super) unheard: Vec<ReplicaId>,
    /// Of a leader: who is to follow it.
    pub(super) handing_over: Option<ReplicaId>,
    /// Where this disk's log of the group ended before it was given away. See [`Node::promise`].
    pub(super) promised: Position,
    /// Nodes that can be talked to.
    pub(super) up: Vec<i32>,
    /// All members but this replica.
    pub(super) others: Vec<Other>,
}

impl Node {
    /// A replica over what its disk held. Every other node counts as down until [`Input::PeerUp`].
    /// Call [`Node::start`].
    pub fn new(id: ReplicaId, options: Options, seed: u64, found: Found) -> Self {
        let Found { epoch, vote, history, end_offset, is_lost, generation } = found;
        let own = epoch.max(history.end().epoch);
        let base = history.base().at;
        let mut node = Self {
            id,
            options,
            random: seed | 1,
            role: Role::Follower,
            epoch: own,
            vote: vote.filter(|_| epoch == own),
            leader: None,
            deadline: None,
            durable_offset: end_offset,
            durable_marks: history.end().marks,
            flushed: base.index(),
            matched: base.index(),
            committed: base.index(),
            log_start: history.base().log_start,
            // Not all that is committed was shown.
            high_watermark: history.base().log_start,
            leader_high_watermark: -1,
            sent: 0,
            is_restoring: false,
            lost: is_lost.then_some(i64::MAX),
            generation,
            unheard: Vec::new(),
            handing_over: None,
            promised: Position::ZERO,
            up: Vec::new(),
            others: Vec::new(),
            history,
        };
        node.flushed = node.flushed_index();
        node.know_members();
        node
    }

    /// This disk had a log of the group before, which ended here, and was given away as the group
    /// no longer named it. To be called before [`Node::start`]. What it had on disk may have been
    /// counted by a leader, and who does not know that the group went on without it may count it
    /// still: it gives nobody its vote who has less, and asks for none before it has as much.
    pub fn promise(&mut self, log_end: Position) {
        self.promised = log_end;
    }

    /// To be called once: a sole voter leads at once, the others wait for a leader. Who was named
    /// before leads already.
    pub fn start(&mut self, now: u64) -> Actions {
        let mut turn = Turn::new(now);
        if self.role != Role::Follower {
            return turn.actions;
        }
        match self.members().is_sole_voter(&self.id) && self.has_say() {
            true => self.campaign(&mut turn, false, false),
            false => self.wait_for_turn(now),
        }
        turn.actions
    }

    /// Takes one input; what must be done in answer. `now` is in milliseconds, and only rises.
    pub fn step(&mut self, now: u64, input: Input) -> Actions {
        let mut turn = Turn::new(now);
        match input {
            _ if self.role == Role::Ended => {}
            Input::Deadline => self.deadline_came(&mut turn),
            Input::PeerUp(node) => self.peer_up(&mut turn, node),
            Input::PeerDown(node) => self.peer_down(&mut turn, node),
            Input::Received { from, message } => self.received(&mut turn, from, message),
            Input::Appended { offsets } => self.appended(&mut turn, offsets),
            Input::Flushed { end_offset } => {
                assert!(end_offset <= self.history.end().offset.max(self.durable_offset));
                self.durable_offset = self.durable_offset.max(end_offset);
                self.flushed_more(&mut turn);
            }
            Input::MarksFlushed { marks } => {
                assert!(marks <= self.history.end().marks, "marks that were never written");
                self.durable_marks = self.durable_marks.max(marks);
                self.flushed_more(&mut turn);
            }
            Input::TakenBack { end_offset } => self.taken_back(&mut turn, end_offset),
            Input::LogEnded => self.end(&mut turn),
        }
        turn.actions
    }

    /// From now on clients see what so many replicas have flushed. What they have seen stays.
    pub fn set_min_insync_replicas(&mut self, now: u64, min_insync_replicas: usize) -> Actions {
        let mut turn = Turn::new(now);
        self.options.min_insync_replicas = min_insync_replicas;
        if self.role == Role::Leader {
            self.advance(&mut turn);
        }
        turn.actions
    }

    /// From now on so many should rather lead than this replica.
    pub fn set_rank(&mut self, rank: u32) {
        self.options.rank = rank;
    }

    pub(super) fn random_below(&mut self, limit: u64) -> u64 {
        if limit <= 1 {
            return 0;
        }
        // xorshift64*: only to keep replicas from asking at the same moment.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }

    fn deadline_came(&mut self, turn: &mut Turn) {
        if self.deadline.is_none_or(|deadline| deadline > turn.now) {
            return;
        }
        self.deadline = None;
        match self.role {
            Role::Leader => self.ask_again(turn),
            _ if !self.unheard.is_empty() => self.ask_for_epochs(turn),
            _ => self.campaign(turn, true, false),
        }
    }

    fn received(&mut self, turn: &mut Turn, from: ReplicaId, message: Message) {
        if !message.is_sound() || from == self.id {
            return;
        }
        let epoch = message.epoch();
        if !self.unheard.is_empty() {
            return self.heard_epoch(turn, from, &message);
        }
        if let Message::Vote { is_pre, is_transfer, log_end, .. } = message {
            return self.asked_for_vote(turn, from, epoch, (is_pre, is_transfer), log_end);
        }
        let is_pre_reply =
            matches!(message, Message::VoteReply { is_pre: true, is_granted: true, .. });
        if epoch > self.epoch && !is_pre_reply {
            self.follow(turn, epoch, None);
        }
        match message {
            Message::VoteReply { is_pre, is_granted, .. } => {
                self.answered(turn, from, epoch, is_pre, is_granted);
            }
            // What an earlier leader says is too late; it learns of that by the answer.
            Message::Append { .. } | Message::Snapshot { .. } if epoch < self.epoch => {
                let end = self.history.end();
                let refusal = Message::Diverged { epoch: self.epoch, rejected: end.index(), end };
                turn.send(from, refusal);
            }
            _ if epoch < self.epoch => {}
            // There is one leader an epoch: this replica, where it leads.
            Message::Append { .. } | Message::Snapshot { .. } if self.role == Role::Leader => {}
            Message::Append { run, high_watermark, committed, .. } => {
                self.follow(turn, epoch, Some(from));
                self.append(turn, from, &run, committed, high_watermark);
            }
            Message::Snapshot { base, high_watermark, .. } => {
                self.follow(turn, epoch, Some(from));
                self.restore(turn, from, *base, high_watermark);
            }
            Message::Committed { committed, high_watermark, .. } => {
                if self.leader == Some(from) {
                    self.learn_committed(turn, committed, high_watermark);
                }
            }
            Message::Flushed { index, .. } => self.member_flushed(turn, from, index),
            Message::Diverged { rejected, end, .. } => {
                self.member_diverged(turn, from, rejected, end);
            }
            // It may be no voter any more.
            Message::TimeoutNow { .. } if self.leader == Some(from) && self.may_campaign() => {
                self.campaign(turn, false, true);
            }
            Message::Resigned { .. } if self.leader == Some(from) => {
                self.follow(turn, epoch, None);
                self.wait_for_turn(turn.now);
            }
            Message::Vote { .. } | Message::TimeoutNow { .. } | Message::Resigned { .. } => {}
        }
    }

    pub(super) fn end(&mut self, turn: &mut Turn) {
        if self.role == Role::Leader {
            self.say_resigned(turn);
        }
        (self.role, self.leader, self.deadline) = (Role::Ended, None, None);
        turn.ask(Action::RoleChanged);
    }
}
