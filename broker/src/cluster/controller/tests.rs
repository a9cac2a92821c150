#![allow(clippy::unwrap_used, reason = "a failing unwrap fails the test")]
use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use vltava_protocol::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use vltava_protocol::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreatableTopicResult,
};
use vltava_protocol::messages::delete_topics::DeleteTopicState;
use vltava_protocol::messages::{alter_configs, incremental_alter_configs};

use super::*;
use crate::metadata::image::NodeEndpoint;
use crate::metadata::records::TOPIC_RESOURCE;

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
        cluster.ask(Input::Form { cluster_id: Uuid(9) });
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
        resource_type: i8,
        name: &str,
        changes: &[(&str, i8, Option<&str>)],
    ) -> (ErrorCode, String) {
        let resources = vec![resource(resource_type, name, changes)];
        let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
        match self.ask(Input::IncrementalAlterConfigs { request, node_id: 1 }) {
            Reply::IncrementalAlterConfigs(mut response) => {
                let result = response.responses.remove(0);
                (result.error_code, text(result.error_message))
            }
            other => panic!("{other:?}"),
        }
    }

    fn own(&self, topic: &str) -> Vec<(String, String)> {
        let topic = self.state.image().topic(topic).unwrap();
        topic.own_settings().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }
}

fn resource(
    resource_type: i8,
    name: &str,
    changes: &[(&str, i8, Option<&str>)],
) -> incremental_alter_configs::AlterConfigsResource {
    let config = |(name, config_operation, value): &(&str, i8, Option<&str>)| {
        incremental_alter_configs::AlterableConfig {
            name: Str::from(*name),
            config_operation: *config_operation,
            value: value.map(Str::from),
        }
    };
    incremental_alter_configs::AlterConfigsResource {
        resource_type,
        resource_name: Str::from(name),
        configs: changes.iter().map(config).collect(),
    }
}

fn registration(node_id: i32) -> Registration {
    let endpoint = NodeEndpoint {
        listener: Str::from_static("PLAINTEXT"),
        host: Str::from_static("localhost"),
        port: 9092,
    };
    Registration { node_id, rack: None, endpoints: vec![endpoint], disks: vec![Uuid(1)] }
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
    let formed = cluster.ask(Input::Form { cluster_id: Uuid(9) });
    assert_eq!(formed, Reply::Formed { cluster_id: Uuid(9) });
    let again = cluster.ask(Input::Form { cluster_id: Uuid(10) });
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
fn blocks_of_producer_ids_do_not_overlap() {
    let mut cluster = Cluster::of(1);
    for block in 0..3 {
        let reply = cluster.ask(Input::AllocateProducerIds);
        assert_eq!(reply, Reply::ProducerIds { first: block * 1000, count: 1000 });
    }
}

#[test]
fn a_topic_is_created_with_what_was_asked_for_or_the_defaults() {
    let mut cluster = Cluster::of(3);
    let asked = with_settings(topic("t", 5, 2), &[("size", Some("7"))]);
    let created = cluster.create(asked);
    assert_eq!((created.error_code, created.error_message), (ErrorCode::NONE, None));
    assert_eq!((created.num_partitions, created.replication_factor), (5, 2));
    let found = cluster.state.image().topic("t").unwrap();
    assert_eq!((found.id, found.partition_count()), (created.topic_id, 5));
    assert!(found.partitions.iter().all(|partition| partition.replicas.len() == 2));
    assert_eq!(cluster.own("t"), [("size".to_string(), "7".to_string())]);
    let defaults = cluster.create(topic("d", -1, -1));
    assert_eq!((defaults.num_partitions, defaults.replication_factor), (2, 1));
}

#[test]
fn topic_ids_are_like_kafkas() {
    let mut cluster = Cluster::of(1);
    let many: Vec<_> = (0..200).map(|n| topic(&format!("t{n}"), 1, 1)).collect();
    let ids: BTreeSet<Uuid> =
        cluster.create_all(many).iter().map(|created| created.topic_id).collect();
    assert_eq!(ids.len(), 200);
    for id in ids {
        assert!(!id.to_string().starts_with('-'), "{id}");
        assert_eq!((id.0 >> 76 & 0xf, id.0 >> 62 & 0b11), (4, 0b10), "version and variant");
    }
}

/// A topic that is refused, with this error and these words.
fn refused(cluster: &mut Cluster, asked: CreatableTopic, error: ErrorCode, words: &str) {
    let before = cluster.state.image().clone();
    let answer = cluster.create(asked.clone());
    assert_eq!(answer.error_code, error, "{asked:?}");
    assert_eq!(text(answer.error_message), words);
    assert!(*cluster.state.image() == before);
}

#[test]
fn names_that_kafka_refuses() {
    let mut cluster = Cluster::of(1);
    cluster.create(topic("a.b", 1, 1));
    let mut refuse = |name: &str, error, words: &str| {
        refused(&mut cluster, topic(name, 1, 1), error, words);
    };
    let invalid = ErrorCode::INVALID_TOPIC_EXCEPTION;
    refuse("a.b", ErrorCode::TOPIC_ALREADY_EXISTS, "Topic 'a.b' already exists.");
    refuse("a_b", invalid, "Topic 'a_b' collides with existing topic: a.b");
    refuse("", invalid, "Topic name is invalid: the empty string is not allowed");
    refuse("..", invalid, "Topic name is invalid: '..' is not allowed");
    let prohibited = "Creation of internal topic __cluster_metadata is prohibited.";
    refuse("__cluster_metadata", ErrorCode::INVALID_REQUEST, prohibited);
}

#[test]
fn counts_that_kafka_refuses() {
    let mut cluster = Cluster::of(2);
    let mut refuse = |partitions, replication, error, words: &str| {
        refused(&mut cluster, topic("t", partitions, replication), error, words);
    };
    let words = "Number of partitions was set to an invalid non-positive value.";
    refuse(0, 1, ErrorCode::INVALID_PARTITIONS, words);
    refuse(-2, 1, ErrorCode::INVALID_PARTITIONS, words);
    let words = "Replication factor must be larger than 0, or -1 to use the default value.";
    refuse(1, 0, ErrorCode::INVALID_REPLICATION_FACTOR, words);
    let words = "Unable to replicate the partition 3 time(s): The target replication factor of 3 \
                 cannot be reached because only 2 broker(s) are registered.";
    refuse(1, 3, ErrorCode::INVALID_REPLICATION_FACTOR, words);
}

#[test]
fn settings_that_kafka_refuses_at_creation() {
    let mut cluster = Cluster::of(1);
    let mut refuse = |settings: &[(&str, Option<&str>)], words: &str| {
        let asked = with_settings(topic("t", 1, 1), settings);
        refused(&mut cluster, asked, ErrorCode::INVALID_CONFIG, words);
    };
    refuse(&[("size", None), ("x", None)], "Null value not supported for topic configs: size,x");
    refuse(&[("x", Some("1"))], "Unknown topic config name: x");
}

#[test]
fn assignments_that_kafka_refuses() {
    let mut cluster = Cluster::of(2);
    let mut refuse = |assignments: &[(i32, &[i32])], words: &str| {
        let asked = with_assignments(topic("t", -1, -1), assignments);
        refused(&mut cluster, asked, ErrorCode::INVALID_REPLICA_ASSIGNMENT, words);
    };
    let words = "Found multiple manual partition assignments for partition 0";
    refuse(&[(0, &[1]), (0, &[2])], words);
    let words = "partitions should be a consecutive 0-based integer sequence";
    refuse(&[(0, &[1]), (2, &[2])], words);
    refuse(&[(1, &[1])], words);
    refuse(&[(0, &[])], "The manual partition assignment includes an empty replica list.");
    let words =
        "The manual partition assignment includes broker 5, but no such broker is registered.";
    refuse(&[(0, &[5])], words);
    let words = "The manual partition assignment includes the broker 1 more than once.";
    refuse(&[(0, &[1, 1])], words);
    let words = "The manual partition assignment includes a partition with 2 replica(s), but this \
                 is not consistent with previous partitions, which have 1 replica(s).";
    refuse(&[(0, &[1]), (1, &[1, 2])], words);
    let said = "A manual partition assignment was specified, but";
    for (partitions, replication, what) in [(1, -1, "numPartitions"), (-1, 1, "replication factor")]
    {
        let asked = with_assignments(topic("t", partitions, replication), &[(0, &[1])]);
        let words = format!("{said} {what} was not set to -1.");
        refused(&mut cluster, asked, ErrorCode::INVALID_REQUEST, &words);
    }
}

#[test]
fn assignments_are_kept() {
    let mut cluster = Cluster::of(3);
    cluster.create(with_assignments(topic("t", -1, -1), &[(1, &[3, 1]), (0, &[2, 3])]));
    let found = cluster.state.image().topic("t").unwrap();
    let nodes: Vec<_> = found.partitions.iter().map(|partition| partition.node_ids()).collect();
    assert_eq!(nodes, [[2, 3], [3, 1]]);
}

#[test]
fn each_topic_of_a_request_stands_for_itself() {
    let mut cluster = Cluster::of(1);
    let twice = || topic("twice", 1, 1);
    let results = cluster.create_all(vec![
        topic("x.y", 1, 1),
        topic("x_y", 1, 1),
        twice(),
        topic("bad", 0, 1),
        twice(),
        topic("good", 1, 1),
    ]);
    let found: Vec<(&str, ErrorCode)> =
        results.iter().map(|result| (result.name.as_str(), result.error_code)).collect();
    assert_eq!(
        found,
        [
            ("x.y", ErrorCode::NONE),
            ("x_y", ErrorCode::INVALID_TOPIC_EXCEPTION),
            ("bad", ErrorCode::INVALID_PARTITIONS),
            ("good", ErrorCode::NONE),
            ("twice", ErrorCode::INVALID_REQUEST),
        ]
    );
    assert_eq!(cluster.state.image().topic_count(), 2);
}

#[test]
fn validate_only_changes_nothing() {
    let mut cluster = Cluster::of(1);
    let request = CreateTopicsRequest {
        topics: vec![topic("t", 3, 1), topic("u", 0, 1)],
        validate_only: true,
        ..CreateTopicsRequest::default()
    };
    let Reply::CreateTopics(response) = cluster.ask(Input::CreateTopics { request, random: 1 })
    else {
        panic!("another answer")
    };
    assert_eq!(response.topics[0].num_partitions, 3);
    assert_eq!(response.topics[1].error_code, ErrorCode::INVALID_PARTITIONS);
    assert_eq!(cluster.state.image().topic_count(), 0);
}

#[test]
fn bounds_hold() {
    let mut cluster = Cluster::of(1);
    let request = CreateTopicsRequest {
        topics: vec![topic("t", 9_999, 1), topic("u", 2, 1)],
        ..CreateTopicsRequest::default()
    };
    let refused = cluster.ask(Input::CreateTopics { request, random: 1 });
    assert!(matches!(refused, Reply::Refused { error: ErrorCode::POLICY_VIOLATION, .. }));
    for n in 0..20 {
        assert_eq!(cluster.create(topic(&format!("t{n}"), 10_000, 1)).error_code, ErrorCode::NONE);
    }
    let full = cluster.create(topic("one", 1, 1));
    assert_eq!(full.error_code, ErrorCode::POLICY_VIOLATION);
    assert_eq!(cluster.grow(growth("t0", 10_001, None)).0, ErrorCode::POLICY_VIOLATION);
    assert_eq!(cluster.state.image().partition_count(), PARTITIONS_MAX);
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut cluster = Cluster::of(1);
    cluster.create(topic("a", 1, 1));
    let id = cluster.create(topic("b", 1, 1)).topic_id;
    let by_id = DeleteTopicState { name: None, topic_id: id };
    let results = cluster.delete(vec![named("a"), by_id.clone(), named("none")]);
    assert_eq!(results[0], (ErrorCode::NONE, String::new()));
    assert_eq!(results[1], (ErrorCode::NONE, String::new()));
    assert_eq!(results[2].0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(cluster.state.image().topic_count(), 0);
    assert_eq!(cluster.delete(vec![by_id])[0].0, ErrorCode::UNKNOWN_TOPIC_ID);
}

#[test]
fn deletions_that_kafka_refuses() {
    let mut cluster = Cluster::of(1);
    let id = cluster.create(topic("a", 1, 1)).topic_id;
    let invalid = ErrorCode::INVALID_REQUEST;
    let both = DeleteTopicState { name: Some(Str::from("a")), topic_id: id };
    let by_id = || DeleteTopicState { name: None, topic_id: id };
    for (asked, expected) in [
        (vec![named("a"), named("a")], vec![(invalid, "Duplicate topic name.")]),
        (vec![by_id(), by_id()], vec![(invalid, "Duplicate topic id.")]),
        (vec![both], vec![(invalid, "You may not specify both topic name and topic id.")]),
        (
            vec![DeleteTopicState::default()],
            vec![(
                invalid,
                "Neither topic name nor id were \
            specified.",
            )],
        ),
        (
            vec![by_id(), named("a")],
            vec![
                (ErrorCode::NONE, ""),
                (invalid, "The provided topic name maps to an ID that was already supplied."),
            ],
        ),
    ] {
        let expected: Vec<_> =
            expected.into_iter().map(|(error, message)| (error, message.to_string())).collect();
        assert_eq!(cluster.delete(asked), expected);
    }
}

#[test]
fn a_deleted_topic_no_longer_collides_and_comes_back_under_another_id() {
    let mut cluster = Cluster::of(1);
    let first = cluster.create(topic("a.b", 1, 1)).topic_id;
    cluster.delete(vec![named("a.b")]);
    assert_eq!(cluster.create(topic("a_b", 1, 1)).error_code, ErrorCode::NONE);
    cluster.delete(vec![named("a_b")]);
    let request = CreateTopicsRequest { topics: vec![topic("a.b", 1, 1)], ..Default::default() };
    let Reply::CreateTopics(response) = cluster.ask(Input::CreateTopics { request, random: 78 })
    else {
        panic!("another answer")
    };
    assert_ne!(response.topics[0].topic_id, first);
}

#[test]
fn partitions_are_added() {
    let mut cluster = Cluster::of(3);
    cluster.create(topic("t", 2, 2));
    assert_eq!(cluster.grow(growth("t", 4, None)), (ErrorCode::NONE, String::new()));
    let assigned = cluster.grow(growth("t", 5, Some(&[&[3, 1]])));
    assert_eq!(assigned.0, ErrorCode::NONE);
    let found = cluster.state.image().topic("t").unwrap();
    assert_eq!(found.partition_count(), 5);
    assert_eq!(found.partition(4).unwrap().node_ids(), [3, 1]);
}

#[test]
fn growth_that_kafka_refuses() {
    let mut cluster = Cluster::of(2);
    cluster.create(topic("t", 2, 1));
    let (partitions, assignment) =
        (ErrorCode::INVALID_PARTITIONS, ErrorCode::INVALID_REPLICA_ASSIGNMENT);
    for (asked, error, message) in [
        (growth("t", 2, None), partitions, "Topic already has 2 partition(s)."),
        (
            growth("t", 1, None),
            partitions,
            "The topic t currently has 2 partition(s); 1 would not \
            be an increase.",
        ),
        (growth("t", -5, None), partitions, "would not be an increase."),
        (
            growth("t", 4, Some(&[&[1]])),
            assignment,
            "Attempted to add 2 additional partition(s), \
            but only 1 assignment(s) were specified.",
        ),
        (
            growth("t", 3, Some(&[&[1, 2]])),
            assignment,
            "not consistent with previous partitions, \
            which have 1 replica(s).",
        ),
        (growth("t", 3, Some(&[&[9]])), assignment, "no such broker is registered."),
        (growth("none", 3, None), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ""),
    ] {
        let (found, words) = cluster.grow(asked);
        assert_eq!(found, error, "{words}");
        assert!(words.contains(message), "{words}");
    }
    let twice = CreatePartitionsRequest {
        topics: vec![growth("t", 3, None), growth("t", 4, None)],
        ..Default::default()
    };
    let Reply::CreatePartitions(response) = cluster.ask(Input::CreatePartitions(twice)) else {
        panic!("another answer")
    };
    assert_eq!(response.results.len(), 1);
    assert_eq!(response.results[0].error_code, ErrorCode::INVALID_REQUEST);
    assert_eq!(cluster.state.image().partition_count(), 2);
}

#[test]
fn settings_are_changed_one_by_one() {
    let mut cluster = Cluster::of(1);
    cluster.create(topic("t", 1, 1));
    let ok = (ErrorCode::NONE, String::new());
    let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
    assert_eq!(cluster.alter(&[("size", 0, Some("5"))]), ok);
    assert_eq!(cluster.alter(&[("policy", 2, Some(" compact , delete"))]), ok);
    assert_eq!(cluster.own("t"), [pair("policy", "delete,compact"), pair("size", "5")]);
    assert_eq!(cluster.alter(&[("policy", 3, Some("delete"))]), ok);
    assert_eq!(cluster.alter(&[("size", 1, None)]), ok);
    assert_eq!(cluster.own("t"), [pair("policy", "compact")]);
    assert_eq!(cluster.alter(&[("size", 1, None)]), ok, "removing what is not set is no error");
    assert_eq!(cluster.alter(&[("unknown", 1, None)]), ok);
}

#[test]
fn settings_are_replaced_all_at_once() {
    let mut cluster = Cluster::of(1);
    cluster.create(with_settings(topic("t", 1, 1), &[("size", Some("7")), ("policy", Some("x"))]));
    let config =
        alter_configs::AlterableConfig { name: Str::from("size"), value: Some(Str::from("8")) };
    let resource = alter_configs::AlterConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: Str::from("t"),
        configs: vec![config],
    };
    let request = AlterConfigsRequest { resources: vec![resource.clone()], validate_only: true };
    cluster.ask(Input::AlterConfigs { request, node_id: 1 });
    assert_eq!(cluster.own("t").len(), 2, "validate only");
    let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
    cluster.ask(Input::AlterConfigs { request, node_id: 1 });
    assert_eq!(cluster.own("t"), [("size".to_string(), "8".to_string())]);
}

#[test]
fn changes_that_kafka_refuses() {
    let mut cluster = Cluster::of(1);
    cluster.create(topic("t", 1, 1));
    let mut refuse = |change: (&str, i8, Option<&str>), error, words: &str| {
        assert_eq!(cluster.alter(&[change]), (error, words.to_string()));
    };
    let (config, request) = (ErrorCode::INVALID_CONFIG, ErrorCode::INVALID_REQUEST);
    refuse(("size", 0, Some("x")), config, "Invalid value x for configuration size");
    refuse(("x", 0, Some("1")), config, "Unknown topic config name: x");
    let words = "Can't APPEND to key size because its type is not LIST.";
    refuse(("size", 2, Some("1")), config, words);
    let words = "Can't SUBTRACT to key size because its type is not LIST.";
    refuse(("size", 3, Some("1")), config, words);
    refuse(("size", 0, None), request, "Null value not supported for : size");
    refuse(("size", 9, Some("1")), request, "Unknown operations type 9");
    let twice = cluster.alter(&[("size", 0, Some("1")), ("size", 1, None)]);
    assert_eq!(twice, (request, "Error due to duplicate config keys".to_string()));
    assert!(cluster.own("t").is_empty());
}

#[test]
fn resources_that_cannot_be_altered() {
    let mut cluster = Cluster::of(1);
    let mut refuse = |kind, name: &str, error, words: &str| {
        let (found, told) = cluster.alter_resource(kind, name, &[]);
        assert_eq!(found, error, "{told}");
        assert!(told.contains(words), "{told}");
    };
    let (request, name) = (ErrorCode::INVALID_REQUEST, ErrorCode::INVALID_TOPIC_EXCEPTION);
    refuse(2, "", request, "Default topic resources are not allowed.");
    refuse(2, "a b", name, "Topic name is invalid");
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    refuse(2, "none", unknown, "The topic 'none' does not exist.");
    refuse(4, "1", request, "Cannot update these configs dynamically: []");
    refuse(4, "", request, "Cannot update these configs dynamically: []");
    refuse(4, "2", request, "Unexpected broker id, expected 1, but received 2");
    refuse(4, "x", request, "Node id must be an integer, but it is: x");
    refuse(8, "1", request, "Log levels cannot be altered");
    refuse(32, "g", request, "not supported yet");
    refuse(77, "g", request, "Unknown resource type 77");
}

#[test]
fn a_list_does_not_outgrow_a_record() {
    let mut cluster = Cluster::of(1);
    cluster.create(topic("t", 1, 1));
    let long = "x".repeat(20_000);
    assert_eq!(cluster.alter(&[("policy", 2, Some(&long))]).0, ErrorCode::NONE);
    let other = format!("{long}y");
    assert_eq!(cluster.alter(&[("policy", 2, Some(&other))]).0, ErrorCode::INVALID_CONFIG);
    assert_eq!(cluster.own("t")[0].1, format!("delete,{long}"));
}

#[test]
fn a_resource_that_stands_twice_is_refused_twice() {
    let mut cluster = Cluster::of(1);
    cluster.create(topic("t", 1, 1));
    let one = || resource(TOPIC_RESOURCE, "t", &[("size", 0, Some("1"))]);
    let request =
        IncrementalAlterConfigsRequest { resources: vec![one(), one()], validate_only: false };
    let reply = cluster.ask(Input::IncrementalAlterConfigs { request, node_id: 1 });
    let Reply::IncrementalAlterConfigs(response) = reply else { panic!("another answer") };
    let errors: Vec<_> = response.responses.iter().map(|result| result.error_code).collect();
    assert_eq!(errors, [ErrorCode::INVALID_REQUEST; 2]);
    assert!(cluster.own("t").is_empty());
}

/// Names that meet each other often.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]", Just("a.b".to_string()), Just("a_b".to_string()), "[./x]{0,3}"]
}

fn setting() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("size"), Just("policy"), Just("x")]
}

fn value() -> impl Strategy<Value = Option<&'static str>> {
    prop::option::of(prop_oneof![Just("1"), Just("a,b"), Just("")])
}

fn nodes() -> impl Strategy<Value = Vec<i32>> {
    prop::collection::vec(0..4, 0..3)
}

fn create() -> impl Strategy<Value = Input> {
    let new_topic = (
        name(),
        -2..4,
        -2..4_i16,
        prop::collection::vec((-1..3, nodes()), 0..3),
        prop::collection::vec((setting(), value()), 0..3),
    )
        .prop_map(|(name, partitions, replication, assigned, settings)| {
            let assigned: Vec<(i32, &[i32])> =
                assigned.iter().map(|(index, nodes)| (*index, nodes.as_slice())).collect();
            let topic = topic(&name, partitions, replication);
            with_settings(with_assignments(topic, &assigned), &settings)
        });
    (prop::collection::vec(new_topic, 0..4), any::<bool>(), 0..50_u128).prop_map(
        |(topics, validate_only, random)| Input::CreateTopics {
            request: CreateTopicsRequest { topics, validate_only, ..Default::default() },
            random,
        },
    )
}

fn delete() -> impl Strategy<Value = Input> {
    prop::collection::vec((prop::option::of(name()), 0..2_u128), 0..3).prop_map(|all| {
        let state = |(name, id): (Option<String>, u128)| DeleteTopicState {
            name: name.map(Str::from),
            topic_id: Uuid(id),
        };
        let topics = all.into_iter().map(state).collect();
        Input::DeleteTopics(DeleteTopicsRequest { topics, ..Default::default() })
    })
}

fn grow() -> impl Strategy<Value = Input> {
    (name(), -1..6, prop::option::of(prop::collection::vec(nodes(), 0..3))).prop_map(
        |(name, count, assigned)| {
            let assigned: Option<Vec<&[i32]>> =
                assigned.as_ref().map(|all| all.iter().map(Vec::as_slice).collect());
            let topics = vec![growth(&name, count, assigned.as_deref())];
            Input::CreatePartitions(CreatePartitionsRequest { topics, ..Default::default() })
        },
    )
}

fn alter() -> impl Strategy<Value = Input> {
    let change = (setting(), -1..5_i8, value());
    (prop_oneof![4 => Just(2_i8), 1 => any::<i8>()], name(), prop::collection::vec(change, 0..3))
        .prop_map(|(kind, name, changes)| {
            let resources = vec![resource(kind, &name, &changes)];
            let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
            Input::IncrementalAlterConfigs { request, node_id: 1 }
        })
}

/// Inputs as they may come.
fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        6 => create(),
        2 => delete(),
        2 => grow(),
        3 => alter(),
        1 => Just(Input::AllocateProducerIds),
        1 => (-1..4).prop_map(|id| Input::RegisterNode(registration(id))),
        1 => Just(Input::Form { cluster_id: Uuid(10) }),
    ]
}

proptest! {
    /// Whatever is asked: no panic, every decision can be replayed, names and ids stay unique, and
    /// the state can be written down and read again, in pieces of any size.
    #[test]
    fn any_inputs_leave_a_state_that_can_be_kept(
        inputs in prop::collection::vec(input(), 0..60),
        formed in any::<bool>(),
        piece in 1..9_usize,
    ) {
        let mut cluster = if formed { Cluster::of(2) } else { Cluster::empty() };
        for input in inputs {
            cluster.ask(input);
        }
        let image = cluster.state.image();
        let ids: BTreeSet<Uuid> = image.topics().map(|topic| topic.id).collect();
        prop_assert_eq!(ids.len(), image.topic_count());
        for topic in image.topics() {
            prop_assert!(Arc::ptr_eq(image.topic_by_id(topic.id).unwrap(), topic));
            prop_assert!(topic.partition_count() > 0);
        }
        let mut again = State::default();
        let mut after = None;
        for pieces in 0.. {
            assert!(pieces < 1000, "a snapshot without an end");
            let records = cluster.controller.snapshot(&cluster.state, after.as_ref(), piece);
            let Some(last) = records.last() else { break };
            after = Some(last.key.clone());
            for record in &records {
                cluster.controller.replay(&mut again, record, 0, 0).unwrap();
            }
        }
        prop_assert!(again == cluster.state);
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
        let (decided, _) = cluster.controller.decide(&cluster.state, input);
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
