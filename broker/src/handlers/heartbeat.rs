//! Heartbeat (key 12): a member of a classic group is alive.
//!
//! Versions: 3 static members (KIP-345), 4 flexible.

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};

use super::context::Context;
use super::{Reply, group};
use crate::groups::{Input, Reply as GroupReply};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::HEARTBEAT;

/// Tells the group's coordinator. One that is still loading cannot know the member: it says nothing
/// against it, as Kafka does.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: HeartbeatRequest,
) -> Reply<HeartbeatResponse> {
    let group_id = request.group_id.clone();
    let asked = group::ask(&context, &group_id, Input::Heartbeat(request)).await;
    Reply::later(async move {
        let error_code = match asked.await {
            Ok(GroupReply::Heartbeat(response)) => return response,
            Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS) => ErrorCode::NONE,
            other => group::error_of(other),
        };
        HeartbeatResponse { error_code, ..HeartbeatResponse::default() }
    })
}
