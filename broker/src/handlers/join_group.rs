//! JoinGroup (key 11): a member comes to a classic group.
//!
//! Versions: 1 rebalance timeout (KIP-62), 4 a new member is given an id first (KIP-394), 5 static
//! members (KIP-345), 6 flexible, 7 protocol type in the answer (KIP-559), 8 the client's reason
//! (KIP-800), 9 a static leader keeps the assignment (KIP-814).

use vltava_protocol::api::ApiKey;
use vltava_protocol::messages::join_group::{JoinGroupRequest, JoinGroupResponse};
use vltava_protocol::types::Str;

use super::context::Context;
use super::{Reply, group};
use crate::groups::{Input, Join, Reply as GroupReply};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::JOIN_GROUP;

/// The first version in which there may be no protocol.
const NULL_PROTOCOL_FROM: i16 = 7;

/// Asks the group's coordinator; the answer comes when all members have joined.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: JoinGroupRequest,
) -> Reply<JoinGroupResponse> {
    let api_version = context.api_version;
    let (group_id, member_id) = (request.group_id.clone(), request.member_id.clone());
    let runtime = &context.services.runtime;
    let random = u128::from(runtime.random_u64()) << 64 | u128::from(runtime.random_u64());
    let client = group::client(&context);
    let join = Join { request, api_version, client, random };
    let asked = group::ask(&context, &group_id, Input::JoinGroup(Box::new(join))).await;
    Reply::later(async move {
        match asked.await {
            Ok(GroupReply::JoinGroup(response)) => response,
            other => JoinGroupResponse {
                error_code: group::error_of(other),
                protocol_name: (api_version < NULL_PROTOCOL_FROM).then_some(Str::EMPTY),
                member_id,
                ..JoinGroupResponse::default()
            },
        }
    })
}
