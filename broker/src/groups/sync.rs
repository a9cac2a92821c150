//! SyncGroup: the leader says who gets what, and each member asks what it got.
//!
//! Versions: 3 has static members (KIP-345); 5 names the protocol (KIP-559), and must.

use std::collections::BTreeMap;

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use vltava_protocol::types::Str;

use super::group::{Group, Phase, reply_sync_error};
use super::machine::Reply;
use super::session::Session;
use super::work::Work;
use crate::machine::Ticket;

/// From this version on, the protocol's type and name must be there.
const FIRST_VERSION_WITH_PROTOCOL: i16 = 5;

/// Handles a SyncGroup.
pub(super) fn sync(
    session: &mut Session,
    work: &mut Work<'_>,
    ticket: Ticket,
    request: SyncGroupRequest,
    api_version: i16,
) {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if api_version >= FIRST_VERSION_WITH_PROTOCOL && !names_protocol {
        return reply_sync_error(work, ticket, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    }
    if request.group_id.as_bytes().is_empty() {
        return reply_sync_error(work, ticket, ErrorCode::INVALID_GROUP_ID);
    }
    let group_id = request.group_id.clone();
    let is_live = session.with_live(&group_id, |group| match validate(group, &request) {
        Ok(()) => sync_member(group, work, ticket, request),
        Err(error) => reply_sync_error(work, ticket, error),
    });
    if is_live.is_none() {
        reply_sync_error(work, ticket, ErrorCode::UNKNOWN_MEMBER_ID);
    }
}

fn validate(group: &Group, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
    group.validate_member(&request.member_id, request.group_instance_id.as_ref())?;
    if request.generation_id != group.generation {
        return Err(ErrorCode::ILLEGAL_GENERATION);
    }
    if differs(request.protocol_type.as_ref(), group.protocol_type.as_ref())
        || differs(request.protocol_name.as_ref(), group.protocol.as_ref())
    {
        return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    }
    Ok(())
}

/// Whether both are known, and not the same.
fn differs(asked: Option<&Str>, current: Option<&Str>) -> bool {
    matches!((asked, current), (Some(asked), Some(current)) if asked != current)
}

fn sync_member(group: &mut Group, work: &mut Work<'_>, ticket: Ticket, request: SyncGroupRequest) {
    let member_id = &request.member_id;
    match group.phase {
        Phase::Empty => reply_sync_error(work, ticket, ErrorCode::UNKNOWN_MEMBER_ID),
        Phase::Preparing(_) => {
            reply_sync_error(work, ticket, ErrorCode::REBALANCE_IN_PROGRESS);
        }
        Phase::Completing => {
            park(group, work, member_id, ticket);
            group.synced(work, member_id);
            if group.is_leader(member_id) {
                stabilise(group, work, request.assignments);
            }
        }
        Phase::Stable => {
            group.synced(work, member_id);
            work.reply(ticket, Reply::SyncGroup(group.sync_response(member_id)));
        }
    }
}

/// A sync waits for the leader's. One parked before, on a connection now lost, is told to join
/// again.
fn park(group: &mut Group, work: &mut Work<'_>, member_id: &Str, ticket: Ticket) {
    if let Some(member) = group.members.get_mut(member_id)
        && let Some(earlier) = member.sync.replace(ticket)
    {
        reply_sync_error(work, earlier, ErrorCode::REBALANCE_IN_PROGRESS);
    }
}

/// The leader's assignment is here: it goes into the log, and to everybody who waits. The answers
/// leave when the record is committed; so does whatever is answered after them.
fn stabilise(group: &mut Group, work: &mut Work<'_>, assignments: Vec<SyncGroupRequestAssignment>) {
    let assignments: BTreeMap<Str, Bytes> = assignments
        .into_iter()
        .filter(|assigned| group.members.contains_key(&assigned.member_id))
        .map(|assigned| {
            let assignment = Bytes::copy_from_slice(&assigned.assignment);
            (assigned.member_id, assignment)
        })
        .collect();
    group.assign(assignments);
    match group.write(work) {
        Ok(()) => {
            group.phase = Phase::Stable;
            group.complete_parked_syncs(work, ErrorCode::NONE);
        }
        Err(error) => {
            group.reset_assignments(work, ErrorCode::UNKNOWN_SERVER_ERROR);
            let reason = format!("the assignment cannot be written: {error:?}");
            group.prepare_rebalance(work, &reason);
        }
    }
}
