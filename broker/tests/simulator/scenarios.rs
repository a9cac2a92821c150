//! Stories: short runs by hand, in the harness of the random ones.

use std::rc::Rc;
use std::time::Duration;

use vltava::runtime::sim::{Crash, DiskOptions, Purpose, Random, TraceSink};

use crate::faults::{Swarm, Trouble};
use crate::run::{Outcome, run_seed, run_story};
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

/// The story that is a run like any other.
pub const EVERYTHING: &str = "everything";

/// All stories.
pub fn all() -> impl Iterator<Item = Scenario> {
    [
        Scenario { name: "calm", seed: 1, run: calm },
        Scenario { name: "power-cuts-only", seed: 2, run: power_cuts_only },
        Scenario { name: "a-full-disk", seed: 3, run: a_full_disk },
        Scenario { name: "repeats-while-it-is-written", seed: 5, run: repeats_while_it_is_written },
        Scenario { name: EVERYTHING, seed: 4, run: run_seed },
    ]
    .into_iter()
}

/// A swarm in which nothing goes wrong by itself.
fn quiet(seed: u64) -> Swarm {
    let mut swarm = Swarm::new(seed);
    swarm.storm = Duration::from_secs(5);
    swarm.troubles = Vec::new();
    swarm.think_max = Duration::from_millis(50);
    swarm.network = Default::default();
    swarm.disk = Default::default();
    swarm.clients = vec![
        Role::ProducerAll,
        Role::ProducerOne,
        Role::ProducerPlain,
        Role::Consumer,
        Role::Member,
        Role::Member,
        Role::Admin,
        Role::Recreator,
        Role::Keeper,
        Role::Scraper,
    ];
    swarm.retention_deletes = false;
    swarm
}

/// Nothing fails: everybody finishes.
fn calm(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let swarm = Rc::new(quiet(seed));
    run_story(seed, swarm, sink, |cluster, _| async move {
        let executor = cluster.simulation.executor();
        executor.sleep_until(executor.now_ns() + 5_000_000_000).await;
    })
}

/// The power fails again and again while everybody writes.
fn power_cuts_only(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let swarm = Rc::new(quiet(seed));
    run_story(seed, swarm, sink, |cluster, _| async move {
        let mut random = Random::new(seed, Purpose::Faults, 3);
        let executor = cluster.simulation.executor();
        for _ in 0..10 {
            executor.sleep_until(executor.now_ns() + 500_000_000).await;
            cluster.crash(Crash::Power, &mut random).await;
        }
    })
}

/// Producers lose patience while a slow disk writes, and repeat what is under way; then the power
/// fails, and what was under way is lost. Whoever was told that it stands there was told so too
/// early.
fn repeats_while_it_is_written(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut swarm = quiet(seed);
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
            simulation.set_disk_options(cluster.host, slow.clone());
            executor.sleep_until(executor.now_ns() + 2_000_000_000).await;
            cluster.power_cut_now(&mut random).await;
            simulation.set_disk_options(cluster.host, DiskOptions::default());
            cluster.start(&mut random).await;
        }
    })
}

/// The disk fills up while everybody writes and records are deleted, and is freed: all is well
/// again without a restart. A deletion that found no space has not happened, and nobody saw it.
fn a_full_disk(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut swarm = quiet(seed);
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
