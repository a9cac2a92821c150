//! What clients are told while somebody is away: the preferred leader, the controller, a group's
//! coordinator. And brokers that are gone for good (UnregisterBroker).

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use vltava_client::blocking::Link;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use vltava_protocol::messages::describe_quorum::{DescribeQuorumRequest, PartitionData, TopicData};
use vltava_protocol::messages::elect_leaders::{ElectLeadersRequest, ReplicaElectionResult};
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use vltava_protocol::messages::init_producer_id::InitProducerIdRequest;
use vltava_protocol::messages::unregister_broker::UnregisterBrokerRequest;
use vltava_protocol::types::Str;

use crate::nodes::{Nodes, vltava};
use crate::support::wire;
use crate::view::{
    PATIENCE, await_leader, await_partition, connect, create_topic, metadata, metadata_of_any,
    until,
};

const TOPIC: &str = "left";
/// A third of them prefers each node.
const PARTITIONS: i32 = 3;
const TOPICS: i32 = 8;

/// A connection on which answers may take as long as a client waits.
fn patient(address: SocketAddr) -> Link {
    let mut link = connect(address).expect("it is there");
    link.answer_within(PATIENCE).expect("a timeout");
    link
}

fn coordinator(address: SocketAddr, group: &str) -> (ErrorCode, i32) {
    let request = FindCoordinatorRequest { key: Str::from(group), ..<_>::default() };
    let mut link = patient(address);
    link.send_at(&request, 1).expect("it is sent");
    let answer = link.receive::<FindCoordinatorRequest>().expect("an answer");
    (answer.error_code, answer.node_id)
}

fn set_retention(address: SocketAddr) -> ErrorCode {
    const TOPIC_RESOURCE: i8 = 2;
    let config = AlterableConfig {
        name: Str::from("retention.ms"),
        value: Some(Str::from("100000000")),
        ..AlterableConfig::default()
    };
    let resource = AlterConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: Str::from("left-0"),
        configs: vec![config],
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    patient(address).call(&request).expect("an answer").responses[0].error_code
}

/// Has all partitions led by those that are preferred: what is said of those that were not.
fn elect_preferred(link: &mut Link) -> BTreeMap<(String, i32), ErrorCode> {
    let request = ElectLeadersRequest { timeout_ms: 30_000, ..Default::default() };
    let answer = link.call(&request).expect("an answer");
    let of_topic = |topic: &ReplicaElectionResult| {
        let name = topic.topic.to_string();
        let results = topic.partition_result.iter();
        results.map(|it| ((name.clone(), it.partition_id), it.error_code)).collect::<Vec<_>>()
    };
    answer.replica_election_results.iter().flat_map(of_topic).collect()
}

/// Whoever was told that a replica leads now is told so again.
fn an_election_that_is_answered_is_over(address: SocketAddr) {
    let mut link = patient(address);
    let mut elected = 0;
    until("preferred leaders do not lead", || {
        let told = elect_preferred(&mut link);
        let again = elect_preferred(&mut link);
        let is_elected = |partition: &&(String, i32)| told[*partition].is_none();
        elected += told.keys().filter(is_elected).count();
        let both: Vec<_> =
            told.keys().filter(is_elected).filter(|it| again.contains_key(*it)).collect();
        assert!(both.is_empty(), "{both:?}");
        again.is_empty().then_some(())
    });
    assert!(elected > 0, "nothing was to be done");
}

/// Where nobody is preferred who is there, that is said at once, for all topics.
fn preferred_leaders_are_not_waited_for(address: SocketAddr, away: i32) {
    let begin = Instant::now();
    let told = elect_preferred(&mut patient(address));
    let errors: Vec<ErrorCode> = told.into_values().collect();
    let time = begin.elapsed();
    let refused =
        errors.iter().filter(|it| **it == ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE).count();
    assert!(refused >= TOPICS as usize, "{refused} of {errors:?} prefer node {away}");
    // One topic after the other, each for as long as a new leader needs, would be 16 s.
    assert!(time < Duration::from_secs(6), "{time:?}");
}

/// One node of three: what only a majority can decide is waited for as long as the client says.
fn without_a_controller(address: SocketAddr) {
    until("a controller is named that is gone", || {
        let known = metadata(address).ok()?;
        (known.controller_id == -1).then_some(())
    });
    let mut request = wire::create_topic_request("never", 1, &[]);
    request.timeout_ms = 2500;
    let begin = Instant::now();
    let answer = patient(address).call(&request).expect("an answer");
    assert_eq!(answer.topics[0].error_code, ErrorCode::REQUEST_TIMED_OUT);
    assert!(begin.elapsed() >= Duration::from_millis(2400), "{:?}", begin.elapsed());

    let request =
        InitProducerIdRequest { producer_id: -1, producer_epoch: -1, ..Default::default() };
    let answer = patient(address).call(&request).expect("an answer");
    assert_eq!(answer.error_code, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    assert_eq!(coordinator(address, "first").0, ErrorCode::COORDINATOR_NOT_AVAILABLE);
}

#[test]
fn what_is_said_while_somebody_is_away() {
    let mut nodes = Nodes::start_with(&[("offsets.topic.replication.factor", "1")]);
    let all = nodes.addresses();
    for topic in 0..TOPICS {
        create_topic(all[0], &format!("{TOPIC}-{topic}"), PARTITIONS);
    }
    nodes.kill(3);
    let left = nodes.others(3);
    for (topic, number) in (0..TOPICS).flat_map(|it| (0..PARTITIONS).map(move |no| (it, no))) {
        await_leader(&left, &format!("{TOPIC}-{topic}"), number, |leader| leader != 3);
    }
    preferred_leaders_are_not_waited_for(nodes.address(1), 3);

    // Who was the controller is left, and is none any more.
    let one = until("there is no controller", || {
        let known = metadata_of_any(&left)?;
        [1, 2].contains(&known.controller_id).then_some(known.controller_id)
    });
    let other = if one == 1 { 2 } else { 1 };
    nodes.kill(other);
    let survivor = nodes.address(one);
    without_a_controller(survivor);
    // One request, begun while there is nobody who could do it.
    let altering = thread::spawn(move || set_retention(survivor));
    nodes.run(&[other]);
    assert_eq!(altering.join().expect("no panic"), ErrorCode::NONE);
    nodes.run(&[3]);

    // A coordinator that is gone, and that no other can take the place of.
    let (group, away) = until("one node coordinates everything", || {
        let mut groups = (0..20).map(|number| format!("group-{number}"));
        groups.find_map(|group| {
            let (error, node) = coordinator(survivor, &group);
            (error.is_none() && node != one).then_some((group, node))
        })
    });
    nodes.kill(away);
    for address in nodes.others(away) {
        until("a coordinator is named that is gone", || {
            let (error, _) = coordinator(address, &group);
            (error == ErrorCode::COORDINATOR_NOT_AVAILABLE).then_some(())
        });
    }
    nodes.run_all();
    an_election_that_is_answered_is_over(nodes.address(away));
    nodes.stop();
}

fn unregister(address: SocketAddr, node: i32) -> ErrorCode {
    let request = UnregisterBrokerRequest { broker_id: node };
    patient(address).call(&request).expect("an answer").error_code
}

/// On standard error of whoever asks for them, and in the controller's log.
fn two_replicas_are_warned_of(nodes: &mut Nodes, left: &[SocketAddr; 2]) {
    let bootstrap = left[0].to_string();
    let made = vltava(&["topic", "create", "later", "-r", "2", "--bootstrap", &bootstrap]);
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    assert!(said.contains("a topic of two replicas is unavailable while either"), "{said}");
    await_partition(left, "later", 0, |it| it.leader.is_some());
    let warned = [1, 2].map(|id| nodes.node(id).said().contains("topic later has two replicas"));
    assert!(warned.contains(&true), "nobody's log says so");
}

/// Who has a vote in group 0.
fn voters(addresses: &[SocketAddr]) -> Vec<i32> {
    until("nobody knows the quorum", || {
        let partitions = vec![PartitionData { partition_index: 0 }];
        let topic = TopicData { topic_name: Str::from("__cluster_metadata"), partitions };
        let request = DescribeQuorumRequest { topics: vec![topic] };
        addresses.iter().find_map(|address| {
            let answer = connect(*address).ok()?.call(&request).ok()?;
            let partition = answer.topics.first()?.partitions.first()?;
            let mut voters: Vec<i32> =
                partition.current_voters.iter().map(|it| it.replica_id).collect();
            voters.sort_unstable();
            (partition.error_code.is_none()).then_some(voters)
        })
    })
}

/// One that is gone with its vote, and one that runs: neither leaves a vote behind, which would be
/// missing for ever.
#[test]
fn a_broker_that_is_unregistered_has_no_vote() {
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, 1);
    assert_eq!(unregister(addresses[0], 9), ErrorCode::BROKER_ID_NOT_REGISTERED);
    assert_eq!(unregister(addresses[0], 3), ErrorCode::INVALID_REQUEST, "it keeps a replica");
    wire::delete_topic(&mut patient(addresses[0]), TOPIC).expect("an answer");

    nodes.add(4, &[]);
    let address = nodes.peer_addresses.iter().find(|(it, _)| *it == 4).expect("it was added").1;
    let bootstrap = addresses[0].to_string();
    let added = vltava(&[
        "cluster",
        "add",
        "--no-wait",
        &format!("4@{address}"),
        "--bootstrap",
        &bootstrap,
    ]);
    assert!(added.status.success(), "{added:?}");
    nodes.run(&[4]);
    until("node 4 has not joined", || {
        metadata_of_any(&addresses)?.brokers.contains_key(&4).then_some(())
    });

    nodes.kill(3);
    let left = [nodes.address(1), nodes.address(2)];
    assert_eq!(unregister(left[0], 3), ErrorCode::NONE);
    assert!(!voters(&left).contains(&3), "{:?}", voters(&left));
    assert_eq!(unregister(left[1], 4), ErrorCode::NONE);
    assert_eq!(voters(&left), [1, 2]);
    until("node 4 is one of the cluster", || {
        let known = metadata_of_any(&left)?;
        known.brokers.keys().eq([&1, &2]).then_some(())
    });
    two_replicas_are_warned_of(&mut nodes, &left);
    nodes.kill(4);
    nodes.forget(3);
    nodes.forget(4);
    nodes.stop();
}

#[test]
fn a_topic_that_is_deleted_while_a_node_is_away_leaves_nothing_there() {
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, PARTITIONS);
    let away = 3;
    let logs = |nodes: &mut Nodes| {
        let entries = fs::read_dir(&nodes.node(away).data).expect("its data directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names.filter(|name| name.to_string_lossy().starts_with(TOPIC)).count()
    };
    until("it has no logs of the topic", || (logs(&mut nodes) == 3).then_some(()));
    nodes.kill(away);
    let topic = DeleteTopicState { name: Some(Str::from(TOPIC)), ..DeleteTopicState::default() };
    let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..<_>::default() };
    until("the topic is not deleted", || {
        let mut link = connect(addresses[0]).ok()?;
        link.send_at(&request, 6).ok()?;
        let answer = link.receive::<DeleteTopicsRequest>().ok()?;
        let error = answer.responses[0].error_code;
        (error.is_none() || error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION).then_some(())
    });
    assert_eq!(logs(&mut nodes), 3);
    nodes.node(away).run();
    until("its logs are still there", || (logs(&mut nodes) == 0).then_some(()));
    nodes.stop();
}
