//! Requests that no client of good will sends, and timers that fire when they should not: nothing
//! panics, and what the room promises holds all the same.

use proptest::prelude::*;
use vltava_protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use vltava_protocol::messages::offset_fetch::OffsetFetchRequestTopics;
use vltava_protocol::types::Uuid;

use super::*;
use crate::groups::ListGroups;

/// Where a member id or generation in a request comes from.
#[derive(Clone, Debug)]
enum Source {
    /// Someone, somewhere in the machine.
    Known(u8),
    /// Nobody.
    Empty,
    /// Made up.
    Wild,
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        6 => any::<u8>().prop_map(Source::Known),
        1 => Just(Source::Empty),
        1 => Just(Source::Wild),
    ]
}

#[derive(Clone, Debug)]
struct Attack {
    kind: u8,
    group: u8,
    member: Source,
    instance: Option<u8>,
    number: i32,
    version: i16,
    protocols: Vec<(u8, Vec<u8>)>,
    members: Vec<(Source, Option<u8>)>,
    tick_ms: u64,
}

fn attack() -> impl Strategy<Value = Attack> {
    let number = prop_oneof![-2..4, Just(i32::MIN), Just(i32::MAX), Just(10_000)];
    let protocol = (0_u8..3, prop::collection::vec(any::<u8>(), 0..12));
    (
        (0_u8..14, 0_u8..3, source(), prop::option::of(0_u8..3)),
        (number, -1_i16..12),
        prop::collection::vec(protocol, 0..4),
        prop::collection::vec((source(), prop::option::of(0_u8..3)), 0..4),
        prop_oneof![Just(0_u64), 0_u64..20_000],
    )
        .prop_map(|(who, (number, version), protocols, members, tick_ms)| {
            let (kind, group, member, instance) = who;
            Attack { kind, group, member, instance, number, version, protocols, members, tick_ms }
        })
}

fn group_name(number: u8) -> Str {
    Str::from(["", "g", "h"][usize::from(number) % 3])
}

fn instance_name(number: u8) -> Str {
    Str::from(["", "i", "j"][usize::from(number) % 3])
}

/// The id that a source names now.
fn member_id(world: &World, group: &Str, source: &Source) -> Str {
    let Source::Known(which) = source else {
        let is_wild = matches!(source, Source::Wild);
        return Str::from(if is_wild { "wild" } else { "" });
    };
    let Some(group) = world.session.group(group) else {
        return Str::EMPTY;
    };
    let mut ids: Vec<&Str> = group.members.keys().collect();
    ids.extend(&group.pending_joins);
    ids.get(usize::from(*which) % ids.len().max(1)).map_or(Str::EMPTY, |id| (*id).clone())
}

fn join_of(world: &World, attack: &Attack, group_id: Str) -> Input {
    let names = ["range", "sticky", ""];
    let protocol = |(name, metadata): &(u8, Vec<u8>)| JoinGroupRequestProtocol {
        name: Str::from(names[usize::from(*name) % 3]),
        metadata: Bytes::from(metadata.clone()),
    };
    let is_odd = attack.number == i32::MIN;
    Input::JoinGroup(Box::new(Join {
        request: JoinGroupRequest {
            member_id: member_id(world, &group_id, &attack.member),
            group_id,
            session_timeout_ms: if is_odd { i32::MIN } else { 10_000 },
            rebalance_timeout_ms: attack.number,
            group_instance_id: attack.instance.map(instance_name),
            protocol_type: Str::from(if attack.number == 3 { "" } else { "consumer" }),
            protocols: attack.protocols.iter().map(protocol).collect(),
            reason: Some(Str::from("\u{1b}[2J\n")),
        },
        api_version: attack.version,
        client: Client::default(),
        random: u128::from(world.tickets),
    }))
}

fn sync_of(world: &World, attack: &Attack, group_id: Str) -> Input {
    let assignment = |(source, _): &(Source, Option<u8>)| SyncGroupRequestAssignment {
        member_id: member_id(world, &group_id, source),
        assignment: Bytes::from_static(b"p"),
    };
    let current = world.session.group(&group_id).map(|group| group.generation);
    Input::SyncGroup {
        request: SyncGroupRequest {
            generation_id: current.unwrap_or(attack.number),
            member_id: member_id(world, &group_id, &attack.member),
            assignments: attack.members.iter().map(assignment).collect(),
            group_instance_id: attack.instance.map(instance_name),
            group_id,
            ..SyncGroupRequest::default()
        },
        api_version: attack.version,
    }
}

fn commit_of(world: &World, attack: &Attack, group_id: &Str) -> Input {
    let member = member_id(world, group_id, &attack.member);
    let mut request = commit_request(group_id, &member, attack.number, "t", i64::MIN);
    request.retention_time_ms = i64::from(attack.number) * i64::from(i32::MAX);
    request.topics[0].partitions[0].partition_index = attack.number;
    Input::OffsetCommit { request, api_version: attack.version }
}

fn input_of(world: &World, attack: &Attack) -> Input {
    let group_id = group_name(attack.group);
    let topic = Str::from("t");
    match attack.kind {
        0..=3 => join_of(world, attack, group_id),
        4..=5 => sync_of(world, attack, group_id),
        6 => Input::Heartbeat(HeartbeatRequest {
            member_id: member_id(world, &group_id, &attack.member),
            group_id,
            generation_id: attack.number,
            group_instance_id: attack.instance.map(instance_name),
        }),
        7 => Input::LeaveGroup {
            request: LeaveGroupRequest {
                member_id: member_id(world, &group_id, &attack.member),
                members: attack
                    .members
                    .iter()
                    .map(|(source, instance)| MemberIdentity {
                        member_id: member_id(world, &group_id, source),
                        group_instance_id: instance.map(instance_name),
                        ..MemberIdentity::default()
                    })
                    .collect(),
                group_id,
            },
            api_version: attack.version,
        },
        8..=9 => commit_of(world, attack, &group_id),
        10 => Input::OffsetFetch(OffsetFetchRequestGroup {
            group_id,
            topics: attack.instance.map(|_| {
                vec![OffsetFetchRequestTopics {
                    name: topic,
                    topic_id: Uuid(1),
                    partition_indexes: vec![attack.number],
                }]
            }),
            ..OffsetFetchRequestGroup::default()
        }),
        11 => Input::OffsetDelete(OffsetDeleteRequest {
            group_id,
            topics: vec![OffsetDeleteRequestTopic {
                name: topic,
                partitions: vec![OffsetDeleteRequestPartition { partition_index: attack.number }],
            }],
        }),
        12 => Input::ListGroups(ListGroups { after: Some(group_id), ..ListGroups::default() }),
        _ => Input::DeleteGroup { group_id },
    }
}

impl World {
    /// A timer fires before its time.
    fn fire_early(&mut self, which: usize) {
        let Some(timer) = self.timers.keys().nth(which % self.timers.len().max(1)) else {
            return;
        };
        let timer = timer.clone();
        self.timers.remove(&timer);
        let outcome = self.machine.fire(&self.state, &mut self.session, timer, self.now);
        self.apply(outcome);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_request_breaks_what_is_promised(
        attacks in prop::collection::vec(attack(), 1..100),
        batch_bytes_max in prop_oneof![Just(1_000_000_usize), Just(400), Just(0)],
    ) {
        let mut world = World::with(|options| {
            options.batch_bytes_max = batch_bytes_max;
            options.group_members_max = 5;
            options.memory_bytes_max = 20_000;
            options.offsets_check_interval_ms = 100_000_000;
        });
        for attack in attacks {
            let input = input_of(&world, &attack);
            world.submit(input);
            if attack.tick_ms % 7 == 3 {
                world.fire_early(usize::from(attack.group));
            }
            world.tick(attack.tick_ms);
        }
        world.tick(50_000_000_000);
        prop_assert!(world.open.is_empty(), "everybody is answered in the end");
        prop_assert_eq!(world.session.groups().len(), 0);
    }
}
