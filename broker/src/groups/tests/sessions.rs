//! Signs of life, and what happens where they fail to come.

use super::*;

#[test]
fn heartbeats_keep_a_member() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    for _ in 0..20 {
        world.tick(9_000);
        assert_eq!(world.beat(&members[0], 1), ErrorCode::NONE);
    }
    assert_eq!(world.phase(), Phase::Stable);
}

#[test]
fn a_heartbeat_moves_no_timer() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    let before = world.timers.clone();
    world.now.monotonic_ms += 1;
    world.beat(&members[0], 1);
    assert_eq!(world.timers, before);
}

#[test]
fn a_silent_member_is_given_up_when_its_session_ends() {
    let mut world = World::new();
    let members = world.stable(&[ask("a"), ask("b")]);
    world.beat(&members[1], 1);
    world.tick(5_000);
    world.beat(&members[0], 1);
    world.tick(4_999);
    assert_eq!(world.phase(), Phase::Stable);
    world.tick(1);
    assert_eq!(world.beat(&members[1], 1), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(world.beat(&members[0], 1), ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn the_last_to_go_silent_leaves_an_empty_group() {
    let mut world = World::new();
    world.stable(&[ask("a")]);
    world.tick(10_000);
    assert_eq!(world.session.groups().len(), 0);
    let stored = &world.state.group(&Str::from("g")).unwrap().metadata;
    assert_eq!(stored.generation, 2);
    assert_eq!(stored.protocol_type, Some(Str::from("consumer")));
    assert_eq!((&stored.protocol, &stored.leader), (&None, &None));
    assert!(stored.members.is_empty());
}

#[test]
fn what_is_wrong_with_a_heartbeat_is_told() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    assert_eq!(world.beat(&Str::from("who"), 1), ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(world.beat(&members[0], 2), ErrorCode::ILLEGAL_GENERATION);
    let elsewhere = HeartbeatRequest {
        group_id: Str::from("h"),
        member_id: members[0].clone(),
        ..HeartbeatRequest::default()
    };
    assert_eq!(world.beat_with(elsewhere.clone()), ErrorCode::UNKNOWN_MEMBER_ID);
    let nowhere = HeartbeatRequest { group_id: Str::EMPTY, ..elsewhere };
    assert_eq!(world.beat_with(nowhere), ErrorCode::INVALID_GROUP_ID);
}

#[test]
fn members_may_beat_before_the_leader_has_assigned() {
    let mut world = World::new();
    let (a, _) = world.enter(&ask("a"));
    world.tick(3_000);
    assert_eq!(world.phase(), Phase::Completing);
    assert_eq!(world.beat(&a, 1), ErrorCode::NONE);
}

#[test]
fn an_id_never_used_is_given_up() {
    let mut world = World::new();
    let ticket = world.join(&ask("a").session_ms(8_000));
    let id = world.joined(ticket).member_id;
    world.tick(7_999);
    assert_eq!(world.session.groups().len(), 1);
    world.tick(1);
    assert_eq!(world.session.groups().len(), 0);
    let late = world.join_error(&ask("a").member(&id));
    assert_eq!(late, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_rebalance_waits_for_an_id_given_out() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    let ticket = world.join(&ask("b").session_ms(6_000));
    world.joined(ticket);
    let join = world.join(&ask("a").member(&members[0]));
    assert!(world.is_open(join), "b was given an id and will come");
    world.tick(6_000);
    assert_eq!(world.joined(join).members.len(), 1, "b did not come");
}

#[test]
fn a_parked_join_excuses_a_known_member() {
    let mut world = World::new();
    let asks = [ask("a"), ask("b").session_ms(60_000)];
    let members = world.stable(&asks);
    let join = world.join(&asks[0].clone().member(&members[0]));
    world.tick(30_000);
    assert!(world.is_open(join), "its session does not end while it waits for us");
    world.join(&asks[1].clone().member(&members[1]));
    assert_eq!(world.joined(join).generation_id, 2);
}

#[test]
fn a_parked_sync_excuses_a_member() {
    let mut world = World::new();
    let (a, _) = world.enter(&ask("a").session_ms(60_000));
    let (b, _) = world.enter(&ask("b"));
    world.tick(6_000);
    let waits = world.sync(&b, 1, &[]);
    world.tick(30_000);
    assert!(world.is_open(waits));
    world.sync(&a, 1, &[(&b, "p0")]);
    assert_eq!(world.assignment(waits), "p0");
    world.tick(9_999);
    assert_eq!(world.beat(&b, 1), ErrorCode::NONE, "its session began anew");
}

#[test]
fn a_new_member_whose_connection_died_is_given_up_after_five_minutes() {
    let mut world = World::new();
    let patient = |name| ask(name).session_ms(1_800_000).rebalance_ms(1_800_000);
    let members = world.stable(&[patient("a")]);
    let (b, parked) = world.enter(&patient("b"));
    world.tick(299_999);
    assert!(world.is_open(parked));
    world.tick(1);
    let response = world.joined(parked);
    assert_eq!(response.error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(response.member_id, Str::EMPTY);
    let join = world.join(&patient("a").member(&members[0]));
    let left = world.joined(join).members;
    assert!(left.iter().all(|member| member.member_id != b));
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    for offset in 0..5 {
        world.tick(8_000);
        assert_eq!(world.commit(&members[0], 1, offset), ErrorCode::NONE);
    }
    assert_eq!(world.phase(), Phase::Stable);
}
