//! Offsets that nobody uses end, and so do groups without any.

use super::*;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
const NOBODY: Str = Str::EMPTY;

/// Lets days pass while members send heartbeats.
fn live_on(world: &mut World, members: &[Str], generation: i32, days: u64) {
    for _ in 0..days * 24 * 3 {
        world.tick(20 * 60 * 1_000);
        for member in members {
            assert_eq!(world.beat(member, generation), ErrorCode::NONE);
        }
    }
}

fn patient(client: &'static str) -> Ask {
    ask(client).session_ms(1_800_000)
}

#[test]
fn offsets_of_a_group_without_members_end_a_week_after_it_became_empty() {
    let mut world = World::new();
    let members = world.stable(&[patient("a")]);
    world.commit(&members[0], 1, 5);
    live_on(&mut world, &members, 1, 10);
    assert_eq!(world.offsets("g").len(), 1, "a member reads them");
    world.leave(&[identity(&members[0])]);
    world.tick(7 * DAY_MS - 600_000);
    assert_eq!(world.offsets("g").len(), 1);
    world.tick(2 * 600_000);
    assert_eq!(world.offsets("g"), []);
    assert_eq!(world.state.group_count(), 0, "and the group with them");
}

#[test]
fn the_week_goes_on_over_a_restart() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    world.commit(&members[0], 1, 5);
    world.leave(&[identity(&members[0])]);
    for _ in 0..7 {
        world.tick(DAY_MS - 1);
        world.restart();
    }
    assert_eq!(world.offsets("g").len(), 1);
    world.tick(600_001);
    assert_eq!(world.offsets("g"), []);
}

#[test]
fn offsets_without_a_group_end_a_week_after_their_commit() {
    let mut world = World::new();
    world.commit(&NOBODY, -1, 1);
    world.tick(6 * DAY_MS);
    let mut fresh = commit_request("g", &NOBODY, -1, "u", 2);
    fresh.topics[0].partitions[0].partition_index = 3;
    world.commit_with(&fresh, 10);
    world.tick(DAY_MS + 600_000);
    assert_eq!(world.offsets("g"), [("u".to_owned(), 3, 2)]);
    world.tick(7 * DAY_MS);
    assert_eq!(world.state.group_count(), 0);
}

#[test]
fn a_client_may_choose_how_long() {
    let mut world = World::new();
    let mut request = commit_request("g", &NOBODY, -1, "t", 1);
    request.retention_time_ms = 3_600_000;
    world.commit_with(&request, 4);
    world.restart();
    world.tick(3_599_999);
    assert_eq!(world.offsets("g").len(), 1);
    world.tick(600_001);
    assert_eq!(world.offsets("g"), []);
}

#[test]
fn offsets_of_topics_that_members_stopped_reading_end() {
    let mut world = World::new();
    world.commit(&NOBODY, -1, 1);
    world.commit_with(&commit_request("g", &NOBODY, -1, "u", 2), 10);
    let members = world.stable(&[patient("a").reads(&["t"])]);
    live_on(&mut world, &members, 1, 8);
    assert_eq!(world.offsets("g"), [("t".to_owned(), 0, 1)]);
}

#[test]
fn offsets_of_members_that_are_no_consumers_stay() {
    let mut world = World::new();
    let asked = patient("a").kind("connect");
    let (member, _) = world.enter(&asked);
    world.tick(3_000);
    let mut sync = sync_request(&member, 1, &[(&member, "a")]);
    sync.protocol_type = Some(Str::from("connect"));
    world.sync_with(sync);
    world.commit(&member, 1, 1);
    live_on(&mut world, &[member], 1, 8);
    assert_eq!(world.offsets("g").len(), 1);
}

#[test]
fn a_group_that_waits_for_a_member_is_not_removed() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    world.leave(&[identity(&members[0])]);
    world.tick(590_000);
    assert_eq!(world.state.group_count(), 1);
    let ticket = world.join(&ask("b").session_ms(1_800_000));
    let id = world.joined(ticket).member_id;
    world.tick(700_000);
    assert_eq!(world.state.group_count(), 1);
    world.join(&ask("b").member(&id));
    world.tick(3_000);
    assert_eq!(world.group().generation, 3);
}

#[test]
fn a_sweep_of_many_groups_goes_in_steps() {
    let mut world = World::new();
    for index in 0..5_000 {
        let name = format!("group-{index}");
        world.commit_with(&commit_request(&name, &NOBODY, -1, "t", 1), 10);
    }
    world.tick(7 * DAY_MS - 600_000);
    assert_eq!(world.state.group_count(), 5_000);
    let mut largest = 0;
    let mut steps = 0;
    let end_ms = world.now.monotonic_ms + 1_300_000;
    while let Some((timer, at_ms)) = world.next_timer().filter(|(_, at_ms)| *at_ms < end_ms) {
        let before = world.log.len();
        world.tick(at_ms - world.now.monotonic_ms);
        assert_eq!(timer, Timer::Sweep);
        largest = largest.max(world.log.len() - before);
        steps += 1;
    }
    assert_eq!(world.state.group_count(), 0);
    assert!(largest <= 1_001, "{largest} records at once");
    assert!(steps >= 10);
}

#[test]
fn a_sweep_of_one_large_group_goes_in_steps() {
    let mut world = World::new();
    for index in 0..3_000 {
        let mut request = commit_request("g", &NOBODY, -1, "t", 1);
        request.topics[0].partitions[0].partition_index = index;
        // Every third stays: it has been committed again.
        world.commit_with(&request, 10);
    }
    world.tick(7 * DAY_MS - 1);
    for index in (0..3_000).step_by(3) {
        let mut request = commit_request("g", &NOBODY, -1, "t", 2);
        request.topics[0].partitions[0].partition_index = index;
        world.commit_with(&request, 10);
    }
    world.tick(600_100);
    let kept = world.offsets("g");
    assert_eq!(kept.len(), 1_000);
    assert!(kept.iter().all(|(_, _, offset)| *offset == 2));
    assert_eq!(world.state.group_count(), 1);
}
