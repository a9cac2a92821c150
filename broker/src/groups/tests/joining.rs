//! Coming into a group: ids, the first generation, rebalances, protocols, limits.

use super::*;

#[test]
fn a_new_member_is_given_an_id_first() {
    let mut world = World::new();
    let ticket = world.join(&ask("reader"));
    let response = world.joined(ticket);
    assert_eq!(response.error_code, ErrorCode::MEMBER_ID_REQUIRED);
    assert_eq!(response.generation_id, -1);
    let id = response.member_id.to_string();
    let uuid = id.strip_prefix("reader-").expect("client id and a UUID");
    let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12]);
    assert_eq!(&uuid[14..15], "4", "a random UUID");
    assert_eq!(world.phase(), Phase::Empty);
}

#[test]
fn older_clients_join_without_an_id() {
    let mut world = World::new();
    let ticket = world.join(&ask("old").version(3));
    assert!(world.is_open(ticket));
    world.tick(3_000);
    let response = world.joined(ticket);
    assert_eq!(response.error_code, ErrorCode::NONE);
    assert!(response.member_id.starts_with("old-"));
}

#[test]
fn a_very_long_client_id_still_gives_an_id_that_fits() {
    let mut world = World::new();
    let client: &'static str = "é".repeat(16_000).leak();
    let (member, _) = world.enter(&ask(client));
    assert!(member.len() < 300);
}

#[test]
fn the_first_generation_waits_for_more_members() {
    let mut world = World::new();
    let (a, join_a) = world.enter(&ask("a"));
    world.tick(2_000);
    let (b, join_b) = world.enter(&ask("b"));
    world.tick(3_999);
    assert!(world.is_open(join_a), "b extended the wait to 6 s");
    world.tick(1);
    let leader = world.joined(join_a);
    assert_eq!(leader.generation_id, 1);
    assert_eq!(leader.leader, a);
    assert_eq!(leader.protocol_name, Some(Str::from("range")));
    assert_eq!(leader.protocol_type, Some(Str::from("consumer")));
    let known: BTreeSet<&Str> = leader.members.iter().map(|member| &member.member_id).collect();
    assert_eq!(known, BTreeSet::from([&a, &b]));
    assert_eq!(leader.members[0].metadata, subscription(&["t"]));
    let follower = world.joined(join_b);
    assert_eq!((follower.generation_id, follower.leader), (1, a));
    assert_eq!(follower.members, []);
}

#[test]
fn the_first_wait_ends_with_the_rebalance_timeout() {
    let mut world = World::new();
    let (_, join) = world.enter(&ask("a").rebalance_ms(7_000));
    for _ in 0..3 {
        world.tick(2_000);
        world.enter(&ask("b").rebalance_ms(7_000));
    }
    world.tick(999);
    assert!(world.is_open(join));
    world.tick(1);
    assert_eq!(world.joined(join).members.len(), 4);
}

#[test]
fn without_a_delay_the_first_generation_begins_at_once() {
    let mut world = World::with(|options| options.initial_rebalance_delay_ms = 0);
    let (_, join) = world.enter(&ask("a"));
    world.tick(0);
    assert_eq!(world.joined(join).generation_id, 1);
}

#[test]
fn version_0_has_one_timeout_for_both() {
    let mut world = World::new();
    let mut asked = ask("a").version(0).session_ms(9_000);
    asked.request.rebalance_timeout_ms = -1;
    world.join(&asked);
    let member = world.group().members.values().next().unwrap();
    assert_eq!(member.rebalance_timeout_ms, 9_000);
}

#[test]
fn what_is_wrong_with_a_join_is_told() {
    let mut world = World::new();
    let short = world.join_error(&ask("a").session_ms(5_999));
    assert_eq!(short, ErrorCode::INVALID_SESSION_TIMEOUT);
    let long = world.join_error(&ask("a").session_ms(1_800_001));
    assert_eq!(long, ErrorCode::INVALID_SESSION_TIMEOUT);
    let nameless = world.join_error(&ask("a").group(""));
    assert_eq!(nameless, ErrorCode::INVALID_GROUP_ID);
    let stranger = world.join_error(&ask("a").member(&Str::from("who")));
    assert_eq!(stranger, ErrorCode::UNKNOWN_MEMBER_ID);
    let silent = world.join_error(&ask("a").speaks(&[]));
    assert_eq!(silent, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let typeless = world.join_error(&ask("a").kind(""));
    assert_eq!(typeless, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let huge = Bytes::from(vec![0; 1_000_001]);
    let huge = world.join_error(&ask("a").speaks(&[("range", huge)]));
    assert_eq!(huge, ErrorCode::INVALID_REQUEST);
    assert_eq!(world.session.groups().len(), 0, "nothing of it stays");
}

#[test]
fn members_must_speak_what_the_others_speak() {
    let mut world = World::new();
    world.stable(&[ask("a")]);
    let other_type = world.join_error(&ask("b").kind("connect"));
    assert_eq!(other_type, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let other_name = world.join_error(&ask("b").speaks(&[("sticky", Bytes::new())]));
    assert_eq!(other_name, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
}

#[test]
fn the_protocol_that_most_want_of_those_all_speak() {
    let mut world = World::new();
    let offered = |names: [&str; 3]| {
        let offered = names.map(|name| (name, Bytes::copy_from_slice(name.as_bytes())));
        ask("m").speaks(&offered)
    };
    let (_, join) = world.enter(&offered(["range", "sticky", "own-a"]));
    world.enter(&offered(["own-b", "sticky", "range"]));
    world.enter(&offered(["sticky", "range", "own-c"]));
    world.tick(10_000);
    let response = world.joined(join);
    assert_eq!(response.protocol_name, Some(Str::from("sticky")));
    assert_eq!(response.members[0].metadata, "sticky".as_bytes());
}

#[test]
fn a_protocol_named_twice_counts_once() {
    let mut world = World::new();
    let twice = [("range", Bytes::new()), ("range", Bytes::from("again"))];
    let (_, join) = world.enter(&ask("a").speaks(&twice));
    world.tick(3_000);
    let response = world.joined(join);
    assert_eq!(response.protocol_name, Some(Str::from("range")));
    assert_eq!(response.members[0].metadata, Bytes::new());
}

#[test]
fn a_new_member_makes_all_join_again() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    let a = &members[0];
    let (b, join_b) = world.enter(&ask("b"));
    assert!(world.is_open(join_b));
    assert_eq!(world.beat(a, 1), ErrorCode::REBALANCE_IN_PROGRESS);
    let join_a = world.join(&ask("a").member(a));
    let leader = world.joined(join_a);
    assert_eq!(leader.generation_id, 2);
    assert_eq!(leader.members.len(), 2);
    assert_eq!(world.joined(join_b).generation_id, 2);
    assert_eq!(world.beat(a, 1), ErrorCode::ILLEGAL_GENERATION);
    world.settle(2, &[a.clone(), b], &[ask("a"), ask("b")]);
}

#[test]
fn who_does_not_join_again_in_time_is_given_up() {
    let mut world = World::new();
    let asks = [ask("a").rebalance_ms(20_000), ask("b").rebalance_ms(20_000)];
    let members = world.stable(&asks);
    let joins = world.join(&asks[1].clone().member(&members[1]).reads(&["t", "u"]));
    for _ in 0..4 {
        world.tick(4_000);
        world.beat(&members[0], 1);
    }
    assert!(world.is_open(joins));
    world.tick(4_000);
    let response = world.joined(joins);
    assert_eq!(response.generation_id, 2);
    assert_eq!(response.leader, members[1], "the leader was given up, too");
    assert_eq!(response.members.len(), 1);
    assert_eq!(world.beat(&members[0], 2), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn a_follower_that_joins_unchanged_disturbs_nobody() {
    let mut world = World::new();
    let members = world.stable(&[ask("a"), ask("b")]);
    let ticket = world.join(&ask("b").member(&members[1]));
    let response = world.joined(ticket);
    assert_eq!((response.generation_id, response.leader), (1, members[0].clone()));
    assert_eq!(world.phase(), Phase::Stable);
}

#[test]
fn a_leader_that_joins_again_begins_a_rebalance() {
    let mut world = World::new();
    let members = world.stable(&[ask("a"), ask("b")]);
    let leader = world.join(&ask("a").member(&members[0]));
    assert!(world.is_open(leader));
    assert_eq!(world.beat(&members[1], 1), ErrorCode::REBALANCE_IN_PROGRESS);
    world.join(&ask("b").member(&members[1]));
    assert_eq!(world.joined(leader).generation_id, 2);
}

#[test]
fn a_follower_with_other_metadata_begins_a_rebalance() {
    let mut world = World::new();
    let members = world.stable(&[ask("a"), ask("b")]);
    let follower = world.join(&ask("b").member(&members[1]).reads(&["u"]));
    assert!(world.is_open(follower));
    let leader = world.join(&ask("a").member(&members[0]));
    let response = world.joined(leader);
    let changed = response.members.iter().find(|member| member.member_id == members[1]);
    assert_eq!(changed.unwrap().metadata, subscription(&["u"]));
}

#[test]
fn a_join_missed_is_repeated_while_the_group_waits_for_its_leader() {
    let mut world = World::new();
    let (a, join_a) = world.enter(&ask("a"));
    let (b, join_b) = world.enter(&ask("b"));
    world.tick(6_000);
    world.joined(join_a);
    let first = world.joined(join_b);
    let again = world.join(&ask("b").member(&b));
    assert_eq!(world.joined(again), first);
    let leader = world.join(&ask("a").member(&a));
    assert_eq!(world.joined(leader).members.len(), 2);
    assert_eq!(world.phase(), Phase::Completing);
}

#[test]
fn a_changed_join_while_the_group_waits_for_its_leader_begins_again() {
    let mut world = World::new();
    let (a, _) = world.enter(&ask("a"));
    let (b, _) = world.enter(&ask("b"));
    world.tick(6_000);
    let parked = world.sync(&b, 1, &[]);
    assert!(world.is_open(parked));
    world.join(&ask("a").member(&a).reads(&["u"]));
    let told = world.synced(parked);
    assert_eq!(told.error_code, ErrorCode::REBALANCE_IN_PROGRESS);
    assert!(matches!(world.phase(), Phase::Preparing(None)));
}

#[test]
fn a_join_on_a_new_connection_takes_the_place_of_the_lost_one() {
    let mut world = World::new();
    let (a, lost) = world.enter(&ask("a"));
    let again = world.join(&ask("a").member(&a));
    assert_eq!(world.joined(lost).error_code, ErrorCode::REBALANCE_IN_PROGRESS);
    world.tick(3_000);
    assert_eq!(world.joined(again).generation_id, 1);
}

#[test]
fn a_full_group_takes_nobody_in() {
    let mut world = World::with(|options| options.group_members_max = 2);
    let members = world.stable(&[ask("a"), ask("b")]);
    let refused = world.join_error(&ask("c"));
    assert_eq!(refused, ErrorCode::GROUP_MAX_SIZE_REACHED);
    let ticket = world.join(&ask("b").member(&members[1]));
    assert_eq!(world.joined(ticket).error_code, ErrorCode::NONE);
}

#[test]
fn the_last_to_join_are_refused_where_a_group_fills_up() {
    let mut world = World::with(|options| options.group_members_max = 1);
    let (_, join) = world.enter(&ask("a"));
    let ticket = world.join(&ask("b").version(3));
    assert_eq!(world.joined(ticket).error_code, ErrorCode::GROUP_MAX_SIZE_REACHED);
    world.tick(3_000);
    assert_eq!(world.joined(join).members.len(), 1);
}

#[test]
fn nobody_new_is_taken_in_where_memory_is_spent() {
    let mut world = World::with(|options| options.memory_bytes_max = 4_000);
    let members = world.stable(&[ask("a")]);
    let crowd = (0..50).find_map(|_| {
        let ticket = world.join(&ask("b"));
        let error = world.joined(ticket).error_code;
        (error != ErrorCode::MEMBER_ID_REQUIRED).then_some(error)
    });
    assert_eq!(crowd, Some(ErrorCode::COORDINATOR_NOT_AVAILABLE));
    assert_eq!(world.beat(&members[0], 1), ErrorCode::NONE, "who is here stays");
    world.tick(10_000);
    let later = world.join(&ask("b"));
    let error = world.joined(later).error_code;
    assert_eq!(error, ErrorCode::MEMBER_ID_REQUIRED, "ids never used were given up");
}

#[test]
fn memory_is_counted_over_the_machines_of_a_shard() {
    let memory = Memory::default();
    let options = Options { memory_bytes_max: 4_000, ..Options::default() };
    let mut one = World::new();
    one.machine = GroupMachine::new(options.clone(), &memory);
    let mut other = World::new();
    other.machine = GroupMachine::new(options, &memory);
    let refuses = |world: &mut World| {
        let ticket = world.join(&ask("b"));
        world.joined(ticket).error_code == ErrorCode::COORDINATOR_NOT_AVAILABLE
    };
    assert!((0..50).any(|_| refuses(&mut one)));
    assert!(refuses(&mut other), "what the one holds counts for the other");
    assert!(other.notes.iter().any(|note| note.contains("refused")), "{:?}", other.notes);
    drop(one);
    assert!(!refuses(&mut other), "what is gone does not count");
}

#[test]
fn versions_before_7_never_see_a_null_protocol() {
    let mut world = World::new();
    let first = world.join(&ask("a").instance("i").version(6));
    world.join(&ask("a").instance("i").version(6));
    let fenced = world.joined(first);
    assert_eq!(fenced.error_code, ErrorCode::FENCED_INSTANCE_ID);
    assert_eq!(fenced.protocol_name, Some(Str::EMPTY));
}

#[test]
fn why_a_group_rebalances_can_be_read() {
    let mut world = World::new();
    let mut asked = ask("a");
    asked.request.reason = Some(Str::from("a whim\n of mine"));
    world.enter(&asked);
    let note = world.notes.last().unwrap();
    assert!(note.contains(r#"client reason: "a whim\n of mine""#), "{note}");
}
