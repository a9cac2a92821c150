//! A majority of a partition's replicas is gone: an operator, or the topic, lets the one that is
//! left lead. What it lacked is lost, and only that; the others take its log when they are back.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_topics::CreatableReplicaAssignment;
use vltava_protocol::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use vltava_protocol::messages::fetch::FetchRequest;
use vltava_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use vltava_protocol::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use vltava_protocol::types::Str;

use crate::nodes::{Nodes, Place, peers, vltava};
use crate::support::wire;
use crate::view::{PATIENCE, await_partition, connect, leader_of, partition, until};

const TOPIC: &str = "thin";
/// Another that is kept there, and allows it from the beginning.
const ALLOWING: &str = "allowing";
/// Where it is kept; the other nodes are there for the cluster's metadata.
const REPLICAS: [i32; 3] = [1, 2, 3];
const ALL: [i32; 5] = [1, 2, 3, 4, 5];
const UNCLEAN: i8 = 1;

/// Five nodes that have founded a cluster together.
fn five() -> Nodes {
    let mut nodes = Nodes::places(&[], Place::local);
    nodes.add(4, &[]);
    nodes.add(5, &[]);
    let all = peers(&nodes.peer_addresses);
    for node in ALL {
        nodes.set(node, &[("peers", &all)]);
    }
    nodes.run_all();
    nodes
}

fn create(address: SocketAddr, name: &str, settings: &[(&str, &str)]) {
    let mut request = wire::create_topic_request(name, 1, settings);
    let broker_ids = REPLICAS.to_vec();
    let assignment = CreatableReplicaAssignment { partition_index: 0, broker_ids };
    (request.topics[0].num_partitions, request.topics[0].replication_factor) = (-1, -1);
    request.topics[0].assignments = vec![assignment];
    until("a topic is not made", || {
        let answer = connect(address).ok()?.call(&request).ok()?;
        answer.topics[0].error_code.is_none().then_some(())
    });
}

/// Writes these values, each acknowledged by a majority; tries again while nobody leads.
fn write(addresses: &[SocketAddr], values: &[&str]) {
    for value in values {
        until("nothing can be written", || {
            let mut link = connect(leader_of(addresses, TOPIC, 0)?).ok()?;
            let answer = wire::produce(&mut link, TOPIC, 0, wire::batch(&[value.as_bytes()]));
            answer.ok()?.error_code.is_none().then_some(())
        });
    }
}

fn read(addresses: &[SocketAddr]) -> Vec<String> {
    until("nothing can be read", || {
        let mut link = connect(leader_of(addresses, TOPIC, 0)?).ok()?;
        let values = wire::read_all(&mut link, TOPIC, 0).ok()?;
        Some(values.iter().map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect())
    })
}

fn allow_unclean(address: SocketAddr) {
    const TOPIC_RESOURCE: i8 = 2;
    let config = AlterableConfig {
        name: Str::from("unclean.leader.election.enable"),
        value: Some(Str::from("true")),
        ..AlterableConfig::default()
    };
    let resource = AlterConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: Str::from(TOPIC),
        configs: vec![config],
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    until("a setting is not taken", || {
        let answer = connect(address).ok()?.call(&request).ok()?;
        answer.responses[0].error_code.is_none().then_some(())
    });
}

fn elect(address: SocketAddr) -> ErrorCode {
    let topic = TopicPartitions { topic: Str::from(TOPIC), partitions: vec![0] };
    let request = ElectLeadersRequest {
        election_type: UNCLEAN,
        topic_partitions: Some(vec![topic]),
        timeout_ms: 20_000,
    };
    until("nobody answers", || {
        let mut link = connect(address).ok()?;
        link.answer_within(PATIENCE).ok()?;
        let answer = link.call(&request).ok()?;
        assert!(answer.error_code.is_none(), "{:?}", answer.error_code);
        Some(answer.replica_election_results[0].partition_result[0].error_code)
    })
}

/// Brings the partition where node 1 alone is left of its replicas, and lacks what the others had
/// acknowledged: values `b`.
fn leave_one_behind(nodes: &mut Nodes) -> i32 {
    let addresses = nodes.addresses();
    await_partition(&addresses, TOPIC, 0, |it| it.in_sync.len() == 3);
    write(&addresses, &["a1", "a2", "a3"]);
    nodes.kill(1);
    write(&addresses[1..], &["b1", "b2"]);
    let before = partition(&addresses[1..], TOPIC, 0).expect("it is known");
    nodes.kill(2);
    nodes.kill(3);
    nodes.run(&[1]);
    before.leader_epoch
}

/// What a consumer learns that has read `b` at this epoch.
fn look_at_epochs(address: SocketAddr, epoch: i32) {
    let asked =
        OffsetForLeaderPartition { partition: 0, current_leader_epoch: -1, leader_epoch: epoch };
    let topic = OffsetForLeaderTopic { topic: Str::from(TOPIC), partitions: vec![asked] };
    let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] };
    let mut link = connect(address).expect("a connection");
    let answer = link.call(&request).expect("an answer");
    let found = &answer.topics[0].partitions[0];
    assert_eq!((found.error_code, found.end_offset), (ErrorCode::NONE, 3), "{found:?}");
    assert!(found.leader_epoch <= epoch, "{found:?}");

    let mut request = wire::fetch_request(TOPIC, 0, 5);
    request.topics[0].partitions[0].last_fetched_epoch = epoch;
    link.send_at(&request, 12).expect("it is sent");
    let answer = link.receive::<FetchRequest>().expect("an answer");
    let diverging = &answer.responses[0].partitions[0].diverging_epoch;
    assert_eq!(diverging.end_offset, 3, "{answer:?}");
}

#[test]
fn an_operator_has_the_replica_lead_that_is_left() {
    let mut nodes = five();
    let addresses = nodes.addresses();
    create(addresses[3], TOPIC, &[]);
    await_partition(&addresses[3..4], TOPIC, 0, |it| it.in_sync.len() == 3);
    assert_eq!(elect(addresses[3]), ErrorCode::ELECTION_NOT_NEEDED);
    let epoch = leave_one_behind(&mut nodes);
    let up = [nodes.address(1), nodes.address(4), nodes.address(5)];
    await_partition(&up, TOPIC, 0, |it| it.leader.is_none());
    assert_eq!(elect(up[1]), ErrorCode::NONE);
    let led = await_partition(&up, TOPIC, 0, |it| it.leader == Some(1));
    assert_eq!((led.in_sync, led.replicas), (vec![1], REPLICAS.to_vec()));
    assert_eq!(read(&up), ["a1", "a2", "a3"]);
    look_at_epochs(up[0], epoch);
    write(&up, &["c1", "c2", "c3"]);

    // Those that come back give up what only they had, one after the other.
    nodes.run(&[3]);
    await_partition(&addresses, TOPIC, 0, |it| it.in_sync.len() == 2);
    nodes.run(&[2]);
    await_partition(&addresses, TOPIC, 0, |it| it.in_sync.len() == 3);
    for node in [2, 3] {
        let said = nodes.node(node).errors();
        assert!(said.contains("are given up, also such as were committed"), "{said}");
    }
    let said = nodes.node(1).errors();
    assert!(said.contains("this replica was made leader without a majority"), "{said}");

    // It is a group as any other again: whoever goes, nothing is lost.
    until("the group does not become what it was", || {
        let status = vltava(&["cluster", "status", "--json", "-b", &nodes.bootstrap()]);
        String::from_utf8_lossy(&status.stdout).contains(r#""moving":[]"#).then_some(())
    });
    nodes.kill(1);
    write(&addresses[1..], &["d1"]);
    assert_eq!(read(&addresses[1..]), ["a1", "a2", "a3", "c1", "c2", "c3", "d1"]);
    nodes.run(&[1]);
    await_partition(&addresses, TOPIC, 0, |it| it.in_sync.len() == 3);
    nodes.stop();
}

/// As the topic allows it; and as long as it does not, nothing happens by itself.
#[test]
fn a_topic_lets_the_replica_lead_that_is_left() {
    let mut nodes = five();
    let addresses = nodes.addresses();
    create(addresses[3], TOPIC, &[("min.insync.replicas", "2")]);
    create(addresses[3], ALLOWING, &[("unclean.leader.election.enable", "true")]);
    await_partition(&addresses, ALLOWING, 0, |it| it.in_sync.len() == 3);
    leave_one_behind(&mut nodes);
    let up = [nodes.address(1), nodes.address(4), nodes.address(5)];
    await_partition(&up, ALLOWING, 0, |it| it.leader == Some(1));
    // Both were due at the same look, and there are more.
    thread::sleep(Duration::from_secs(2));
    assert_eq!(partition(&up, TOPIC, 0).expect("it is known").leader, None);
    allow_unclean(up[0]);
    await_partition(&up, TOPIC, 0, |it| it.leader == Some(1));
    assert_eq!(read(&up), ["a1", "a2", "a3"]);
    // What two are to have cannot be written while there is one.
    let mut link = connect(nodes.address(1)).expect("a connection");
    let answer = wire::produce(&mut link, TOPIC, 0, wire::batch(&[b"c1"])).expect("an answer");
    assert_eq!(answer.error_code, ErrorCode::NOT_ENOUGH_REPLICAS);
    nodes.run(&[2]);
    write(&up, &["c1"]);
    nodes.run(&[3]);
    await_partition(&addresses, TOPIC, 0, |it| it.in_sync.len() == 3);
    assert_eq!(read(&addresses), ["a1", "a2", "a3", "c1"]);
    nodes.stop();
}
