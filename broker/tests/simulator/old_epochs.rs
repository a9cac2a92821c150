//! The story of figure 3.7 of Ongaro's dissertation, again and again: what a leader wrote in an
//! epoch that is over stands on a majority, and is gone all the same, since another had written in
//! between. Nobody may have been told that it is committed before an entry of a new epoch stands
//! behind it.

use std::rc::Rc;
use std::time::Duration;

use vltava::metadata::image::PartitionId;
use vltava::partition::replica::Replica;
use vltava::raft::node::Role;
use vltava::runtime::sim::{DiskOptions, MILLION, Purpose, Random, SimRuntime, TraceSink};

use crate::cluster::Cluster;
use crate::run::{Outcome, run_story};
use crate::swarm::Swarm;
use crate::workload::Role as Client;

const ROUNDS: usize = 15;
/// What does not come to pass by then does not in this round, in nanoseconds of virtual time.
const PATIENCE_NS: u64 = 3_000_000_000;
/// How closely is looked.
const STEP_NS: u64 = 50_000;
/// Which of the three is which in this round.
struct Parts {
    /// Leads, and is cut off with what it has written.
    first: usize,
    /// Leads then, and is lost with the beginning of its epoch.
    second: usize,
    /// Votes for whoever asks.
    third: usize,
}

/// Tells it.
pub fn old_epochs(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut swarm = Swarm::quiet(seed, 3);
    swarm.topics = vec![1];
    swarm.shards = 1..=1;
    swarm.in_flight_max = 3;
    swarm.think_max = Duration::from_millis(5);
    swarm.client_timeout = Duration::from_secs(12);
    swarm.producer_timeout = Duration::from_secs(1);
    swarm.clients = vec![Client::ProducerAll, Client::ProducerAll, Client::ProducerAll];
    let swarm = Rc::new(swarm);
    run_story(seed, swarm, sink, |cluster, _| async move {
        let mut random = Random::new(seed, Purpose::Faults, 3);
        let story = Story { cluster };
        for _ in 0..ROUNDS {
            story.round(&mut random).await;
            story.cluster.simulation.unblock_all();
            story.cluster.ensure_running(&mut random).await;
        }
    })
}

struct Story {
    cluster: Cluster,
}

impl Story {
    fn replica(&self, node: usize) -> Option<Rc<Replica<SimRuntime>>> {
        let shards = self.cluster.shards(node);
        let shard = shards.first()?;
        let image = shard.services.node.image();
        let id: PartitionId = image.topic("topic-0")?.partition_id(0);
        shard.services.partitions.local(id).ok()
    }

    fn leader(&self, among: &[usize]) -> Option<usize> {
        // Elected: that its epoch has begun, nobody else need know.
        let leads =
            |node: &&usize| self.replica(**node).is_some_and(|it| it.role() == Role::Leader);
        among.iter().find(leads).copied()
    }

    /// Waits until it is so; gives up when patience ends.
    async fn until<T>(&self, look: impl Fn() -> Option<T>) -> Option<T> {
        let executor = self.cluster.simulation.executor();
        let given_up_ns = executor.now_ns() + PATIENCE_NS;
        loop {
            match look() {
                Some(found) => return Some(found),
                None if executor.now_ns() > given_up_ns => return None,
                None => executor.sleep_until(executor.now_ns() + STEP_NS).await,
            }
        }
    }

    async fn sleep_up_to(&self, most_ns: u64, random: &mut Random) {
        let executor = self.cluster.simulation.executor();
        executor.sleep_until(executor.now_ns() + random.between(0..=most_ns)).await;
    }

    fn block(&self, one: usize, other: usize) {
        let (one, other) = (self.cluster.host(one), self.cluster.host(other));
        self.cluster.simulation.block(one, other);
        self.cluster.simulation.block(other, one);
    }

    fn unblock(&self, one: usize, other: usize) {
        let (one, other) = (self.cluster.host(one), self.cluster.host(other));
        self.cluster.simulation.unblock(one, other);
        self.cluster.simulation.unblock(other, one);
    }

    async fn round(&self, random: &mut Random) -> Option<()> {
        let all: Vec<usize> = self.cluster.nodes().collect();
        self.sleep_up_to(500_000_000, random).await;
        let first = self.until(|| self.leader(&all)).await?;
        let others: Vec<usize> = all.into_iter().filter(|node| *node != first).collect();
        others.iter().for_each(|other| self.block(first, *other));
        let second = self.until(|| self.leader(&others)).await?;
        let third = if second == others[0] { others[1] } else { others[0] };
        self.tell(&Parts { first, second, third }, random).await
    }

    async fn tell(&self, parts: &Parts, random: &mut Random) -> Option<()> {
        let Parts { first, second, third } = *parts;
        // The second one's epoch begins on its disk, and nowhere else.
        self.block(second, third);
        self.sleep_up_to(30_000_000, random).await;
        self.cluster.cut_power(second);
        let before = self.replica(first)?.high_watermark();
        // What it wrote is sent before its new epoch has begun on its own disk.
        let slow = DiskOptions { flush_ns: 20_000_000..=60_000_000, ..DiskOptions::default() };
        self.cluster.simulation.set_disk_options(self.cluster.host(first), slow);
        self.unblock(first, third);
        let is_shown = || {
            let high_watermark = self.replica(first)?.high_watermark();
            (high_watermark > before).then_some(high_watermark)
        };
        // What it wrote when it was cut off is on two disks of three, and it says so.
        let shown = self.until(is_shown).await?;
        self.cluster.simulation.executor().note(&format!("{shown} are committed"));
        self.sleep_up_to(1_000_000, random).await;
        match random.chance(MILLION / 2) {
            true => self.cluster.cut_power(first),
            false => [second, third].iter().for_each(|other| self.block(first, *other)),
        }
        self.cluster.cut_power(third);
        self.unblock(second, third);
        let quick = DiskOptions::default();
        self.cluster.simulation.set_disk_options(self.cluster.host(first), quick);
        self.cluster.start(second, random).await;
        self.cluster.start(third, random).await;
        self.until(|| self.leader(&[second, third])).await?;
        self.sleep_up_to(100_000_000, random).await;
        Some(())
    }
}
