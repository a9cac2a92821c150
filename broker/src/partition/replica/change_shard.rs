//! A replica goes to another shard of its node while it serves.
//!
//! It does not begin anew there: its raft group's state goes along as it is, so a leader stays one,
//! at its epoch, and nobody votes. Its log is closed in order and opened again; what the group has
//! promised stands in the journal of the shard that it leaves, and what it promises from now on is
//! newer ([`KeyedJournal::take`]). Who waits for a commit waits on: the new shard tells the old
//! one.
//!
//! The order of steps here is half of what must hold; the other half, that nothing new reaches the
//! old shard, stands in `node/shards.rs`:
//! - While it leaves, the replica takes nothing from clients; what its group still has to do is
//!   done. Then its log is closed, and what it is, is taken out at one moment: from there on it
//!   does nothing any more, whatever it is told.
//! - What is taken out is what is on the disk: the log has nothing queued, the group nothing to do.

use std::rc::Rc;
use std::time::Duration;

use vltava_protocol::encode::Records;
use vltava_storage::{Given, KeyedJournal, Log, ReplicatedBatches};

use super::Replica;
use super::waits::Committed;
use crate::partition::client::Partitions;
use crate::partition::error::PartitionError;
use crate::partition::in_sync::InSync;
use crate::partition::kept;
use crate::partition::request::PartitionId;
use crate::partition::surroundings::Surroundings;
use crate::partition::waiters::UncommittedBytes;
use crate::peer::SessionId;
use crate::peer::message::GroupMessage;
use crate::raft::actions::Actions;
use crate::raft::message::{Action, Input};
use crate::raft::node::{Node, Role};
use crate::raft::persisted::Persisted;
use crate::runtime::{Monotonic, Queue, Runtime};

/// How long a group may have something to do before the replica stays where it is.
const REST_TIME: Duration = Duration::from_secs(5);

/// What leaves a shard.
pub struct Departure {
    /// What the journal there has of the group; `None` where the node has no others beside it.
    given: Option<Given>,
    /// The replica as it was; `None`: its log was closed as a crash would close it, and what is on
    /// the disk counts.
    state: Option<State>,
}

/// Who waits for a commit on another shard.
struct Waiting {
    /// The end of what was written.
    end: i64,
    /// What the waiter is called there.
    ticket: usize,
    /// How long it waits.
    deadline: Option<Monotonic>,
}

/// A replica at rest.
struct State {
    partition: PartitionId,
    raft: Node,
    kept: Option<Persisted>,
    in_sync: InSync,
    members_met: (i64, Option<i64>),
    log_start_wanted: i64,
    uncommitted: UncommittedBytes,
    /// By which sessions the members could be talked to, as the replica knew it; `None` where it
    /// may not have been told yet.
    sessions: Vec<(i32, Option<Option<SessionId>>)>,
    /// Who waits for a commit on the shard it left.
    waiting: Vec<Waiting>,
    from: usize,
}

impl<R: Runtime> Replica<R> {
    /// Whether it could go to another shard now: nothing has failed, and the log is not being cut
    /// or restored.
    pub fn may_leave(&self) -> bool {
        self.is_still_here() && self.agenda.borrow().is_log_settled()
    }

    /// Whether this shard still has it: it has not left, and nothing has failed. Its log may be
    /// waiting to be cut.
    pub fn is_still_here(&self) -> bool {
        let has_ended = self.log.ended().is_some() || self.raft.borrow().role() == Role::Ended;
        !has_ended && !self.agenda.borrow().has_left()
    }

    /// Gives up what this shard has of the replica, for [`Replica::arrive`] on another. Nothing new
    /// may come from clients or other nodes any more: the partition is looked for elsewhere.
    ///
    /// # Errors
    /// It stays as it was: the journal has ended, or the group does not come to rest.
    pub async fn leave(&self, partitions: &Rc<Partitions<R>>) -> Result<Departure, PartitionError> {
        self.give().await?;
        if !self.may_leave() || !self.comes_to_rest().await {
            return Err(PartitionError::NotLeader);
        }
        let closed = self.close().await;
        if let Err(error) = &closed {
            tracing::warn!(
                partition = self.name, %error,
                "a log that changes its shard did not close cleanly: it is recovered there"
            );
        }
        // The group may have had something to say to that.
        let is_at_rest = closed.is_ok() && self.comes_to_rest().await && self.may_be_taken();
        // From here to the end of `take_out` nothing else runs.
        let state = is_at_rest.then(|| self.take_out(partitions));
        if state.is_none() {
            // It may not come back as the leader that it was; and what this shard's journal is
            // given from here on would be taken for newer than what it is told there.
            self.leave_group().await;
        }
        self.agenda.borrow_mut().leave();
        self.let_go();
        match self.give().await {
            Ok(given) => Ok(Departure { given, state }),
            Err(error) => {
                Departure { given: None, state }.abandon(partitions, self.surroundings.as_deref());
                Err(error)
            }
        }
    }

    /// The log was closed in order, it is the group's, and nothing has failed meanwhile.
    fn may_be_taken(&self) -> bool {
        let raft = self.raft.borrow();
        let is_groups = self.log.end() == raft.history().end().offset;
        is_groups && raft.role() != Role::Ended && self.agenda.borrow().is_log_settled()
    }

    async fn give(&self) -> Result<Option<Given>, PartitionError> {
        let Some(surroundings) = &self.surroundings else { return Ok(None) };
        Ok(Some(surroundings.journal.give(&self.key()).await?))
    }

    /// Whether all that the group asked for gets done, in a while.
    async fn comes_to_rest(&self) -> bool {
        let resting = async {
            loop {
                let rests = self.agenda_changes.listen();
                if self.agenda.borrow().is_idle() && !self.writing.get() {
                    return;
                }
                rests.await;
            }
        };
        self.runtime.in_time(REST_TIME, resting).await.is_some()
    }

    fn take_out(&self, partitions: &Partitions<R>) -> State {
        let raft = self.raft.borrow().clone();
        assert!(!self.log.has_pending(), "a log that was closed has something queued");
        assert_eq!(self.log.end(), self.log.flushed_end(), "what goes along is not on the disk");
        let waiting = self.take_commits().into_iter().map(|(end, waiter, deadline)| {
            let ticket = partitions.owe(waiter);
            Waiting { end, ticket, deadline }
        });
        State {
            partition: self.partition,
            kept: self.agenda.borrow().kept().cloned(),
            in_sync: self.in_sync.borrow().clone(),
            members_met: self.members_met.get(),
            log_start_wanted: self.shortening.wanted.get(),
            uncommitted: self.uncommitted.take(),
            sessions: self.sessions(),
            waiting: waiting.collect(),
            from: partitions.own_shard(),
            raft,
        }
    }

    /// Whoever still looks at this replica sees that it leads nothing, and looks again.
    fn let_go(&self) {
        self.refuse_queued(&PartitionError::NotLeader);
        self.satisfy_watches();
        self.led.set(None);
        self.end_flights(|_| true);
        self.end_turn();
        self.leadership.notify();
        self.shortening.moved.notify();
    }

    fn sessions(&self) -> Vec<(i32, Option<Option<SessionId>>)> {
        let Some(surroundings) = &self.surroundings else { return Vec::new() };
        let raft = self.raft.borrow();
        let others = raft.members().ids().filter(|id| *id != surroundings.own);
        let peers = &surroundings.peers;
        let known = |node: i32| (!peers.events().is_telling(node)).then(|| peers.session(node));
        others.map(|id| (id.node, known(id.node))).collect()
    }

    /// A replica that was on another shard, over its log, which was opened here. `None` where the
    /// log is not what it was there: it is to be opened as after a crash.
    pub fn arrive(
        partitions: &Rc<Partitions<R>>,
        name: &str,
        log: &Log<R::Disk>,
        surroundings: Option<Rc<Surroundings<R>>>,
        departure: Departure,
    ) -> Option<Rc<Self>> {
        let state = departure.state?;
        let State { partition, raft, kept, sessions, waiting, from, .. } = state;
        let is_as_it_was = log.end() == raft.history().end().offset;
        if !is_as_it_was {
            let error = "a log is not what it was on the shard that it left";
            tracing::error!(partition = name, end = log.end(), "{error}");
            tell(partitions, from, waiting, |_| None);
            resign(partition, raft, surroundings.as_deref());
            return None;
        }
        let (runtime, log) = (partitions.runtime().clone(), log.clone());
        let replica = Self::new(runtime, name.to_owned(), log, partition, raft, surroundings, kept);
        *replica.in_sync.borrow_mut() = state.in_sync;
        *replica.uncommitted.borrow_mut() = state.uncommitted;
        replica.members_met.set(state.members_met);
        replica.shortening.wanted.set(state.log_start_wanted);
        tell(partitions, from, waiting, |waiter| {
            Some(replica.wait_on(waiter.end, waiter.deadline))
        });
        for (node, session) in sessions {
            replica.session_is_now(node, session);
        }
        replica.perform(Actions::default(), ReplicatedBatches::default());
        if replica.is_shared() {
            replica.replicate_to_all();
        }
        Some(replica)
    }

    /// Hears what became of a session while nobody heard.
    fn session_is_now(&self, node: i32, before: Option<Option<SessionId>>) {
        let Some(surroundings) = &self.surroundings else { return };
        let now = surroundings.peers.session(node);
        if before == Some(now) {
            return;
        }
        self.step(Input::PeerDown(node));
        if now.is_some() {
            self.step(Input::PeerUp(node));
        }
    }
}

impl Departure {
    /// On the shard that it goes to, before anything is opened: what its group sets here is newer
    /// than what it set before.
    pub fn give_to<D: vltava_storage::io::Disk>(
        &mut self,
        journal: &KeyedJournal<D>,
        partition: PartitionId,
    ) {
        if let Some(given) = self.given.take() {
            journal.take(kept::key(partition), given);
        }
    }

    /// The log could not be opened where it went: whoever waits is told, and where it led, the
    /// group.
    pub fn abandon<R: Runtime>(
        self,
        partitions: &Rc<Partitions<R>>,
        surroundings: Option<&Surroundings<R>>,
    ) {
        if let Some(State { partition, raft, waiting, from, .. }) = self.state {
            tell(partitions, from, waiting, |_| None);
            resign(partition, raft, surroundings);
        }
    }
}

/// Tells the others that a replica which is gone leads no more: its node is there, so nobody would
/// take its place.
fn resign<R: Runtime>(group: PartitionId, mut raft: Node, surroundings: Option<&Surroundings<R>>) {
    let Some(Surroundings { own, peers, .. }) = surroundings else { return };
    let (from_disk, generation) = (own.disk, raft.generation());
    // The end of a log needs no time.
    for action in raft.step(0, Input::LogEnded) {
        if let Action::Send { to, message: body } = action {
            let (to_disk, payload) = (to.disk, Records::default());
            let message = GroupMessage { group, from_disk, to_disk, generation, body, payload };
            // Where its node is down, it hears of that.
            let _is_up = peers.send(to.node, message);
        }
    }
}

/// Tells the shard that owes answers what became of each, in tasks of their own.
fn tell<R: Runtime>(
    partitions: &Rc<Partitions<R>>,
    to: usize,
    waiting: Vec<Waiting>,
    wait: impl Fn(&Waiting) -> Option<Committed>,
) {
    for waiter in waiting {
        let (partitions, committed, ticket) = (Rc::clone(partitions), wait(&waiter), waiter.ticket);
        partitions.runtime().clone().spawn(Queue::Foreground, async move {
            let became = match committed {
                Some(committed) => committed.await.unwrap_or(Err(PartitionError::Ended)),
                None => Err(PartitionError::Ended),
            };
            partitions.settle_on(to, ticket, became).await;
        });
    }
}
