//! LeaveGroup: members go, by themselves or removed by an administrator.
//!
//! Versions: 3 names several members, static ones by their instance id (KIP-345); 5 carries a
//! reason (KIP-800).

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse,
};
use vltava_protocol::types::Str;

use super::group::{Group, Phase};
use super::machine::Reply;
use super::session::Session;
use super::work::{Work, reason_text};
use crate::machine::Ticket;

/// From this version on, a request names several members.
const FIRST_VERSION_WITH_MEMBERS: i16 = 3;

/// Handles a LeaveGroup.
pub(super) fn leave(
    session: &mut Session,
    work: &mut Work<'_>,
    ticket: Ticket,
    mut request: LeaveGroupRequest,
    api_version: i16,
) {
    if request.group_id.as_bytes().is_empty() {
        let response = LeaveGroupResponse {
            error_code: ErrorCode::INVALID_GROUP_ID,
            ..LeaveGroupResponse::default()
        };
        return work.reply(ticket, Reply::LeaveGroup(response));
    }
    if api_version < FIRST_VERSION_WITH_MEMBERS {
        request.members = vec![MemberIdentity {
            member_id: request.member_id.clone(),
            ..MemberIdentity::default()
        }];
    }
    let left =
        session.with_live(&request.group_id, |group| leave_group(group, work, &request.members));
    let members = left.unwrap_or_else(|| {
        let unknown = |member| response(member, Err(ErrorCode::UNKNOWN_MEMBER_ID));
        request.members.iter().map(unknown).collect()
    });
    let response = if api_version < FIRST_VERSION_WITH_MEMBERS {
        let error_code = members.first().map_or(ErrorCode::NONE, |member| member.error_code);
        LeaveGroupResponse { error_code, ..LeaveGroupResponse::default() }
    } else {
        LeaveGroupResponse { members, ..LeaveGroupResponse::default() }
    };
    work.reply(ticket, Reply::LeaveGroup(response));
}

fn response(member: &MemberIdentity, result: Result<(), ErrorCode>) -> MemberResponse {
    MemberResponse {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        error_code: result.err().unwrap_or(ErrorCode::NONE),
    }
}

fn leave_group(
    group: &mut Group,
    work: &mut Work<'_>,
    members: &[MemberIdentity],
) -> Vec<MemberResponse> {
    let mut left = 0_usize;
    let mut responses = Vec::with_capacity(members.len());
    for member in members {
        let result = find(group, member).map(|member_id| {
            left += 1;
            let reason = reason_text(member.reason.as_ref());
            work.note(&group.id, format_args!("{member_id:?} leaves; {reason}"));
            group.remove(work, &member_id);
        });
        responses.push(response(member, result));
    }
    if left > 0 {
        match group.phase {
            Phase::Completing | Phase::Stable => {
                group.prepare_rebalance(work, &format!("{left} members left"));
            }
            Phase::Preparing(_) => group.complete_join_if_due(work),
            Phase::Empty => {}
        }
    }
    responses
}

/// Which member, or id given out, is meant.
fn find(group: &Group, member: &MemberIdentity) -> Result<Str, ErrorCode> {
    let member_id = &member.member_id;
    let instance_id = member.group_instance_id.as_ref();
    if member_id.as_bytes().is_empty() {
        // An administrator knows static members by their instance ids.
        return instance_id
            .and_then(|instance_id| group.static_members.get(instance_id))
            .cloned()
            .ok_or(ErrorCode::UNKNOWN_MEMBER_ID);
    }
    if !group.pending_joins.contains(member_id) {
        group.validate_member(member_id, instance_id)?;
    }
    Ok(member_id.clone())
}
