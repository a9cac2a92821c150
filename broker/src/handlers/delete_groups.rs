//! DeleteGroups (key 42): forgets groups without members (KIP-229).
//!
//! Versions: 2 flexible, 3 error messages (KIP-1043).

use vltava_protocol::api::ApiKey;
use vltava_protocol::messages::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};

use super::context::Context;
use super::{Reply, group};
use crate::groups::{Input, Reply as GroupReply};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::DELETE_GROUPS;

/// Asks each group's coordinator.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: DeleteGroupsRequest,
) -> Reply<DeleteGroupsResponse> {
    let mut asked = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let input = Input::DeleteGroup { group_id: group_id.clone() };
        let answer = group::ask(&context, &group_id, input).await;
        asked.push((group_id, answer));
    }
    Reply::later(async move {
        let mut results = Vec::with_capacity(asked.len());
        for (group_id, answer) in asked {
            results.push(match answer.await {
                Ok(GroupReply::DeleteGroup(result)) => result,
                other => {
                    let error_code = group::error_of(other);
                    DeletableGroupResult { group_id, error_code, ..DeletableGroupResult::default() }
                }
            });
        }
        DeleteGroupsResponse { results, ..DeleteGroupsResponse::default() }
    })
}
