//! Topics come, grow and go, as Kafka says they may.

use std::collections::BTreeSet;

use vltava_protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};

use super::*;

fn seeing(present: &[i32]) -> Sight {
    Sight { present: present.iter().copied().collect(), ..Sight::default() }
}

#[test]
fn new_partitions_go_to_nodes_that_are_there() {
    let mut cluster = Cluster::of(4);
    let mut create = |name: &str, present: &[i32], replication_factor: i16| {
        let request = CreateTopicsRequest {
            topics: vec![topic(name, 12, replication_factor)],
            ..CreateTopicsRequest::default()
        };
        let input = Input::CreateTopics { request, random: 77 };
        let input = input.seeing(seeing(present));
        let Reply::CreateTopics(mut response) = cluster.ask(input) else { panic!() };
        let result = response.topics.remove(0);
        let known = cluster.state.image().topic(name).cloned();
        let partitions = known.iter().flat_map(|topic| &topic.partitions);
        let replicas: Vec<Vec<i32>> = partitions.map(|it| it.node_ids()).collect();
        (replicas, result.error_code, text(result.error_message))
    };
    let (placed, ..) = create("two", &[1, 3, 4], 2);
    assert_eq!(placed.len(), 12);
    assert!(placed.iter().flatten().all(|id| *id != 2), "{placed:?}");
    // Where they are too few, others stand behind them.
    let (placed, ..) = create("three", &[1, 3], 3);
    assert_eq!(placed.len(), 12);
    for replicas in &placed {
        assert!(replicas[..2] == [1, 3] || replicas[..2] == [3, 1], "{placed:?}");
    }
    let away: BTreeSet<i32> = placed.iter().map(|replicas| replicas[2]).collect();
    assert_eq!(away, [2, 4].into(), "evenly");
    // But for a majority: which may be there again when it is tried again.
    let (away, never) = (ErrorCode::NOT_ENOUGH_REPLICAS, ErrorCode::INVALID_REPLICATION_FACTOR);
    assert!(away.is_retriable() && !never.is_retriable());
    for (name, wanted, error, words) in [
        ("minority", 3, away, "only 1 of 4 broker(s) are there now"),
        ("pair", 2, away, "a majority of their replicas"),
        ("five", 5, never, "only 4 broker(s) are registered"),
    ] {
        let (placed, said, told) = create(name, &[1], wanted);
        assert!(placed.is_empty() && said == error && told.contains(words), "{said:?} {told}");
    }
    // So it is with partitions that are added.
    let more = CreatePartitionsTopic { name: Str::from("two"), count: 20, ..Default::default() };
    let request = CreatePartitionsRequest { topics: vec![more], ..Default::default() };
    cluster.ask(Input::CreatePartitions(request).seeing(seeing(&[2, 4])));
    let known = cluster.state.image().topic("two").cloned().unwrap();
    assert_eq!(known.partitions.len(), 20);
    for partition in &known.partitions[12..] {
        assert!(partition.node_ids().iter().all(|id| [2, 4].contains(id)), "{partition:?}");
    }
}

#[test]
fn a_client_assigns_partitions_to_nodes_that_are_there() {
    let mut cluster = Cluster::of(3);
    cluster.create(topic("t", 1, 2));
    let (none, some) = (ErrorCode::INVALID_REPLICA_ASSIGNMENT, ErrorCode::NOT_ENOUGH_REPLICAS);
    for (name, nodes, error, words) in [
        ("dead", vec![2, 3], none, "for partition 0 are fenced or in controlled shutdown"),
        ("minority", vec![1, 2], some, "only 1 of 3 broker(s) are there now"),
        ("third", vec![2, 1, 3], some, "only 1 of 3 broker(s) are there now"),
        ("fine", vec![1], ErrorCode::NONE, ""),
    ] {
        let assignment =
            CreatableReplicaAssignment { partition_index: 0, broker_ids: nodes.clone() };
        let topic = CreatableTopic { assignments: vec![assignment], ..topic(name, -1, -1) };
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let input = Input::CreateTopics { request, random: 77 };
        let Reply::CreateTopics(mut response) = cluster.ask(input.seeing(seeing(&[1]))) else {
            panic!()
        };
        let result = response.topics.remove(0);
        let told = text(result.error_message);
        assert!(result.error_code == error && told.contains(words), "{nodes:?}: {told}");
    }
    // So it is with partitions that are added.
    for (present, nodes, error) in [([1], [2, 3], none), ([1], [1, 2], some), ([2], [1, 2], some)] {
        let assignments = Some(vec![CreatePartitionsAssignment { broker_ids: nodes.to_vec() }]);
        let more = CreatePartitionsTopic { name: Str::from("t"), count: 2, assignments };
        let request = CreatePartitionsRequest { topics: vec![more], ..Default::default() };
        let input = Input::CreatePartitions(request).seeing(seeing(&present));
        let Reply::CreatePartitions(response) = cluster.ask(input) else { panic!() };
        assert_eq!(response.results[0].error_code, error, "{nodes:?}");
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
            vec![(invalid, "Neither topic name nor id were specified.")],
        ),
        (
            vec![by_id(), named("a")],
            vec![(invalid, "The provided topic name maps to an ID that was already supplied.")],
        ),
    ] {
        let expected: Vec<_> =
            expected.into_iter().map(|(error, message)| (error, message.to_string())).collect();
        assert_eq!(cluster.delete(asked), expected);
    }
    assert_eq!(cluster.state.image().topic_count(), 1);
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

/// While replicas come and go, a partition is on more of them than its topic asks for.
#[test]
fn partitions_are_added_while_others_move() {
    let mut cluster = Cluster::of(3);
    cluster.create(topic("t", 1, 3));
    cluster.ask(Input::RegisterNode(Registration { disks: vec![Uuid(2)], ..registration(2) }));
    let to_its_new_disk = ReassignablePartition { replicas: Some(vec![1, 2, 3]), ..default() };
    let moved = vec![to_its_new_disk];
    let topics = vec![ReassignableTopic { name: Str::from("t"), partitions: moved }];
    cluster
        .ask(Input::AlterReassignments(AlterPartitionReassignmentsRequest { topics, ..default() }));
    let first = |cluster: &Cluster| cluster.state.image().topic("t").unwrap().partitions[0].clone();
    assert_eq!(first(&cluster).replicas.len(), 4);
    assert_eq!(cluster.grow(growth("t", 2, None)), (ErrorCode::NONE, String::new()));
    let found = cluster.state.image().topic("t").unwrap();
    assert_eq!(found.partition(1).unwrap().replicas.len(), 3);
}

fn default<T: Default>() -> T {
    T::default()
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
            "The topic t currently has 2 partition(s); 1 would not be an increase.",
        ),
        (growth("t", -5, None), partitions, "would not be an increase."),
        (
            growth("t", 4, Some(&[&[1]])),
            assignment,
            "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.",
        ),
        (
            growth("t", 3, Some(&[&[1, 2]])),
            assignment,
            "not consistent with previous partitions, which have 1 replica(s).",
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
