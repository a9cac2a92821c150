//! The story of a leader that can open no file any more, again and again: what clients would write
//! there is refused, and soon another node leads, which has descriptors; nothing ends.

use std::rc::Rc;
use std::time::Duration;

use vltava::runtime::sim::{Purpose, Random, TraceSink};

use crate::checkers::violation;
use crate::losses;
use crate::run::{Outcome, run_story};
use crate::stage::Stage;
use crate::swarm::Swarm;
use crate::workload::Role as Client;

const ROUNDS: usize = 4;
/// How long another may take to be leader: a write finds no descriptor, the node notices within a
/// second, and hands over.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long there are none at most, in nanoseconds: longer than that takes.
const LACKING_NS: u64 = 12_000_000_000;

/// Tells it.
pub fn no_descriptors(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut swarm = Swarm::quiet(seed, 3);
    swarm.topics = vec![1];
    // Whoever writes soon opens a segment.
    swarm.topic_configs.retain(|(name, _)| *name != "segment.ms");
    swarm.topic_configs.push(("segment.ms", "200".to_owned()));
    // Nobody else moves leaders.
    swarm.node_settings.push(("auto.leader.rebalance.enable", "false".to_owned()));
    swarm.clients = vec![Client::ProducerAll, Client::ProducerAll, Client::Consumer];
    let swarm = Rc::new(swarm);
    run_story(seed, swarm, sink, |cluster, _| async move {
        let mut random = Random::new(seed, Purpose::Faults, 3);
        let stage = Stage { cluster };
        for _ in 0..ROUNDS {
            round(&stage, &mut random).await;
            losses::made_good(&stage.cluster).await;
        }
        assert_eq!(stage.cluster.starts(), 3, "a lack of descriptors is no reason to start again");
    })
}

async fn round(stage: &Stage, random: &mut Random) {
    let all: Vec<usize> = stage.cluster.nodes().collect();
    stage.sleep_up_to(500_000_000, random).await;
    let leader = came(stage.until(|| stage.leader(&all)).await, "nobody leads");
    let epoch = || stage.replica(leader).map(|replica| replica.leader_epoch());
    let before = epoch();
    let others: Vec<usize> = all.into_iter().filter(|node| *node != leader).collect();
    let cluster = stage.cluster.clone();
    let lacking = cluster.lack_descriptors(leader, LACKING_NS, random);
    let handed_over = async {
        let to = stage.until_for(PATIENCE, || stage.leader(&others)).await;
        let to = came(to, "who can open no file leads on");
        // It was not elected for the other's silence.
        assert!(epoch() > before, "the old leader has not heard of the new one");
        let end = stage.replica(to).map(|replica| replica.high_watermark());
        let goes_on = || (stage.replica(to)?.high_watermark() > end? + 10).then_some(());
        came(stage.until_for(PATIENCE, goes_on).await, "nobody can write");
    };
    futures_util::future::join(lacking, handed_over).await;
}

fn came<T>(what: Option<T>, otherwise: &str) -> T {
    what.unwrap_or_else(|| violation(otherwise.to_owned()))
}
