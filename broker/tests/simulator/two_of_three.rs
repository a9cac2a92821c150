//! The story of what two of three nodes have, which is committed, again and again: one of the two
//! loses its power, or its disk, and meets the third, which never heard of it. Where it has lost
//! the power it still has all that counted, and they go on with it. The disk that comes in a lost
//! one's place has no vote before it has again what that had: together they may decide nothing.

use std::rc::Rc;
use std::time::Duration;

use vltava::runtime::sim::{DiskOptions, MILLION, Purpose, Random, TraceSink};

use crate::losses;
use crate::run::{Outcome, run_story};
use crate::stage::Stage;
use crate::swarm::Swarm;
use crate::workload::Role as Client;

const ROUNDS: usize = 8;
/// How long those two are beside each other: many elections, in nanoseconds.
const ALONE_NS: u64 = 3_000_000_000;

/// Tells it.
pub fn two_of_three(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut swarm = Swarm::quiet(seed, 3);
    swarm.topics = vec![1];
    swarm.topic_configs.retain(|(name, _)| *name != "segment.ms");
    swarm.shards = 1..=2;
    swarm.think_max = Duration::from_millis(20);
    swarm.record_bytes_max = 1_000;
    swarm.client_timeout = Duration::from_secs(60);
    swarm.producer_timeout = Duration::from_secs(1);
    swarm.clients = vec![Client::ProducerAll, Client::ProducerAll, Client::Consumer];
    // What is written, and not flushed, is much.
    swarm.disk = DiskOptions { flush_ns: 1_000_000..=10_000_000, ..DiskOptions::default() };
    let swarm = Rc::new(swarm);
    run_story(seed, swarm, sink, |cluster, _| async move {
        let mut random = Random::new(seed, Purpose::Faults, 3);
        let stage = Stage { cluster };
        for _ in 0..ROUNDS {
            let told = round(&stage, &mut random).await;
            stage.cluster.simulation.unblock_all();
            assert!(told.is_some(), "the story does not come to pass");
            losses::made_good(&stage.cluster).await;
        }
    })
}

async fn round(stage: &Stage, random: &mut Random) -> Option<()> {
    let all: Vec<usize> = stage.cluster.nodes().collect();
    stage.sleep_up_to(500_000_000, random).await;
    let leader = stage.until(|| stage.leader(&all)).await?;
    let mut others: Vec<usize> = all.into_iter().filter(|node| *node != leader).collect();
    let behind = others.swap_remove(random.index(2));
    let beside = others[0];
    stage.block(behind, leader);
    stage.block(behind, beside);
    let had = stage.replica(behind)?.end();
    let is_committed = || (stage.replica(leader)?.high_watermark() > had + 10).then_some(());
    stage.until(is_committed).await?;
    let (lost, left) = if random.chance(MILLION / 2) { (leader, beside) } else { (beside, leader) };
    stage.block(lost, left);
    // What a disk had takes long to be made good.
    match random.chance(MILLION / 4) {
        true => stage.cluster.lose_disk(lost),
        false => stage.cluster.cut_power(lost),
    }
    stage.unblock(lost, behind);
    stage.cluster.start(lost, random).await;
    stage.sleep(ALONE_NS).await;
    Some(())
}
