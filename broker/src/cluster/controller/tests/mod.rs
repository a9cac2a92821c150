//! The controller without its host: what it is asked, what it answers, what its state becomes.

mod features;
mod properties;
mod settings;
mod topics;

use vltava_protocol::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use vltava_protocol::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreatableTopicResult,
};
use vltava_protocol::messages::delete_topics::DeleteTopicState;

use super::*;
use crate::cluster::alter_settings::{Change, NODE_RESOURCE, Resource, SET};
use crate::cluster::node_settings::{ADDRESS, STATE};
use crate::metadata::features::Levels;
use crate::metadata::image::{NodeEndpoint, NodeState};

/// Settings as the tests need them: `policy` is a list, `size` a number, everything else unknown.
struct TestSettings;

impl TopicSettings for TestSettings {
    fn is_list(&self, name: &str) -> bool {
        name == "policy"
    }

    fn default_value(&self, name: &str) -> Option<String> {
        (name == "policy").then(|| "delete".to_string())
    }

    fn validate(&self, own: &Settings) -> Result<(), String> {
        for (name, value) in own.iter() {
            match name.as_str() {
                "policy" => {}
                "size" if value.parse::<u32>().is_ok() => {}
                "size" => return Err(format!("Invalid value {value} for configuration size")),
                _ => return Err(format!("Unknown topic config name: {name}")),
            }
        }
        Ok(())
    }
}

/// A controller with its state; what it decides is replayed at once, as the host does it.
struct Cluster {
    controller: Controller,
    state: State,
}

impl Cluster {
    fn empty() -> Self {
        let options = Options { partitions_default: 2, replication_factor_default: 1 };
        Self {
            controller: Controller::new(options, Rc::new(TestSettings)),
            state: State::default(),
        }
    }

    fn of(nodes: i32) -> Self {
        let mut cluster = Self::empty();
        cluster.ask(Input::Form { cluster_id: Uuid(9), level: 1 });
        for node_id in 1..=nodes {
            cluster.ask(Input::RegisterNode(registration(node_id)));
        }
        cluster
    }

    fn ask(&mut self, input: Input) -> Reply {
        let outcome =
            self.controller.handle(&self.state, &mut (), Ticket(3), input, Now::default());
        for record in &outcome.records {
            self.controller.replay(&mut self.state, record, 0, 0).unwrap();
        }
        let [(ticket, reply)] = <[_; 1]>::try_from(outcome.replies).unwrap();
        assert_eq!(ticket, Ticket(3));
        reply
    }

    fn create_all(&mut self, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
        let request = CreateTopicsRequest { topics, ..CreateTopicsRequest::default() };
        match self.ask(Input::CreateTopics { request, random: 77 }) {
            Reply::CreateTopics(response) => response.topics,
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, topic: CreatableTopic) -> CreatableTopicResult {
        self.create_all(vec![topic]).remove(0)
    }

    fn delete(&mut self, topics: Vec<DeleteTopicState>) -> Vec<(ErrorCode, String)> {
        let request = DeleteTopicsRequest { topics, ..DeleteTopicsRequest::default() };
        match self.ask(Input::DeleteTopics(request)) {
            Reply::DeleteTopics(response) => response
                .responses
                .into_iter()
                .map(|result| (result.error_code, text(result.error_message)))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn grow(&mut self, topic: CreatePartitionsTopic) -> (ErrorCode, String) {
        let request = CreatePartitionsRequest { topics: vec![topic], ..Default::default() };
        match self.ask(Input::CreatePartitions(request)) {
            Reply::CreatePartitions(mut response) => {
                let result = response.results.remove(0);
                (result.error_code, text(result.error_message))
            }
            other => panic!("{other:?}"),
        }
    }

    fn alter(&mut self, changes: &[(&str, i8, Option<&str>)]) -> (ErrorCode, String) {
        self.alter_resource(TOPIC_RESOURCE, "t", changes)
    }

    fn alter_resource(
        &mut self,
        kind: i8,
        name: &str,
        changes: &[(&str, i8, Option<&str>)],
    ) -> (ErrorCode, String) {
        let mut altered = self.alter_all(incremental(vec![resource(kind, name, changes)]));
        let altered = altered.remove(0);
        (altered.error_code, text(altered.error_message))
    }

    fn alter_all(&mut self, alteration: Alteration) -> Vec<Altered> {
        match self.ask(Input::AlterSettings(alteration)) {
            Reply::AlterSettings(altered) => altered,
            other => panic!("{other:?}"),
        }
    }

    fn own(&self, topic: &str) -> Vec<(String, String)> {
        let topic = self.state.image().topic(topic).unwrap();
        topic.own_settings().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }
}

fn resource(kind: i8, name: &str, changes: &[(&str, i8, Option<&str>)]) -> Resource {
    let change = |(name, operation, value): &(&str, i8, Option<&str>)| Change {
        name: Str::from(*name),
        operation: *operation,
        value: value.map(Str::from),
    };
    Resource { kind, name: Str::from(name), changes: changes.iter().map(change).collect() }
}

fn incremental(resources: Vec<Resource>) -> Alteration {
    Alteration { resources, is_incremental: true, validate_only: false, node_id: 1 }
}

fn registration(node_id: i32) -> Registration {
    let endpoint = NodeEndpoint {
        listener: Str::from_static("PLAINTEXT"),
        host: Str::from_static("localhost"),
        port: 9092,
    };
    Registration {
        node_id,
        rack: None,
        endpoints: vec![endpoint],
        disks: vec![Uuid(1)],
        peer_endpoint: None,
        levels: Levels::default(),
    }
}

fn text(message: Option<Str>) -> String {
    message.map(|message| message.to_string()).unwrap_or_default()
}

fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic {
        name: Str::from(name),
        num_partitions,
        replication_factor,
        ..CreatableTopic::default()
    }
}

fn with_settings(topic: CreatableTopic, settings: &[(&str, Option<&str>)]) -> CreatableTopic {
    let config = |(name, value): &(&str, Option<&str>)| CreatableTopicConfig {
        name: Str::from(*name),
        value: value.map(Str::from),
    };
    CreatableTopic { configs: settings.iter().map(config).collect(), ..topic }
}

fn with_assignments(topic: CreatableTopic, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |(partition_index, nodes): &(i32, &[i32])| CreatableReplicaAssignment {
        partition_index: *partition_index,
        broker_ids: nodes.to_vec(),
    };
    CreatableTopic { assignments: assignments.iter().map(assignment).collect(), ..topic }
}

fn named(name: &str) -> DeleteTopicState {
    DeleteTopicState { name: Some(Str::from(name)), topic_id: Uuid::ZERO }
}

fn growth(name: &str, count: i32, assignments: Option<&[&[i32]]>) -> CreatePartitionsTopic {
    let assignment = |nodes: &&[i32]| CreatePartitionsAssignment { broker_ids: nodes.to_vec() };
    CreatePartitionsTopic {
        name: Str::from(name),
        count,
        assignments: assignments.map(|all| all.iter().map(assignment).collect()),
    }
}

#[test]
fn nothing_is_done_before_the_cluster_has_formed() {
    let mut cluster = Cluster::empty();
    let early = cluster.ask(Input::AllocateProducerIds);
    assert!(matches!(early, Reply::Refused { .. }), "{early:?}");
    let formed = cluster.ask(Input::Form { cluster_id: Uuid(9), level: 1 });
    assert_eq!(formed, Reply::Formed { cluster_id: Uuid(9) });
    let again = cluster.ask(Input::Form { cluster_id: Uuid(10), level: 1 });
    assert_eq!(again, Reply::Formed { cluster_id: Uuid(9) }, "it forms once");
}

#[test]
fn a_node_is_counted_each_time_it_starts() {
    let mut cluster = Cluster::of(1);
    let again = cluster.ask(Input::RegisterNode(registration(1)));
    assert_eq!(again, Reply::Registered { epoch: 1 });
    let node = cluster.state.image().node(1).unwrap();
    assert_eq!(node.endpoint("PLAINTEXT").unwrap().port, 9092);
    assert!(node.endpoint("OTHER").is_none());
    let long = Registration { rack: Some(Str::from("x".repeat(256))), ..registration(2) };
    let refused = cluster.ask(Input::RegisterNode(long));
    assert!(matches!(refused, Reply::Refused { .. }), "{refused:?}");
}

#[test]
fn a_node_that_was_drained_takes_part_again_once_it_has_started() {
    let mut cluster = Cluster::of(2);
    let set = |cluster: &mut Cluster, id: i32, name: &str, value: &str| {
        let change =
            Change { name: Str::from(name), operation: SET, value: Some(Str::from(value)) };
        let name = Str::from(id.to_string());
        let resource = Resource { kind: NODE_RESOURCE, name, changes: vec![change] };
        let (is_incremental, validate_only, node_id) = (true, false, 1);
        let resources = vec![resource];
        let alteration = Alteration { resources, is_incremental, validate_only, node_id };
        match cluster.ask(Input::AlterSettings(alteration)) {
            Reply::AlterSettings(altered) => altered[0].error_code,
            other => panic!("{other:?}"),
        }
    };
    let state = |cluster: &Cluster, id| cluster.state.image().node(id).unwrap().state;
    assert_eq!(set(&mut cluster, 2, STATE, "draining"), ErrorCode::NONE);
    assert_eq!(state(&cluster, 2), NodeState::Draining);
    cluster.ask(Input::RegisterNode(registration(2)));
    assert_eq!(state(&cluster, 2), NodeState::There);
    assert_eq!(set(&mut cluster, 2, STATE, "removing"), ErrorCode::NONE);
    cluster.ask(Input::RegisterNode(registration(2)));
    assert_eq!(state(&cluster, 2), NodeState::Removing, "a start does not take it back");
    assert_eq!(set(&mut cluster, 3, ADDRESS, "c:7644"), ErrorCode::NONE);
    assert_eq!(state(&cluster, 3), NodeState::Expected);
    cluster.ask(Input::RegisterNode(registration(3)));
    let node = cluster.state.image().node(3).unwrap();
    assert_eq!((node.state, node.epoch), (NodeState::There, 0));
    assert_eq!(node.peer_endpoint.as_ref().map(|at| at.host.as_str()), Some("c"));
}

#[test]
fn a_node_is_forgotten_once_it_keeps_nothing_and_has_no_vote() {
    let mut cluster = Cluster::of(2);
    let error = |reply| match reply {
        Reply::NodeUnregistered => ErrorCode::NONE,
        Reply::Refused { error, .. } => error,
        other => panic!("{other:?}"),
    };
    let unregister = |node_id| Input::UnregisterNode { node_id };
    let forget = |node_id| Input::ForgetNode { node_id };
    let mut ask = |input| {
        let error = error(cluster.ask(input));
        (error, cluster.state.image().node(2).map(|node| node.state))
    };
    assert_eq!(ask(unregister(9)).0, ErrorCode::BROKER_ID_NOT_REGISTERED);
    let there = Some(NodeState::There);
    assert_eq!(ask(forget(2)), (ErrorCode::INVALID_REQUEST, there), "nobody asked for it");
    // As often as a client asks: that does not say that it has no vote.
    for _ in 0..2 {
        assert_eq!(ask(unregister(2)), (ErrorCode::NONE, Some(NodeState::Removing)));
    }
    assert_eq!(ask(forget(2)), (ErrorCode::NONE, None));
    assert_eq!(ask(unregister(1)).0, ErrorCode::INVALID_REQUEST, "the last one");
}

/// Also one that was removed and started again, and that reaches the controller through a node
/// which does not know that yet.
#[test]
fn only_who_is_expected_or_founded_the_cluster_registers() {
    let mut cluster = Cluster::of(2);
    let mut register = |node_id, voters: &[i32]| {
        let sight = Sight { voters: voters.iter().copied().collect(), ..Sight::default() };
        match cluster.ask(Input::RegisterNode(registration(node_id)).seeing(sight)) {
            Reply::Registered { .. } => None,
            Reply::Refused { error, message } => Some((error, text(Some(message)))),
            other => panic!("{other:?}"),
        }
    };
    let (error, words) = register(3, &[1, 2]).unwrap();
    assert_eq!(error, ErrorCode::BROKER_ID_NOT_REGISTERED);
    assert!(words.contains("vltava cluster add 3@"), "{words}");
    assert_eq!(register(3, &[1, 2, 3]), None, "a founder");
    assert_eq!(register(3, &[1, 2]), None, "it is known by now");
    assert_eq!(register(2, &[1]), None, "it is known, and only follows");
}

#[test]
fn a_node_that_was_expected_and_never_came_is_forgotten_at_once() {
    let mut cluster = Cluster::of(1);
    let change = Change {
        name: Str::from(ADDRESS),
        operation: SET,
        value: Some(Str::from_static("c:7644")),
    };
    let (kind, name) = (NODE_RESOURCE, Str::from_static("3"));
    let resources = vec![Resource { kind, name, changes: vec![change] }];
    let (is_incremental, validate_only, node_id) = (true, false, 1);
    let alteration = Alteration { resources, is_incremental, validate_only, node_id };
    cluster.ask(Input::AlterSettings(alteration));
    assert_eq!(cluster.state.image().node(3).map(|node| node.state), Some(NodeState::Expected));
    assert_eq!(cluster.ask(Input::UnregisterNode { node_id: 3 }), Reply::NodeUnregistered);
    assert!(cluster.state.image().node(3).is_none());
}

#[test]
fn two_replicas_are_warned_of_once_for_a_topic_whoever_asks_for_them() {
    let cluster = {
        let mut cluster = Cluster::of(3);
        let topics = ["two", "three"].map(|name| CreatableTopic {
            name: Str::from(name),
            num_partitions: 2,
            replication_factor: if name == "two" { 2 } else { 3 },
            ..CreatableTopic::default()
        });
        cluster.create_all(topics.to_vec());
        cluster
    };
    let image = cluster.state.image();
    let records = |name: &str, replicas: i32| {
        let topic = image.topic(name).unwrap();
        let nodes = || (1..=replicas).map(|node_id| Replica { node_id, disk_id: Uuid::ZERO });
        let partition =
            |index| Record::Partition(topic.partition_id(index), Partition::new(nodes().collect()));
        (0..2).map(partition).collect::<Vec<_>>()
    };
    let warned = |image: &Image, decided: &[Record]| super::warnings(image, decided).len();
    assert_eq!(warned(image, &records("two", 2)), 0, "that is known");
    assert_eq!(warned(image, &records("three", 2)), 1);
    assert_eq!(warned(image, &records("two", 3)), 0);
    let created = [vec![Record::Topic(Uuid(5), Some(Str::from_static("new")))], {
        let id = PartitionId { topic_id: Uuid(5), index: 0 };
        let nodes = (1..=2).map(|node_id| Replica { node_id, disk_id: Uuid::ZERO });
        vec![Record::Partition(id, Partition::new(nodes.collect()))]
    }]
    .concat();
    let warnings = super::warnings(image, &created);
    assert!(warnings[0].starts_with("topic new has two replicas"), "{warnings:?}");
}

#[test]
fn blocks_of_producer_ids_do_not_overlap() {
    let mut cluster = Cluster::of(1);
    for block in 0..3 {
        let reply = cluster.ask(Input::AllocateProducerIds);
        assert_eq!(reply, Reply::ProducerIds { first: block * 1000, count: 1000 });
    }
}

#[test]
fn a_record_of_another_release_stops_the_replay() {
    let cluster = Cluster::of(1);
    for key in [&b"\0\x63"[..], b"", b"\0"] {
        let record = KeyValue { key: Bytes::from_static(key), value: Some(Bytes::new()) };
        let replayed = cluster.controller.replay(&mut State::default(), &record, 0, 0);
        assert!(replayed.is_err());
    }
}

#[test]
fn what_happens_to_topics_is_told_to_the_log() {
    let mut cluster = Cluster::of(1);
    let told = |cluster: &Cluster, input| {
        let (decided, _) = cluster.controller.decide(&cluster.state, input, None);
        super::notes(cluster.state.image(), &decided)
    };
    let request =
        CreateTopicsRequest { topics: vec![topic("t", 3, 1)], ..CreateTopicsRequest::default() };
    let created = told(&cluster, Input::CreateTopics { request, random: 7 });
    assert_eq!(created.len(), 1);
    assert!(created[0].starts_with("topic t created, with 3 partitions, id "), "{created:?}");
    cluster.create(topic("t", 3, 1));
    let request = CreatePartitionsRequest {
        topics: vec![growth("t", 5, None)],
        ..CreatePartitionsRequest::default()
    };
    let grown = told(&cluster, Input::CreatePartitions(request));
    assert_eq!(grown, ["topic t has 2 partitions more"]);
    let request = DeleteTopicsRequest { topics: vec![named("t")], ..Default::default() };
    let deleted = told(&cluster, Input::DeleteTopics(request));
    assert!(deleted[0].starts_with("topic t deleted, id "), "{deleted:?}");
}
