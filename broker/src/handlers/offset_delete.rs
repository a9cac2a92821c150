//! OffsetDelete (key 47): forgets committed offsets of topics that a group no longer reads
//! (KIP-496).

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestTopic, OffsetDeleteResponse,
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use super::context::Context;
use super::{Reply, group};
use crate::groups::{Input, Reply as GroupReply};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::OFFSET_DELETE;

/// Answers topics that do not exist here; asks the group's coordinator for the others.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    mut request: OffsetDeleteRequest,
) -> Reply<OffsetDeleteResponse> {
    let image = context.services.node.image();
    let all = std::mem::take(&mut request.topics);
    let (known, unknown): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|topic| image.topic(&topic.name).is_some());
    drop(image);
    let unknown: Vec<_> = unknown.iter().map(unknown_topic).collect();
    if known.is_empty() && !unknown.is_empty() {
        return Reply::Now(OffsetDeleteResponse {
            topics: unknown,
            ..OffsetDeleteResponse::default()
        });
    }
    request.topics = known;
    let group_id = request.group_id.clone();
    let asked = group::ask(&context, &group_id, Input::OffsetDelete(request)).await;
    Reply::later(async move {
        match asked.await {
            Ok(GroupReply::OffsetDelete(mut response)) => {
                if response.error_code.is_none() {
                    response.topics.extend(unknown);
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

fn unknown_topic(topic: &OffsetDeleteRequestTopic) -> OffsetDeleteResponseTopic {
    let partitions = topic.partitions.iter().map(|partition| OffsetDeleteResponsePartition {
        partition_index: partition.partition_index,
        error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    });
    OffsetDeleteResponseTopic { name: topic.name.clone(), partitions: partitions.collect() }
}
