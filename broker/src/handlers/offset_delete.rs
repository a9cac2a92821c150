//! OffsetDelete (key 47): forgets committed offsets of topics that a group no longer reads
//! (KIP-496).

use std::collections::BTreeMap;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestTopic, OffsetDeleteResponse,
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use vltava_protocol::types::Str;

use super::context::Context;
use super::{Reply, group};
use crate::groups::{Input, Reply as GroupReply};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::OFFSET_DELETE;

/// Answers partitions that do not exist here; asks the group's coordinator for the others.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    mut request: OffsetDeleteRequest,
) -> Reply<OffsetDeleteResponse> {
    let mut missing = BTreeMap::new();
    request.topics = sort_out(&context, std::mem::take(&mut request.topics), &mut missing);
    if request.topics.is_empty() && !missing.is_empty() {
        let topics = missing.into_iter().map(response_topic).collect();
        return Reply::Now(OffsetDeleteResponse { topics, ..OffsetDeleteResponse::default() });
    }
    let group_id = request.group_id.clone();
    let asked = group::ask(&context, &group_id, Input::OffsetDelete(request)).await;
    Reply::later(async move {
        match asked.await {
            Ok(GroupReply::OffsetDelete(mut response)) => {
                if response.error_code.is_none() {
                    for topic in &mut response.topics {
                        topic.partitions.extend(missing.remove(&topic.name).unwrap_or_default());
                    }
                    response.topics.extend(missing.into_iter().map(response_topic));
                }
                response
            }
            other => OffsetDeleteResponse {
                error_code: group::error_of(other),
                ..OffsetDeleteResponse::default()
            },
        }
    })
}

/// What exists; answers for the partitions that do not go to `missing`, by topic.
fn sort_out<R: Runtime>(
    context: &Context<R>,
    topics: Vec<OffsetDeleteRequestTopic>,
    missing: &mut BTreeMap<Str, Vec<OffsetDeleteResponsePartition>>,
) -> Vec<OffsetDeleteRequestTopic> {
    let image = context.services.node.image();
    let mut known = Vec::new();
    for mut asked in topics {
        let topic = image.topic(&asked.name);
        let exists = |index| topic.is_some_and(|topic| topic.has_partition(index));
        let all = std::mem::take(&mut asked.partitions);
        let (here, gone): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|partition| exists(partition.partition_index));
        if !gone.is_empty() {
            let gone = gone.iter().map(|partition| OffsetDeleteResponsePartition {
                partition_index: partition.partition_index,
                error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            });
            missing.entry(asked.name.clone()).or_default().extend(gone);
        }
        asked.partitions = here;
        if !asked.partitions.is_empty() {
            known.push(asked);
        }
    }
    known
}

fn response_topic(
    (name, partitions): (Str, Vec<OffsetDeleteResponsePartition>),
) -> OffsetDeleteResponseTopic {
    OffsetDeleteResponseTopic { name, partitions }
}
