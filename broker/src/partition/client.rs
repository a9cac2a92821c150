//! The same calls for a partition on this shard and on another.
//!
//! [`Partitions`] holds the replicas of one shard, and every shard's way to those of the others.
//! Callers do not know where a partition lives. While one comes from another shard, work for it is
//! held here, in its order, and begins when it has arrived (`node/shards.rs`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_channel::oneshot;
use futures_util::future::{Either, ready};
use slab::Slab;

use super::error::PartitionError;
use super::replica::Replica;
use super::request::PartitionId;
use super::routing::{Routing, Routings};
use crate::metadata::shard_table::ShardTable;
use crate::metrics::ShardMetrics;
use crate::runtime::jobs::{Jobs, Pending};
use crate::runtime::{Monotonic, Runtime};

/// Work that is held for a partition on its way here; more is refused.
const HELD_MAX: usize = 16 * 1024;

/// Work that begins when a partition has arrived, or cannot.
type Held<R> = Box<dyn FnOnce(Result<Rc<Replica<R>>, PartitionError>)>;

/// Who waits here for a commit of a partition that has left.
pub(in crate::partition) type Owed = oneshot::Sender<Result<(), PartitionError>>;

/// A partition as its owning shard knows it.
enum Slot<R: Runtime> {
    /// Its log is being created or recovered.
    Opening,
    /// It comes from another shard.
    Arriving(Vec<Held<R>>),
    /// Takes requests.
    Ready(Rc<Replica<R>>),
    /// Its log cannot be used.
    Broken(PartitionError),
}

/// The partitions of this node, as one shard sees them.
pub struct Partitions<R: Runtime> {
    runtime: R,
    jobs: Rc<Jobs<Self>>,
    routings: Routings,
    metrics: Rc<ShardMetrics>,
    slots: RefCell<BTreeMap<PartitionId, Slot<R>>>,
    /// Who waits for commits of partitions that have left.
    owed: RefCell<Slab<Owed>>,
}

impl<R: Runtime> Partitions<R> {
    /// The time.
    pub(super) fn now(&self) -> Monotonic {
        self.runtime.now()
    }

    /// No partitions yet.
    pub fn new(
        runtime: R,
        jobs: Rc<Jobs<Self>>,
        table: Arc<ShardTable>,
        metrics: Rc<ShardMetrics>,
    ) -> Rc<Self> {
        Rc::new(Self {
            runtime,
            jobs,
            routings: Routings::new(table),
            metrics,
            slots: RefCell::default(),
            owed: RefCell::default(),
        })
    }

    /// The shard's executor.
    pub fn runtime(&self) -> &R {
        &self.runtime
    }

    /// What this shard counts.
    pub fn metrics(&self) -> &Rc<ShardMetrics> {
        &self.metrics
    }

    /// How many shards there are.
    pub fn shard_count(&self) -> usize {
        self.jobs.count()
    }

    /// This shard's number.
    pub fn own_shard(&self) -> usize {
        self.jobs.own()
    }

    /// Which shard owns a partition.
    pub fn shard_of(&self, partition: PartitionId) -> usize {
        self.routings.now().shard_of(partition)
    }

    /// The table of now: to be kept from when a shard is looked up until what is sent there stands
    /// in the mesh ([`Self::on_shard`] has returned).
    pub fn routing(&self) -> Rc<Routing> {
        self.routings.now()
    }

    /// Another table from this call on. What it returns completes when all that was sent by the
    /// one before stands in the mesh.
    pub fn set_table(&self, table: Arc<ShardTable>) -> impl Future<Output = ()> + use<R> {
        self.routings.set(table)
    }

    /// Completes when all that was sent to a shard from here has begun there.
    pub async fn reached(&self, shard: usize) {
        self.jobs.reached(shard).await;
    }

    /// A partition of this shard begins to open.
    pub fn opening(&self, partition: PartitionId) {
        self.put(partition, Some(Slot::Opening));
    }

    /// A partition is on its way here: what comes for it is held until it is ready or broken, or
    /// removed again.
    pub fn arriving(&self, partition: PartitionId) {
        assert!(!self.knows(partition), "a partition has two owners");
        self.put(partition, Some(Slot::Arriving(Vec::new())));
    }

    /// A partition of this shard takes requests.
    pub fn ready(&self, partition: PartitionId, replica: Rc<Replica<R>>) {
        self.put(partition, Some(Slot::Ready(replica)));
    }

    /// A partition of this shard cannot be used.
    pub fn broken(&self, partition: PartitionId, why: PartitionError) {
        self.put(partition, Some(Slot::Broken(why)));
    }

    /// A partition of this shard is gone; its replica, where it had one.
    pub fn remove(&self, partition: PartitionId) -> Option<Rc<Replica<R>>> {
        match self.put(partition, None) {
            Some(Slot::Ready(replica)) => Some(replica),
            _ => None,
        }
    }

    /// Puts a partition into another state; what was held for it begins, in its order, before
    /// anything that comes later. The state before, but for what was held.
    fn put(&self, partition: PartitionId, slot: Option<Slot<R>>) -> Option<Slot<R>> {
        let before = {
            let mut slots = self.slots.borrow_mut();
            match slot {
                Some(slot) => slots.insert(partition, slot),
                None => slots.remove(&partition),
            }
        };
        match before {
            Some(Slot::Arriving(held)) => {
                // It went back, or was never there: whoever asks again finds it elsewhere.
                let gone = |error| match error {
                    PartitionError::Unknown => PartitionError::NotLeader,
                    other => other,
                };
                for work in held {
                    work(self.local(partition).map_err(gone));
                }
                None
            }
            before => before,
        }
    }

    /// Whether a partition is on its way here.
    pub fn is_arriving(&self, partition: PartitionId) -> bool {
        matches!(self.slots.borrow().get(&partition), Some(Slot::Arriving(_)))
    }

    /// Does `work` with the replica of a partition of this shard: by this call, or, where the
    /// partition is still on its way here, when it has arrived, behind all that was called before.
    pub fn when_here<T, W>(
        &self,
        partition: PartitionId,
        work: W,
    ) -> impl Future<Output = Result<T, PartitionError>> + use<R, T, W>
    where
        T: 'static,
        W: FnOnce(Rc<Replica<R>>) -> Result<T, PartitionError> + 'static,
    {
        let mut slots = self.slots.borrow_mut();
        let Some(Slot::Arriving(held)) = slots.get_mut(&partition) else {
            drop(slots);
            return Either::Left(ready(self.local(partition).and_then(work)));
        };
        if held.len() >= HELD_MAX {
            return Either::Left(ready(Err(PartitionError::NotLeader)));
        }
        let (sender, done) = oneshot::channel();
        held.push(Box::new(move |replica| {
            // Whoever called may have given up; what it asked for is done all the same.
            let _given_up = sender.send(replica.and_then(work));
        }));
        Either::Right(async move { done.await.unwrap_or(Err(PartitionError::Unknown)) })
    }

    /// Keeps who waits for a commit of a partition that leaves; a name for [`Self::settle`].
    pub(super) fn owe(&self, waiter: Owed) -> usize {
        self.owed.borrow_mut().insert(waiter)
    }

    /// On the shard that owes: what became of it.
    fn settle(&self, ticket: usize, became: Result<(), PartitionError>) {
        if let Some(waiter) = self.owed.borrow_mut().try_remove(ticket) {
            // Whoever waited may be gone.
            let _gone = waiter.send(became);
        }
    }

    /// Tells another shard what became of something that it owes.
    pub(super) async fn settle_on(
        self: &Rc<Self>,
        shard: usize,
        ticket: usize,
        became: Result<(), PartitionError>,
    ) {
        let settle = move |partitions: &Rc<Self>| {
            partitions.settle(ticket, became);
            ready(())
        };
        // Nobody waits for the result.
        drop(self.jobs.start(shard, settle).await);
    }

    /// Whether this shard knows the partition, in whatever state.
    pub fn knows(&self, partition: PartitionId) -> bool {
        self.slots.borrow().contains_key(&partition)
    }

    /// The replica of a partition that this shard owns.
    pub fn local(&self, partition: PartitionId) -> Result<Rc<Replica<R>>, PartitionError> {
        match self.slots.borrow().get(&partition) {
            Some(Slot::Ready(replica)) => Ok(Rc::clone(replica)),
            Some(Slot::Opening | Slot::Arriving(_)) => Err(PartitionError::Opening),
            Some(Slot::Broken(why)) => Err(why.clone()),
            None => Err(PartitionError::Unknown),
        }
    }

    /// All replicas of this shard that take requests.
    pub fn all_local(&self) -> Vec<(PartitionId, Rc<Replica<R>>)> {
        self.local_where(|_| true)
    }

    /// Those of them for which this holds.
    pub fn local_where(
        &self,
        holds: impl Fn(&Replica<R>) -> bool,
    ) -> Vec<(PartitionId, Rc<Replica<R>>)> {
        let slots = self.slots.borrow();
        let ready = slots.iter().filter_map(|(id, slot)| match slot {
            Slot::Ready(replica) if holds(replica) => Some((*id, Rc::clone(replica))),
            _ => None,
        });
        ready.collect()
    }

    /// Partitions of this shard whose log could not be opened, and why.
    pub fn broken_local(&self) -> Vec<(PartitionId, PartitionError)> {
        let slots = self.slots.borrow();
        let broken = slots.iter().filter_map(|(id, slot)| match slot {
            Slot::Broken(why) => Some((*id, why.clone())),
            _ => None,
        });
        broken.collect()
    }

    /// Runs `work` on the shard that owns the partition. When this returns, `work` has started, or
    /// stands in the mesh behind all that was sent before.
    pub async fn on_owner<A, F>(
        self: &Rc<Self>,
        partition: PartitionId,
        work: impl FnOnce(Rc<Replica<R>>) -> F + Send + 'static,
    ) -> Working<A>
    where
        A: Send + 'static,
        F: Future<Output = Result<A, PartitionError>> + 'static,
    {
        let routing = self.routing();
        self.on_shard(routing.shard_of(partition), move |partitions| {
            let started = partitions.when_here(partition, |replica| Ok(work(replica)));
            async move { started.await?.await }
        })
        .await
    }

    /// Runs `work` on a shard, likewise.
    pub async fn on_shard<A, F>(
        self: &Rc<Self>,
        shard: usize,
        work: impl FnOnce(&Rc<Self>) -> F + Send + 'static,
    ) -> Working<A>
    where
        A: Send + 'static,
        F: Future<Output = Result<A, PartitionError>> + 'static,
    {
        if shard == self.jobs.own() {
            Working::Here(Box::pin(work(self)))
        } else {
            Working::There(self.jobs.start(shard, work).await)
        }
    }
}

/// Work that has started, here or on another shard; completes with its result. A shard that is gone
/// answers [`PartitionError::Unknown`].
pub enum Working<A> {
    /// On this shard.
    Here(Pin<Box<dyn Future<Output = Result<A, PartitionError>>>>),
    /// On another.
    There(Pending<Result<A, PartitionError>>),
}

impl<A: Send + 'static> Future for Working<A> {
    type Output = Result<A, PartitionError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Here(work) => work.as_mut().poll(context),
            Self::There(pending) => Pin::new(pending)
                .poll(context)
                .map(|result| result.unwrap_or(Err(PartitionError::Unknown))),
        }
    }
}
