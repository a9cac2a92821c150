//! OffsetCommit, OffsetFetch, OffsetDelete.

use vltava_protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
};
use vltava_protocol::messages::offset_fetch::OffsetFetchRequestTopics;
use vltava_protocol::types::Uuid;

use super::*;

const NOBODY: Str = Str::EMPTY;

/// A group in each phase, with a member in it where there can be one.
fn worlds() -> Vec<(&'static str, World, Str)> {
    let missing = (World::new(), Str::from("who"));

    let mut simple = World::new();
    simple.commit(&NOBODY, -1, 1);

    let mut emptied = World::new();
    let members = emptied.stable(&[ask("a")]);
    emptied.leave(&[identity(&members[0])]);
    let emptied = (emptied, members[0].clone());

    let mut expected = World::new();
    let ticket = expected.join(&ask("a"));
    let id = expected.joined(ticket).member_id;

    let mut preparing = World::new();
    let members = preparing.stable(&[ask("a"), ask("b")]);
    preparing.join(&ask("a").member(&members[0]));
    let preparing = (preparing, members[1].clone());

    let mut completing = World::new();
    let (a, _) = completing.enter(&ask("a"));
    completing.tick(3_000);

    let mut stable = World::new();
    let members = stable.stable(&[ask("a")]);
    let stable = (stable, members[0].clone());

    vec![
        ("missing", missing.0, missing.1),
        ("simple", simple, Str::from("who")),
        ("emptied", emptied.0, emptied.1),
        ("expected", expected, id),
        ("preparing", preparing.0, preparing.1),
        ("completing", completing, a),
        ("stable", stable.0, stable.1),
    ]
}

#[test]
fn who_may_commit_in_which_phase() {
    const OK: ErrorCode = ErrorCode::NONE;
    const NO_GROUP: ErrorCode = ErrorCode::GROUP_ID_NOT_FOUND;
    const STRANGER: ErrorCode = ErrorCode::UNKNOWN_MEMBER_ID;
    const OLD: ErrorCode = ErrorCode::ILLEGAL_GENERATION;
    const AGAIN: ErrorCode = ErrorCode::REBALANCE_IN_PROGRESS;
    // By phase: nobody in no generation; a stranger in none, in the current one; a member in none,
    // in an old one, in the current one.
    let table = [
        ("missing", [OK, OK, NO_GROUP, OK, NO_GROUP, NO_GROUP]),
        ("simple", [OK, OK, STRANGER, OK, STRANGER, STRANGER]),
        ("emptied", [OK, OK, STRANGER, OK, STRANGER, STRANGER]),
        ("expected", [OK, OK, STRANGER, OK, STRANGER, STRANGER]),
        ("preparing", [STRANGER, STRANGER, STRANGER, OLD, OLD, OK]),
        ("completing", [STRANGER, STRANGER, STRANGER, OLD, OLD, AGAIN]),
        ("stable", [STRANGER, STRANGER, STRANGER, OLD, OLD, OK]),
    ];
    for (phase, expected) in table {
        for (case, expected) in expected.into_iter().enumerate() {
            let found = worlds().into_iter().find(|(name, ..)| *name == phase);
            let (_, mut world, member) = found.unwrap();
            let stranger = Str::from("stranger");
            let (member, generation) = match case {
                0 => (NOBODY, -1),
                1 => (stranger, -1),
                2 => (stranger, 1),
                3 => (member, -1),
                4 => (member, 0),
                _ => (member, 1),
            };
            let error = world.commit(&member, generation, 7);
            assert_eq!(error, expected, "{phase}, case {case}");
            let is_kept = world.offsets("g").contains(&("t".to_owned(), 0, 7));
            assert_eq!(is_kept, expected == OK, "{phase}, case {case}");
        }
    }
}

#[test]
fn a_static_stranger_may_not_commit() {
    let mut world = World::new();
    let members = world.stable(&[ask("a").instance("i")]);
    let mut request = commit_request("g", &members[0], 1, "t", 3);
    request.group_instance_id = Some(Str::from("j"));
    assert_eq!(world.commit_with(&request, 10), ErrorCode::UNKNOWN_MEMBER_ID);
    request.group_instance_id = Some(Str::from("i"));
    assert_eq!(world.commit_with(&request, 10), ErrorCode::NONE);
}

#[test]
fn versions_before_9_hear_of_a_generation_where_there_is_no_group() {
    let mut world = World::new();
    let request = commit_request("g", &Str::from("who"), 3, "t", 1);
    assert_eq!(world.commit_with(&request, 8), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(world.commit_with(&request, 9), ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(world.state.group_count(), 0);
}

#[test]
fn a_group_may_have_no_name_where_it_only_stores_offsets() {
    let mut world = World::new();
    let request = commit_request("", &NOBODY, -1, "t", 4);
    assert_eq!(world.commit_with(&request, 10), ErrorCode::NONE);
    assert_eq!(world.offsets(""), [("t".to_owned(), 0, 4)]);
}

#[test]
fn what_is_committed_comes_back_also_after_a_restart() {
    let mut world = World::new();
    let mut request = commit_request("g", &NOBODY, -1, "t", 42);
    request.topics[0].topic_id = Uuid(9);
    let partition = &mut request.topics[0].partitions[0];
    partition.committed_leader_epoch = 6;
    partition.committed_metadata = Some(Str::from("bookmark"));
    world.commit_with(&request, 10);
    world.restart();
    for (asked_id, expected) in [(Uuid::ZERO, 42), (Uuid(9), 42), (Uuid(10), -1)] {
        let ticket = world.submit(Input::OffsetFetch(OffsetFetchRequestGroup {
            group_id: Str::from("g"),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: Str::from("t"),
                topic_id: asked_id,
                partition_indexes: vec![0, 1],
            }]),
            ..OffsetFetchRequestGroup::default()
        }));
        let Reply::OffsetFetch(response) = world.reply(ticket) else {
            panic!("no fetch");
        };
        assert_eq!(response.topics[0].topic_id, asked_id);
        let [known, unknown] = &response.topics[0].partitions[..] else {
            panic!("two were asked for");
        };
        assert_eq!(known.committed_offset, expected);
        if expected == 42 {
            assert_eq!(known.committed_leader_epoch, 6);
            assert_eq!(known.metadata, Some(Str::from("bookmark")));
        }
        assert_eq!((unknown.committed_offset, unknown.committed_leader_epoch), (-1, -1));
        assert_eq!(unknown.metadata, Some(Str::EMPTY));
        assert_eq!(unknown.error_code, ErrorCode::NONE);
    }
}

#[test]
fn offsets_of_no_group_are_none_and_no_error() {
    let mut world = World::new();
    assert_eq!(world.offsets("nowhere"), []);
}

#[test]
fn all_offsets_come_topic_by_topic() {
    let mut world = World::new();
    for (topic, partitions) in [("b", vec![2, 0]), ("a", vec![1])] {
        for index in partitions {
            let mut request = commit_request("g", &NOBODY, -1, topic, i64::from(index));
            request.topics[0].partitions[0].partition_index = index;
            world.commit_with(&request, 10);
        }
    }
    let own = |topic: &str, index: i32| (topic.to_owned(), index, i64::from(index));
    assert_eq!(world.offsets("g"), [own("a", 1), own("b", 0), own("b", 2)]);
}

#[test]
fn a_text_that_is_too_long_is_refused_alone() {
    let mut world = World::new();
    let mut request = commit_request("g", &NOBODY, -1, "t", 1);
    let second = OffsetCommitRequestPartition {
        partition_index: 1,
        committed_offset: 2,
        ..OffsetCommitRequestPartition::default()
    };
    request.topics[0].partitions.push(second);
    // 4,096 units of UTF-16 are allowed, whatever they take in UTF-8.
    request.topics[0].partitions[0].committed_metadata = Some(Str::from("é".repeat(4_096)));
    assert_eq!(world.commit_with(&request, 10), ErrorCode::NONE);
    request.topics[0].partitions[0].committed_metadata = Some(Str::from("e".repeat(4_097)));
    request.topics[0].partitions[1].committed_offset = 3;
    let error = world.commit_with(&request, 10);
    assert_eq!(error, ErrorCode::OFFSET_METADATA_TOO_LARGE);
    let kept = world.offsets("g");
    assert_eq!(kept, [("t".to_owned(), 0, 1), ("t".to_owned(), 1, 3)]);
}

#[test]
fn a_commit_too_large_for_the_log_is_refused_whole() {
    let mut world = World::with(|options| options.batch_bytes_max = 500);
    let mut request = commit_request("g", &NOBODY, -1, "t", 1);
    for index in 1..50 {
        let partition = OffsetCommitRequestPartition {
            partition_index: index,
            ..OffsetCommitRequestPartition::default()
        };
        request.topics[0].partitions.push(partition);
    }
    let error = world.commit_with(&request, 10);
    assert_eq!(error, ErrorCode::UNKNOWN_SERVER_ERROR);
    assert_eq!(world.log, []);
}

#[test]
fn where_memory_is_spent_only_known_partitions_go_on() {
    let mut world = World::with(|options| options.memory_bytes_max = 1_500);
    let mut errors = Vec::new();
    for index in 0..20 {
        let mut request = commit_request("g", &NOBODY, -1, "t", 1);
        request.topics[0].partitions[0].partition_index = index;
        errors.push(world.commit_with(&request, 10));
    }
    assert_eq!(errors[0], ErrorCode::NONE);
    assert_eq!(errors[19], ErrorCode::COORDINATOR_NOT_AVAILABLE);
    assert_eq!(world.commit(&NOBODY, -1, 2), ErrorCode::NONE);
    assert!(world.state.bytes() < 2_500);
}

/// Deletes offsets of partition 0 of topics.
fn delete(world: &mut World, group: &str, topics: &[&str]) -> OffsetDeleteResponse {
    let topic = |name: &&str| OffsetDeleteRequestTopic {
        name: Str::from(*name),
        partitions: vec![OffsetDeleteRequestPartition::default()],
    };
    let ticket = world.submit(Input::OffsetDelete(OffsetDeleteRequest {
        group_id: Str::from(group),
        topics: topics.iter().map(topic).collect(),
    }));
    match world.reply(ticket) {
        Reply::OffsetDelete(response) => response,
        other => panic!("{other:?} is no delete"),
    }
}

fn errors(response: &OffsetDeleteResponse) -> Vec<ErrorCode> {
    let partitions = response.topics.iter().map(|topic| topic.partitions[0].error_code);
    partitions.collect()
}

#[test]
fn offsets_that_no_member_reads_may_be_deleted() {
    let mut world = World::new();
    world.commit(&NOBODY, -1, 1);
    world.commit_with(&commit_request("g", &NOBODY, -1, "u", 2), 10);
    world.stable(&[ask("a").reads(&["t"])]);
    let response = delete(&mut world, "g", &["t", "u", "never"]);
    assert_eq!(response.error_code, ErrorCode::NONE);
    let expected = [ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC, ErrorCode::NONE, ErrorCode::NONE];
    assert_eq!(errors(&response), expected);
    assert_eq!(world.offsets("g"), [("t".to_owned(), 0, 1)]);
}

#[test]
fn offsets_of_a_group_without_members_may_be_deleted() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    world.commit(&members[0], 1, 5);
    world.leave(&[identity(&members[0])]);
    assert_eq!(errors(&delete(&mut world, "g", &["t"])), [ErrorCode::NONE]);
    assert_eq!(world.offsets("g"), []);
}

#[test]
fn what_members_with_unreadable_metadata_read_may_be_anything() {
    let unreadable: [&[u8]; 5] = [
        b"",
        b"\0",
        b"\0\x01\0\0\0\x02\0\x01t",
        b"\0\x01\x7f\xff\xff\xff\0\x01t",
        b"\xff\xff\0\0\0\0",
    ];
    for metadata in unreadable {
        let mut world = World::new();
        world.commit(&NOBODY, -1, 1);
        world.stable(&[ask("a").speaks(&[("range", Bytes::from_static(metadata))])]);
        let response = delete(&mut world, "g", &["t"]);
        assert_eq!(errors(&response), [ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC], "{metadata:?}");
    }
}

#[test]
fn what_is_wrong_with_an_offset_delete_is_told() {
    let mut world = World::new();
    let response = delete(&mut world, "g", &["t"]);
    assert_eq!(response.error_code, ErrorCode::GROUP_ID_NOT_FOUND);
    assert_eq!(response.topics, []);
    assert_eq!(delete(&mut world, "", &["t"]).error_code, ErrorCode::INVALID_GROUP_ID);
    let connect = ask("a").kind("connect").group("workers");
    world.enter(&connect);
    world.tick(3_000);
    let response = delete(&mut world, "workers", &["t"]);
    assert_eq!(response.error_code, ErrorCode::NON_EMPTY_GROUP);
}
