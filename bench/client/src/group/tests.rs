use super::*;
use crate::metadata::{Partition, Topic};

const TOPIC: Str = Str::from_static("t");

fn metadata(partition_count: i32) -> Metadata {
    let partition = Partition {
        error: ErrorCode::NONE,
        leader: Some(1),
        leader_epoch: 0,
        replicas: vec![],
        in_sync: vec![],
        offline: vec![],
    };
    let topic = Topic {
        error: ErrorCode::NONE,
        id: vltava_protocol::types::Uuid(1),
        is_internal: false,
        partitions: (0..partition_count).map(|number| (number, partition.clone())).collect(),
    };
    Metadata { topics: [(TOPIC, topic)].into(), ..Metadata::default() }
}

fn membership() -> Membership {
    Membership::new(GroupOptions::new(Str::from_static("g"), vec![TOPIC]))
}

fn join(member: &mut Membership, now_ms: u64) -> JoinGroupRequest {
    match member.take_request(now_ms).unwrap() {
        Some(GroupRequest::Join(request)) => request,
        other => panic!("no join: {other:?}"),
    }
}

fn sync(member: &mut Membership, now_ms: u64) -> SyncGroupRequest {
    match member.take_request(now_ms).unwrap() {
        Some(GroupRequest::Sync(request)) => request,
        other => panic!("no sync: {other:?}"),
    }
}

fn joined(
    member_id: &'static str,
    leader: &'static str,
    members: &[&'static str],
) -> GroupResponse {
    let members = members.iter().map(|id| JoinGroupResponseMember {
        member_id: Str::from_static(id),
        metadata: encode_subscription(&[TOPIC]).unwrap(),
        ..JoinGroupResponseMember::default()
    });
    GroupResponse::Join(JoinGroupResponse {
        generation_id: 4,
        member_id: Str::from_static(member_id),
        leader: Str::from_static(leader),
        members: members.collect(),
        ..JoinGroupResponse::default()
    })
}

fn refused_join(code: ErrorCode, member_id: &'static str) -> GroupResponse {
    GroupResponse::Join(JoinGroupResponse {
        error_code: code,
        member_id: Str::from_static(member_id),
        ..JoinGroupResponse::default()
    })
}

fn heartbeat(code: ErrorCode) -> GroupResponse {
    GroupResponse::Heartbeat(HeartbeatResponse { error_code: code, ..HeartbeatResponse::default() })
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition { topic: TOPIC, partition }
}

/// A member that leads, alone, with two partitions.
fn stable() -> Membership {
    let mut member = membership();
    join(&mut member, 0);
    member.on_response(0, joined("m", "m", &["m"]), &metadata(2)).unwrap();
    let request = sync(&mut member, 0);
    let assignment = request.assignments[0].assignment.clone();
    let response = SyncGroupResponse { assignment, ..SyncGroupResponse::default() };
    let events = member.on_response(0, GroupResponse::Sync(response), &metadata(2)).unwrap();
    assert_eq!(events, [GroupEvent::Assigned(vec![at(0), at(1)])]);
    member
}

#[test]
fn a_member_takes_its_id_joins_and_gets_its_part() {
    let mut member = membership();
    assert_eq!(join(&mut member, 0).member_id, "");
    assert_eq!(member.take_request(0).unwrap(), None, "one at a time");
    assert_eq!(member.next_deadline_ms(), None);
    let answer = refused_join(ErrorCode::MEMBER_ID_REQUIRED, "b");
    assert!(member.on_response(0, answer, &metadata(3)).unwrap().is_empty());
    let request = join(&mut member, 0);
    assert_eq!((request.member_id.as_str(), request.protocols[0].name.as_str()), ("b", "range"));
    member.on_response(0, joined("b", "a", &[]), &metadata(3)).unwrap();
    let request = sync(&mut member, 0);
    assert_eq!((request.generation_id, request.assignments.len()), (4, 0), "it does not lead");
    let response = SyncGroupResponse {
        assignment: encode_assignment(&[at(2)]).unwrap(),
        ..SyncGroupResponse::default()
    };
    let events = member.on_response(0, GroupResponse::Sync(response), &metadata(3)).unwrap();
    assert_eq!(events, [GroupEvent::Assigned(vec![at(2)])]);
}

#[test]
fn the_leader_divides() {
    let mut member = membership();
    join(&mut member, 0);
    member.on_response(0, joined("a", "a", &["a", "b"]), &metadata(3)).unwrap();
    let assignments = sync(&mut member, 0).assignments;
    let parts: Vec<_> =
        assignments.iter().map(|part| decode_assignment(&part.assignment).unwrap()).collect();
    assert_eq!(parts, [vec![at(0), at(1)], vec![at(2)]]);
}

#[test]
fn heartbeats_come_in_time_and_bring_the_next_round() {
    let mut member = stable();
    assert_eq!(member.take_request(2999).unwrap(), None);
    assert_eq!(member.next_deadline_ms(), Some(3000));
    assert!(matches!(member.take_request(3000).unwrap(), Some(GroupRequest::Heartbeat(_))));
    assert!(member.on_response(3001, heartbeat(ErrorCode::NONE), &metadata(2)).unwrap().is_empty());
    assert!(matches!(member.take_request(6000).unwrap(), Some(GroupRequest::Heartbeat(_))));
    let events = member
        .on_response(6001, heartbeat(ErrorCode::REBALANCE_IN_PROGRESS), &metadata(2))
        .unwrap();
    assert_eq!(events, [GroupEvent::Revoked]);
    // It keeps its id, and what it has read may be committed until it joins.
    assert_eq!((member.generation(), member.member_id().as_str()), (4, "m"));
    assert_eq!(join(&mut member, 6001).member_id, "m");
}

#[test]
fn a_member_that_was_thrown_out_begins_anew() {
    let mut member = stable();
    member.take_request(3000).unwrap();
    let events =
        member.on_response(3000, heartbeat(ErrorCode::UNKNOWN_MEMBER_ID), &metadata(2)).unwrap();
    assert_eq!(events, [GroupEvent::Lost]);
    assert_eq!((member.generation(), member.member_id().as_str()), (-1, ""));
    assert_eq!(join(&mut member, 3000).member_id, "");
    let mut member = stable();
    assert_eq!(member.on_commit_error(0, ErrorCode::ILLEGAL_GENERATION), [GroupEvent::Lost]);
    assert_eq!(join(&mut member, 0).member_id, "m");
}

#[test]
fn a_coordinator_that_moved_or_is_silent_is_looked_for_and_nothing_is_given_up() {
    let mut member = stable();
    member.take_request(3000).unwrap();
    let events =
        member.on_response(3000, heartbeat(ErrorCode::NOT_COORDINATOR), &metadata(2)).unwrap();
    assert_eq!(events, [GroupEvent::CoordinatorMoved]);
    assert_eq!(member.take_request(3099).unwrap(), None);
    // Not before its time, and then with the same generation.
    assert!(matches!(member.take_request(6000).unwrap(), Some(GroupRequest::Heartbeat(_))));
    assert_eq!(member.on_disconnect(6000), [GroupEvent::CoordinatorMoved]);
    let answer = heartbeat(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    assert!(member.on_response(6000, answer, &metadata(2)).unwrap().is_empty());
}

#[test]
fn who_is_refused_does_not_try_again() {
    let mut member = membership();
    join(&mut member, 0);
    let code = ErrorCode::GROUP_AUTHORIZATION_FAILED;
    let events = member.on_response(0, refused_join(code, ""), &metadata(1)).unwrap();
    assert_eq!(events, [GroupEvent::Refused(code)]);
    assert_eq!((member.take_request(1 << 40).unwrap(), member.next_deadline_ms()), (None, None));
}

#[test]
fn members_say_good_bye_and_static_ones_do_not() {
    assert_eq!(membership().leave(5), None);
    let member = stable();
    assert_eq!(member.leave(2).unwrap().member_id, "m");
    assert_eq!(member.leave(3).unwrap().members[0].member_id, "m");
    let mut member = stable();
    member.options.instance_id = Some(Str::from_static("i"));
    assert_eq!(member.leave(5), None);
}
