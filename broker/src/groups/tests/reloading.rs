//! What survives: replay, snapshots, records of other versions.

use vltava_protocol::records::group::{
    GroupMetadataKey, GroupMetadataValue, MemberMetadata, OffsetCommitKey, OffsetCommitValue,
};

use super::*;

fn apply(state: &mut State, key: Bytes, value: Option<Bytes>) -> bool {
    let machine = GroupMachine::new(Options::default(), &Memory::default());
    machine.replay(state, &KeyValue { key, value }, 0, 0).is_ok()
}

fn offset_key() -> Bytes {
    let key = OffsetCommitKey { group: Str::from("g"), topic: Str::from("t"), partition: 3 };
    key.to_key_bytes().unwrap()
}

fn group_key() -> Bytes {
    let key = GroupMetadataKey { group: Str::from("g") };
    key.to_key_bytes().unwrap()
}

#[test]
fn a_stable_group_goes_on_under_a_new_leader() {
    let mut world = World::new();
    let members = world.stable(&[ask("a"), ask("b").instance("i")]);
    world.tick(9_000);
    world.restart();
    assert_eq!(world.phase(), Phase::Stable);
    world.tick(9_999);
    assert_eq!(world.beat(&members[0], 1), ErrorCode::NONE, "sessions began anew");
    let sync = world.sync(&members[1], 1, &[]);
    assert_eq!(world.assignment(sync), "b");
    let join = world.join(&ask("b").instance("i").member(&members[1]));
    assert_eq!(world.joined(join).generation_id, 1);
    assert_eq!(world.group().leader, Some(members[0].clone()));
}

#[test]
fn who_was_lost_with_the_old_leader_is_given_up() {
    let mut world = World::new();
    let members = world.stable(&[ask("a"), ask("b")]);
    world.restart();
    world.tick(5_000);
    world.beat(&members[0], 1);
    world.tick(5_000);
    assert!(matches!(world.phase(), Phase::Preparing(None)));
    assert_eq!(world.group().members.len(), 1);
}

#[test]
fn a_rebalance_cut_short_begins_from_the_last_stable_generation() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    let (b, _) = world.enter(&ask("b"));
    world.join(&ask("a").member(&members[0]));
    assert_eq!(world.group().generation, 2);
    world.restart();
    assert_eq!((world.phase(), world.group().generation), (Phase::Stable, 1));
    assert_eq!(world.beat(&members[0], 2), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(world.beat(&b, 2), ErrorCode::UNKNOWN_MEMBER_ID);
    let join = world.join_error(&ask("b").member(&b));
    assert_eq!(join, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_group_larger_than_it_may_be_rebalances_when_loaded() {
    let mut world = World::new();
    let asks = [ask("a"), ask("b"), ask("c")];
    let members = world.stable(&asks);
    world.machine = GroupMachine::new(
        Options { group_members_max: 2, ..Options::default() },
        &Memory::default(),
    );
    world.restart();
    let tickets: Vec<Ticket> = asks
        .iter()
        .zip(&members)
        .map(|(ask, member)| world.join(&ask.clone().member(member)))
        .collect();
    let refused = world.joined(tickets[2]);
    assert_eq!(refused.error_code, ErrorCode::GROUP_MAX_SIZE_REACHED);
    world.tick(60_000);
    assert_eq!(world.joined(tickets[0]).members.len(), 2);
}

#[test]
fn offsets_are_written_as_kafka_4_4_does() {
    let mut world = World::new();
    let request = commit_request("g", &Str::EMPTY, -1, "t", 42);
    world.commit_with(&request, 10);
    let record = &world.log[0];
    assert_eq!(record.key, &b"\0\x01\0\x01g\0\x01t\0\0\0\0"[..]);
    let mut value = vec![0, 4];
    value.extend(42_i64.to_be_bytes());
    value.extend((-1_i32).to_be_bytes());
    value.push(1);
    value.extend(1_700_000_000_000_i64.to_be_bytes());
    value.push(0);
    assert_eq!(record.value, Some(Bytes::from(value)));

    let mut request = commit_request("g", &Str::EMPTY, -1, "t", 43);
    request.retention_time_ms = 60_000;
    world.commit_with(&request, 4);
    let mut value = vec![0, 1];
    value.extend(43_i64.to_be_bytes());
    value.extend([0, 0]);
    value.extend(1_700_000_000_000_i64.to_be_bytes());
    value.extend(1_700_000_060_000_i64.to_be_bytes());
    assert_eq!(world.log[1].value, Some(Bytes::from(value)));
}

#[test]
fn groups_are_written_as_kafka_4_4_does() {
    let mut world = World::new();
    let ticket = world.join(&ask("a").version(3));
    world.tick(3_000);
    let member = world.joined(ticket).member_id;
    world.sync(&member, 1, &[(&member, "p0")]);
    let record = world.log.last().unwrap();
    assert_eq!(record.key, &b"\0\x02\0\x01g"[..]);
    let value = record.value.as_ref().unwrap();
    assert_eq!(&value[..2], [0, 3]);
    let value = GroupMetadataValue::from_value_bytes(value).unwrap();
    assert_eq!(value.protocol_type, "consumer");
    assert_eq!((value.generation, value.protocol), (1, Some(Str::from("range"))));
    assert_eq!(value.leader, Some(member.clone()));
    assert_eq!(value.current_state_timestamp, world.now.wall_ms);
    assert_eq!(
        value.members,
        [MemberMetadata {
            member_id: member,
            group_instance_id: None,
            client_id: Str::from("a"),
            client_host: Str::from("/10.0.0.1"),
            rebalance_timeout: 60_000,
            session_timeout: 10_000,
            subscription: subscription(&["t"]),
            assignment: Bytes::from("p0"),
        }]
    );
}

#[test]
fn offsets_of_every_version_are_read() {
    for version in 0..=4 {
        let mut state = State::default();
        let value = OffsetCommitValue {
            offset: 5,
            metadata: Str::from("m"),
            commit_timestamp: 6,
            expire_timestamp: if version == 1 { 8 } else { -1 },
            leader_epoch: if version >= 3 { 2 } else { -1 },
            ..OffsetCommitValue::default()
        };
        let value = value.to_value_bytes(version).unwrap();
        assert!(apply(&mut state, offset_key(), Some(value)));
        let (_, _, partition, committed) = state.committed_offsets().next().unwrap();
        assert_eq!((partition, committed.offset, committed.committed_at_ms), (3, 5, 6));
        assert_eq!(committed.expires_at_ms, (version == 1).then_some(8));
        assert_eq!(committed.leader_epoch, if version >= 3 { 2 } else { -1 });
    }
}

#[test]
fn keys_of_the_first_version_are_read() {
    let mut state = State::default();
    let value = OffsetCommitValue::default().to_value_bytes(0).unwrap();
    let mut key = offset_key().to_vec();
    key[1] = 0;
    assert!(apply(&mut state, Bytes::from(key.clone()), Some(value)));
    assert_eq!(state.committed_offsets().count(), 1);
    assert!(apply(&mut state, offset_key(), None));
    assert_eq!(state.committed_offsets().count(), 0);
}

#[test]
fn a_group_that_ends_before_its_offsets_keeps_them() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    world.commit(&members[0], 1, 5);
    world.leave(&[identity(&members[0])]);
    assert!(apply(&mut world.state, group_key(), None));
    assert_eq!(world.offsets("g"), [("t".to_owned(), 0, 5)]);
    let end = OffsetCommitKey { group: Str::from("g"), topic: Str::from("t"), partition: 0 };
    assert!(apply(&mut world.state, end.to_key_bytes().unwrap(), None));
    assert!(apply(&mut world.state, group_key(), None));
    assert_eq!((world.state.group_count(), world.state.bytes()), (0, 0));
}

#[test]
fn groups_of_every_version_are_read() {
    for version in 0..=4 {
        let mut state = State::default();
        let value = GroupMetadataValue {
            protocol_type: Str::from("consumer"),
            generation: 4,
            protocol: Some(Str::from("range")),
            leader: Some(Str::from("m")),
            current_state_timestamp: if version >= 2 { 9 } else { -1 },
            members: vec![MemberMetadata {
                member_id: Str::from("m"),
                session_timeout: 7,
                rebalance_timeout: if version >= 1 { 8 } else { -1 },
                ..MemberMetadata::default()
            }],
        };
        let value = value.to_value_bytes(version).unwrap();
        assert!(apply(&mut state, group_key(), Some(value)));
        let metadata = &state.group(&Str::from("g")).unwrap().metadata;
        assert_eq!(metadata.changed_at_ms, (version >= 2).then_some(9));
        let expected = if version >= 1 { 8 } else { 7 };
        assert_eq!(metadata.members[0].rebalance_timeout_ms, expected);
    }
}

#[test]
fn what_a_newer_release_wrote_or_rot_is_told() {
    let mut state = State::default();
    let short = Bytes::from_static(b"\0");
    assert!(!apply(&mut state, short.clone(), None));
    assert!(!apply(&mut state, offset_key(), Some(short.clone())));
    assert!(!apply(&mut state, offset_key(), Some(Bytes::from_static(b"\0\x05"))));
    assert!(!apply(&mut state, group_key(), Some(Bytes::from_static(b"\0\x05"))));
    assert!(!apply(&mut state, group_key(), Some(Bytes::from_static(b"\0\x03\0\x09x"))));
    assert!(!apply(&mut state, group_key().slice(..3), Some(short)));
    assert_eq!(state, State::default());
}

#[test]
fn records_of_other_group_types_are_kept_unread() {
    let mut state = State::default();
    for kind in [3_u8, 8, 19, 200] {
        let key = Bytes::from(vec![0, kind, 9]);
        let value = Some(Bytes::from(vec![kind; 5]));
        assert!(apply(&mut state, key, value));
    }
    assert!(apply(&mut state, Bytes::from_static(b"\0\x03\x09"), None));
    assert_eq!(state.unread_count(), 3);
    let machine = GroupMachine::new(Options::default(), &Memory::default());
    for records_max in [1, 2, 100] {
        let log = snapshot(&machine, &state, records_max);
        assert_eq!(log.len(), 3);
        assert_eq!(replayed(&machine, &log), state);
    }
}

#[test]
fn a_snapshot_goes_on_where_its_last_key_was_deleted() {
    let mut world = World::new();
    for group in ["a", "b", "c"] {
        for topic in ["t", "u"] {
            let request = commit_request(group, &Str::EMPTY, -1, topic, 1);
            world.commit_with(&request, 10);
        }
    }
    let piece = world.machine.snapshot(&world.state, None, 3);
    let after = piece.last().unwrap().key.clone();
    world.submit(Input::DeleteGroup { group_id: Str::from("b") });
    let rest = world.machine.snapshot(&world.state, Some(&after), 100);
    assert_eq!(rest.len(), 2, "both of c");
}

#[test]
fn a_piece_of_a_snapshot_is_bounded_in_bytes_too() {
    let mut world = World::with(|options| options.batch_bytes_max = 3_000);
    for index in 0..100 {
        let mut request = commit_request("g", &Str::EMPTY, -1, "t", 1);
        request.topics[0].partitions[0].partition_index = index;
        world.commit_with(&request, 10);
    }
    let piece = world.machine.snapshot(&world.state, None, 1_000);
    assert!((10..60).contains(&piece.len()), "{}", piece.len());
    let log = snapshot(&world.machine, &world.state, 1_000);
    assert_eq!(replayed(&world.machine, &log), world.state);
}

#[test]
fn a_damaged_generation_harms_nobody() {
    let member = |id: &str, instance: &str| MemberMetadata {
        member_id: Str::from(id),
        group_instance_id: Some(Str::from(instance)),
        session_timeout: -5,
        rebalance_timeout: i32::MIN,
        ..MemberMetadata::default()
    };
    let value = GroupMetadataValue {
        generation: i32::MAX,
        protocol: None,
        leader: Some(Str::from("nobody")),
        members: vec![member("m", "i"), member("m", "j"), member("n", "i")],
        ..GroupMetadataValue::default()
    };
    let mut world = World::new();
    world.log.push(KeyValue { key: group_key(), value: Some(value.to_value_bytes(3).unwrap()) });
    let mut state = replayed(&world.machine, &world.log);
    std::mem::swap(&mut state, &mut world.state);
    let mut session = Session::default();
    let outcome = world.machine.lead(&world.state, &mut session, world.now);
    world.session = session;
    for change in outcome.timers {
        if let TimerChange::Set { key, .. } = change {
            world.now.monotonic_ms += 1_000_000;
            let fired = world.machine.fire(&world.state, &mut world.session, key, world.now);
            for record in fired.records {
                world.machine.replay(&mut world.state, &record, 0, 0).unwrap();
            }
        }
    }
    assert_eq!(world.session.groups().len(), 0);
    assert_eq!(world.session.bytes(), 0);
}
