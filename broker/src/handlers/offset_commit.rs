//! OffsetCommit (key 8): how far a group has read.
//!
//! Versions: 2 retention time (gone in 5, KIP-211), 6 leader epochs (KIP-320), 7 static members
//! (KIP-345), 8 flexible, 9 the protocol of KIP-848, 10 topic ids.

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestTopic, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};

use super::context::Context;
use super::{Reply, group};
use crate::groups::machine::{Input, Reply as GroupReply};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::OFFSET_COMMIT;

/// The first version that names topics by id.
const TOPIC_IDS_FROM: i16 = 10;

/// Answers topics that do not exist here; asks the group's coordinator for the others.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    mut request: OffsetCommitRequest,
) -> Reply<OffsetCommitResponse> {
    let mut refused = Vec::new();
    let mut known = Vec::new();
    for topic in std::mem::take(&mut request.topics) {
        sort_out(&context, topic, &mut known, &mut refused);
    }
    request.topics = known;
    let group_id = request.group_id.clone();
    let topics = request.topics.clone();
    let input = Input::OffsetCommit { request, api_version: context.api_version };
    let asked = group::ask(&context, &group_id, input).await;
    Reply::later(async move {
        let mut response = match asked.await {
            Ok(GroupReply::OffsetCommit(response)) => response,
            other => {
                let error = group::error_of(other);
                let topics = topics.iter().map(|topic| failed(topic, error)).collect();
                OffsetCommitResponse { topics, ..OffsetCommitResponse::default() }
            }
        };
        for refused in refused {
            // One entry for each topic.
            let is_same = |topic: &&mut OffsetCommitResponseTopic| {
                (&topic.name, topic.topic_id) == (&refused.name, refused.topic_id)
            };
            match response.topics.iter_mut().find(is_same) {
                Some(topic) => topic.partitions.extend(refused.partitions),
                None => response.topics.push(refused),
            }
        }
        response
    })
}

/// Fills in the half of the topic's name that the request lacks; takes out partitions that do not
/// exist.
fn sort_out<R: Runtime>(
    context: &Context<R>,
    mut asked: OffsetCommitRequestTopic,
    known: &mut Vec<OffsetCommitRequestTopic>,
    refused: &mut Vec<OffsetCommitResponseTopic>,
) {
    let image = context.services.node.image();
    let by_id = context.api_version >= TOPIC_IDS_FROM;
    let found = if by_id { image.topic_by_id(asked.topic_id) } else { image.topic(&asked.name) };
    let Some(topic) = found else {
        let error =
            if by_id { ErrorCode::UNKNOWN_TOPIC_ID } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
        return refused.push(failed(&asked, error));
    };
    asked.name = topic.name.clone();
    asked.topic_id = topic.id;
    let all = std::mem::take(&mut asked.partitions);
    let (here, unknown) =
        all.into_iter().partition(|partition| topic.has_partition(partition.partition_index));
    let unknown = OffsetCommitRequestTopic { partitions: unknown, ..asked.clone() };
    if !unknown.partitions.is_empty() {
        refused.push(failed(&unknown, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    }
    asked.partitions = here;
    if !asked.partitions.is_empty() {
        known.push(asked);
    }
}

fn failed(topic: &OffsetCommitRequestTopic, error_code: ErrorCode) -> OffsetCommitResponseTopic {
    let partitions = topic.partitions.iter().map(|partition| OffsetCommitResponsePartition {
        partition_index: partition.partition_index,
        error_code,
    });
    OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: partitions.collect(),
    }
}
