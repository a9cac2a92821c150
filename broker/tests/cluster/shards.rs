//! Shards are each node's own business, also in a cluster: another number of them at a restart, and
//! partitions that go from one to another while they replicate and lead.

use std::collections::BTreeMap;

use vltava_protocol::types::Str;

use crate::nodes::{NODES, Nodes, seed};
use crate::producer::Random;
use crate::support::{self, Broker};
use crate::view::{await_agreement, create_topic, metadata_of_any, until};
use crate::work::{PARTITIONS, Work};

const TOPIC: &str = "sharded";
/// Moves of each phase.
const MOVES: u64 = 40;

/// Votes and marks that five shards wrote are those of two shards, and of five again: a node that
/// had forgotten its own would be no member any more, and one that remembered an older one could
/// vote twice.
#[test]
fn a_node_comes_back_with_another_number_of_shards_and_keeps_its_word() {
    let random = Random(seed());
    let mut nodes = Nodes::places(&[], crate::nodes::Place::local);
    for node in NODES {
        nodes.node(node).options.shards = 5;
    }
    nodes.run_all();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, PARTITIONS);
    await_agreement(&addresses, &[TOPIC]);
    let work = Work::begin(nodes.by_number(), TOPIC, &random);
    work.await_progress();
    for (round, shards) in [2, 5, 1].into_iter().enumerate() {
        for node in NODES {
            if (round + node as usize).is_multiple_of(2) {
                nodes.stop_node(node);
            } else {
                nodes.kill(node);
            }
            nodes.node(node).options.shards = shards;
            work.await_takeover(node);
            nodes.node(node).run();
            // All of its replicas are members again, and caught up.
            work.await_whole();
        }
        work.await_progress();
        println!("all nodes have {shards} shards");
    }
    work.await_group();
    let history = work.end();
    await_agreement(&addresses, &[TOPIC]);
    nodes.kill_all();
    NODES.iter().for_each(|node| nodes.node(*node).options.shards = 5);
    nodes.run_all();
    println!("{} records", history.check());
    nodes.stop();
}

/// Leaders and their epochs, as some node has them.
fn leaders(nodes: &Nodes) -> BTreeMap<i32, (Option<i32>, i32)> {
    let metadata = until("no node says who leads", || metadata_of_any(&nodes.addresses()));
    let topic = &metadata.topics[&Str::from(TOPIC)];
    topic.partitions.iter().map(|(number, it)| (*number, (it.leader, it.leader_epoch))).collect()
}

/// Moves one partition of a node to another shard, whichever; whether it went.
fn move_any(broker: &Broker, random: &mut Random) -> bool {
    let (topic, count) = match random.below(4) {
        0 => ("__consumer_offsets", 3),
        _ => (TOPIC, PARTITIONS as u64),
    };
    let path = format!("/shards/{}/{topic}/{}", random.below(3), random.below(count));
    let (status, said) = support::post(broker.admin, &path).expect("an answer");
    // A replica that takes what it lacks from its leader stays where it is.
    assert!(status == 200 || status == 503, "{path}: {said}");
    status == 200
}

/// Leaders stay leaders, and nobody votes; then nodes are killed in the middle of it.
#[test]
fn partitions_move_between_the_shards_of_nodes_that_replicate_them() {
    let mut random = Random(seed());
    let mut nodes = Nodes::places(&[], crate::nodes::Place::local);
    for node in NODES {
        nodes.node(node).options.shards = 3;
    }
    nodes.run_all();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, PARTITIONS);
    await_agreement(&addresses, &[TOPIC]);
    let work = Work::begin(nodes.by_number(), TOPIC, &random);
    work.await_progress();
    work.await_group();
    let before = leaders(&nodes);
    let mut moved = 0;
    for _ in 0..MOVES {
        let node = NODES[random.below(3) as usize];
        moved += u64::from(move_any(nodes.node(node), &mut random));
    }
    assert!(moved > MOVES / 4, "only {moved} moves");
    work.await_progress();
    assert_eq!(leaders(&nodes), before, "a move has cost a leader its place");
    let mut had = Vec::new();
    for round in 0..3 {
        for _ in 0..MOVES / 8 {
            let node = NODES[random.below(3) as usize];
            move_any(nodes.node(node), &mut random);
        }
        let victim = work.victim(&mut had);
        let admin = nodes.node(victim).admin;
        let mover = std::thread::spawn(move || {
            // Until it is killed.
            let path = |number: i32| format!("/shards/{}/{TOPIC}/{}", number % 3, number % 4);
            (0..).take_while(|number| support::post(admin, &path(*number)).is_ok()).count()
        });
        work.await_progress();
        nodes.kill(victim);
        let moves = mover.join().expect("whoever moves");
        work.await_takeover(victim);
        nodes.node(victim).run();
        work.await_whole();
        println!("round {round}: node {victim} killed after {moves} moves");
    }
    work.await_group();
    let history = work.end();
    await_agreement(&addresses, &[TOPIC]);
    println!("{moved} moves and 3 kills, {} records", history.check());
    nodes.stop();
}
