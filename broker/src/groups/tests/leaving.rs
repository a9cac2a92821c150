//! Going: by oneself, several at once, by an administrator's word.

use super::*;

#[test]
fn the_last_to_leave_leaves_an_empty_group() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    let response = world.leave(&[identity(&members[0])]);
    assert_eq!(response.error_code, ErrorCode::NONE);
    assert_eq!(response.members[0].member_id, members[0]);
    assert_eq!(response.members[0].error_code, ErrorCode::NONE);
    assert_eq!(world.session.groups().len(), 0);
    let stored = world.state.group(&Str::from("g")).unwrap();
    assert_eq!(stored.metadata.generation, 2);
    let members = world.stable(&[ask("b")]);
    assert_eq!(world.beat(&members[0], 3), ErrorCode::NONE, "generations go on");
}

#[test]
fn who_stays_joins_again() {
    let mut world = World::new();
    let members = world.stable(&[ask("a"), ask("b")]);
    world.leave(&[identity(&members[0])]);
    assert_eq!(world.beat(&members[1], 1), ErrorCode::REBALANCE_IN_PROGRESS);
    let join = world.join(&ask("b").member(&members[1]));
    let response = world.joined(join);
    assert_eq!((response.generation_id, response.leader), (2, members[1].clone()));
}

#[test]
fn the_last_awaited_may_leave_instead() {
    let mut world = World::new();
    let members = world.stable(&[ask("a"), ask("b")]);
    let join = world.join(&ask("a").member(&members[0]));
    assert!(world.is_open(join));
    world.leave(&[identity(&members[1])]);
    assert_eq!(world.joined(join).members.len(), 1);
}

#[test]
fn several_go_at_once_and_each_is_told() {
    let mut world = World::new();
    let members = world.stable(&[ask("a"), ask("b").instance("i"), ask("c").instance("j")]);
    let named = |member: &Str, instance: &str| MemberIdentity {
        member_id: member.clone(),
        group_instance_id: Some(Str::from(instance)),
        ..MemberIdentity::default()
    };
    let response = world.leave(&[
        identity(&members[0]),
        named(&Str::EMPTY, "i"),
        named(&Str::from("someone else"), "j"),
        named(&Str::EMPTY, "nobody"),
        identity(&Str::from("who")),
        identity(&Str::EMPTY),
    ]);
    let errors: Vec<ErrorCode> = response.members.iter().map(|member| member.error_code).collect();
    assert_eq!(
        errors,
        [
            ErrorCode::NONE,
            ErrorCode::NONE,
            ErrorCode::FENCED_INSTANCE_ID,
            ErrorCode::UNKNOWN_MEMBER_ID,
            ErrorCode::UNKNOWN_MEMBER_ID,
            ErrorCode::UNKNOWN_MEMBER_ID,
        ]
    );
    assert_eq!(response.members[1].member_id, Str::EMPTY, "as it was asked");
    assert_eq!(world.group().members.len(), 1);
}

#[test]
fn versions_before_3_name_one_member_and_get_one_error() {
    let mut world = World::new();
    let members = world.stable(&[ask("a")]);
    let mut request = LeaveGroupRequest {
        group_id: Str::from("g"),
        member_id: Str::from("who"),
        ..LeaveGroupRequest::default()
    };
    let response = world.leave_with(request.clone(), 2);
    assert_eq!(response.error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(response.members, []);
    request.member_id = members[0].clone();
    let response = world.leave_with(request, 0);
    assert_eq!(response.error_code, ErrorCode::NONE);
    assert_eq!(world.phase(), Phase::Empty);
}

#[test]
fn nobody_can_leave_a_group_that_is_not_there() {
    let mut world = World::new();
    let response = world.leave(&[identity(&Str::from("who"))]);
    assert_eq!(response.error_code, ErrorCode::NONE);
    let error = response.members[0].error_code;
    assert_eq!(error, ErrorCode::UNKNOWN_MEMBER_ID);
    let nowhere = LeaveGroupRequest::default();
    let response = world.leave_with(nowhere, 5);
    assert_eq!(response.error_code, ErrorCode::INVALID_GROUP_ID);
}

#[test]
fn an_id_given_out_may_be_given_back() {
    let mut world = World::new();
    let ticket = world.join(&ask("a"));
    let id = world.joined(ticket).member_id;
    let response = world.leave(&[identity(&id)]);
    assert_eq!(response.members[0].error_code, ErrorCode::NONE);
    assert_eq!(world.session.groups().len(), 0);
    assert!(world.timers.keys().all(|timer| *timer == Timer::Sweep));
}

#[test]
fn what_a_leaving_member_has_parked_is_answered() {
    let mut world = World::new();
    let members = world.stable(&[ask("a"), ask("b")]);
    let join = world.join(&ask("a").member(&members[0]));
    world.leave(&[identity(&members[0])]);
    assert_eq!(world.joined(join).error_code, ErrorCode::UNKNOWN_MEMBER_ID);

    let mut world = World::new();
    let (_, _) = world.enter(&ask("a"));
    let (b, _) = world.enter(&ask("b"));
    world.tick(6_000);
    let sync = world.sync(&b, 1, &[]);
    world.leave(&[identity(&b)]);
    assert_eq!(world.synced(sync).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn all_may_leave_before_the_first_generation() {
    let mut world = World::new();
    let (a, join) = world.enter(&ask("a"));
    world.leave(&[identity(&a)]);
    assert_eq!(world.joined(join).error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    assert!(matches!(world.phase(), Phase::Preparing(Some(_))));
    world.tick(3_000);
    assert_eq!(world.session.groups().len(), 0);
}
