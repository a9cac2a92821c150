//! The same calls for a partition on this shard and on another.
//!
//! [`Partitions`] holds the replicas of one shard, and every shard's way to those of the others.
//! Callers do not know where a partition lives.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::error::PartitionError;
use super::replica::Replica;
use super::request::PartitionId;
use crate::metadata::shard_table::ShardTable;
use crate::metrics::ShardMetrics;
use crate::runtime::Runtime;
use crate::runtime::jobs::{Jobs, Pending};

/// A partition as its owning shard knows it.
enum Slot<R: Runtime> {
    /// Its log is being created or recovered.
    Opening,
    /// Takes requests.
    Ready(Rc<Replica<R>>),
    /// Its log cannot be used.
    Broken(PartitionError),
}

/// The partitions of this node, as one shard sees them.
pub struct Partitions<R: Runtime> {
    runtime: R,
    jobs: Rc<Jobs<Self>>,
    table: RefCell<Arc<ShardTable>>,
    metrics: Rc<ShardMetrics>,
    slots: RefCell<BTreeMap<PartitionId, Slot<R>>>,
}

impl<R: Runtime> Partitions<R> {
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
            table: RefCell::new(table),
            metrics,
            slots: RefCell::default(),
        })
    }

    /// The shard's executor.
    pub fn runtime(&self) -> &R {
        &self.runtime
    }

    /// What this shard counts.
    pub fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    /// How many shards there are.
    pub fn shard_count(&self) -> usize {
        self.jobs.count()
    }

    /// Which shard owns a partition.
    pub fn shard_of(&self, partition: PartitionId) -> usize {
        self.table.borrow().shard_of(partition)
    }

    /// A partition of this shard begins to open.
    pub fn opening(&self, partition: PartitionId) {
        self.slots.borrow_mut().insert(partition, Slot::Opening);
    }

    /// A partition of this shard takes requests.
    pub fn ready(&self, partition: PartitionId, replica: Rc<Replica<R>>) {
        self.slots.borrow_mut().insert(partition, Slot::Ready(replica));
    }

    /// A partition of this shard cannot be used.
    pub fn broken(&self, partition: PartitionId, why: PartitionError) {
        self.slots.borrow_mut().insert(partition, Slot::Broken(why));
    }

    /// A partition of this shard is gone; its replica, where it had one.
    pub fn remove(&self, partition: PartitionId) -> Option<Rc<Replica<R>>> {
        match self.slots.borrow_mut().remove(&partition) {
            Some(Slot::Ready(replica)) => Some(replica),
            _ => None,
        }
    }

    /// Whether this shard knows the partition, in whatever state.
    pub fn knows(&self, partition: PartitionId) -> bool {
        self.slots.borrow().contains_key(&partition)
    }

    /// The replica of a partition that this shard owns.
    pub fn local(&self, partition: PartitionId) -> Result<Rc<Replica<R>>, PartitionError> {
        match self.slots.borrow().get(&partition) {
            Some(Slot::Ready(replica)) => Ok(Rc::clone(replica)),
            Some(Slot::Opening) => Err(PartitionError::Opening),
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
        let shard = self.shard_of(partition);
        self.on_shard(shard, move |partitions| {
            let started = partitions.local(partition).map(work);
            async move { started?.await }
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
