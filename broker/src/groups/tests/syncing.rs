//! Assignments: the leader's word, and who waits for it.

use super::*;

/// A group of two in generation 1, whose leader has not assigned yet.
fn completing() -> (World, Str, Str) {
    let mut world = World::new();
    let (a, _) = world.enter(&ask("a"));
    let (b, _) = world.enter(&ask("b"));
    world.tick(6_000);
    assert_eq!(world.phase(), Phase::Completing);
    (world, a, b)
}

#[test]
fn followers_wait_for_the_leader() {
    let (mut world, a, b) = completing();
    let follower = world.sync(&b, 1, &[]);
    assert!(world.is_open(follower));
    let records = world.log.len();
    let leader = world.sync(&a, 1, &[(&a, "p0"), (&b, "p1")]);
    assert_eq!(world.log.len(), records + 1, "the generation is in the log");
    assert_eq!(world.assignment(leader), "p0");
    let response = world.synced(follower);
    assert_eq!(response.assignment, "p1".as_bytes());
    assert_eq!(response.protocol_type, Some(Str::from("consumer")));
    assert_eq!(response.protocol_name, Some(Str::from("range")));
    let again = world.sync(&b, 1, &[]);
    assert_eq!(world.assignment(again), "p1");
}

#[test]
fn who_is_not_named_is_given_nothing() {
    let (mut world, a, b) = completing();
    let stranger = Str::from("stranger");
    world.sync(&a, 1, &[(&a, "p0"), (&stranger, "p1")]);
    let follower = world.sync(&b, 1, &[]);
    assert_eq!(world.assignment(follower), "");
}

#[test]
fn what_a_follower_assigns_does_not_count() {
    let (mut world, a, b) = completing();
    let follower = world.sync(&b, 1, &[(&b, "all of it")]);
    assert!(world.is_open(follower));
    world.sync(&a, 1, &[(&a, "p0"), (&b, "p1")]);
    assert_eq!(world.assignment(follower), "p1");
}

#[test]
fn what_is_wrong_with_a_sync_is_told() {
    let (mut world, a, b) = completing();
    let error = |world: &mut World, request| {
        let ticket = world.sync_with(request);
        world.synced(ticket).error_code
    };
    let request = |member: &Str, generation| sync_request(member, generation, &[]);
    let stranger = error(&mut world, request(&Str::from("who"), 1));
    assert_eq!(stranger, ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(error(&mut world, request(&b, 0)), ErrorCode::ILLEGAL_GENERATION);
    let mut other = request(&b, 1);
    other.protocol_name = Some(Str::from("sticky"));
    assert_eq!(error(&mut world, other), ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let mut other = request(&b, 1);
    other.protocol_type = Some(Str::from("connect"));
    assert_eq!(error(&mut world, other), ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let mut missing = request(&b, 1);
    missing.protocol_name = None;
    let refused = error(&mut world, missing.clone());
    assert_eq!(refused, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let older = world.submit(Input::SyncGroup { request: missing, api_version: 4 });
    assert!(world.is_open(older), "older versions do not name the protocol");
    let mut nowhere = request(&a, 1);
    nowhere.group_id = Str::EMPTY;
    assert_eq!(error(&mut world, nowhere), ErrorCode::INVALID_GROUP_ID);
    let mut elsewhere = request(&a, 1);
    elsewhere.group_id = Str::from("h");
    assert_eq!(error(&mut world, elsewhere), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_sync_in_a_rebalance_sends_back_to_joining() {
    let mut world = World::new();
    let members = world.stable(&[ask("a"), ask("b")]);
    world.join(&ask("a").member(&members[0]));
    let ticket = world.sync(&members[1], 1, &[]);
    assert_eq!(world.synced(ticket).error_code, ErrorCode::REBALANCE_IN_PROGRESS);
}

#[test]
fn a_sync_on_a_new_connection_takes_the_place_of_the_lost_one() {
    let (mut world, a, b) = completing();
    let lost = world.sync(&b, 1, &[]);
    let again = world.sync(&b, 1, &[]);
    assert_eq!(world.synced(lost).error_code, ErrorCode::REBALANCE_IN_PROGRESS);
    world.sync(&a, 1, &[(&b, "p1")]);
    assert_eq!(world.assignment(again), "p1");
}

#[test]
fn a_member_that_comes_meanwhile_takes_the_assignment_back() {
    let (mut world, a, b) = completing();
    let follower = world.sync(&b, 1, &[]);
    let (_, newcomer) = world.enter(&ask("c"));
    assert_eq!(world.synced(follower).error_code, ErrorCode::REBALANCE_IN_PROGRESS);
    let late = world.sync(&a, 1, &[(&a, "p0")]);
    assert_eq!(world.synced(late).error_code, ErrorCode::REBALANCE_IN_PROGRESS);
    world.join(&ask("a").member(&a));
    world.join(&ask("b").member(&b));
    assert_eq!(world.joined(newcomer).generation_id, 2);
}

#[test]
fn who_does_not_ask_in_time_is_given_up() {
    let mut world = World::new();
    let slow = |name| ask(name).session_ms(600_000).rebalance_ms(30_000);
    let (a, _) = world.enter(&slow("a"));
    let (b, _) = world.enter(&slow("b"));
    world.tick(6_000);
    world.sync(&a, 1, &[(&a, "p0")]);
    world.tick(29_999);
    assert_eq!(world.phase(), Phase::Stable);
    world.tick(1);
    assert!(matches!(world.phase(), Phase::Preparing(None)));
    assert_eq!(world.beat(&b, 1), ErrorCode::UNKNOWN_MEMBER_ID);
    let join = world.join(&slow("a").member(&a));
    assert_eq!(world.joined(join).members.len(), 1);
}

#[test]
fn a_leader_that_never_assigns_is_given_up() {
    let mut world = World::new();
    let slow = |name| ask(name).session_ms(600_000).rebalance_ms(30_000);
    let (_, _) = world.enter(&slow("a"));
    let (b, _) = world.enter(&slow("b"));
    world.tick(6_000);
    let waits = world.sync(&b, 1, &[]);
    world.tick(30_000);
    assert_eq!(world.synced(waits).error_code, ErrorCode::REBALANCE_IN_PROGRESS);
    let join = world.join(&slow("b").member(&b));
    assert_eq!(world.joined(join).leader, b);
}

#[test]
fn a_generation_too_large_for_the_log_is_told_and_begins_again() {
    let mut world = World::with(|options| options.batch_bytes_max = 2_000);
    let (a, _) = world.enter(&ask("a"));
    let (b, _) = world.enter(&ask("b"));
    world.tick(6_000);
    let follower = world.sync(&b, 1, &[]);
    let huge = "p".repeat(2_000);
    let leader = world.sync(&a, 1, &[(&a, &huge)]);
    for ticket in [leader, follower] {
        let response = world.synced(ticket);
        assert_eq!(response.error_code, ErrorCode::UNKNOWN_SERVER_ERROR);
        assert_eq!(response.assignment, Bytes::new());
    }
    assert_eq!(world.log, []);
    assert!(matches!(world.phase(), Phase::Preparing(None)));
}
