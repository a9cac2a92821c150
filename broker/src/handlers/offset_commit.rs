//! OffsetCommit (key 8): how far a group has read.
//!
//! Versions: 2 retention time (gone in 5, KIP-211), 6 leader epochs (KIP-320), 7 static members
//! (KIP-345), 8 flexible, 9 the protocol of KIP-848, 10 topic ids.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestTopic, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use vltava_protocol::types::Uuid;

use super::context::Context;
use super::{Reply, by_name, group};
use crate::groups::{Input, Reply as GroupReply};
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
    let mut sorted = Sorted::default();
    for topic in std::mem::take(&mut request.topics) {
        sort_out(&context, topic, &mut sorted);
    }
    request.topics = std::mem::take(&mut sorted.known);
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
        for topic in &mut response.topics {
            let missing = sorted.missing.remove(&topic.topic_id);
            topic.partitions.extend(missing.into_iter().flat_map(|topic| topic.partitions));
        }
        response.topics.extend(sorted.missing.into_values());
        response.topics.extend(sorted.unknown);
        response
    })
}

/// What a commit names, sorted out.
#[derive(Default)]
struct Sorted {
    /// For the coordinator.
    known: Vec<OffsetCommitRequestTopic>,
    /// Answers for partitions that topics do not have, by topic.
    missing: BTreeMap<Uuid, OffsetCommitResponseTopic>,
    /// Answers for topics that do not exist.
    unknown: Vec<OffsetCommitResponseTopic>,
}

/// Fills in the half of the topic's name that the request lacks; takes out what does not exist.
fn sort_out<R: Runtime>(
    context: &Context<R>,
    mut asked: OffsetCommitRequestTopic,
    sorted: &mut Sorted,
) {
    let image = context.services.node.image();
    let by_id = context.api_version >= TOPIC_IDS_FROM;
    let topic = match by_name::topic(&image, by_id, asked.topic_id, &asked.name) {
        Ok(topic) => topic,
        Err(error) => return sorted.unknown.push(failed(&asked, error)),
    };
    asked.name = topic.name.clone();
    asked.topic_id = topic.id;
    let all = std::mem::take(&mut asked.partitions);
    let (here, missing) =
        all.into_iter().partition(|partition| topic.has_partition(partition.partition_index));
    let missing = OffsetCommitRequestTopic { partitions: missing, ..asked.clone() };
    if !missing.partitions.is_empty() {
        let missing = failed(&missing, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        match sorted.missing.entry(topic.id) {
            Entry::Vacant(entry) => drop(entry.insert(missing)),
            Entry::Occupied(mut entry) => entry.get_mut().partitions.extend(missing.partitions),
        }
    }
    asked.partitions = here;
    if !asked.partitions.is_empty() {
        sorted.known.push(asked);
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
