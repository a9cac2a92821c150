//! What administrators ask: describe, list, delete; and the end of a topic.

use vltava_protocol::messages::describe_groups::DescribedGroup;
use vltava_protocol::types::Uuid;

use super::*;
use crate::groups::ListGroups;

const NOBODY: Str = Str::EMPTY;

fn describe(world: &mut World, group: &str, api_version: i16) -> DescribedGroup {
    let ticket = world.submit(Input::DescribeGroup { group_id: Str::from(group), api_version });
    match world.reply(ticket) {
        Reply::DescribeGroup(described) => described,
        other => panic!("{other:?} is no description"),
    }
}

fn delete(world: &mut World, group: &str) -> ErrorCode {
    let ticket = world.submit(Input::DeleteGroup { group_id: Str::from(group) });
    world.tick(100);
    match world.reply(ticket) {
        Reply::DeleteGroup(result) => {
            assert_eq!(result.group_id, group);
            result.error_code
        }
        other => panic!("{other:?} is no deletion"),
    }
}

#[test]
fn a_stable_group_shows_all() {
    let mut world = World::new();
    let members = world.stable(&[ask("a").instance("i")]);
    let described = describe(&mut world, "g", 6);
    assert_eq!(described.error_code, ErrorCode::NONE);
    assert_eq!(described.group_state, "Stable");
    assert_eq!(described.protocol_type, "consumer");
    assert_eq!(described.protocol_data, "range");
    let member = &described.members[0];
    assert_eq!(member.member_id, members[0]);
    assert_eq!(member.group_instance_id, Some(Str::from("i")));
    assert_eq!((&*member.client_id, &*member.client_host), ("a", "/10.0.0.1"));
    assert_eq!(member.member_metadata, subscription(&["t"]));
    assert_eq!(member.member_assignment, "a".as_bytes());
}

#[test]
fn a_group_that_rebalances_shows_no_metadata() {
    let mut world = World::new();
    let members = world.stable(&[ask("a"), ask("b")]);
    world.join(&ask("a").member(&members[0]));
    let described = describe(&mut world, "g", 6);
    assert_eq!(described.group_state, "PreparingRebalance");
    assert_eq!(described.protocol_data, "");
    assert_eq!(described.members.len(), 2);
    assert_eq!(described.members[0].member_metadata, Bytes::new());
    world.join(&ask("b").member(&members[1]));
    assert_eq!(describe(&mut world, "g", 6).group_state, "CompletingRebalance");
}

#[test]
fn an_empty_group_is_shown_and_a_missing_one_is_not() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    world.leave(&[identity(&members[0])]);
    let described = describe(&mut world, "g", 6);
    assert_eq!(described.group_state, "Empty");
    assert_eq!(described.protocol_type, "consumer");
    assert_eq!(described.members, []);
    world.commit_with(&commit_request("simple", &NOBODY, -1, "t", 1), 10);
    let described = describe(&mut world, "simple", 6);
    assert_eq!(described.group_state, "Empty");
    assert_eq!(described.protocol_type, "");
    let missing = describe(&mut world, "missing", 6);
    assert_eq!(missing.error_code, ErrorCode::GROUP_ID_NOT_FOUND);
    let message = "Group missing not found.";
    assert_eq!(missing.error_message, Some(Str::from(message)));
    assert_eq!(missing.group_state, "Dead");
    let missing = describe(&mut world, "missing", 5);
    assert_eq!(missing.error_code, ErrorCode::NONE);
    assert_eq!((&*missing.group_state, &missing.error_message), ("Dead", &None));
}

/// All groups that pass filters: name, state, protocol type; asked for in pages.
fn list(world: &mut World, states: &[&str], types: &[&str]) -> Vec<(String, String, String)> {
    let filter = |names: &[&str]| names.iter().map(|name| Str::from(*name)).collect();
    let mut request = ListGroups {
        states_filter: filter(states),
        types_filter: filter(types),
        after: None,
        groups_max: 2,
    };
    let mut listed = Vec::new();
    loop {
        let ticket = world.submit(Input::ListGroups(request.clone()));
        let Reply::ListGroups(page) = world.reply(ticket) else {
            panic!("no list");
        };
        assert!(page.groups.len() <= 2);
        for group in page.groups {
            assert_eq!(group.group_type, "classic");
            let text = |text: Str| text.to_string();
            listed.push((text(group.group_id), text(group.group_state), text(group.protocol_type)));
        }
        request.after = page.next;
        if request.after.is_none() {
            return listed;
        }
    }
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut world = World::new();
    world.stable(&[ask("a")]);
    for name in ["a", "f", "z"] {
        world.commit_with(&commit_request(name, &NOBODY, -1, "t", 1), 10);
    }
    world.enter(&ask("b").group("h"));
    world.enter(&ask("b").group("f"));
    let all = list(&mut world, &[], &[]);
    let names: Vec<&str> = all.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["a", "f", "g", "h", "z"]);
    let own =
        |name: &str, state: &str, kind: &str| (name.to_owned(), state.to_owned(), kind.to_owned());
    assert_eq!(all[0], own("a", "Empty", ""));
    assert_eq!(all[1], own("f", "PreparingRebalance", "consumer"));
    let stable = list(&mut world, &[" stable ", "dead"], &["CLASSIC"]);
    assert_eq!(stable, [own("g", "Stable", "consumer")]);
    assert_eq!(list(&mut world, &[], &["consumer"]), []);
    assert_eq!(list(&mut world, &["nonsense"], &[]), []);
}

#[test]
fn a_group_without_members_can_be_deleted() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    world.commit(&members[0], 1, 5);
    assert_eq!(delete(&mut world, "g"), ErrorCode::NON_EMPTY_GROUP);
    world.leave(&[identity(&members[0])]);
    assert_eq!(delete(&mut world, "g"), ErrorCode::NONE);
    assert_eq!(world.offsets("g"), []);
    assert_eq!(delete(&mut world, "g"), ErrorCode::GROUP_ID_NOT_FOUND);
    world.restart();
    assert_eq!(world.state.group_count(), 0);
}

#[test]
fn a_deleted_group_forgets_the_ids_it_gave_out() {
    let mut world = World::new();
    let ticket = world.join(&ask("a"));
    let id = world.joined(ticket).member_id;
    assert_eq!(delete(&mut world, "g"), ErrorCode::NONE);
    assert_eq!(world.session.groups().len(), 0);
    assert_eq!(world.join_error(&ask("a").member(&id)), ErrorCode::UNKNOWN_MEMBER_ID);
}

fn commit_many(world: &mut World, group: &str, topic: &str, count: i32) {
    for index in 0..count {
        let mut request = commit_request(group, &NOBODY, -1, topic, 1);
        request.topics[0].partitions[0].partition_index = index;
        world.commit_with(&request, 10);
    }
}

#[test]
fn a_large_group_is_deleted_in_steps() {
    let mut world = World::new();
    commit_many(&mut world, "g", "t", 2_500);
    commit_many(&mut world, "h", "t", 1);
    let before = world.log.len();
    let large = world.submit(Input::DeleteGroup { group_id: Str::from("g") });
    let small = world.submit(Input::DeleteGroup { group_id: Str::from("h") });
    assert_eq!(world.log.len() - before, 1_000);
    assert!(world.is_open(large) && world.is_open(small));
    world.tick(1);
    assert_eq!(world.log.len() - before, 2_000);
    world.tick(1);
    assert!(
        matches!(world.reply(large), Reply::DeleteGroup(result) if result.error_code.is_none())
    );
    world.tick(1);
    assert!(
        matches!(world.reply(small), Reply::DeleteGroup(result) if result.error_code.is_none())
    );
    assert_eq!(world.state.group_count(), 0);
    assert_eq!(world.state.bytes(), 0);
}

#[test]
fn a_group_that_fills_while_it_is_deleted_stays() {
    let mut world = World::new();
    commit_many(&mut world, "g", "t", 1_500);
    let ticket = world.submit(Input::DeleteGroup { group_id: Str::from("g") });
    let join = world.join(&ask("a").version(3));
    world.tick(1);
    let Reply::DeleteGroup(result) = world.reply(ticket) else {
        panic!("no deletion");
    };
    assert_eq!(result.error_code, ErrorCode::NON_EMPTY_GROUP);
    assert!(world.is_open(join));
}

#[test]
fn the_offsets_of_a_deleted_topic_end() {
    let mut world = World::new();
    let commit = |world: &mut World, group: &str, topic: &str, id: u128| {
        let mut request = commit_request(group, &NOBODY, -1, topic, 1);
        request.topics[0].topic_id = Uuid(id);
        assert_eq!(world.commit_with(&request, 10), ErrorCode::NONE);
    };
    commit(&mut world, "by id", "t", 7);
    commit(&mut world, "by name", "t", 0);
    commit(&mut world, "of a later topic", "t", 8);
    commit(&mut world, "by id", "u", 9);
    let ticket = world.submit(Input::TopicDeleted { name: Str::from("t"), id: Uuid(7) });
    assert_eq!(world.reply(ticket), Reply::TopicDeleted);
    assert_eq!(world.offsets("by id"), [("u".to_owned(), 0, 1)]);
    assert_eq!(world.offsets("by name"), []);
    assert_eq!(world.offsets("of a later topic"), [("t".to_owned(), 0, 1)]);
    let topics: Vec<&Str> = world.state.topics().collect();
    assert_eq!(topics, ["t", "u"]);
}

#[test]
fn offsets_of_topics_that_a_load_does_not_find_end() {
    let mut world = World::new();
    let commit = |world: &mut World, group: &str, topic: &str, id: u128| {
        let mut request = commit_request(group, &NOBODY, -1, topic, 1);
        request.topics[0].topic_id = Uuid(id);
        assert_eq!(world.commit_with(&request, 10), ErrorCode::NONE);
    };
    commit(&mut world, "of the one before", "t", 7);
    commit(&mut world, "of the one there is", "t", 8);
    commit(&mut world, "by name", "t", 0);
    commit(&mut world, "by name", "u", 0);
    commit(&mut world, "by id", "u", 9);
    world.restart();
    let found = |world: &mut World, name: &str, id: Option<u128>| {
        let input = Input::TopicFound { name: Str::from(name), id: id.map(Uuid) };
        let ticket = world.submit(input);
        assert_eq!(world.reply(ticket), Reply::TopicFound);
    };
    found(&mut world, "t", Some(8));
    found(&mut world, "u", None);
    assert_eq!(world.offsets("of the one before"), []);
    assert_eq!(world.offsets("of the one there is"), [("t".to_owned(), 0, 1)]);
    assert_eq!(world.offsets("by name"), [("t".to_owned(), 0, 1)]);
    assert_eq!(world.offsets("by id"), []);
}

#[test]
fn a_topic_that_keeps_its_offsets_is_looked_through_in_steps() {
    let mut world = World::new();
    for group in ["g", "h"] {
        commit_many(&mut world, group, "t", 2_500);
    }
    let input = Input::TopicFound { name: Str::from("t"), id: Some(Uuid(1)) };
    let ticket = world.submit(input);
    assert!(world.is_open(ticket));
    world.tick(10);
    assert_eq!(world.reply(ticket), Reply::TopicFound);
    assert_eq!(world.state.committed_offsets().count(), 5_000);
    let input = Input::TopicFound { name: Str::from("t"), id: None };
    let ticket = world.submit(input);
    world.tick(50);
    assert_eq!(world.reply(ticket), Reply::TopicFound);
    assert_eq!(world.state.committed_offsets().count(), 0);
}

#[test]
fn the_offsets_of_a_large_topic_end_in_steps() {
    let mut world = World::new();
    for group in ["g", "h", "i"] {
        commit_many(&mut world, group, "t", 700);
        commit_many(&mut world, group, "u", 1);
    }
    let ticket = world.submit(Input::TopicDeleted { name: Str::from("t"), id: Uuid(1) });
    assert!(world.is_open(ticket));
    world.tick(2);
    assert_eq!(world.reply(ticket), Reply::TopicDeleted);
    assert_eq!(world.state.committed_offsets().count(), 3);
    let topics: Vec<&Str> = world.state.topics().collect();
    assert_eq!(topics, ["u"]);
    let none = world.submit(Input::TopicDeleted { name: Str::from("never"), id: Uuid(2) });
    assert_eq!(world.reply(none), Reply::TopicDeleted);
}
