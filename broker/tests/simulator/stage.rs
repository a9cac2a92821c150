//! Where a story of one partition on three nodes is told: who leads it, who hears of whom.

use std::rc::Rc;
use std::time::Duration;

use vltava::metadata::image::PartitionId;
use vltava::partition::replica::Replica;
use vltava::raft::node::Role;
use vltava::runtime::sim::{Random, SimRuntime};
use vltava::shard::Shard;

use crate::cluster::Cluster;
use crate::faults::nanos;

/// What does not come to pass by then does not in this round.
const PATIENCE: Duration = Duration::from_secs(3);
/// How closely is looked.
const STEP_NS: u64 = 50_000;

/// The nodes, and the only partition of `topic-0`.
pub struct Stage {
    pub cluster: Cluster,
}

impl Stage {
    /// That of the only partition.
    pub fn replica(&self, node: usize) -> Option<Rc<Replica<SimRuntime>>> {
        let shards = self.cluster.shards(node);
        let of = |shard: &Rc<Shard<SimRuntime>>| {
            let image = shard.services.node.image();
            let id: PartitionId = image.topic("topic-0")?.partition_id(0);
            shard.services.partitions.local(id).ok()
        };
        shards.iter().find_map(of)
    }

    /// Who of these was elected to lead it.
    pub fn leader(&self, among: &[usize]) -> Option<usize> {
        // That its epoch has begun, nobody else need know.
        let leads =
            |node: &&usize| self.replica(**node).is_some_and(|it| it.role() == Role::Leader);
        among.iter().find(leads).copied()
    }

    /// Waits until it is so; gives up when patience ends.
    pub async fn until<T>(&self, look: impl Fn() -> Option<T>) -> Option<T> {
        self.until_for(PATIENCE, look).await
    }

    /// Likewise, with other patience.
    pub async fn until_for<T>(
        &self,
        patience: Duration,
        look: impl Fn() -> Option<T>,
    ) -> Option<T> {
        let executor = self.cluster.simulation.executor();
        let given_up_ns = executor.now_ns() + nanos(patience);
        loop {
            match look() {
                Some(found) => return Some(found),
                None if executor.now_ns() > given_up_ns => return None,
                None => executor.sleep_until(executor.now_ns() + STEP_NS).await,
            }
        }
    }

    /// So many nanoseconds.
    pub async fn sleep(&self, ns: u64) {
        let executor = self.cluster.simulation.executor();
        executor.sleep_until(executor.now_ns() + ns).await;
    }

    /// Up to so many nanoseconds.
    pub async fn sleep_up_to(&self, most_ns: u64, random: &mut Random) {
        self.sleep(random.between(0..=most_ns)).await;
    }

    /// Two hear no more of each other.
    pub fn block(&self, one: usize, other: usize) {
        let (one, other) = (self.cluster.host(one), self.cluster.host(other));
        self.cluster.simulation.block(one, other);
        self.cluster.simulation.block(other, one);
    }

    /// Two hear of each other again.
    pub fn unblock(&self, one: usize, other: usize) {
        let (one, other) = (self.cluster.host(one), self.cluster.host(other));
        self.cluster.simulation.unblock(one, other);
        self.cluster.simulation.unblock(other, one);
    }
}
