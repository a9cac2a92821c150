//! Static members (KIP-345, KIP-814): a restart that nobody notices.

use super::*;

fn named(client: &'static str) -> Ask {
    ask(client).instance(client)
}

#[test]
fn a_static_member_needs_no_second_join() {
    let mut world = World::new();
    let ticket = world.join(&named("a"));
    world.tick(3_000);
    let response = world.joined(ticket);
    assert_eq!(response.error_code, ErrorCode::NONE);
    assert!(response.member_id.starts_with("a-"));
    assert_eq!(response.members[0].group_instance_id, Some(Str::from("a")));
}

#[test]
fn a_restart_disturbs_nobody_and_fences_the_old_process() {
    let mut world = World::new();
    let members = world.stable(&[named("a"), named("b")]);
    let ticket = world.join(&named("b"));
    let response = world.joined(ticket);
    assert_eq!((response.error_code, response.generation_id), (ErrorCode::NONE, 1));
    assert_ne!(response.member_id, members[1]);
    assert_eq!(response.leader, members[0]);
    assert!(!response.skip_assignment);
    assert_eq!(world.phase(), Phase::Stable);
    let sync = world.sync(&response.member_id, 1, &[]);
    assert_eq!(world.assignment(sync), "b", "it gets what it had");

    let beat = |member: &Str| HeartbeatRequest {
        group_id: Str::from("g"),
        generation_id: 1,
        member_id: member.clone(),
        group_instance_id: Some(Str::from("b")),
    };
    assert_eq!(world.beat_with(beat(&members[1])), ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(world.beat_with(beat(&response.member_id)), ErrorCode::NONE);
    let mut sync = sync_request(&members[1], 1, &[]);
    sync.group_instance_id = Some(Str::from("b"));
    let sync = world.sync_with(sync);
    assert_eq!(world.synced(sync).error_code, ErrorCode::FENCED_INSTANCE_ID);
    let mut commit = commit_request("g", &members[1], 1, "t", 5);
    commit.group_instance_id = Some(Str::from("b"));
    assert_eq!(world.commit_with(&commit, 10), ErrorCode::FENCED_INSTANCE_ID);
    let join = world.join_error(&named("b").member(&members[1]));
    assert_eq!(join, ErrorCode::FENCED_INSTANCE_ID);
}

#[test]
fn the_new_id_is_in_the_log() {
    let mut world = World::new();
    world.stable(&[named("a"), named("b")]);
    let ticket = world.join(&named("b"));
    let id = world.joined(ticket).member_id;
    world.restart();
    assert_eq!(world.beat(&id, 1), ErrorCode::NONE);
}

#[test]
fn a_restarted_leader_need_not_assign_again() {
    let mut world = World::new();
    let members = world.stable(&[named("a"), named("b")]);
    let ticket = world.join(&named("a"));
    let response = world.joined(ticket);
    assert!(response.skip_assignment);
    assert_eq!(response.leader, response.member_id);
    assert_eq!(response.members.len(), 2, "it may watch for new partitions");
    assert_eq!(world.beat(&members[1], 1), ErrorCode::NONE);
}

#[test]
fn an_older_leader_is_made_to_think_that_another_leads() {
    let mut world = World::new();
    let members = world.stable(&[named("a"), named("b")]);
    let ticket = world.join(&named("a").version(8));
    let response = world.joined(ticket);
    assert!(!response.skip_assignment);
    assert_eq!(response.leader, members[0]);
    assert_ne!(response.leader, response.member_id);
    assert_eq!(response.members, []);
}

#[test]
fn a_restart_with_other_metadata_for_the_same_protocol_disturbs_nobody() {
    let mut world = World::new();
    world.stable(&[named("a"), named("b")]);
    let ticket = world.join(&named("b").reads(&["t", "u"]));
    assert_eq!(world.joined(ticket).generation_id, 1);
}

#[test]
fn a_restart_that_changes_the_protocol_begins_a_rebalance() {
    let mut world = World::new();
    let both = |names: [&'static str; 2]| names.map(|name| (name, Bytes::new()));
    let asks = [
        named("a").speaks(&both(["range", "sticky"])),
        named("b").speaks(&both(["range", "sticky"])),
    ];
    let members = world.stable(&asks);
    let ticket = world.join(&named("b").speaks(&[("sticky", Bytes::new())]));
    assert!(world.is_open(ticket));
    let leader = world.join(&asks[0].clone().member(&members[0]));
    let response = world.joined(leader);
    assert_eq!(response.protocol_name, Some(Str::from("sticky")));
    assert_eq!(response.generation_id, 2);
}

#[test]
fn a_restart_while_the_leader_assigns_begins_a_rebalance() {
    let mut world = World::new();
    let a = world.join(&named("a"));
    let b = world.join(&named("b"));
    world.tick(6_000);
    let (a, b) = (world.joined(a).member_id, world.joined(b).member_id);
    let parked = world.sync(&b, 1, &[]);
    let again = world.join(&named("b"));
    assert_eq!(world.synced(parked).error_code, ErrorCode::FENCED_INSTANCE_ID);
    assert!(world.is_open(again));
    let leader = world.join(&named("a").member(&a));
    assert_eq!(world.joined(leader).generation_id, 2);
    assert_eq!(world.joined(again).generation_id, 2);
}

#[test]
fn a_second_process_with_the_same_name_fences_the_first_while_it_joins() {
    let mut world = World::new();
    let first = world.join(&named("a"));
    let second = world.join(&named("a"));
    let fenced = world.joined(first);
    assert_eq!(fenced.error_code, ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(fenced.protocol_name, None);
    world.tick(3_000);
    assert_eq!(world.joined(second).members.len(), 1);
}

#[test]
fn a_static_member_may_miss_a_rebalance() {
    let mut world = World::new();
    let asks = [
        ask("a").rebalance_ms(20_000).session_ms(15_000),
        named("b").rebalance_ms(20_000).session_ms(60_000),
    ];
    let members = world.stable(&asks);
    let join = world.join(&asks[0].clone().member(&members[0]));
    world.tick(20_000);
    let response = world.joined(join);
    assert_eq!(response.members.len(), 2, "b is counted in, absent as it is");
    let gives = [(&members[0], "a"), (&members[1], "b")];
    let sync = world.sync(&members[0], 2, &gives);
    assert_eq!(world.assignment(sync), "a");
    let restarted = world.join(&asks[1]);
    let id = world.joined(restarted).member_id;
    let sync = world.sync(&id, 2, &[]);
    assert_eq!(world.assignment(sync), "b");
}

#[test]
fn a_restarted_member_must_still_ask_for_its_assignment_in_time() {
    let mut world = World::new();
    let slow = |name| named(name).session_ms(600_000).rebalance_ms(30_000);
    let a = world.join(&slow("a"));
    let b = world.join(&slow("b"));
    world.tick(6_000);
    let (a, _) = (world.joined(a).member_id, world.joined(b).member_id);
    world.sync(&a, 1, &[(&a, "p0")]);
    let again = world.join(&slow("b"));
    let b = world.joined(again).member_id;
    world.tick(30_000);
    assert_eq!(world.beat(&b, 1), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_rebalance_of_absent_static_members_waits_for_one_of_them() {
    let mut world = World::with(|options| options.group_members_max = 1);
    let asks = [named("a").session_ms(600_000), named("b").session_ms(600_000)];
    world.machine = GroupMachine::new(Options::default(), &Memory::default());
    let members = world.stable(&asks);
    world.machine = GroupMachine::new(
        Options { group_members_max: 1, ..Options::default() },
        &Memory::default(),
    );
    world.restart();
    assert!(matches!(world.phase(), Phase::Preparing(None)), "over capacity");
    world.tick(150_000);
    assert!(matches!(world.phase(), Phase::Preparing(None)), "nobody came");
    let join = world.join(&asks[1].clone().member(&members[1]));
    world.tick(60_000);
    let response = world.joined(join);
    assert_eq!((response.generation_id, response.leader), (2, members[1].clone()));
}

#[test]
fn an_administrator_removes_a_static_member_by_name() {
    let mut world = World::new();
    world.stable(&[named("a"), named("b")]);
    let response = world.leave(&[MemberIdentity {
        group_instance_id: Some(Str::from("b")),
        ..MemberIdentity::default()
    }]);
    assert_eq!(response.members[0].error_code, ErrorCode::NONE);
    assert!(matches!(world.phase(), Phase::Preparing(None)));
    assert_eq!(world.group().static_members.len(), 1);
}

#[test]
fn an_unknown_name_is_no_member() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    let join = world.join_error(&named("x").member(&members[0]));
    assert_eq!(join, ErrorCode::UNKNOWN_MEMBER_ID);
    let ticket = world.join(&ask("b"));
    let given_out = world.joined(ticket).member_id;
    let join = world.join_error(&named("b").member(&given_out));
    assert_eq!(join, ErrorCode::UNKNOWN_SERVER_ERROR);
}
