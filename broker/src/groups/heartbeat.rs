//! Heartbeat, and what happens where none comes.

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use vltava_protocol::types::Str;

use super::group::{Group, Phase};
use super::machine::Reply;
use super::session::Session;
use super::work::Work;
use crate::machine::Ticket;

/// Handles a Heartbeat.
pub(super) fn heartbeat(
    session: &mut Session,
    work: &mut Work<'_>,
    ticket: Ticket,
    request: &HeartbeatRequest,
) {
    let error_code = if request.group_id.as_bytes().is_empty() {
        ErrorCode::INVALID_GROUP_ID
    } else {
        session
            .with_live(&request.group_id, |group| beat(group, work, request))
            .unwrap_or(ErrorCode::UNKNOWN_MEMBER_ID)
    };
    let response = HeartbeatResponse { error_code, ..HeartbeatResponse::default() };
    work.reply(ticket, Reply::Heartbeat(response));
}

fn beat(group: &mut Group, work: &mut Work<'_>, request: &HeartbeatRequest) -> ErrorCode {
    let member_id = &request.member_id;
    if let Err(error) = group.validate_member(member_id, request.group_instance_id.as_ref()) {
        return error;
    }
    if request.generation_id != group.generation {
        return ErrorCode::ILLEGAL_GENERATION;
    }
    group.touch(work, member_id);
    match group.phase {
        Phase::Preparing(_) => ErrorCode::REBALANCE_IN_PROGRESS,
        // Members send heartbeats as soon as they have joined.
        Phase::Completing | Phase::Stable => ErrorCode::NONE,
        Phase::Empty => ErrorCode::UNKNOWN_MEMBER_ID,
    }
}

/// The timer of a member's session fired, or that of an id that was given out.
pub(super) fn session_timer_fired(
    session: &mut Session,
    work: &mut Work<'_>,
    group_id: &Str,
    member_id: &Str,
) {
    session.with_live(group_id, |group| expire(group, work, member_id));
}

fn expire(group: &mut Group, work: &mut Work<'_>, member_id: &Str) {
    if group.pending_joins.contains(member_id) {
        work.note(&group.id, format_args!("{member_id:?} was given out and never joined"));
        group.remove(work, member_id);
        complete_join_if_all_joined(group, work);
        return;
    }
    let timer = group.session_timer(member_id);
    let Some(member) = group.members.get_mut(member_id) else {
        return;
    };
    if !member.session.fired(work, || timer) || member.is_excused() {
        return;
    }
    group.remove(work, member_id);
    let reason = format!("the session of member {member_id:?} ended");
    match group.phase {
        Phase::Completing | Phase::Stable => group.prepare_rebalance(work, &reason),
        Phase::Preparing(_) | Phase::Empty => {
            work.note(&group.id, reason);
            complete_join_if_all_joined(group, work);
        }
    }
}

/// Unlike a member that leaves, one that dies ends even the wait of a group that was empty.
fn complete_join_if_all_joined(group: &mut Group, work: &mut Work<'_>) {
    if matches!(group.phase, Phase::Preparing(_)) && group.has_all_joined() {
        group.complete_join(work);
    }
}
