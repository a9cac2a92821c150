//! The story of a disk that has voted, again and again: what two of three nodes have is committed,
//! one of the two loses its disk, and meets the third, which never heard of it. Together they are
//! two of three nodes, and may decide nothing: the disk that comes in the lost one's place has no
//! vote before it has again what that had.

use std::rc::Rc;
use std::time::Duration;

use vltava::runtime::sim::{MILLION, Purpose, Random, TraceSink};

use crate::losses;
use crate::run::{Outcome, run_story};
use crate::stage::Stage;
use crate::swarm::Swarm;
use crate::workload::Role as Client;

const ROUNDS: usize = 6;
/// How long those two are beside each other: many elections, in nanoseconds.
const ALONE_NS: u64 = 3_000_000_000;

/// Tells it.
pub fn wiped_voters(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut swarm = Swarm::quiet(seed, 3);
    swarm.topics = vec![1];
    swarm.shards = 1..=2;
    swarm.think_max = Duration::from_millis(5);
    swarm.client_timeout = Duration::from_secs(60);
    swarm.producer_timeout = Duration::from_secs(1);
    swarm.clients = vec![Client::ProducerAll, Client::ProducerAll, Client::Consumer];
    let swarm = Rc::new(swarm);
    run_story(seed, swarm, sink, |cluster, _| async move {
        let mut random = Random::new(seed, Purpose::Faults, 3);
        let stage = Stage { cluster };
        for _ in 0..ROUNDS {
            let told = round(&stage, &mut random).await;
            stage.cluster.simulation.unblock_all();
            assert!(told.is_some(), "the story does not come to pass");
            while losses::outstanding(&stage.cluster).is_some() {
                stage.sleep(100_000_000).await;
            }
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
    stage.cluster.lose_disk(lost);
    stage.unblock(lost, behind);
    stage.cluster.start(lost, random).await;
    stage.sleep(ALONE_NS).await;
    Some(())
}
