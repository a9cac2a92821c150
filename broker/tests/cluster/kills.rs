//! Nothing acknowledged is lost, doubled or moved while nodes are killed: the one that leads most,
//! each in turn, and at the end all at once.

use std::thread;
use std::time::{Duration, Instant};

use crate::nodes::{NODES, Nodes, seed, variable};
use crate::producer::Random;
use crate::view::{await_agreement, create_topic};
use crate::work::{PARTITIONS, Work};

const TOPIC: &str = "killed";
/// Nodes notice after 300 ms that they hear nothing of another.
const UNNOTICED: Duration = Duration::from_millis(200);

#[test]
fn nothing_acknowledged_is_lost_while_nodes_are_killed() {
    let rounds = variable("VLTAVA_CLUSTER_ROUNDS", 3);
    let mut random = Random(seed());
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, PARTITIONS);
    await_agreement(&addresses, &[TOPIC]);
    let work = Work::begin(nodes.by_number(), TOPIC, &random);
    work.await_progress();

    let (mut had, mut longest) = (Vec::new(), Duration::ZERO);
    for round in 0..rounds {
        let node = work.victim(&mut had);
        assert!(nodes.node(node).is_running(), "it ended by itself");
        let began = Instant::now();
        nodes.kill(node);
        work.await_takeover(node);
        longest = longest.max(began.elapsed());
        println!("round {round}: node {node} killed, taken over in {:?}", began.elapsed());
        nodes.node(node).run();
        // Sometimes the next one dies while this one has not caught up: two are still a majority.
        if round < 3 || random.below(2) == 0 {
            work.await_whole();
        }
        work.await_progress();
    }
    lose_the_leader_alone(&mut nodes, &work);
    work.await_group();
    let history = work.end();
    // What is acknowledged does not need a node that has lived since.
    await_agreement(&addresses, &[TOPIC]);
    nodes.kill_all();
    nodes.run_all();
    let records = history.check();
    println!("cluster: {rounds} kills, {records} records; taken over in {longest:?} at most");
    assert!(records > rounds * 100, "only {records} records in {rounds} rounds show nothing");
    await_agreement(&addresses, &[TOPIC]);
    nodes.stop();
}

/// The others hear nothing of a leader for a while, and have lost what was on its way when they
/// come back without it: nothing that only it had was acknowledged, or shown to a reader.
fn lose_the_leader_alone(nodes: &mut Nodes, work: &Work) {
    let leader = work.victim(&mut Vec::new());
    let others: Vec<i32> = NODES.into_iter().filter(|node| *node != leader).collect();
    others.iter().for_each(|node| nodes.pause(*node));
    // A leader takes writes until it notices.
    thread::sleep(UNNOTICED);
    nodes.kill_all();
    nodes.run(&others);
    work.await_takeover(leader);
    nodes.run_all();
    work.await_whole();
    work.await_progress();
}
