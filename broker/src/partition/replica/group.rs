//! A replica and its raft group: what happens goes in, what is to be done comes out.
//!
//! A group of one disk has nobody to talk to, and keeps nothing beside its log, unless others
//! belonged to it before: its epoch is above all of the log, and its marks are there as soon as
//! they are written.

use std::sync::Arc;

use vltava_protocol::encode::Records;
use vltava_protocol::types::Uuid;
use vltava_storage::{GroupKey, Log, ReplicatedBatches};

use super::Replica;
use super::carry_out::{KeptVote, Work};
use super::forced::Named;
use crate::partition::error::PartitionError;
use crate::partition::in_sync::Heard;
use crate::partition::kept;
use crate::peer::message::GroupMessage;
use crate::raft::actions::Actions;
use crate::raft::membership::ReplicaId;
use crate::raft::message::{Action, Input, Message};
use crate::raft::node::{Found, Node, Options, Role};
use crate::runtime::Runtime;

/// What this replica calls itself: in a group of one nobody hears it.
const ITSELF: ReplicaId = ReplicaId { node: -1, disk: Uuid::ZERO };

/// How long a group waits for an election to come to something, each replica for its turn to ask,
/// and a leader before it asks again, in milliseconds. Who is gone is known by the connection to
/// its node (`peer`): these only spread those who would lead.
pub(super) const ELECTION_MS: u64 = 150;
const TURN_MS: u64 = 30;
const RETRY_MS: u64 = 500;

pub(super) const NS_PER_MS: u64 = 1_000_000;

/// How groups are run.
pub(super) fn options(min_insync_replicas: usize, rank: u32) -> Options {
    Options {
        election_ms: ELECTION_MS,
        turn_ms: TURN_MS,
        rank,
        retry_ms: RETRY_MS,
        min_insync_replicas,
    }
}

/// The node of a group to which only this disk belongs.
pub(super) fn alone<R: Runtime>(log: &Log<R::Disk>, min_insync_replicas: usize) -> Node {
    let found = Found::alone(ITSELF, &log.epochs(), log.flushed_end());
    Node::new(ITSELF, options(min_insync_replicas, 0), 1, found)
}

impl<R: Runtime> Replica<R> {
    /// The time, as raft takes it.
    pub(super) fn now_ms(&self) -> u64 {
        self.runtime.now().0 / NS_PER_MS
    }

    /// What names the group on a disk.
    pub(super) fn key(&self) -> GroupKey {
        kept::key(self.partition)
    }

    /// To be called once; `named` is who leads the group where that was decided from outside.
    pub(super) fn begin(&self, named: Option<&Named>) {
        self.expect_void();
        if let Some(named) = named {
            self.hear_of_named(named);
        }
        let now_ms = self.now_ms();
        let actions = self.raft.borrow_mut().start(now_ms);
        self.perform(actions, ReplicatedBatches::default());
    }

    /// Tells the group what happened, and does what follows from it.
    pub(super) fn step(&self, input: Input) {
        let actions = self.raft.borrow_mut().step(self.now_ms(), input);
        self.perform(actions, ReplicatedBatches::default());
    }

    /// A session with another node begins.
    pub fn peer_up(&self, node: i32) {
        if self.surroundings.is_some() {
            self.step(Input::PeerUp(node));
        }
    }

    /// It has ended.
    pub fn peer_down(&self, node: i32) {
        if self.surroundings.is_some() {
            self.end_flights(|to| to.node == node);
            self.step(Input::PeerDown(node));
        }
    }

    /// What this replica is in its group: for whoever watches from outside.
    pub fn role(&self) -> Role {
        self.raft.borrow().role()
    }

    /// The nodes whose replicas are in sync, this one first, and which such set it is of this
    /// epoch. Asked where this replica leads.
    pub fn in_sync(&self, own: i32) -> (u32, Arc<[i32]>) {
        match &self.surroundings {
            Some(_) => self.in_sync.borrow().nodes(),
            None => (0, Arc::from([own])),
        }
    }

    /// Whether as many replicas are in sync as the topic asks for.
    pub(super) fn has_enough_in_sync(&self) -> bool {
        let raft = self.raft.borrow();
        // A leader that was named begins alone: that is not all that the topic asks for.
        let is_named = raft.generation() >= 0;
        let learners = if is_named { raft.members().learners().count() } else { 0 };
        self.in_sync.borrow().is_enough(raft.min_insync_replicas(), learners)
    }

    /// How long a replica stays in sync that had all, in milliseconds (`replica.lag.time.max.ms`).
    pub fn set_lag_ms_max(&self, lag_ms_max: u64) {
        self.in_sync.borrow_mut().set_lag_ms_max(lag_ms_max);
    }

    /// Looks who is in sync; whether those are others than before. While somebody who is there
    /// lacks something, the group's deadline comes and this is asked again.
    fn look_at_in_sync(&self) -> bool {
        let raft = self.raft.borrow();
        let Some(near) = self.surroundings.as_ref().filter(|_| raft.role() == Role::Leader) else {
            return false;
        };
        let heard = raft.other_members().map(|(id, flushed)| {
            let (is_up, is_voter) = (raft.knows_up(id.node), raft.members().is_voter(&id));
            Heard { id, flushed, is_up, is_voter }
        });
        let (now_ms, end) = (self.now_ms(), raft.history().end().index());
        self.in_sync.borrow_mut().look(now_ms, raft.epoch(), near.own.node, end, heard)
    }

    /// Whether others belong to the group, too.
    pub(super) fn is_shared(&self) -> bool {
        !self.raft.borrow().is_alone()
    }

    /// Whether something is kept of the group beside the log: since others belong to it, or did.
    fn keeps(&self) -> bool {
        self.is_shared() || self.agenda.borrow().kept().is_some()
    }

    /// A replica on another node says something.
    pub fn received(&self, node: i32, message: GroupMessage) {
        let Some(surroundings) = &self.surroundings else { return };
        let GroupMessage { from_disk, to_disk, generation, body, payload, .. } = message;
        if to_disk != surroundings.own.disk || !body.is_sound() {
            return;
        }
        self.hear_of_generation(generation);
        if !self.raft.borrow().hears(generation) {
            return;
        }
        let Some(batches) = checked(&body, &payload) else {
            // A session brings what was said as it was said: it was wrong before.
            tracing::error!(
                partition = self.name,
                node,
                "a leader's batches are not what they were: not taken"
            );
            if let Message::Append { run, .. } = &body {
                self.tell_rotten(node, run.from.offset);
            }
            return;
        };
        let from = ReplicaId { node, disk: from_disk };
        let input = Input::Received { from, message: body };
        let actions = self.raft.borrow_mut().step(self.now_ms(), input);
        self.look_at_flight(from);
        self.perform(actions, batches);
    }

    /// Does what the group asks for; `batches` are those that came with what it was told.
    pub(super) fn perform(&self, actions: Actions, mut batches: ReplicatedBatches) {
        if self.agenda.borrow().has_left() {
            // It is on another shard.
            return self.end_turn();
        }
        // First: who waits for a commit is told by it.
        let has_other_in_sync = self.look_at_in_sync();
        for action in actions {
            match action {
                Action::HighWatermark { offset } => {
                    self.trust();
                    self.committed(offset);
                }
                Action::RoleChanged => self.role_changed(),
                Action::Replicate { to } => self.replicate(to),
                Action::Contradiction { index } => self.contradicted(index),
                Action::WriteMark(_) if !self.keeps() => {
                    // The log's epochs say as much.
                    let marks = self.raft.borrow().history().end().marks;
                    self.step(Input::MarksFlushed { marks });
                }
                Action::Persist { generation: -1, .. } if !self.keeps() => {}
                Action::Persist { epoch, vote, generation, are_votes_lost } => {
                    let kept = KeptVote { epoch, vote, generation, are_votes_lost };
                    self.in_turn(Work::Vote(kept));
                }
                Action::WriteMark(mark) => self.in_turn(Work::Mark(mark)),
                Action::Regained => self.in_turn(Work::Regained),
                Action::Write(run) => {
                    let batches = std::mem::take(&mut batches);
                    self.in_turn(Work::Run { run, batches });
                }
                Action::Truncate { to } => {
                    self.give_up_from(to.offset);
                    self.in_turn(Work::Cut(to));
                }
                Action::Restore { kept } => {
                    self.give_up_from(kept);
                    let base = self.raft.borrow().history().base().clone();
                    self.in_turn(Work::Restore { base, kept });
                }
                Action::Send { to, message } => self.in_turn(Work::Say { to, message }),
            }
        }
        self.follow_log_start();
        self.look_at_leadership(has_other_in_sync);
        self.meet_new_members();
        self.look_at_turn();
        self.set_timer();
    }

    /// Tells those who live where a partition is led, where that is another place now, or others
    /// are in sync.
    fn look_at_leadership(&self, has_other_in_sync: bool) {
        let leads = self.raft.borrow().leads();
        let led = self.led.replace(leads);
        if led != leads {
            self.led_since.set(leads.map(|_| self.runtime.now()));
        }
        if leads.is_some() && has_other_in_sync && !self.has_enough_in_sync() {
            self.tell_too_few();
        }
        if led != leads || has_other_in_sync && leads.is_some() {
            self.leadership.notify();
        }
    }

    fn role_changed(&self) {
        let role = self.raft.borrow().role();
        if role != Role::Leader {
            self.end_flights(|_| true);
        }
        match role {
            Role::Ended => {
                self.refuse_queued(&PartitionError::Ended);
                self.shortening.moved.notify();
            }
            Role::Follower => {
                self.refuse_queued(&PartitionError::NotLeader);
                self.shortening.moved.notify();
                // Who waits for more looks again, and sees that it is to be had elsewhere.
                self.satisfy_watches();
            }
            Role::PreCandidate | Role::Candidate | Role::Leader => {}
        }
    }

    fn contradicted(&self, index: i64) {
        tracing::error!(
            partition = self.name,
            index,
            "a leader's log differs from what was committed: a disk has lost or changed what it \
             was given (docs/operations.md, \"A damaged log\")"
        );
    }

    /// Says something without a payload.
    pub(super) fn say(&self, to: ReplicaId, message: Message) {
        if let Some(surroundings) = &self.surroundings {
            let message = self.to_say(to, message, Records::default());
            // Where the node is down, the group hears of that.
            let _is_up = surroundings.peers.send(to.node, message);
        }
    }

    pub(super) fn to_say(&self, to: ReplicaId, body: Message, payload: Records) -> GroupMessage {
        let from_disk = self.surroundings.as_ref().map_or(Uuid::ZERO, |near| near.own.disk);
        let (group, generation) = (self.partition, self.raft.borrow().generation());
        GroupMessage { group, from_disk, to_disk: to.disk, generation, body, payload }
    }
}

/// The batches that came with a message, where they are what it says.
fn checked(body: &Message, payload: &Records) -> Option<ReplicatedBatches> {
    let batches = ReplicatedBatches::check(payload.to_bytes()?).ok()?;
    let (first, next) = match body {
        Message::Append { run, .. } if run.from.offset < run.end.offset => {
            (Some(run.from.offset), Some(run.end.offset))
        }
        _ => (None, None),
    };
    (batches.base_offset() == first && batches.next_offset() == next).then_some(batches)
}
