//! OffsetDelete (key 47): forgets committed offsets of topics that a group no longer reads (KIP-496).

use vltava_protocol::api::ApiKey;
use vltava_protocol::messages::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::context::Context;
use super::{Reply, group};
use crate::groups::machine::{Input, Reply as GroupReply};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::OFFSET_DELETE;

/// Asks the group's coordinator.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: OffsetDeleteRequest,
) -> Reply<OffsetDeleteResponse> {
    Reply::later(async move {
        let group_id = request.group_id.clone();
        let input = Input::OffsetDelete(request);
        match group::ask(&context, &group_id, input).await {
            Ok(GroupReply::OffsetDelete(response)) => response,
            other => OffsetDeleteResponse { error_code: group::error_of(other), ..OffsetDeleteResponse::default() },
        }
    })
}
