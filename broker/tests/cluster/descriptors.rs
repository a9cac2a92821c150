//! A node that has fewer descriptors than logs: nothing of it ends, no write is lost, and once it
//! may open more it has all again.

use crate::many::Many;
use crate::nodes::Nodes;
use crate::support::{self, Broker};

/// Whose process it is.
const NODE: i32 = 2;
const LOGS: i32 = 300;
/// What it may open: at rest it has some 30 open, and all logs in use take 600.
const FEW: u32 = 100;

/// What a replica or a shard's votes say that have ended for good. (A log that lacks a descriptor
/// halfway through being cut back does end.)
fn ended(broker: &Broker) -> Vec<String> {
    let said = broker.said();
    let lines = said.lines().filter(|line| line.contains("until a restart"));
    lines.filter(|line| !line.contains("truncate")).map(str::to_owned).collect()
}

/// Whether the node says that it has too few, or has none for who asks.
fn lacks(broker: &Broker) -> bool {
    match support::get(broker.admin, "/ready") {
        Ok((_, reasons)) => reasons.contains("no descriptor"),
        Err(_) => broker.has_process(),
    }
}

#[test]
fn a_node_without_descriptors_ends_nothing() {
    let mut many = Many::start(Nodes::start(), LOGS);
    many.write_all();
    // At its start it writes the files of its votes anew, while it opens its logs.
    many.nodes.kill(NODE);
    let node = many.nodes.node(NODE);
    node.options.wrapper = vec!["prlimit".to_owned(), format!("--nofile={FEW}:{FEW}")];
    node.run();
    let mut was_short = false;
    for producer in 0..3 {
        let left = many.try_to_write(producer);
        println!("written to beside it, but for {left}");
        was_short |= lacks(many.nodes.node(NODE));
        // Others begin to lead, for which it votes.
        many.nodes.kill(1);
        many.nodes.run(&[1]);
    }
    assert!(was_short, "descriptors sufficed");
    let node = many.nodes.node(NODE);
    assert!(ended(node).is_empty(), "{:#?}", ended(node));
    node.options.wrapper.clear();
    many.nodes.stop_node(NODE);
    many.nodes.run_all();
    many.step("whole again", Many::await_whole);
    many.write_all();
    many.step("asked where they end", Many::check_ends);
    many.nodes.stop();
}
