//! ListGroups (key 16): which groups there are.
//!
//! Versions: 3 flexible, 4 states (KIP-518), 5 types (KIP-848).

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};

use super::context::Context;
use super::{Reply, group};
use crate::groups::{Input, ListGroups, Reply as GroupReply};
use crate::partition::request::PartitionId;
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::LIST_GROUPS;

/// Groups that one coordinator is asked for at a time: bounds the time of a step.
const GROUPS_MAX: usize = 1_000;

/// Asks every coordinator of this node.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: ListGroupsRequest,
) -> Reply<ListGroupsResponse> {
    Reply::later(async move {
        let mut groups = Vec::new();
        for partition in group::partitions(&context) {
            if let Err(error_code) = list(&context, partition, &request, &mut groups).await {
                return ListGroupsResponse { error_code, ..ListGroupsResponse::default() };
            }
        }
        ListGroupsResponse { groups, ..ListGroupsResponse::default() }
    })
}

async fn list<R: Runtime>(
    context: &Context<R>,
    partition: PartitionId,
    request: &ListGroupsRequest,
    groups: &mut Vec<ListedGroup>,
) -> Result<(), ErrorCode> {
    let mut after = None;
    loop {
        let input = Input::ListGroups(ListGroups {
            states_filter: request.states_filter.clone(),
            types_filter: request.types_filter.clone(),
            after,
            groups_max: GROUPS_MAX,
        });
        let answer = group::ask_partition(context, partition, input).await.await;
        let Ok(GroupReply::ListGroups(listing)) = answer else {
            return Err(group::error_of(answer));
        };
        groups.extend(listing.groups);
        after = listing.next;
        if after.is_none() {
            return Ok(());
        }
    }
}
