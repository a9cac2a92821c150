//! JoinGroup: a member comes, or comes again.
//!
//! Versions: 4 asks new members to join again with the id they are given (KIP-394); 5 has static
//! members (KIP-345); 7 tells the protocol's type; 8 carries a reason (KIP-800); 9 lets a static
//! leader that was restarted skip the assignment (KIP-814).

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use vltava_protocol::types::Str;

use super::group::{Group, Phase, reply_join, reply_join_error, reply_sync_error};
use super::machine::Client;
use super::member::{Member, ParkedJoin, SessionTimer, protocol_bytes, timeout_ms};
use super::session::Session;
use super::state::State;
use super::work::{Work, reason_text};
use crate::machine::Ticket;

/// From this version on, a new member is given an id and asked to join again with it.
const FIRST_VERSION_WITH_KNOWN_ID: i16 = 4;
/// From this version on, a static leader is told that nothing needs to be assigned.
const FIRST_VERSION_WITH_SKIPPED_ASSIGNMENT: i16 = 9;

/// A JoinGroup, and who sent it.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// What was asked.
    pub request: JoinGroupRequest,
    /// In which version.
    pub api_version: i16,
    /// Who asked.
    pub client: Client,
    /// 128 random bits: they become the id of a new member.
    pub random: u128,
}

/// Handles a JoinGroup.
pub(super) fn join(
    state: &State,
    session: &mut Session,
    work: &mut Work<'_>,
    ticket: Ticket,
    mut join: Join,
) {
    let parked = ParkedJoin { ticket, api_version: join.api_version };
    if join.api_version == 0 {
        join.request.rebalance_timeout_ms = join.request.session_timeout_ms;
    }
    let member_id = join.request.member_id.clone();
    if let Err(error) = validate(work, &join.request) {
        return reply_join_error(work, parked, member_id, error);
    }
    let group_id = join.request.group_id.clone();
    if member_id.as_bytes().is_empty() {
        if !work.has_memory(&group_id) {
            let error = ErrorCode::COORDINATOR_NOT_AVAILABLE;
            return reply_join_error(work, parked, member_id, error);
        }
        session.with_group(state, &group_id, |group| {
            if accepts(group, work, &member_id) {
                join_new(group, work, parked, &join);
            } else {
                refuse(group, work, parked, &member_id);
            }
        });
        return;
    }
    let is_live = session.with_live(&group_id, |group| {
        if accepts(group, work, &member_id) {
            join_known(group, work, parked, &join);
        } else {
            refuse(group, work, parked, &member_id);
        }
    });
    if is_live.is_none() {
        reply_join_error(work, parked, member_id, ErrorCode::UNKNOWN_MEMBER_ID);
    }
}

fn validate(work: &Work<'_>, request: &JoinGroupRequest) -> Result<(), ErrorCode> {
    let options = work.options;
    if request.group_id.as_bytes().is_empty() {
        return Err(ErrorCode::INVALID_GROUP_ID);
    }
    let allowed_ms = options.session_timeout_ms_min..=options.session_timeout_ms_max;
    if !allowed_ms.contains(&request.session_timeout_ms) {
        return Err(ErrorCode::INVALID_SESSION_TIMEOUT);
    }
    let bytes: usize = request.protocols.iter().map(protocol_bytes).sum();
    if bytes > options.member_protocols_bytes_max {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    Ok(())
}

/// Whether the group has room. While members join, those count that have joined: the last to come
/// are refused where the group was larger than it may be.
fn accepts(group: &Group, work: &Work<'_>, member_id: &Str) -> bool {
    let members_max = work.options.group_members_max;
    let member = group.members.get(member_id);
    match group.phase {
        Phase::Empty => true,
        Phase::Preparing(_) => {
            member.is_some_and(|member| member.join.is_some()) || group.parked_joins() < members_max
        }
        Phase::Completing | Phase::Stable => member.is_some() || group.members.len() < members_max,
    }
}

fn refuse(group: &mut Group, work: &mut Work<'_>, parked: ParkedJoin, member_id: &Str) {
    group.remove(work, member_id);
    let error = ErrorCode::GROUP_MAX_SIZE_REACHED;
    reply_join_error(work, parked, Str::EMPTY, error);
}

/// A member without an id.
fn join_new(group: &mut Group, work: &mut Work<'_>, parked: ParkedJoin, join: &Join) {
    let request = &join.request;
    if !group.supports(&request.protocol_type, &request.protocols) {
        let error = ErrorCode::INCONSISTENT_GROUP_PROTOCOL;
        return reply_join_error(work, parked, Str::EMPTY, error);
    }
    let member_id = new_member_id(join);
    if let Some(instance_id) = &request.group_instance_id {
        match group.static_members.get(instance_id).cloned() {
            Some(previous) => replace(group, work, parked, join, &previous, member_id),
            None => add(group, work, parked, join, member_id),
        }
    } else if parked.api_version >= FIRST_VERSION_WITH_KNOWN_ID {
        group.pending_joins.insert(member_id.clone());
        let timer = group.session_timer(&member_id);
        work.set_timer(timer, timeout_ms(request.session_timeout_ms));
        reply_join_error(work, parked, member_id, ErrorCode::MEMBER_ID_REQUIRED);
    } else {
        add(group, work, parked, join, member_id);
    }
}

/// A member with an id.
fn join_known(group: &mut Group, work: &mut Work<'_>, parked: ParkedJoin, join: &Join) {
    let request = &join.request;
    let member_id = &request.member_id;
    let instance_id = request.group_instance_id.as_ref();
    if !group.supports(&request.protocol_type, &request.protocols) {
        let error = ErrorCode::INCONSISTENT_GROUP_PROTOCOL;
        return reply_join_error(work, parked, member_id.clone(), error);
    }
    if group.pending_joins.contains(member_id) {
        return match instance_id {
            None => add(group, work, parked, join, member_id.detached()),
            // Ids are given out to dynamic members only.
            Some(_) => {
                let error = ErrorCode::UNKNOWN_SERVER_ERROR;
                reply_join_error(work, parked, Str::EMPTY, error);
            }
        };
    }
    match group.validate_member(member_id, instance_id) {
        Ok(()) => rejoin(group, work, parked, join),
        Err(error) => reply_join_error(work, parked, member_id.clone(), error),
    }
}

/// A member of the group joins again.
fn rejoin(group: &mut Group, work: &mut Work<'_>, parked: ParkedJoin, join: &Join) {
    let member_id = &join.request.member_id;
    let is_unchanged = group
        .members
        .get(member_id)
        .is_some_and(|member| member.protocols == join.request.protocols);
    let what = match group.phase {
        Phase::Preparing(_) => "joins",
        // It may have missed the answer to its first join.
        Phase::Completing if is_unchanged => {
            return reply_join(work, parked, group.join_response(member_id));
        }
        // The leader may know of something that changes assignments, such as new partitions.
        Phase::Stable if group.is_leader(member_id) => "leads, and joins again",
        Phase::Stable if is_unchanged => {
            let response = group.join_response(member_id);
            return reply_join(work, parked, response);
        }
        Phase::Completing | Phase::Stable => "joins with other metadata",
        Phase::Empty => {
            let error = ErrorCode::UNKNOWN_MEMBER_ID;
            return reply_join_error(work, parked, member_id.clone(), error);
        }
    };
    update(group, work, parked, join, &member_id.detached());
    let reason = reason_text(join.request.reason.as_ref());
    group.rebalance_or_complete_join(work, &format!("member {member_id:?} {what}; {reason}"));
}

/// Takes over what a member says of itself, and parks its join.
fn update(
    group: &mut Group,
    work: &mut Work<'_>,
    parked: ParkedJoin,
    join: &Join,
    member_id: &Str,
) {
    let request = &join.request;
    group.update(member_id, |member| {
        member.protocols = detached(&request.protocols);
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
    });
    group.park_join(work, member_id, parked);
}

/// Adds a member, and begins a rebalance.
fn add(group: &mut Group, work: &mut Work<'_>, parked: ParkedJoin, join: &Join, member_id: Str) {
    let request = &join.request;
    group.extend_initial_delay();
    if group.members.is_empty() {
        group.protocol_type = Some(request.protocol_type.detached());
    }
    let member = Member {
        instance_id: request.group_instance_id.as_ref().map(Str::detached),
        client_id: join.client.id.detached(),
        client_host: join.client.host.detached(),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        session_timeout_ms: request.session_timeout_ms,
        protocols: detached(&request.protocols),
        assignment: Bytes::new(),
        join: Some(parked),
        sync: None,
        is_new: true,
        session: SessionTimer::default(),
    };
    let instance = match &member.instance_id {
        Some(instance_id) => format!(" with instance id {instance_id:?}"),
        None => String::new(),
    };
    group.insert(member_id.clone(), member);
    // It does not know its id before this join is answered, so it cannot send heartbeats; and a
    // connection that was lost meanwhile is not noticed. Such a join does not wait for ever.
    group.touch_for(work, &member_id, work.options.new_member_join_timeout_ms);
    let reason = reason_text(request.reason.as_ref());
    group
        .rebalance_or_complete_join(work, &format!("new member {member_id:?}{instance}; {reason}"));
}

/// A static member comes back without its id: it gets a new one, and whoever had the old one is
/// fenced.
fn replace(
    group: &mut Group,
    work: &mut Work<'_>,
    parked: ParkedJoin,
    join: &Join,
    previous: &Str,
    member_id: Str,
) {
    let was_leader = group.is_leader(previous);
    rename(group, work, previous, &member_id);
    update(group, work, parked, join, &member_id);
    group.touch(work, &member_id);
    let reason = reason_text(join.request.reason.as_ref());
    let what = format!("static member {previous:?} is now {member_id:?}; {reason}");
    match group.phase {
        Phase::Stable if group.select_protocol() == group.protocol => {
            if group.write(work).is_ok() {
                work.note(&group.id, what);
                let response = replaced_response(group, parked, previous, &member_id, was_leader);
                group.complete_parked_join(work, &member_id, response);
            } else {
                let what = format!("{what}; the group is too large to be written");
                group.prepare_rebalance(work, &what);
            }
        }
        // Its old id may be with the leader already: that one would be assigned to.
        Phase::Completing | Phase::Stable => group.prepare_rebalance(work, &what),
        Phase::Preparing(_) | Phase::Empty => {
            work.note(&group.id, what);
            group.complete_join_if_due(work);
        }
    }
}

/// Moves a static member to its new id.
fn rename(group: &mut Group, work: &mut Work<'_>, previous: &Str, member_id: &Str) {
    let Some(join) = group.members.get(previous).map(|member| member.join) else {
        return;
    };
    if join.is_some() {
        let response = JoinGroupResponse {
            error_code: ErrorCode::FENCED_INSTANCE_ID,
            protocol_name: None,
            member_id: previous.clone(),
            ..JoinGroupResponse::default()
        };
        group.complete_parked_join(work, previous, response);
    }
    work.cancel_timer(group.session_timer(previous));
    let Some(mut member) = group.take(previous) else {
        return;
    };
    if let Some(ticket) = member.sync.take() {
        reply_sync_error(work, ticket, ErrorCode::FENCED_INSTANCE_ID);
    }
    member.session = SessionTimer::default();
    member.is_new = false;
    if group.is_leader(previous) {
        group.leader = Some(member_id.clone());
    }
    if group.pending_syncs.remove(previous) {
        group.pending_syncs.insert(member_id.clone());
    }
    group.insert(member_id.clone(), member);
}

/// What a static member is told that came back without disturbing anybody.
fn replaced_response(
    group: &Group,
    parked: ParkedJoin,
    previous: &Str,
    member_id: &Str,
    was_leader: bool,
) -> JoinGroupResponse {
    let response = group.join_response(member_id);
    if parked.api_version >= FIRST_VERSION_WITH_SKIPPED_ASSIGNMENT {
        return JoinGroupResponse { skip_assignment: was_leader, ..response };
    }
    // A client of an older version would work out an assignment if it thought that it leads.
    JoinGroupResponse {
        leader: if was_leader { previous.clone() } else { response.leader },
        members: Vec::new(),
        ..response
    }
}

/// The id of a new member: who it is, for people, and a random UUID.
fn new_member_id(join: &Join) -> Str {
    const VERSION: u128 = 0x4 << 76;
    const VERSION_MASK: u128 = 0xf << 76;
    const VARIANT: u128 = 0b10 << 62;
    const VARIANT_MASK: u128 = 0b11 << 62;
    let who = join.request.group_instance_id.as_ref().unwrap_or(&join.client.id);
    let bits = (join.random & !(VERSION_MASK | VARIANT_MASK)) | VERSION | VARIANT;
    let hex = format!("{bits:032x}");
    Str::from(format!(
        "{}-{}-{}-{}-{}-{}",
        prefix(who),
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    ))
}

/// What of a name goes into a member's id: a name of 32 KiB would make an id that no message holds.
fn prefix(name: &str) -> &str {
    const BYTES_MAX: usize = 255;
    let mut end = name.len().min(BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// Copies that do not hold on to the request's buffer.
fn detached(protocols: &[JoinGroupRequestProtocol]) -> Vec<JoinGroupRequestProtocol> {
    protocols
        .iter()
        .map(|protocol| JoinGroupRequestProtocol {
            name: protocol.name.detached(),
            metadata: Bytes::copy_from_slice(&protocol.metadata),
        })
        .collect()
}
