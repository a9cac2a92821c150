//! JoinGroup, SyncGroup, Heartbeat, OffsetCommit, OffsetFetch, DescribeGroups, ListGroups,
//! OffsetDelete, LeaveGroup, DeleteGroups.

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_groups::DeleteGroupsRequest;
use vltava_protocol::messages::describe_groups::DescribeGroupsRequest;
use vltava_protocol::messages::heartbeat::HeartbeatRequest;
use vltava_protocol::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use vltava_protocol::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use vltava_protocol::messages::list_groups::ListGroupsRequest;
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use vltava_protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use vltava_protocol::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use vltava_protocol::types::{Str, Uuid};

use crate::cluster::{UNKNOWN_ID, create};
use crate::talk::Talk;

const CONSUMER: Str = Str::from_static("consumer");
const RANGE: Str = Str::from_static("range");
const NOBODY: Str = Str::from_static("nobody");

/// A member as the others know it.
#[derive(Clone)]
struct Member {
    group: Str,
    id: Str,
    instance: Option<Str>,
    generation: i32,
}

/// Sends all of this file's.
pub fn ask(talk: &mut Talk) {
    let id = create(talk, "read", 2);
    talk.mask(id, "id of read");
    join(talk);
    let member = stable(talk, "stable", None);
    let fixed = stable(talk, "fixed", Some(Str::from_static("instance")));
    sync(talk, &member);
    heartbeat(talk, &member, &fixed);
    offset_commit(talk, &member, id);
    offset_fetch(talk, id);
    describe_groups(talk);
    list_groups(talk);
    offset_delete(talk, &member);
    leave(talk, &fixed);
    delete_groups(talk);
}

/// A consumer's metadata: version 0, one topic, no user data.
fn subscription(topic: &Str) -> Bytes {
    let mut bytes = vec![0, 0, 0, 0, 0, 1];
    bytes.extend((topic.as_bytes().len() as u16).to_be_bytes());
    bytes.extend(topic.as_bytes());
    bytes.extend([0xff; 4]);
    bytes.into()
}

fn join_request(
    talk: &Talk,
    group: &Str,
    member_id: Str,
    instance: Option<Str>,
) -> JoinGroupRequest {
    let protocol =
        JoinGroupRequestProtocol { name: RANGE, metadata: subscription(&talk.str("read")) };
    JoinGroupRequest {
        group_id: group.clone(),
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 60_000,
        member_id,
        group_instance_id: instance,
        protocol_type: CONSUMER,
        protocols: vec![protocol],
        reason: Some(Str::from_static("to read")),
    }
}

/// Joins a group alone; with the id that is given first, from version 4 on.
fn join_alone(
    talk: &mut Talk,
    version: i16,
    group: &Str,
    instance: Option<Str>,
) -> JoinGroupResponse {
    let mut request = join_request(talk, group, Str::EMPTY, instance);
    let mut answer = talk.ask(version, &request);
    talk.mask(&answer.member_id, "MEMBER");
    if answer.error_code == ErrorCode::MEMBER_ID_REQUIRED {
        talk.note("a first join", version, &answer);
        request.member_id = answer.member_id;
        answer = talk.ask(version, &request);
    }
    assert_eq!(answer.error_code, ErrorCode::NONE);
    assert_eq!((answer.generation_id, answer.members.len()), (1, 1));
    assert_eq!(answer.leader, answer.member_id);
    talk.note("a join", version, &answer);
    answer
}

fn stable(talk: &mut Talk, name: &str, instance: Option<Str>) -> Member {
    let group = talk.str(name);
    let joined = join_alone(talk, 9, &group, instance.clone());
    let member = Member { group, id: joined.member_id, instance, generation: 1 };
    let answer = talk.ask(5, &sync_request(&member, 5));
    assert_eq!(answer.error_code, ErrorCode::NONE);
    member
}

fn join(talk: &mut Talk) {
    for version in talk.versions::<JoinGroupRequest>() {
        let group = talk.str(&format!("joined-{version}"));
        let joined = join_alone(talk, version, &group, None);
        let again = join_request(talk, &group, joined.member_id, None);
        talk.exchange("a join again", version, &again);
        let cases = [
            ("without a group", JoinGroupRequest { group_id: Str::EMPTY, ..again.clone() }),
            ("a short session", JoinGroupRequest { session_timeout_ms: 1, ..again.clone() }),
            ("a stranger", JoinGroupRequest { member_id: NOBODY, ..again.clone() }),
            (
                "another protocol",
                JoinGroupRequest { protocol_type: RANGE, member_id: Str::EMPTY, ..again.clone() },
            ),
            ("no protocol", JoinGroupRequest { protocols: Vec::new(), ..again.clone() }),
        ];
        for (what, request) in cases {
            let answer = talk.exchange(what, version, &request);
            assert!(!answer.error_code.is_none(), "{what}");
        }
        if version >= 5 {
            let group = talk.str(&format!("joined-fixed-{version}"));
            let instance = Some(Str::from_static("instance"));
            let first = join_alone(talk, version, &group, instance.clone());
            let member = Member {
                group: group.clone(),
                id: first.member_id,
                instance: instance.clone(),
                generation: 1,
            };
            talk.ask(5, &sync_request(&member, 5));
            let restarted = join_request(talk, &group, Str::EMPTY, instance);
            let answer = talk.ask(version, &restarted);
            talk.mask(&answer.member_id, "ANOTHER");
            talk.note("a static member again", version, &answer);
            let fenced = join_request(talk, &group, member.id, member.instance);
            let answer = talk.exchange("a fenced one", version, &fenced);
            assert_eq!(answer.error_code, ErrorCode::FENCED_INSTANCE_ID);
        }
    }
}

fn sync_request(member: &Member, version: i16) -> SyncGroupRequest {
    let assignment = SyncGroupRequestAssignment {
        member_id: member.id.clone(),
        assignment: Bytes::from_static(b"all"),
    };
    SyncGroupRequest {
        group_id: member.group.clone(),
        generation_id: member.generation,
        member_id: member.id.clone(),
        group_instance_id: member.instance.clone().filter(|_| version >= 3),
        protocol_type: Some(CONSUMER),
        protocol_name: Some(RANGE),
        assignments: vec![assignment],
    }
}

fn sync(talk: &mut Talk, member: &Member) {
    for version in talk.versions::<SyncGroupRequest>() {
        let good = sync_request(member, version);
        let answer = talk.exchange("again", version, &good);
        assert_eq!(answer.assignment, "all");
        let mut cases = vec![
            ("another generation", SyncGroupRequest { generation_id: 7, ..good.clone() }),
            ("a stranger", SyncGroupRequest { member_id: NOBODY, ..good.clone() }),
            ("a missing group", SyncGroupRequest { group_id: NOBODY, ..good.clone() }),
            ("without a group", SyncGroupRequest { group_id: Str::EMPTY, ..good.clone() }),
        ];
        if version >= 3 {
            let group_instance_id = Some(NOBODY);
            cases.push(("an instance", SyncGroupRequest { group_instance_id, ..good.clone() }));
        }
        if version >= 5 {
            let protocol_name = Some(NOBODY);
            cases.push(("another protocol", SyncGroupRequest { protocol_name, ..good.clone() }));
            cases.push(("no protocol", SyncGroupRequest { protocol_name: None, ..good }));
        }
        for (what, request) in cases {
            let answer = talk.exchange(what, version, &request);
            assert!(!answer.error_code.is_none(), "{what}");
        }
    }
}

fn heartbeat(talk: &mut Talk, member: &Member, fixed: &Member) {
    let request = |member: &Member| HeartbeatRequest {
        group_id: member.group.clone(),
        generation_id: member.generation,
        member_id: member.id.clone(),
        group_instance_id: member.instance.clone(),
    };
    let good = request(member);
    for version in talk.versions::<HeartbeatRequest>() {
        let answer = talk.exchange("good", version, &good);
        assert_eq!(answer.error_code, ErrorCode::NONE);
        let mut cases = vec![
            ("another generation", HeartbeatRequest { generation_id: 7, ..good.clone() }),
            ("a stranger", HeartbeatRequest { member_id: NOBODY, ..good.clone() }),
            ("a missing group", HeartbeatRequest { group_id: NOBODY, ..good.clone() }),
            ("without a group", HeartbeatRequest { group_id: Str::EMPTY, ..good.clone() }),
        ];
        if version >= 3 {
            talk.exchange("a static member", version, &request(fixed));
            let fenced = HeartbeatRequest { member_id: NOBODY, ..request(fixed) };
            cases.push(("a fenced one", fenced));
            let group_instance_id = Some(NOBODY);
            cases.push(("an instance", HeartbeatRequest { group_instance_id, ..good.clone() }));
        }
        for (what, request) in cases {
            let answer = talk.exchange(what, version, &request);
            assert!(!answer.error_code.is_none(), "{what}");
        }
    }
}

fn offset_commit(talk: &mut Talk, member: &Member, id: Uuid) {
    for version in talk.versions::<OffsetCommitRequest>() {
        let partition = |partition_index, metadata: Option<Str>| OffsetCommitRequestPartition {
            partition_index,
            committed_offset: 100 + i64::from(version),
            committed_leader_epoch: 0,
            committed_metadata: metadata,
        };
        let topic = |name: &str, topic_id, partitions| OffsetCommitRequestTopic {
            name: talk.str(name),
            topic_id,
            partitions,
        };
        let long = Some(Str::from("x".repeat(5_000)));
        let good = OffsetCommitRequest {
            group_id: member.group.clone(),
            generation_id_or_member_epoch: member.generation,
            member_id: member.id.clone(),
            topics: vec![
                topic(
                    "read",
                    id,
                    vec![
                        partition(0, Some(Str::from_static("so far"))),
                        partition(1, long),
                        partition(9, None),
                    ],
                ),
                topic("missing", UNKNOWN_ID, vec![partition(0, None)]),
            ],
            ..OffsetCommitRequest::default()
        };
        let alone = OffsetCommitRequest {
            group_id: talk.str("alone"),
            generation_id_or_member_epoch: -1,
            member_id: Str::EMPTY,
            ..good.clone()
        };
        let cases = [
            ("good and bad", good.clone()),
            ("without members", alone),
            (
                "another generation",
                OffsetCommitRequest { generation_id_or_member_epoch: 7, ..good.clone() },
            ),
            ("a stranger", OffsetCommitRequest { member_id: NOBODY, ..good.clone() }),
            ("a missing group", OffsetCommitRequest { group_id: NOBODY, ..good.clone() }),
            ("without a group", OffsetCommitRequest { group_id: Str::EMPTY, ..good.clone() }),
            ("nothing", OffsetCommitRequest { topics: Vec::new(), ..good }),
        ];
        for (what, request) in cases {
            let mut answer = talk.ask(version, &request);
            answer.topics.sort_by_key(|topic| (topic.name.clone(), topic.topic_id));
            for topic in &mut answer.topics {
                topic.partitions.sort_by_key(|partition| partition.partition_index);
            }
            talk.note(what, version, &answer);
        }
    }
}

fn offset_fetch(talk: &mut Talk, id: Uuid) {
    for version in talk.versions::<OffsetFetchRequest>() {
        for name in ["stable", "alone", "nobody"] {
            for all in [false, true] {
                if all && version < 2 {
                    continue;
                }
                let request = offset_fetch_request(talk, version, name, all, id);
                let mut answer = talk.ask(version, &request);
                answer.topics.sort_by_key(|topic| topic.name.clone());
                for group in &mut answer.groups {
                    group.topics.sort_by_key(|topic| (topic.name.clone(), topic.topic_id));
                }
                talk.note(&format!("group {name}, all: {all}"), version, &answer);
            }
        }
    }
}

fn offset_fetch_request(
    talk: &Talk,
    version: i16,
    name: &str,
    all: bool,
    id: Uuid,
) -> OffsetFetchRequest {
    if version < 8 {
        let topic = |name, partition_indexes| OffsetFetchRequestTopic {
            name: talk.str(name),
            partition_indexes,
        };
        let topics = vec![topic("read", vec![0, 1, 9]), topic("missing", vec![0])];
        return OffsetFetchRequest {
            group_id: talk.str(name),
            topics: (!all).then_some(topics),
            require_stable: version >= 7,
            ..OffsetFetchRequest::default()
        };
    }
    let topic = |name, topic_id, partition_indexes| OffsetFetchRequestTopics {
        name: talk.str(name),
        topic_id,
        partition_indexes,
    };
    let topics = vec![topic("read", id, vec![0, 1, 9]), topic("missing", UNKNOWN_ID, vec![0])];
    let group = |name: &str| OffsetFetchRequestGroup {
        group_id: talk.str(name),
        topics: (!all).then(|| topics.clone()),
        ..OffsetFetchRequestGroup::default()
    };
    OffsetFetchRequest {
        groups: vec![group(name), group("other")],
        require_stable: true,
        ..OffsetFetchRequest::default()
    }
}

fn describe_groups(talk: &mut Talk) {
    for version in talk.versions::<DescribeGroupsRequest>() {
        let names = ["stable", "fixed", "alone", "joined-0", "never"];
        let request = DescribeGroupsRequest {
            groups: names.into_iter().map(|name| talk.str(name)).collect(),
            include_authorized_operations: version >= 3,
        };
        let mut answer = talk.ask(version, &request);
        answer.groups.sort_by_key(|group| group.group_id.clone());
        let states = answer.groups.iter().map(|group| group.group_state.as_str());
        assert_eq!(states.collect::<Vec<_>>().concat(), "EmptyStableCompletingRebalanceDeadStable");
        talk.note("five groups", version, &answer);
    }
}

fn list_groups(talk: &mut Talk) {
    let own = talk.name("");
    for version in talk.versions::<ListGroupsRequest>() {
        let mut cases = vec![("all", ListGroupsRequest::default())];
        if version >= 4 {
            let states_filter = vec![Str::from_static("stable"), Str::from_static("Empty")];
            cases
                .push(("of two states", ListGroupsRequest { states_filter, ..Default::default() }));
        }
        if version >= 5 {
            let types_filter = vec![Str::from_static("Classic")];
            cases.push(("of one type", ListGroupsRequest { types_filter, ..Default::default() }));
            let types_filter = vec![Str::from_static("consumer")];
            cases.push(("of another", ListGroupsRequest { types_filter, ..Default::default() }));
        }
        for (what, request) in cases {
            let mut answer = talk.ask(version, &request);
            assert_eq!(answer.error_code, ErrorCode::NONE);
            answer.groups.retain(|group| group.group_id.starts_with(&own));
            answer.groups.sort_by_key(|group| group.group_id.clone());
            talk.note(what, version, &answer);
        }
    }
}

fn offset_delete(talk: &mut Talk, member: &Member) {
    let request = |group: Str, topic: &str| OffsetDeleteRequest {
        group_id: group,
        topics: vec![OffsetDeleteRequestTopic {
            name: talk.str(topic),
            partitions: [0, 9]
                .map(|partition_index| OffsetDeleteRequestPartition { partition_index })
                .to_vec(),
        }],
    };
    let cases = [
        ("what is read", request(member.group.clone(), "read")),
        ("what is not read", request(member.group.clone(), "seen")),
        ("of nobody", request(talk.str("alone"), "read")),
        ("a missing topic", request(talk.str("alone"), "missing")),
        ("a missing group", request(NOBODY, "read")),
        ("without a group", request(Str::EMPTY, "read")),
    ];
    for version in talk.versions::<OffsetDeleteRequest>() {
        for (what, request) in &cases {
            let mut answer = talk.ask(version, request);
            for topic in &mut answer.topics {
                topic.partitions.sort_by_key(|partition| partition.partition_index);
            }
            talk.note(what, version, &answer);
        }
    }
}

fn leave(talk: &mut Talk, fixed: &Member) {
    for version in talk.versions::<LeaveGroupRequest>() {
        let member = stable(talk, &format!("left-{version}"), None);
        let request = |group: &Str, members: &[(&Str, Option<&Str>)]| {
            let identity = |(member_id, instance): &(&Str, Option<&Str>)| MemberIdentity {
                member_id: (*member_id).clone(),
                group_instance_id: instance.cloned(),
                reason: Some(Str::from_static("done")),
            };
            LeaveGroupRequest {
                group_id: group.clone(),
                member_id: if version < 3 { members[0].0.clone() } else { Str::EMPTY },
                members: if version < 3 {
                    Vec::new()
                } else {
                    members.iter().map(identity).collect()
                },
            }
        };
        let mut cases = vec![
            ("a stranger", request(&member.group, &[(&NOBODY, None)])),
            ("a missing group", request(&NOBODY, &[(&member.id, None)])),
            ("without a group", request(&Str::EMPTY, &[(&member.id, None)])),
            ("a member", request(&member.group, &[(&member.id, None), (&NOBODY, None)])),
            ("a member again", request(&member.group, &[(&member.id, None)])),
        ];
        if version == 5 {
            let instance = fixed.instance.as_ref();
            let by_instance = request(&fixed.group, &[(&Str::EMPTY, instance)]);
            cases.push(("fenced", request(&fixed.group, &[(&NOBODY, instance)])));
            cases.push(("by instance", by_instance.clone()));
            cases.push(("by instance again", by_instance));
        }
        for (what, request) in cases {
            talk.exchange(what, version, &request);
        }
    }
}

fn delete_groups(talk: &mut Talk) {
    for version in talk.versions::<DeleteGroupsRequest>() {
        let names = [&format!("left-{version}"), "stable", "never", ""];
        let groups_names =
            names.map(|name| if name.is_empty() { Str::EMPTY } else { talk.str(name) });
        let request = DeleteGroupsRequest { groups_names: groups_names.to_vec() };
        let mut answer = talk.ask(version, &request);
        answer.results.sort_by_key(|group| group.group_id.clone());
        let good = answer.results.iter().filter(|group| group.error_code.is_none());
        assert_eq!(good.count(), 1, "{answer:#?}");
        talk.note("one can be deleted", version, &answer);
    }
}
