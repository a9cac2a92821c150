//! DescribeGroups (key 15): members and state of classic groups.
//!
//! Versions: 3 authorised operations (KIP-430), 4 static members (KIP-345), 5 flexible, 6
//! GROUP_ID_NOT_FOUND (KIP-1043).

use vltava_protocol::api::ApiKey;
use vltava_protocol::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup,
};

use super::context::Context;
use super::{Reply, group};
use crate::groups::{Input, Reply as GroupReply};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::DESCRIBE_GROUPS;

/// READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS and ALTER_CONFIGS of a group, as bits: all are allowed.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// Asks each group's coordinator.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: DescribeGroupsRequest,
) -> Reply<DescribeGroupsResponse> {
    let api_version = context.api_version;
    let mut asked = Vec::with_capacity(request.groups.len());
    for group_id in request.groups {
        let input = Input::DescribeGroup { group_id: group_id.clone(), api_version };
        let answer = group::ask(&context, &group_id, input).await;
        asked.push((group_id, answer));
    }
    Reply::later(async move {
        let mut groups = Vec::with_capacity(asked.len());
        for (group_id, answer) in asked {
            let mut described = match answer.await {
                Ok(GroupReply::DescribeGroup(described)) => described,
                other => {
                    let error_code = group::error_of(other);
                    DescribedGroup { group_id, error_code, ..DescribedGroup::default() }
                }
            };
            if request.include_authorized_operations && described.error_code.is_none() {
                described.authorized_operations = GROUP_OPERATIONS;
            }
            groups.push(described);
        }
        DescribeGroupsResponse { groups, ..DescribeGroupsResponse::default() }
    })
}
