//! LeaveGroup (key 13): members leave a classic group.
//!
//! Versions: 3 several members, by instance id too (KIP-345), 4 flexible, 5 the client's reason
//! (KIP-800).

use vltava_protocol::api::ApiKey;
use vltava_protocol::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse};

use super::context::Context;
use super::{Reply, group};
use crate::groups::{Input, Reply as GroupReply};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::LEAVE_GROUP;

/// Tells the group's coordinator.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: LeaveGroupRequest,
) -> Reply<LeaveGroupResponse> {
    let group_id = request.group_id.clone();
    let input = Input::LeaveGroup { request, api_version: context.api_version };
    let asked = group::ask(&context, &group_id, input).await;
    Reply::later(async move {
        match asked.await {
            Ok(GroupReply::LeaveGroup(response)) => response,
            other => LeaveGroupResponse {
                error_code: group::error_of(other),
                ..LeaveGroupResponse::default()
            },
        }
    })
}
