//! SyncGroup (key 14): a member asks for its assignment; the leader brings all.
//!
//! Versions: 3 static members (KIP-345), 4 flexible, 5 protocol type and name (KIP-559).

use vltava_protocol::api::ApiKey;
use vltava_protocol::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

use super::context::Context;
use super::{Reply, group};
use crate::groups::{Input, Reply as GroupReply};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::SYNC_GROUP;

/// Asks the group's coordinator; the answer comes when the leader has assigned.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: SyncGroupRequest,
) -> Reply<SyncGroupResponse> {
    let group_id = request.group_id.clone();
    let input = Input::SyncGroup { request, api_version: context.api_version };
    let asked = group::ask(&context, &group_id, input).await;
    Reply::later(async move {
        match asked.await {
            Ok(GroupReply::SyncGroup(response)) => response,
            other => SyncGroupResponse {
                error_code: group::error_of(other),
                ..SyncGroupResponse::default()
            },
        }
    })
}
