//! A cluster forms, its nodes tell the same of it, and whoever does not belong to it stays outside.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::fetch::FetchRequest;
use vltava_protocol::messages::produce::ProduceRequest;
use vltava_protocol::types::Str;

use crate::nodes::{NODES, Nodes, Place, free_address, options, peers};
use crate::support::wire::{self, FETCH_VERSION, PRODUCE_VERSION};
use crate::support::{Broker, Options};
use crate::view::{PATIENCE, await_agreement, connect, create_topic, leader_of, metadata, until};

#[test]
fn nodes_form_a_cluster_and_tell_the_same_of_it() {
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    // Each takes what the controller decides.
    let names = ["made-by-1", "made-by-2", "made-by-3"];
    for (name, address) in names.iter().zip(&addresses) {
        create_topic(*address, name, 4);
    }
    let told = await_agreement(&addresses, &names);
    assert_eq!(told.brokers.keys().copied().collect::<Vec<_>>(), NODES);
    assert!(NODES.contains(&told.controller_id), "controller {}", told.controller_id);
    assert!(told.cluster_id.is_some(), "a cluster without an id");
    for (broker, address) in told.brokers.values().zip(&addresses) {
        assert_eq!(format!("{}:{}", broker.host, broker.port), address.to_string());
    }
    for topic in names.map(|name| &told.topics[&Str::from(name)]) {
        assert_eq!(topic.partitions.len(), 4);
        for partition in topic.partitions.values() {
            assert_eq!(partition.replicas.len(), 3, "{partition:?}");
            assert!(partition.offline.is_empty(), "{partition:?}");
        }
    }
    // By who should lead it, if nobody was late.
    let partitions =
        names.iter().flat_map(|name| told.topics[&Str::from(*name)].partitions.values());
    let preferred = partitions.filter(|it| it.leader == it.replicas.first().copied()).count();
    assert!(preferred >= 8, "only {preferred} of 12 partitions are led by their first replica");
    // Written through the leader that any of them names.
    for (round, address) in (0..).zip(&addresses) {
        let leader = leader_of(&[*address], names[0], 0).expect("a leader");
        let mut link = connect(leader).expect("a connection");
        let batch = wire::batch(&[b"one"]);
        let answer = wire::produce(&mut link, names[0], 0, batch).expect("an answer");
        assert!(answer.error_code.is_none(), "{:?}", answer.error_code);
        assert_eq!(answer.base_offset, round);
    }
    // Deleted for all, by one that need not be the controller.
    let other = NODES.into_iter().find(|node| *node != told.controller_id).expect("another");
    let mut link = connect(nodes.address(other)).expect("a connection");
    let error = wire::delete_topic(&mut link, names[1]).expect("an answer");
    assert!(error.is_none(), "{error:?}");
    until("a deleted topic is still told of", || {
        let gone = |address: &SocketAddr| {
            Some(!metadata(*address).ok()?.topics.contains_key(&Str::from(names[1])))
        };
        addresses.iter().all(|address| gone(address) == Some(true)).then_some(())
    });
    // An orderly restart of all finds the cluster that was.
    NODES.iter().for_each(|node| nodes.stop_node(*node));
    nodes.run_all();
    let again = await_agreement(&addresses, &[names[0], names[2]]);
    assert_eq!((again.cluster_id, again.brokers), (told.cluster_id, told.brokers));
    assert_eq!(again.topics.len(), 2);
    // Who stops with all others waits for nobody to take over: that would be 5 s.
    nodes.stop_all();
    for (node, broker) in &nodes.brokers {
        let said = broker.errors();
        let last = said.lines().rfind(|line| line.contains("leaders are handed over"));
        let last = last.expect("it says what it has handed over");
        let took = last.rsplit("time=").next().unwrap_or_default();
        assert!(!took.starts_with("5.") || took.ends_with("ms"), "node {node}: {last}");
    }
}

/// One file for all names the nodes; each finds its own address there by its number.
#[test]
fn nodes_form_a_cluster_by_a_file_that_names_them() {
    let mut nodes = Nodes::places(&[], Place::local);
    let file = nodes.directory.join("server.properties");
    let text = format!("# The nodes.\npeers = {}\n", peers(&nodes.peer_addresses));
    fs::write(&file, text).expect("a file of settings");
    for (node, number) in NODES.into_iter().zip(["1", "2", "3"]) {
        let options = &mut nodes.node(node).options;
        options.settings.retain(|(name, _)| !["node.id", "peers"].contains(name));
        options.arguments.extend(["--node-id", number]);
        options.config = Some(file.clone());
    }
    nodes.run_all();
    let told = await_agreement(&nodes.addresses(), &[]);
    assert_eq!(told.brokers.keys().copied().collect::<Vec<_>>(), NODES);
    nodes.stop();
}

/// Clients of all ages are told that another leads, and keep their connections; those who can read
/// it are told who.
#[test]
fn who_asks_the_wrong_node_is_told_so_in_all_versions() {
    const TOPIC: &str = "elsewhere";
    let nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, 1);
    await_agreement(&addresses, &[TOPIC]);
    let leader = leader_of(&addresses, TOPIC, 0).expect("a leader");
    let other = addresses.iter().find(|address| **address != leader).expect("another");
    let mut link = connect(*other).expect("a connection");
    for version in 3..=PRODUCE_VERSION {
        let request = wire::produce_request(TOPIC, 0, -1, wire::batch(&[b"x"]));
        link.send_at(&request, version).expect("sent");
        let answer = link.receive::<ProduceRequest>().expect("an answer");
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER, "Produce {version}");
        assert_eq!(answer.node_endpoints.len(), usize::from(version >= 10), "Produce {version}");
    }
    for version in 4..=FETCH_VERSION {
        link.send_at(&wire::fetch_request(TOPIC, 0, 0), version).expect("sent");
        let answer = link.receive::<FetchRequest>().expect("an answer");
        let partition = &answer.responses[0].partitions[0];
        // From 11 on whoever follows is read from, too (KIP-392).
        let told = if version < 11 { ErrorCode::NOT_LEADER_OR_FOLLOWER } else { ErrorCode::NONE };
        assert_eq!(partition.error_code, told, "Fetch {version}");
    }
    nodes.stop();
}

/// One that is not running, with a directory of its own below that of the cluster.
fn stranger(nodes: &Nodes, name: &str, options: Options) -> Broker {
    let data = nodes.directory.join(name);
    fs::create_dir(&data).expect("a directory for the data");
    Broker::new(options, &data)
}

/// Waits until the process has said something of this kind.
fn says(broker: &Broker, words: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    let has_said = |line: &str| words.iter().all(|word| line.contains(word));
    while !broker.errors().lines().any(has_said) {
        assert!(Instant::now() < deadline, "not said: {words:?}; but:\n{}", broker.said());
        thread::sleep(Duration::from_millis(10));
    }
}

/// What the nodes' peers are, with another address for one of them.
fn peers_with_another(nodes: &Nodes, node: i32) -> String {
    let mut addresses = nodes.peer_addresses.clone();
    let own = addresses.iter_mut().find(|(id, _)| *id == node).expect("one of the nodes");
    own.1 = free_address();
    peers(&addresses)
}

#[test]
fn who_does_not_belong_to_the_cluster_stays_outside() {
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic(addresses[0], "ours", 2);
    let told = await_agreement(&addresses, &["ours"]);

    // Peers that do not name the node itself; a directory of another node.
    let mut unnamed = stranger(&nodes, "unnamed", options(4, &peers(&nodes.peer_addresses)));
    let status = unnamed.try_run().expect_err("it started");
    assert_eq!(status.code(), Some(2), "{}", unnamed.errors());
    assert!(unnamed.errors().contains("this node, 4 by node.id, is not among them"));
    nodes.stop_node(2);
    nodes.node(2).options = options(1, &peers_with_another(&nodes, 1));
    let status = nodes.node(2).try_run().expect_err("it started");
    assert!(!status.success() && status.code() != Some(101), "{status}");
    says(nodes.node(2), &["the data directory belongs to node 2, and node.id is 1"]);
    // One of them that is not told of the others, and would decide without them.
    nodes.node(2).options = options(2, "");
    nodes.node(2).options.settings.retain(|(name, _)| *name != "peers");
    nodes.node(2).try_run().expect_err("it started alone");
    says(nodes.node(2), &["that of a node of cluster", "which has others: name them"]);
    nodes.node(2).options = options(2, &peers(&nodes.peer_addresses));
    nodes.run_all();
    await_agreement(&addresses, &["ours"]);

    // A second node 2, with a disk of its own.
    let mut second = stranger(&nodes, "second", options(2, &peers_with_another(&nodes, 2)));
    let (ready, _errors) = second.begin();
    says(&second, &["no session with a node", "node 2 runs with disk", "another says it is"]);
    says(nodes.node(1), &["refused a node", "node 2 runs with disk"]);
    says(nodes.node(3), &["refused a node", "node 2 runs with disk"]);
    assert!(ready.try_recv().is_err(), "it serves:\n{}", second.said());
    assert!(second.stop().success(), "{}", second.said());

    // A node whose directory is of another cluster, in the place of one that is away.
    let mut other = stranger(&nodes, "other", Options::default());
    other.options.settings.push(("node.id", "3".to_owned()));
    other.run();
    assert!(other.stop().success());
    nodes.kill(3);
    other.options = options(3, &peers(&nodes.peer_addresses));
    other.begin();
    says(&other, &["no session with a node", "belongs to cluster"]);
    says(nodes.node(1), &["refused a node", "belongs to cluster"]);
    says(nodes.node(2), &["refused a node", "belongs to cluster"]);
    assert!(other.stop().success(), "{}", other.said());

    // None of them has changed anything.
    nodes.run_all();
    let after = await_agreement(&addresses, &["ours"]);
    assert_eq!((after.cluster_id, after.brokers), (told.cluster_id, told.brokers));
    nodes.stop();
}

/// A data directory that was copied runs twice: who was started first is told so, once those that
/// it dials have heard of the other, and is one of them again when the other is stopped.
#[test]
fn of_two_with_one_disk_the_earlier_is_told_to_stop() {
    let mut nodes = Nodes::start();
    create_topic(nodes.address(1), "ours", 2);
    await_agreement(&nodes.addresses(), &["ours"]);
    nodes.stop_node(2);
    let data = nodes.directory.join("copy");
    let copied = Command::new("cp").arg("-a").args([&nodes.node(2).data, &data]).status();
    assert!(copied.expect("cp").success());
    nodes.run_all();
    await_agreement(&nodes.addresses(), &["ours"]);

    let mut copy = Broker::new(options(2, &peers_with_another(&nodes, 2)), &data);
    copy.begin();
    let words = ["no session with a node", "was a data directory copied? Stop one of the two"];
    says(nodes.node(2), &words);
    says(nodes.node(3), &["refused a node", words[1]]);
    assert!(nodes.node(2).is_running(), "it has ended by itself");
    assert!(copy.stop().success(), "{}", copy.said());
    await_agreement(&nodes.addresses(), &["ours"]);
    nodes.stop();
}

/// Another node's name may mean nothing as a node starts.
#[test]
fn a_name_that_means_nothing_keeps_no_node_from_starting() {
    let mut nodes = Nodes::start();
    create_topic(nodes.address(1), "ours", 2);
    await_agreement(&nodes.addresses(), &["ours"]);
    nodes.stop_node(2);
    let third = nodes.peer_addresses.iter().find(|(node, _)| *node == 3);
    let third = third.map(|(node, address)| format!("{node}@{address}")).expect("node 3");
    let nameless = peers(&nodes.peer_addresses).replace(&third, "3@nosuch.invalid:7641");
    nodes.node(2).options = options(2, &nameless);
    nodes.run_all();
    says(nodes.node(2), &["a node's address is not found", "nosuch.invalid"]);
    await_agreement(&nodes.addresses(), &["ours"]);
    nodes.stop();
}
