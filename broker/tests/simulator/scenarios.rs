//! Stories: short runs by hand, in the harness of the random ones.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use vltava::metadata::image::PartitionId;
use vltava::runtime::sim::{Crash, DiskOptions, Purpose, Random, SimRuntime, TraceSink};
use vltava::shard::Shard;

use crate::faults::{Trouble, short_life};
use crate::losses;
use crate::no_descriptors::no_descriptors;
use crate::old_epochs::old_epochs;
use crate::recover::recover;
use crate::run::{Outcome, run_seed, run_story};
use crate::swarm::Swarm;
use crate::two_of_three::two_of_three;
use crate::workload::Role;

/// A story with its name and the seed of everything that it leaves to chance.
pub struct Scenario {
    /// What `--scenario` calls it.
    pub name: &'static str,
    /// For what the story does not say.
    pub seed: u64,
    /// Tells it.
    pub run: fn(u64, Option<TraceSink>) -> Outcome,
}

/// What stories are called that are runs like any other.
pub const EVERYTHING: &str = "everything";

/// All stories.
pub fn all() -> impl Iterator<Item = Scenario> {
    [
        Scenario { name: "calm", seed: 1, run: calm },
        Scenario { name: "power-cuts-only", seed: 2, run: power_cuts_only },
        Scenario { name: "a-full-disk", seed: 3, run: a_full_disk },
        Scenario { name: "repeats-while-it-is-written", seed: 5, run: repeats_while_it_is_written },
        Scenario { name: "torn-writes", seed: 6, run: torn_writes },
        Scenario { name: "orderly-stops", seed: 7, run: orderly_stops },
        Scenario { name: "moves", seed: 8, run: moves },
        Scenario { name: "moves-and-power-cuts", seed: 10, run: moves_and_power_cuts },
        Scenario { name: "hot-cores", seed: 16, run: hot_cores },
        Scenario { name: "old-epochs", seed: 11, run: old_epochs },
        Scenario { name: "damage", seed: 12, run: damage },
        Scenario { name: "comers", seed: 13, run: comers },
        Scenario { name: "recover", seed: 14, run: recover },
        Scenario { name: "two-of-three", seed: 15, run: two_of_three },
        Scenario { name: "no-descriptors", seed: 17, run: no_descriptors },
        Scenario { name: EVERYTHING, seed: 4, run: everything },
        Scenario { name: "everything-of-three", seed: 8, run: everything_of_three },
        Scenario { name: "everything-of-five", seed: 8, run: everything_of_five },
    ]
    .into_iter()
}

fn everything(seed: u64, sink: Option<TraceSink>) -> Outcome {
    run_seed(seed, Some(1), sink)
}

fn everything_of_three(seed: u64, sink: Option<TraceSink>) -> Outcome {
    run_seed(seed, Some(3), sink)
}

fn everything_of_five(seed: u64, sink: Option<TraceSink>) -> Outcome {
    run_seed(seed, Some(5), sink)
}

/// Nothing fails: everybody finishes.
fn calm(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let swarm = Rc::new(Swarm::quiet(seed, 1));
    run_story(seed, swarm, sink, |cluster, _| async move {
        let executor = cluster.simulation.executor();
        executor.sleep_until(executor.now_ns() + 5_000_000_000).await;
    })
}

/// The power fails again and again while everybody writes.
fn power_cuts_only(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let swarm = Rc::new(Swarm::quiet(seed, 1));
    run_story(seed, swarm, sink, |cluster, _| async move {
        let mut random = Random::new(seed, Purpose::Faults, 3);
        let executor = cluster.simulation.executor();
        for _ in 0..10 {
            executor.sleep_until(executor.now_ns() + 500_000_000).await;
            cluster.crash(0, Crash::Power, &mut random).await;
        }
    })
}

/// Producers lose patience while a slow disk writes, and repeat what is under way; then the power
/// fails, and what was under way is lost. Whoever was told that it stands there was told so too
/// early.
fn repeats_while_it_is_written(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut swarm = Swarm::quiet(seed, 1);
    swarm.producer_timeout = Duration::from_millis(300);
    swarm.clients = vec![Role::ProducerAll, Role::ProducerAll, Role::ProducerOne, Role::Consumer];
    let swarm = Rc::new(swarm);
    run_story(seed, swarm, sink, |cluster, _| async move {
        let mut random = Random::new(seed, Purpose::Faults, 3);
        let (simulation, executor) = (&cluster.simulation, cluster.simulation.executor());
        let slow =
            DiskOptions { flush_ns: 3_000_000_000..=5_000_000_000, ..DiskOptions::default() };
        for _ in 0..3 {
            executor.sleep_until(executor.now_ns() + 500_000_000).await;
            simulation.set_disk_options(cluster.host(0), slow.clone());
            executor.sleep_until(executor.now_ns() + 2_000_000_000).await;
            cluster.crash_now(0, Crash::Power, &mut random).await;
            simulation.set_disk_options(cluster.host(0), DiskOptions::default());
            cluster.start(0, &mut random).await;
        }
    })
}

/// Producers that share one partition, each batch one block, and a disk so slow that many batches
/// go into one write, the first of a life, too. Whose batch comes first differs from one life to
/// the next.
fn blocks_of_many(seed: u64) -> Swarm {
    let mut swarm = Swarm::quiet(seed, 1);
    swarm.topics = vec![1];
    swarm.shards = 1..=2;
    swarm.whole_blocks = true;
    swarm.in_flight_max = 5;
    swarm.think_max = Duration::from_millis(2);
    swarm.clients = vec![Role::ProducerAll, Role::ProducerAll, Role::ProducerAll, Role::Consumer];
    swarm.topic_configs.retain(|(name, _)| *name != "segment.bytes");
    swarm.disk = DiskOptions {
        write_ns: 1_000_000..=50_000_000,
        flush_ns: 20_000_000..=300_000_000,
        ..DiskOptions::default()
    };
    swarm
}

/// The power fails in the middle of one write after the other. A batch of a torn write that stands
/// behind the log's end, whole, must not become part of the log once that has grown up to it.
fn torn_writes(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let swarm = Rc::new(blocks_of_many(seed));
    run_story(seed, swarm, sink, |cluster, _| async move {
        let mut random = Random::new(seed, Purpose::Faults, 3);
        for _ in 0..300 {
            short_life(&cluster, 0, &mut random).await;
        }
    })
}

/// The node is stopped in order while everybody writes, to partitions of all shards and over
/// connections of all shards, some of which have none. What a shard was asked for by another one is
/// done, and not refused because it was the first to stop.
fn orderly_stops(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut swarm = Swarm::quiet(seed, 1);
    swarm.topics = vec![10];
    swarm.shards = 5..=5;
    swarm.think_max = Duration::from_millis(2);
    swarm.clients = vec![Role::ProducerAll; 4];
    swarm.clients.extend([Role::ProducerOne, Role::ProducerPlain, Role::Consumer, Role::Member]);
    swarm.disk = DiskOptions { flush_ns: 1_000_000..=30_000_000, ..DiskOptions::default() };
    let swarm = Rc::new(swarm);
    run_story(seed, swarm, sink, |cluster, _| async move {
        let mut random = Random::new(seed, Purpose::Faults, 3);
        let executor = cluster.simulation.executor();
        for _ in 0..20 {
            let lives_ns = random.between(200_000_000..=1_000_000_000);
            executor.sleep_until(executor.now_ns() + lives_ns).await;
            cluster.restart(0, &mut random).await;
        }
    })
}

/// Partitions go from shard to shard while everybody uses them, one after the other.
fn moving(seed: u64) -> Swarm {
    let mut swarm = Swarm::quiet(seed, 1);
    swarm.topics = vec![3, 2];
    swarm.shards = 3..=3;
    swarm.in_flight_max = 5;
    swarm.think_max = Duration::from_millis(20);
    swarm.clients.extend([Role::ShardMover, Role::ShardMover, Role::ProducerAll]);
    swarm.disk = DiskOptions { flush_ns: 100_000..=5_000_000, ..DiskOptions::default() };
    swarm
}

/// Nothing else happens: nobody sees it.
fn moves(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let swarm = Rc::new(moving(seed));
    run_story(seed, swarm, sink, |cluster, workload| async move {
        let executor = cluster.simulation.executor();
        executor.sleep_until(executor.now_ns() + 3_000_000_000).await;
        assert!(workload.moved.get() > 30, "only {} moves", workload.moved.get());
    })
}

/// A core is hot while another is not: the node moves partitions, and nobody sees it.
fn hot_cores(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut swarm = moving(seed);
    swarm.clients.retain(|role| *role != Role::ShardMover);
    swarm.heat(500, 100);
    let swarm = Rc::new(swarm);
    run_story(seed, swarm, sink, |cluster, _| async move {
        let executor = cluster.simulation.executor();
        let places = || -> BTreeMap<PartitionId, usize> {
            let shards = cluster.shards(0).into_iter().enumerate();
            let of = |(number, shard): (usize, Rc<Shard<SimRuntime>>)| {
                let local = shard.services.partitions.all_local();
                local.into_iter().map(move |(id, _)| (id, number))
            };
            shards.flat_map(of).collect()
        };
        executor.sleep_until(executor.now_ns() + 1_000_000_000).await;
        let (before, given_up_ns) = (places(), executor.now_ns() + 60_000_000_000);
        let is_elsewhere = |(id, shard)| before.get(&id).is_some_and(|before| *before != shard);
        while !places().into_iter().any(is_elsewhere) {
            assert!(executor.now_ns() < given_up_ns, "nothing has left a hot core");
            executor.sleep_until(executor.now_ns() + 10_000_000).await;
        }
    })
}

/// The power fails at any step of a move, and the node comes back with another number of shards.
fn moves_and_power_cuts(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut swarm = moving(seed);
    swarm.shards = 1..=4;
    let swarm = Rc::new(swarm);
    run_story(seed, swarm, sink, |cluster, workload| async move {
        let mut random = Random::new(seed, Purpose::Faults, 3);
        let executor = cluster.simulation.executor();
        for _ in 0..25 {
            let lives_ns = random.between(200_000_000..=1_500_000_000);
            executor.sleep_until(executor.now_ns() + lives_ns).await;
            cluster.crash(0, Crash::Power, &mut random).await;
        }
        assert!(workload.moved.get() > 0, "only {} moves", workload.moved.get());
    })
}

/// The disk fills up while everybody writes and records are deleted, and is freed: all is well
/// again without a restart. A deletion that found no space has not happened, and nobody saw it.
fn a_full_disk(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut swarm = Swarm::quiet(seed, 1);
    swarm.troubles = vec![Trouble::FullDisk];
    swarm.clients.push(Role::Tuner);
    swarm.retention_deletes = true;
    swarm.calm_max = Duration::from_millis(500);
    let swarm = Rc::new(swarm);
    run_story(seed, swarm, sink, |cluster, workload| async move {
        crate::faults::storm(&cluster, &workload).await;
        assert_eq!(cluster.starts(), 1, "a full disk is no reason to start again");
    })
}

/// What one node has is damaged, and made good by the others, again and again, while everybody
/// works: in its logs, in that of the cluster's metadata and in those of coordinators.
fn damage(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut swarm = Swarm::quiet(seed, 3);
    swarm.storm = Duration::from_secs(60);
    swarm.node_settings.push(("log.verify.interval.ms", "1000".to_owned()));
    swarm.topic_configs.push(("segment.ms", "500".to_owned()));
    let swarm = Rc::new(swarm);
    run_story(seed, swarm, sink, |cluster, _| async move {
        let mut random = Random::new(seed, Purpose::Faults, 3);
        let executor = cluster.simulation.executor();
        for round in 0..12 {
            executor.sleep_until(executor.now_ns() + 2_000_000_000).await;
            let node = round % cluster.nodes().len();
            let trouble = if round % 4 == 3 { Trouble::Misdirected } else { Trouble::Rot };
            cluster.damage(node, trouble, &mut random).await;
            losses::made_good(&cluster).await;
        }
    })
}

/// Nodes come to the cluster and leave it, founders among them, while nodes fail and everybody
/// works: in the end all replicas are on those that are there.
fn comers(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut swarm = Swarm::quiet(seed, 3);
    swarm.storm = Duration::from_secs(60);
    swarm.shape.come_and_go(2);
    swarm.troubles = vec![Trouble::Kill, Trouble::PowerCut, Trouble::Restart, Trouble::Isolation];
    swarm.calm_max = Duration::from_secs(10);
    swarm.clients.extend([Role::Operator, Role::Mover, Role::Throttler]);
    let swarm = Rc::new(swarm);
    run_story(seed, swarm, sink, |cluster, workload| async move {
        crate::faults::storm(&cluster, &workload).await;
        let executor = cluster.simulation.executor();
        while workload.came.get() == 0 || workload.left.get() == 0 {
            executor.sleep_until(executor.now_ns() + 100_000_000).await;
        }
    })
}
