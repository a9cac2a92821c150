//! Nodes come, are drained, go, and come back with an empty disk, while idempotent producers,
//! readers and a group are at work: nothing acknowledged is lost, and nobody sees an error that is
//! not to be tried again.

use std::net::SocketAddr;
use std::process::Output;
use std::thread;
use std::time::Duration;

use vltava_client::metadata::Partition;
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::types::Str;

use crate::nodes::{NODES, Nodes, Place, peers, seed, vltava};
use crate::producer::Random;
use crate::view::{
    await_agreement, await_leader, await_partition, await_replicas, connect, create_topic,
    create_topic_with, metadata_of_any, until,
};
use crate::work::{PARTITIONS, Work};

const TOPIC: &str = "moved";
const CONSUMER_OFFSETS: &str = "__consumer_offsets";

/// `vltava cluster` with these arguments, asked of any of the nodes.
pub fn cluster(nodes: &Nodes, arguments: &[&str]) -> Output {
    let bootstrap = nodes.bootstrap();
    let mut all = vec!["cluster"];
    all.extend(arguments);
    all.extend(["--bootstrap", &bootstrap]);
    vltava(&all)
}

pub fn done(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
    said
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "it was not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn status(nodes: &Nodes) -> String {
    let output = cluster(nodes, &["status", "--json"]);
    done(&output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until the status has all of these words.
pub fn await_status(nodes: &Nodes, words: &[&str]) {
    until(&format!("the status never had {words:?}"), || {
        let status = status(nodes);
        words.iter().all(|word| status.contains(word)).then_some(())
    });
}

/// How `cluster add` names a node.
pub fn named(nodes: &Nodes, node: i32) -> String {
    let known = nodes.peer_addresses.iter().find(|(it, _)| *it == node).expect("it was added");
    format!("{node}@{}", known.1)
}

/// Has a node know only itself and one other.
pub fn knows_one_other(nodes: &mut Nodes, node: i32, other: i32) {
    let addresses = nodes.peer_addresses.iter().filter(|(it, _)| [node, other].contains(it));
    let addresses: Vec<_> = addresses.copied().collect();
    nodes.set(node, &[("peers", &peers(&addresses))]);
}

/// Three nodes become four, and three again, with one of those that founded it gone. Two of these
/// find each other by what their logs say.
#[test]
fn nodes_come_and_go_under_load() {
    let random = Random(seed());
    let mut nodes = Nodes::start();
    create_topic(nodes.address(1), TOPIC, PARTITIONS);
    nodes.add(4, &[]);
    knows_one_other(&mut nodes, 4, 2);
    let work = Work::begin(nodes.by_number(), TOPIC, &random);
    work.await_progress();

    let name = named(&nodes, 4);
    done(&cluster(&nodes, &["add", "--no-wait", &name]));
    await_status(&nodes, &[r#"{"id":4,"state":"expected","present":false"#]);
    nodes.run(&[4]);
    let said = done(&cluster(&nodes, &["add", &name]));
    assert!(said.contains("node 4 has joined"), "{said}");
    await_status(&nodes, &[r#"{"id":4,"state":"there","present":true"#, r#""learners":[4]"#]);

    let said = done(&cluster(&nodes, &["remove", "3"]));
    assert!(said.contains("node 3 has left the cluster"), "{said}");
    assert!(said.contains("node 3 leads ") || said.contains("node 3 keeps "), "{said}");
    let left = nodes.others(3);
    (0..PARTITIONS).for_each(|it| await_replicas_of(&left, it, &[1, 2, 4]));
    await_status(&nodes, &[r#""voters":[1,2,4],"learners":[]"#]);
    let status = status(&nodes);
    assert!(!status.contains(r#""id":3"#), "{status}");
    work.await_progress();
    nodes.stop_node(3);
    let history = work.end();
    assert!(history.check() > 100, "nothing was written");

    // Of what they were told at their starts, 1 knows 2 and 3, and 4 knows 2: all but each other.
    nodes.kill_all();
    nodes.run(&[1, 4]);
    for partition in 0..PARTITIONS {
        await_leader(&[nodes.address(1)], TOPIC, partition, |leader| leader != 2);
    }
    nodes.stop();
}

/// A node that came later gets its part of what there is, by one command; said again it has nothing
/// to do. New topics go only to nodes that are there.
#[test]
fn what_there_is_is_spread_onto_a_new_node() {
    let random = Random(seed());
    let mut nodes = Nodes::start();
    create_topic(nodes.address(1), TOPIC, PARTITIONS);
    let work = Work::begin(nodes.by_number(), TOPIC, &random);
    work.await_progress();
    nodes.add(4, &[]);
    done(&cluster(&nodes, &["add", "--no-wait", &named(&nodes, 4)]));
    nodes.run(&[4]);
    done(&cluster(&nodes, &["add", &named(&nodes, 4)]));

    let output = cluster(&nodes, &["balance", "--dry-run"]);
    done(&output);
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(plan.contains("partitions would change") && plan.contains("moved-"), "{plan}");
    let said = done(&cluster(&nodes, &["balance", "--at-a-time", "2"]));
    assert!(said.contains("partitions have moved"), "{said}");
    work.await_progress();
    let metadata = metadata_of_any(&nodes.addresses()).expect("somebody answers");
    let partitions = metadata.topics.values().flat_map(|topic| topic.partitions.values());
    let replicas: Vec<i32> = partitions.flat_map(|it| it.replicas.clone()).collect();
    let counts = [1, 2, 3, 4].map(|node| replicas.iter().filter(|id| **id == node).count());
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= 1, "{counts:?}");
    let said = done(&cluster(&nodes, &["balance"]));
    assert!(said.contains("spread evenly"), "{said}");

    nodes.kill(2);
    let left = nodes.others(2);
    until("node 2 is still there", || {
        let known = metadata_of_any(&left)?;
        (!known.brokers.contains_key(&2)).then_some(())
    });
    create_topic_with(left[0], "later", 6, 3, &[]);
    for number in 0..6 {
        await_partition(&left, "later", number, |it| {
            it.replicas.len() == 3 && !it.replicas.contains(&2)
        });
    }
    nodes.run(&[2]);
    assert!(work.end().check() > 100, "nothing was written");
    nodes.stop();
}

/// Waits until these keep the partition, whoever of them is caught up: others write.
pub fn await_replicas_of(addresses: &[SocketAddr], partition: i32, replicas: &[i32]) {
    await_partition(addresses, TOPIC, partition, |said| {
        let mut nodes = said.replicas.clone();
        nodes.sort_unstable();
        nodes == replicas && said.leader.is_some()
    });
}

/// What a node kept is copied to it again, and it votes again: the cluster then survives the loss
/// of another.
#[test]
fn a_node_comes_back_with_an_empty_disk() {
    let random = Random(seed());
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, PARTITIONS);
    await_agreement(&addresses, &[TOPIC]);
    // Nobody reads from the node itself: as in Kafka, a follower that has less than its reader has
    // seen says that it is out of range, and sends it back to the leader.
    let mut read_from = nodes.by_number();
    read_from.remove(&2);
    let work = Work::begin(read_from, TOPIC, &random);
    work.await_progress();
    work.await_group();

    nodes.kill(2);
    nodes.wipe(2);
    nodes.node(2).run();
    await_status(&nodes, &[r#""voters":[1,2,3],"learners":[]"#, r#""moving":[]"#]);
    work.await_whole();
    work.await_progress();
    nodes.kill(1);
    work.await_takeover(1);
    let history = work.end();
    nodes.run_all();
    assert!(history.check() > 100, "nothing was written");
    await_agreement(&addresses, &[TOPIC]);
    nodes.stop();
}

/// A drained node leads nothing and can be stopped; one that is stopped is drained first. The
/// others take both for what they are.
#[test]
fn a_node_that_stops_hands_over_first() {
    let random = Random(seed());
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, PARTITIONS);
    await_agreement(&addresses, &[TOPIC]);
    let work = Work::begin(nodes.by_number(), TOPIC, &random);
    work.await_progress();

    done(&cluster(&nodes, &["drain", "1"]));
    await_status(&nodes, &[r#"{"id":1,"state":"draining","present":true,"leads":0"#]);
    work.await_progress();
    // It stays so until it is started again, or taken back.
    thread::sleep(Duration::from_millis(500));
    assert_eq!(work.led_by(1), [] as [i32; 0]);
    nodes.stop_node(1);
    work.await_progress();
    nodes.node(1).run();
    await_status(&nodes, &[r#"{"id":1,"state":"there","present":true"#]);
    done(&cluster(&nodes, &["drain", "--undo", "1"]));

    let node = work.victim(&mut vec![1]);
    work.await_whole();
    nodes.stop_node(node);
    let said = nodes.node(node).errors();
    assert!(said.contains("leaders are handed over"), "{said}");
    work.await_takeover(node);
    let other = if node == 2 { 3 } else { 2 };
    let said = nodes.node(other).errors();
    let goodbye = format!("ended: it stops node={node} ");
    let is_told = |line: &str| line.contains("INFO") && line.contains(&goodbye);
    assert!(said.lines().any(is_told), "{said}");
    let is_alarm =
        |line: &str| line.contains("WARN") && line.contains("a session with a node ended");
    assert!(!said.lines().any(is_alarm), "{said}");
    let history = work.end();
    nodes.run_all();
    assert!(history.check() > 100, "nothing was written");
    nodes.stop();
}

/// Who should rather lead, and was away, leads again without anybody's asking.
#[test]
fn leaders_go_back_by_themselves() {
    let mut nodes = Nodes::start_with(&[("leader.imbalance.check.interval.seconds", "1")]);
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, PARTITIONS);
    await_agreement(&addresses, &[TOPIC]);
    nodes.stop_node(1);
    for number in 0..PARTITIONS {
        await_leader(&nodes.others(1), TOPIC, number, |leader| leader != 1);
    }
    nodes.run(&[1]);
    for number in 0..PARTITIONS {
        let is_first = |it: &Partition| it.leader == it.replicas.first().copied();
        await_partition(&addresses, TOPIC, number, is_first);
    }
    nodes.stop();
}

/// What a node kept that stays away is copied to another, which gets its vote, too.
#[test]
fn a_node_that_stays_away_is_made_up_for() {
    let random = Random(seed());
    let settings = [("node.replace.after.ms", "1500")];
    let mut nodes = Nodes::start_with(&settings);
    create_topic(nodes.address(1), TOPIC, PARTITIONS);
    nodes.add(4, &settings);
    done(&cluster(&nodes, &["add", "--no-wait", &named(&nodes, 4)]));
    nodes.run(&[4]);
    await_status(&nodes, &[r#""voters":[1,2,3],"learners":[4]"#]);
    let work = Work::begin(nodes.by_number(), TOPIC, &random);
    work.await_progress();
    nodes.kill(2);
    let left = nodes.others(2);
    (0..PARTITIONS).for_each(|it| await_replicas_of(&left, it, &[1, 3, 4]));
    await_status(&nodes, &[r#""voters":[1,3,4],"learners":[2]"#, r#""moving":[]"#]);
    // One more may go now, and two of three are still there.
    nodes.kill(1);
    work.await_takeover(1);
    let history = work.end();
    nodes.run_all();
    assert!(history.check() > 100, "nothing was written");
    nodes.stop();
}

/// A node stands still while another comes and one of its own time leaves: it knows nothing of the
/// one that came, and lets it in all the same, for without it there is no majority.
#[test]
fn who_stood_still_lets_in_who_came_meanwhile() {
    let random = Random(seed());
    let mut nodes = Nodes::start();
    create_topic(nodes.address(1), TOPIC, PARTITIONS);
    await_agreement(&nodes.addresses(), &[TOPIC]);
    nodes.pause(3);
    // What is said to it before that, it hears when it goes on.
    await_status(&nodes, &[r#"{"id":3,"state":"there","present":false"#]);
    nodes.add(4, &[]);
    done(&cluster(&nodes, &["add", "--no-wait", &named(&nodes, 4)]));
    nodes.run(&[4]);
    let said = done(&cluster(&nodes, &["remove", "1"]));
    assert!(said.contains("node 1 has left the cluster"), "{said}");
    await_status(&nodes, &[r#""voters":[2,3,4],"learners":[]"#]);
    nodes.stop_node(1);
    nodes.kill(2);
    nodes.resume(3);
    for partition in 0..PARTITIONS {
        await_leader(&[nodes.address(4)], TOPIC, partition, |leader| leader > 2);
    }
    let by_number = nodes.by_number().into_iter().filter(|(node, _)| *node > 2).collect();
    let work = Work::begin(by_number, TOPIC, &random);
    work.await_progress();
    let history = work.end();
    nodes.run(&[2]);
    assert!(history.check() > 0, "nothing was written");
    nodes.stop();
}

/// One node, then two, then three: what groups commit has as many replicas as there are nodes.
#[test]
fn a_cluster_of_one_grows() {
    let mut nodes = Nodes::places(&[], Place::local);
    for node in NODES {
        knows_one_other(&mut nodes, node, 1);
    }
    nodes.run(&[1]);
    let first = [nodes.address(1)];
    create_topic_with(first[0], "one", 1, 1, &[]);
    until("there is no coordinator", || {
        let mut link = connect(first[0]).ok()?;
        let (key_type, coordinator_keys) = (0, vec![Str::from("group")]);
        let request = FindCoordinatorRequest { key_type, coordinator_keys, ..<_>::default() };
        let answer = link.call(&request).ok()?;
        answer.coordinators.first()?.error_code.is_none().then_some(())
    });
    await_replicas(&first, CONSUMER_OFFSETS, 0, &[1]);
    for node in [2, 3] {
        done(&cluster(&nodes, &["add", "--no-wait", &named(&nodes, node)]));
        nodes.run(&[node]);
    }
    await_status(&nodes, &[r#""voters":[1,2,3],"learners":[]"#]);
    (0..3).for_each(|it| await_replicas(&first, CONSUMER_OFFSETS, it, &NODES));
    await_replicas(&first, "one", 0, &[1]);
    // None of them is needed more than another.
    nodes.stop_node(1);
    await_leader(&nodes.others(1), CONSUMER_OFFSETS, 0, |leader| leader != 1);
    // It founded the cluster alone, and is alone no more.
    let settings = &mut nodes.node(1).options.settings;
    let place = settings.iter().position(|(name, _)| *name == "peers").expect("its peers");
    let named = settings.remove(place);
    nodes.node(1).try_run().expect_err("it started without the others");
    nodes.node(1).options.settings.push(named);
    nodes.run(&[1]);
    nodes.stop();
}

/// Who was not added stays outside, and both sides say what is to be done; what makes no sense is
/// refused.
#[test]
fn nodes_that_nobody_wants_are_refused() {
    let mut nodes = Nodes::start();
    create_topic_with(nodes.address(1), "three", 1, 3, &[]);
    nodes.add(4, &[]);
    let (ready, _errors) = nodes.node(4).begin();
    for node in [4, 1, 2, 3] {
        until(&format!("node {node} does not say that 4 was not added"), || {
            let said = nodes.node(node).errors();
            said.contains("to add it, run: vltava cluster add 4@HOST:PORT").then_some(())
        });
    }
    assert!(ready.try_recv().is_err(), "it serves");
    nodes.kill(4);

    let said = refused(&cluster(&nodes, &["remove", "3"]));
    assert!(said.contains("topic three has 3 replicas, and 2 nodes would be left"), "{said}");
    assert!(said.contains("--fewer-replicas"), "{said}");
    let said = refused(&cluster(&nodes, &["drain", "9"]));
    assert!(said.contains("there is no node 9"), "{said}");
    let said = done(&cluster(&nodes, &["remove", "9"]));
    assert!(said.contains("there is no node 9 in the cluster: nothing is to be done"), "{said}");
    let said = refused(&cluster(&nodes, &["add", "2@127.0.0.1:1"]));
    assert!(said.contains("node 2 is in the cluster already"), "{said}");
    // One that was added and never came is taken back.
    done(&cluster(&nodes, &["add", "--no-wait", "5@127.0.0.1:9"]));
    await_status(&nodes, &[r#"{"id":5,"state":"expected""#]);
    done(&cluster(&nodes, &["remove", "5"]));
    assert!(!status(&nodes).contains(r#""id":5"#));

    // Fewer replicas, where that is said.
    done(&cluster(&nodes, &["remove", "--fewer-replicas", "3"]));
    await_replicas(&nodes.others(3), "three", 0, &[1, 2]);
    nodes.stop_node(3);
    let _gone = nodes.forget(3);
    let _never = nodes.forget(4);
    nodes.stop();
}
