//! The story of figure 3.7 of Ongaro's dissertation, again and again: what a leader wrote in an
//! epoch that is over stands on a majority, and is gone all the same, since another had written in
//! between. Nobody may have been told that it is committed before an entry of a new epoch stands
//! behind it.

use std::rc::Rc;
use std::time::Duration;

use vltava::runtime::sim::{DiskOptions, MILLION, Purpose, Random, TraceSink};

use crate::run::{Outcome, run_story};
use crate::stage::Stage;
use crate::swarm::Swarm;
use crate::workload::Role as Client;

const ROUNDS: usize = 15;

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
        let stage = Stage { cluster };
        for _ in 0..ROUNDS {
            round(&stage, &mut random).await;
            stage.cluster.simulation.unblock_all();
            stage.cluster.ensure_running(&mut random).await;
        }
    })
}

/// Tells one round of it, as far as chance lets it happen.
async fn round(stage: &Stage, random: &mut Random) -> Option<()> {
    let all: Vec<usize> = stage.cluster.nodes().collect();
    stage.sleep_up_to(500_000_000, random).await;
    let first = stage.until(|| stage.leader(&all)).await?;
    let others: Vec<usize> = all.into_iter().filter(|node| *node != first).collect();
    others.iter().for_each(|other| stage.block(first, *other));
    let second = stage.until(|| stage.leader(&others)).await?;
    let third = if second == others[0] { others[1] } else { others[0] };
    tell(stage, &Parts { first, second, third }, random).await
}

async fn tell(stage: &Stage, parts: &Parts, random: &mut Random) -> Option<()> {
    let Parts { first, second, third } = *parts;
    // The second one's epoch begins on its disk, and nowhere else.
    stage.block(second, third);
    stage.sleep_up_to(30_000_000, random).await;
    stage.cluster.cut_power(second);
    let before = stage.replica(first)?.high_watermark();
    // What it wrote is sent before its new epoch has begun on its own disk.
    let slow = DiskOptions { flush_ns: 20_000_000..=60_000_000, ..DiskOptions::default() };
    stage.cluster.simulation.set_disk_options(stage.cluster.host(first), slow);
    stage.unblock(first, third);
    let is_shown = || {
        let high_watermark = stage.replica(first)?.high_watermark();
        (high_watermark > before).then_some(high_watermark)
    };
    // What it wrote when it was cut off is on two disks of three, and it says so.
    let shown = stage.until(is_shown).await?;
    stage.cluster.simulation.executor().note(&format!("{shown} are committed"));
    stage.sleep_up_to(1_000_000, random).await;
    match random.chance(MILLION / 2) {
        true => stage.cluster.cut_power(first),
        false => [second, third].iter().for_each(|other| stage.block(first, *other)),
    }
    stage.cluster.cut_power(third);
    stage.unblock(second, third);
    let quick = DiskOptions::default();
    stage.cluster.simulation.set_disk_options(stage.cluster.host(first), quick);
    stage.cluster.start(second, random).await;
    stage.cluster.start(third, random).await;
    stage.until(|| stage.leader(&[second, third])).await?;
    stage.sleep_up_to(100_000_000, random).await;
    Some(())
}
