//! What clients are told of nodes that not everybody reaches.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use vltava_client::metadata::Metadata;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::Str;

use crate::network::Network;
use crate::nodes::{NODES, Nodes};
use crate::relays::Relays;
use crate::support::binary;
use crate::view::{
    await_agreement, await_leader, await_partition, connect, create_topic, create_topic_with,
    metadata, until,
};

const TOPIC: &str = "told-of";
const PARTITIONS: i32 = 6;

/// The brokers that a node tells of, and who leads which partition.
fn told(address: SocketAddr) -> Option<(BTreeSet<i32>, Vec<i32>)> {
    let metadata = metadata(address).ok()?;
    let topic = metadata.topics.get(&Str::from(TOPIC))?;
    let leaders = topic.partitions.values().map(|partition| partition.leader.unwrap_or(-1));
    Some((metadata.brokers.keys().copied().collect(), leaders.collect()))
}

#[test]
fn clients_are_told_of_nodes_that_theirs_does_not_reach() {
    tell(&Network::new(&NODES, "what a node tells that is cut off"));
}

/// As where there are no network namespaces.
#[test]
fn clients_are_told_of_nodes_behind_relays_that_theirs_does_not_reach() {
    tell(&Network::Relays(Relays::new(&NODES)));
}

/// What had its only replica on a disk that is lost has no leader, also once its node is back with
/// another disk.
#[test]
fn who_has_lost_its_disk_is_not_named_as_the_leader_of_what_was_on_it() {
    let mut nodes = Nodes::start();
    create_topic_with(nodes.address(1), TOPIC, 1, 1, &[]);
    let kept_by = await_leader(&nodes.addresses(), TOPIC, 0, |_| true);
    let others = nodes.others(kept_by);
    await_agreement(&others, &[TOPIC]);
    nodes.kill(kept_by);
    nodes.wipe(kept_by);
    nodes.run(&[kept_by]);
    for address in others {
        // A node that is back is told of.
        let told = until("it is not back", || {
            told(address).filter(|(brokers, _)| brokers.contains(&kept_by))
        });
        assert_eq!(told.1, [-1], "of partition 0");
    }
    nodes.stop();
}

/// The nodes that are named as leaders of what has none.
fn elsewhere(address: SocketAddr) -> Option<BTreeSet<i32>> {
    let request = Metadata::request(Some(&[Str::from(TOPIC)]), false);
    let answer = connect(address).ok()?.call(&request).ok()?;
    let partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
    let without = partitions.filter(|it| it.error_code == ErrorCode::LEADER_NOT_AVAILABLE);
    Some(without.map(|it| it.leader_id).collect())
}

/// Writes with a client that is told of nobody but this node.
fn write_by(node: SocketAddr, directory: &Path) {
    let lines = directory.join("lines");
    fs::write(&lines, "one\ntwo\nthree\n").expect("a file");
    let written = Command::new(binary())
        .args(["produce", TOPIC, "-b", &node.to_string()])
        .stdin(File::open(&lines).expect("the file"))
        .output()
        .expect("vltava starts");
    assert!(written.status.success(), "{written:?}");
}

/// A client that came to a node which is cut off must learn where to go; one whose node lacks a
/// link to another must not take that for dead.
fn tell(network: &Network) {
    let mut nodes = Nodes::places(&[], |node, directory| network.place(node, directory));
    nodes.run_all();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, PARTITIONS);
    await_agreement(&addresses, &[TOPIC]);
    let all = BTreeSet::from(NODES);

    // A link fails between two others than the leader of group 0.
    let controller = metadata(addresses[0]).expect("an answer").controller_id;
    let mut others = NODES.into_iter().filter(|node| *node != controller);
    let (one, other) = (others.next().expect("three"), others.next().expect("three"));
    let leaders = told(addresses[0]).expect("an answer").1;
    let led = leaders.iter().position(|leader| *leader == one).expect("each leads something");
    network.cut(one, other);
    // It has noticed.
    await_partition(&addresses, TOPIC, i32::try_from(led).expect("small"), |said| {
        said.leader == Some(one) && !said.in_sync.contains(&other)
    });
    for node in [one, other] {
        let (brokers, leaders) = told(nodes.address(node)).expect("an answer");
        assert_eq!(brokers, all, "told by {node}, which has lost its link to one of two");
        assert!(leaders.iter().all(|leader| all.contains(leader)), "{node}: {leaders:?}");
    }
    network.heal();
    await_agreement(&addresses, &[TOPIC]);

    network.cut_off(one);
    let reached = [nodes.address(controller), nodes.address(other)];
    for partition in 0..PARTITIONS {
        await_leader(&reached, TOPIC, partition, |leader| leader != one);
    }
    until("the others still tell of a node that is cut off", || {
        let brokers = told(reached[0])?.0;
        (!brokers.contains(&one)).then_some(())
    });
    let (brokers, _) = told(nodes.address(one)).expect("clients still reach it");
    assert_eq!(brokers, all, "told by the node that is cut off");
    // Who asks none but that one is sent to each of the others, sooner or later.
    let mut sent = BTreeSet::new();
    until("who comes to the node that is cut off is not sent elsewhere", || {
        sent.extend(elsewhere(nodes.address(one))?);
        (sent.len() > 1).then_some(())
    });
    assert_eq!(sent, BTreeSet::from([controller, other]));
    write_by(nodes.address(one), &nodes.directory);
    network.heal();
    await_agreement(&addresses, &[TOPIC]);
    nodes.stop();
}
