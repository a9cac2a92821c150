//! Runs one machine over one partition.
//!
//! Order is everything here: `submit` hands an input to the machine, appends what it decided and
//! replays it, without an await in between; so the machine's state is always the log's content up
//! to its end, queued appends included.

mod loading;
mod rewriting;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_storage::AppendClass;

use super::timers::Timers;
use crate::machine::{KeyValue, Machine, Now, Outcome, Ticket};
use crate::partition::error::PartitionError;
use crate::partition::replica::{Queued, Replica};
use crate::runtime::log_limit::LogLimit;
use crate::runtime::sync::Event;
use crate::runtime::{Monotonic, Queue, Runtime};

/// How long to wait before a failed load is tried again.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);

/// Inputs that may wait for a load.
const HELD_MAX: usize = 16 * 1024;

/// Why an input got no reply from the machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The log is being replayed.
    #[error("the coordinator's log is being loaded")]
    Loading,
    /// This node has no such coordinator.
    #[error("the coordinator is not here")]
    NotHere,
    /// What the machine decided could not be made durable; whether it will be is not known.
    #[error("the coordinator's log cannot be written: {0}")]
    Lost(PartitionError),
}

type Answer<M> = Result<<M as Machine>::Reply, HostError>;

/// Inputs in their order, with the tickets that they were given.
type Held<M> = Vec<(Ticket, <M as Machine>::Input)>;

struct Loaded<M: Machine> {
    /// The epoch at which the replica led when the log was replayed.
    epoch: i32,
    state: M::State,
    session: M::Session,
    timers: Timers<M::Timer>,
    /// [`Replica::refusals`] when the log was replayed.
    refusals: u64,
}

/// A machine over its partition. Lives on the shard that owns the partition.
pub struct Host<M: Machine, R: Runtime> {
    machine: M,
    runtime: R,
    replica: Rc<Replica<R>>,
    /// `None` while the log is being replayed.
    loaded: RefCell<Option<Loaded<M>>>,
    waiting: RefCell<BTreeMap<Ticket, oneshot::Sender<Answer<M>>>>,
    /// What waits, in its order, for the first load; `None`: nothing does.
    held: RefCell<Option<Held<M>>>,
    tickets: Cell<u64>,
    /// Outcomes that wait for their commit.
    under_way: Cell<usize>,
    /// One of them has ended.
    ended: Event,
    /// Counts loads: what was appended before a reload answers nobody after it.
    generation: Cell<u64>,
    timers_changed: Event,
    /// The log has been replayed or found damaged, or the host was stopped.
    loads_changed: Event,
    /// Why the log cannot be replayed, where it is damaged: it stays so until a restart.
    damage: RefCell<Option<String>>,
    rewriting: Cell<bool>,
    /// Bytes of the log when its live state was last written again.
    rewritten_bytes: Cell<u64>,
    log_limit: LogLimit,
    stopped: Cell<bool>,
    /// Notified when it is stopped.
    stops: Event,
}

impl<M: Machine, R: Runtime> Host<M, R> {
    /// Starts a host over a replica. Where that leads, the host loads in the background, and
    /// answers [`HostError::Loading`] until it has; where not, it answers [`HostError::NotHere`].
    pub fn start(machine: M, runtime: R, replica: Rc<Replica<R>>) -> Rc<Self> {
        let host = Rc::new(Self {
            machine,
            runtime: runtime.clone(),
            replica,
            loaded: RefCell::default(),
            waiting: RefCell::default(),
            held: RefCell::default(),
            tickets: Cell::new(0),
            under_way: Cell::new(0),
            ended: Event::new(),
            generation: Cell::new(0),
            timers_changed: Event::new(),
            loads_changed: Event::new(),
            damage: RefCell::default(),
            rewriting: Cell::new(false),
            rewritten_bytes: Cell::new(0),
            log_limit: LogLimit::default(),
            stopped: Cell::new(false),
            stops: Event::new(),
        });
        runtime.spawn(Queue::Control, Rc::clone(&host).follow_leadership());
        runtime.spawn(Queue::Control, Rc::clone(&host).run_timers());
        host
    }

    /// Ends the host: the partition is deleted, or the shard stops. Whoever waits is told that the
    /// answer is lost.
    pub fn stop(&self) {
        self.stopped.set(true);
        drop(self.held.take());
        self.unload(&PartitionError::NotLeader);
        self.timers_changed.notify();
        self.loads_changed.notify();
        self.stops.notify();
    }

    /// Completes when all that the machine has decided so far is committed, and told. Nobody may
    /// ask it anything meanwhile.
    pub async fn told_all(&self) {
        while self.under_way.get() > 0 {
            let ended = self.ended.listen();
            if self.under_way.get() > 0 {
                ended.await;
            }
        }
    }

    /// The replica that this machine lives over.
    pub fn replica(&self) -> &Rc<Replica<R>> {
        &self.replica
    }

    /// Completes once the log has been replayed, with the number of that load; not for the one that
    /// the caller has `seen`. `None`: the host was stopped, or its log is damaged.
    pub async fn loaded(&self, seen: Option<u64>) -> Option<u64> {
        loop {
            let changed = self.loads_changed.listen();
            if self.stopped.get() || self.damage.borrow().is_some() {
                return None;
            }
            let load = self.loaded.borrow().is_some().then(|| self.generation.get());
            if load.is_some() && load != seen {
                return load;
            }
            changed.await;
        }
    }

    /// Why this machine is out of service until a restart, where it is.
    pub fn damage(&self) -> Option<String> {
        self.damage.borrow().clone()
    }

    /// Reads the machine's state as it stands: everything appended, whether committed or not.
    /// `None` while loading.
    pub fn read<T>(&self, read: impl FnOnce(&M::State) -> T) -> Option<T> {
        self.loaded.borrow().as_ref().map(|loaded| read(&loaded.state))
    }

    /// Hands an input to the machine. The receiver gets the reply once all that it depends on is
    /// committed.
    pub fn submit(self: &Rc<Self>, input: M::Input) -> oneshot::Receiver<Answer<M>> {
        let (sender, receiver) = oneshot::channel();
        let ticket = Ticket(self.tickets.replace(self.tickets.get() + 1));
        self.waiting.borrow_mut().insert(ticket, sender);
        self.check_current();
        let is_loading = self.loaded.borrow().is_none() && self.replica.leads().is_some();
        if let Some(held) = self.held.borrow_mut().as_mut()
            && is_loading
            && held.len() < HELD_MAX
        {
            held.push((ticket, input));
            return receiver;
        }
        self.hand(ticket, input);
        receiver
    }

    /// Until the log has been replayed for the first time, whoever asks waits for it: the machine
    /// was on another shard a moment ago.
    pub fn hold_until_loaded(&self) {
        *self.held.borrow_mut() = Some(Vec::new());
    }

    /// Nobody waits for a load any more.
    fn release_held(self: &Rc<Self>) {
        for (ticket, input) in self.held.take().unwrap_or_default() {
            self.hand(ticket, input);
        }
    }

    fn hand(self: &Rc<Self>, ticket: Ticket, input: M::Input) {
        let now = self.now();
        let outcome = self.loaded.borrow_mut().as_mut().map(|loaded| {
            self.machine.handle(&loaded.state, &mut loaded.session, ticket, input, now)
        });
        match outcome {
            Some(outcome) => self.apply(outcome, now),
            None if self.damage.borrow().is_some() || self.replica.leads().is_none() => {
                self.reply(ticket, Err(HostError::NotHere));
            }
            None => self.reply(ticket, Err(HostError::Loading)),
        }
    }

    /// Drops a state that holds what the log has taken back, or that another leader goes on from.
    /// Those who waited for that are woken a moment later: nothing may be decided in between.
    fn check_current(self: &Rc<Self>) {
        let known = self.loaded.borrow().as_ref().map(|loaded| (loaded.epoch, loaded.refusals));
        let Some((epoch, refusals)) = known else { return };
        if self.replica.leads() != Some(epoch) {
            self.unload(&PartitionError::NotLeader);
        } else if refusals != self.replica.refusals() {
            let why = self.replica.last_refusal().unwrap_or(PartitionError::Ended);
            self.lose(&why, Vec::new());
        }
    }

    fn now(&self) -> Now {
        Now {
            monotonic_ms: self.runtime.now().0 / 1_000_000,
            wall_ms: self.runtime.wall_clock_ms(),
        }
    }

    fn reply(&self, ticket: Ticket, answer: Answer<M>) {
        let sender = self.waiting.borrow_mut().remove(&ticket);
        // Whoever asked may be gone.
        let _ = sender.map(|sender| sender.send(answer));
    }

    /// Makes an outcome true: timers now, records into the log and the state, replies after the
    /// commit.
    fn apply(self: &Rc<Self>, outcome: Outcome<M>, now: Now) {
        let Outcome { records, replies, timers, notes, warnings } = outcome;
        for note in notes {
            if let Some(left_out) = self.log_limit.admit(self.runtime.now()) {
                tracing::info!(partition = self.replica.name(), left_out, "{note}");
            }
        }
        for warning in warnings {
            if let Some(left_out) = self.log_limit.admit(self.runtime.now()) {
                tracing::warn!(partition = self.replica.name(), left_out, "{warning}");
            }
        }
        let queued = if records.is_empty() {
            None
        } else {
            match self.append(&records, now) {
                Ok(queued) => Some(queued),
                Err(error) => return self.lose(&error, replies),
            }
        };
        if let Some(loaded) = self.loaded.borrow_mut().as_mut() {
            for change in timers {
                loaded.timers.apply(change);
            }
        }
        self.timers_changed.notify();
        let committed = match queued {
            Some(queued) => Some(queued.committed),
            None => self.replica.committed_so_far(),
        };
        let replica = Rc::clone(&self.replica);
        match committed {
            Some(committed) => self.finish_after(replies, async move {
                committed.await.unwrap_or(Err(PartitionError::Unknown))
            }),
            // Its successor may have decided more.
            None if replica.is_lead_doubtful() => {
                self.finish_after(replies, async move { replica.confirm_leads().await });
            }
            None => replies.into_iter().for_each(|(ticket, reply)| self.reply(ticket, Ok(reply))),
        }
    }

    /// Gives the replies once what they rest on is committed.
    fn finish_after(
        self: &Rc<Self>,
        replies: Vec<(Ticket, M::Reply)>,
        committed: impl Future<Output = Result<(), PartitionError>> + 'static,
    ) {
        let host = Rc::clone(self);
        let generation = self.generation.get();
        self.under_way.set(self.under_way.get() + 1);
        self.runtime.spawn(Queue::Control, async move {
            let committed = committed.await;
            host.finish(generation, committed, replies);
            host.under_way.set(host.under_way.get() - 1);
            host.ended.notify();
        });
    }

    fn finish(
        self: &Rc<Self>,
        generation: u64,
        committed: Result<(), PartitionError>,
        replies: Vec<(Ticket, M::Reply)>,
    ) {
        match committed {
            Ok(()) => {
                replies.into_iter().for_each(|(ticket, reply)| self.reply(ticket, Ok(reply)));
                self.rewrite_if_due();
            }
            Err(error) if generation == self.generation.get() => self.lose(&error, replies),
            Err(error) => {
                for (ticket, _) in replies {
                    self.reply(ticket, Err(HostError::Lost(error.clone())));
                }
            }
        }
    }

    /// The log did not take what the machine decided: its state is no longer the log's. Drops it
    /// and loads again, where the replica still leads.
    fn lose(self: &Rc<Self>, error: &PartitionError, replies: Vec<(Ticket, M::Reply)>) {
        let Some(epoch) = self.replica.leads() else {
            // What was to be answered may be committed yet, by the next leader.
            drop(replies);
            return self.unload(error);
        };
        match error {
            // It is about to hand over, or would have.
            PartitionError::NotLeader => {}
            error => tracing::error!(
                partition = self.replica.name(), %error,
                "coordinator lost its log; loading again"
            ),
        }
        drop(replies);
        self.unload(error);
        let host = Rc::clone(self);
        self.runtime.spawn(Queue::Control, async move {
            host.runtime.sleep(RELOAD_PAUSE).await;
            host.load(epoch).await;
        });
    }

    /// Whose input was taken is told that it is not known what becomes of it.
    fn unload(&self, why: &PartitionError) {
        *self.loaded.borrow_mut() = None;
        self.generation.set(self.generation.get() + 1);
        let held = self.held.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default();
        let mut waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for sender in held.iter().filter_map(|(ticket, _)| waiting.remove(ticket)) {
            let _ = sender.send(Err(HostError::NotHere));
        }
        for (_, sender) in waiting {
            let _ = sender.send(Err(HostError::Lost(why.clone())));
        }
    }

    /// Appends records as one batch and replays them.
    fn append(&self, records: &[KeyValue], now: Now) -> Result<Queued, PartitionError> {
        let mut builder = BatchBuilder::new();
        for record in records {
            builder
                .append(now.wall_ms, Some(&record.key), record.value.as_deref(), &[])
                .map_err(|error| PartitionError::Storage(error.to_string()))?;
        }
        let queued = self.replica.append(Bytes::from(builder.build()), AppendClass::Internal)?;
        if let Some(loaded) = self.loaded.borrow_mut().as_mut() {
            for (offset, record) in (queued.base_offset..).zip(records) {
                let replayed = self.machine.replay(&mut loaded.state, record, offset, now.wall_ms);
                assert!(
                    replayed.is_ok(),
                    "a machine cannot replay what it just decided: {replayed:?}"
                );
            }
        }
        Ok(queued)
    }

    fn lead(self: &Rc<Self>) {
        let now = self.now();
        let outcome = self
            .loaded
            .borrow_mut()
            .as_mut()
            .map(|loaded| self.machine.lead(&loaded.state, &mut loaded.session, now));
        if let Some(outcome) = outcome {
            self.apply(outcome, now);
        }
    }

    async fn run_timers(self: Rc<Self>) {
        while !self.stopped.get() {
            let changed = self.timers_changed.listen();
            // Before the wait: what changes timers without end must not keep them from firing.
            self.fire_due();
            let deadline =
                self.loaded.borrow().as_ref().and_then(|loaded| loaded.timers.next_deadline_ms());
            match deadline {
                None => changed.await,
                Some(at_ms) => {
                    let due = Monotonic(at_ms.saturating_mul(1_000_000));
                    self.runtime.before(due, changed).await;
                }
            }
        }
    }

    fn fire_due(self: &Rc<Self>) {
        self.check_current();
        let now = self.now();
        loop {
            let outcome = self.loaded.borrow_mut().as_mut().and_then(|loaded| {
                let timer = loaded.timers.pop_due(now.monotonic_ms)?;
                Some(self.machine.fire(&loaded.state, &mut loaded.session, timer, now))
            });
            match outcome {
                Some(outcome) => self.apply(outcome, now),
                None => return,
            }
        }
    }
}
