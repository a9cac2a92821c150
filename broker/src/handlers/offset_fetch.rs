//! OffsetFetch (key 9): how far groups have read.
//!
//! Versions: 2 all topics, 5 leader epochs (KIP-320), 6 flexible, 7 stable offsets (KIP-447), 8
//! several groups (KIP-709), 9 the protocol of KIP-848, 10 topic ids.
//!
//! There are no transactions yet, so all offsets are stable.

use std::rc::Rc;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use vltava_protocol::types::{Str, Uuid};

use super::context::Context;
use super::{Reply, group};
use crate::groups::{Input, Reply as GroupReply};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::OFFSET_FETCH;

/// The first version that asks for several groups.
const GROUPS_FROM: i16 = 8;
/// The first version whose answer has an error of the group; before, each partition has it.
const GROUP_ERROR_FROM: i16 = 2;
/// The first version that names topics by id.
const TOPIC_IDS_FROM: i16 = 10;

/// Asks each group's coordinator.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: OffsetFetchRequest,
) -> Reply<OffsetFetchResponse> {
    let api_version = context.api_version;
    if api_version >= GROUPS_FROM {
        let mut asked = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            asked.push(ask(&context, group).await);
        }
        return Reply::later(async move {
            let mut groups = Vec::with_capacity(asked.len());
            for group in asked {
                groups.push(group.await);
            }
            OffsetFetchResponse { groups, ..OffsetFetchResponse::default() }
        });
    }
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..OffsetFetchRequestTopics::default()
        });
        topics.collect()
    });
    let group = OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics,
        ..OffsetFetchRequestGroup::default()
    };
    let named = if api_version < GROUP_ERROR_FROM { group.topics.clone() } else { None };
    let asked = ask(&context, group).await;
    Reply::later(async move {
        let mut answer = asked.await;
        if let Some(named) = named {
            say_at_partitions(&mut answer, named);
        }
        of_one_group(answer, api_version)
    })
}

/// Hands the question about one group to its coordinator; what this returns completes with the
/// answer.
async fn ask<R: Runtime>(
    context: &Context<R>,
    mut asked: OffsetFetchRequestGroup,
) -> impl Future<Output = OffsetFetchResponseGroup> + use<R> {
    let by_id = context.api_version >= TOPIC_IDS_FROM;
    let mut unknown = Vec::new();
    if by_id && let Some(topics) = asked.topics.as_mut() {
        let image = context.services.node.image();
        topics.retain_mut(|topic| match image.topic_by_id(topic.topic_id) {
            Some(found) => {
                topic.name = found.name.clone();
                true
            }
            None => {
                unknown.push(unknown_topic(topic.topic_id, &topic.partition_indexes));
                false
            }
        });
    }
    let group_id = asked.group_id.clone();
    let answer = group::ask(context, &group_id, Input::OffsetFetch(asked)).await;
    let services = Rc::clone(&context.services);
    async move {
        let mut group = match answer.await {
            Ok(GroupReply::OffsetFetch(group)) => group,
            other => {
                return OffsetFetchResponseGroup {
                    group_id,
                    error_code: group::error_of(other),
                    ..OffsetFetchResponseGroup::default()
                };
            }
        };
        if by_id {
            let image = services.node.image();
            // A topic that is gone since has no id to name it by.
            group.topics.retain_mut(|topic| {
                topic.topic_id = image.topic(&topic.name).map_or(Uuid::ZERO, |found| found.id);
                !topic.topic_id.is_zero()
            });
            group.topics.extend(unknown);
        }
        group
    }
}

fn unknown_topic(topic_id: Uuid, indexes: &[i32]) -> OffsetFetchResponseTopics {
    OffsetFetchResponseTopics {
        topic_id,
        partitions: refused(indexes, ErrorCode::UNKNOWN_TOPIC_ID),
        ..OffsetFetchResponseTopics::default()
    }
}

/// The error of a group, where it has one, at each partition that was asked for.
fn say_at_partitions(answer: &mut OffsetFetchResponseGroup, named: Vec<OffsetFetchRequestTopics>) {
    let error = answer.error_code;
    if !error.is_none() {
        answer.topics = named.into_iter().map(|topic| refused_topic(topic, error)).collect();
    }
}

fn refused_topic(topic: OffsetFetchRequestTopics, error: ErrorCode) -> OffsetFetchResponseTopics {
    OffsetFetchResponseTopics {
        partitions: refused(&topic.partition_indexes, error),
        name: topic.name,
        ..OffsetFetchResponseTopics::default()
    }
}

fn refused(indexes: &[i32], error_code: ErrorCode) -> Vec<OffsetFetchResponsePartitions> {
    let partitions = indexes.iter().map(|index| OffsetFetchResponsePartitions {
        partition_index: *index,
        committed_offset: -1,
        metadata: Some(Str::EMPTY),
        error_code,
        ..OffsetFetchResponsePartitions::default()
    });
    partitions.collect()
}

/// The answer in the form of versions that ask for one group.
fn of_one_group(group: OffsetFetchResponseGroup, api_version: i16) -> OffsetFetchResponse {
    let topics = group.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| OffsetFetchResponsePartition {
                partition_index: partition.partition_index,
                committed_offset: partition.committed_offset,
                committed_leader_epoch: partition.committed_leader_epoch,
                metadata: partition.metadata,
                error_code: partition.error_code,
            })
            .collect(),
    });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: if api_version >= GROUP_ERROR_FROM {
            group.error_code
        } else {
            ErrorCode::NONE
        },
        ..OffsetFetchResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_group_has_no_error_of_its_own_each_partition_has_it() {
        let named = vec![OffsetFetchRequestTopics {
            name: Str::from_static("read"),
            partition_indexes: vec![3, 5],
            ..OffsetFetchRequestTopics::default()
        }];
        let mut group = OffsetFetchResponseGroup {
            error_code: ErrorCode::NOT_COORDINATOR,
            ..OffsetFetchResponseGroup::default()
        };
        say_at_partitions(&mut group, named);
        let answer = of_one_group(group, GROUP_ERROR_FROM - 1);
        assert_eq!(answer.error_code, ErrorCode::NONE);
        let told = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let told = told.map(|it| (it.partition_index, it.error_code, it.committed_offset));
        let refused = |index| (index, ErrorCode::NOT_COORDINATOR, -1);
        assert_eq!(told.collect::<Vec<_>>(), [refused(3), refused(5)]);
    }
}
