//! The hosts of one kind of machine on this node, and every shard's way to them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use futures_util::future::Either;

use super::host::{Host, HostError};
use crate::machine::Machine;
use crate::partition::client::Partitions;
use crate::partition::replica::Replica;
use crate::partition::request::PartitionId;
use crate::runtime::Runtime;
use crate::runtime::jobs::Jobs;

type ByPartition<M, R> = BTreeMap<PartitionId, Rc<Host<M, R>>>;

/// The hosts of one shard, and the way to those of the others.
pub struct Hosts<M: Machine, R: Runtime> {
    runtime: R,
    jobs: Rc<Jobs<Self>>,
    partitions: Rc<Partitions<R>>,
    hosts: Rc<RefCell<ByPartition<M, R>>>,
    /// Partitions that come from another shard.
    expected: RefCell<BTreeSet<PartitionId>>,
}

impl<M, R> Hosts<M, R>
where
    M: Machine,
    M::Input: Send,
    M::Reply: Send,
    R: Runtime,
{
    /// No hosts yet.
    pub fn new(runtime: R, jobs: Rc<Jobs<Self>>, partitions: Rc<Partitions<R>>) -> Rc<Self> {
        Rc::new(Self {
            runtime,
            jobs,
            partitions,
            hosts: Rc::default(),
            expected: RefCell::default(),
        })
    }

    /// A partition comes from another shard: where it is one of such machines, its host here lets
    /// whoever asks wait until it has loaded.
    pub fn expect(&self, partition: PartitionId) {
        self.expected.borrow_mut().insert(partition);
    }

    /// A partition is on this shard now; nothing more is to be expected.
    pub fn arrived(&self, partition: PartitionId) {
        self.expected.borrow_mut().remove(&partition);
    }

    /// A partition of such machines is ready on this shard: its host begins to load.
    pub fn add(
        &self,
        partition: PartitionId,
        machine: M,
        replica: Rc<Replica<R>>,
    ) -> Rc<Host<M, R>> {
        let host = Host::start(machine, self.runtime.clone(), replica);
        if self.expected.borrow().contains(&partition) {
            host.hold_until_loaded();
        }
        self.hosts.borrow_mut().insert(partition, Rc::clone(&host));
        host
    }

    /// A partition of such machines leaves this shard.
    pub fn remove(&self, partition: PartitionId) {
        let host = self.hosts.borrow_mut().remove(&partition);
        if let Some(host) = host {
            host.stop();
        }
    }

    /// Stops all hosts of this shard.
    pub fn stop(&self) {
        let hosts = std::mem::take(&mut *self.hosts.borrow_mut());
        hosts.values().for_each(|host| host.stop());
    }

    /// The host of a partition, where it is on this shard.
    pub fn local(&self, partition: PartitionId) -> Option<Rc<Host<M, R>>> {
        self.hosts.borrow().get(&partition).cloned()
    }

    /// All hosts of this shard.
    pub fn all_local(&self) -> Vec<Rc<Host<M, R>>> {
        self.hosts.borrow().values().cloned().collect()
    }

    /// Hands an input to every host of this shard. Nobody waits for the replies; a host that is
    /// loading does not get it.
    pub fn tell_local(&self, input: impl Fn() -> M::Input) {
        for host in self.all_local() {
            drop(host.submit(input()));
        }
    }

    /// Hands an input to the machine over `partition`, on whichever shard it is. When this returns,
    /// the input stands behind all that was handed to that machine from this shard before; what it
    /// returns completes with the reply.
    pub async fn submit(
        &self,
        partition: PartitionId,
        input: M::Input,
    ) -> impl Future<Output = Result<M::Reply, HostError>> + use<M, R> {
        let routing = self.partitions.routing();
        let shard = routing.shard_of(partition);
        if shard == self.jobs.own() {
            return Either::Left(self.submit_here(partition, input));
        }
        let job = move |hosts: &Rc<Self>| hosts.submit_here(partition, input);
        let pending = self.jobs.start(shard, job).await;
        Either::Right(async move { pending.await.unwrap_or(Err(HostError::NotHere)) })
    }

    /// Completes when all that was handed over to a shard from here is in its machines' hands.
    pub async fn reached(&self, shard: usize) {
        self.jobs.reached(shard).await;
    }

    /// As [`submit_to`]; while the partition comes from another shard, when it has arrived.
    fn submit_here(
        &self,
        partition: PartitionId,
        input: M::Input,
    ) -> impl Future<Output = Result<M::Reply, HostError>> + use<M, R> {
        if !self.partitions.is_arriving(partition) {
            return Either::Left(submit_to(self.local(partition), input));
        }
        let hosts = Rc::clone(&self.hosts);
        let submitted = self.partitions.when_here(partition, move |_| {
            let host = hosts.borrow().get(&partition).cloned();
            Ok(submit_to(host, input))
        });
        Either::Right(async move {
            match submitted.await {
                Ok(reply) => reply.await,
                Err(_) => Err(HostError::NotHere),
            }
        })
    }
}

/// The input is handed over by the call itself, before anything is awaited: inputs keep their
/// order, those over the mesh too.
fn submit_to<M: Machine, R: Runtime>(
    host: Option<Rc<Host<M, R>>>,
    input: M::Input,
) -> impl Future<Output = Result<M::Reply, HostError>> + use<M, R> {
    let submitted = host.map(|host| host.submit(input));
    async move {
        match submitted {
            Some(reply) => reply.await.unwrap_or(Err(HostError::NotHere)),
            None => Err(HostError::NotHere),
        }
    }
}
