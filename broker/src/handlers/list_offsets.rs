//! ListOffsets (key 2): which offset a timestamp means.
//!
//! Versions: 1 one offset, 2 isolation level (KIP-98), 4 leader epochs (KIP-320), 6 flexible, 7 the
//! largest timestamp (KIP-734), 8 the local log's start (KIP-405), 9 the last tiered offset
//! (KIP-1005), 10 timeout (KIP-1075), 11 the earliest offset not yet tiered (KIP-1023).
//!
//! Ours: nothing is tiered, so what asks for tiered offsets is answered with -1. There are no
//! transactions yet, so the isolation level changes nothing.

use std::collections::BTreeSet;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};

use super::context::Context;
use super::{Reply, by_name};
use crate::partition::lookup::{Lookup, Position};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::LIST_OFFSETS;

/// Looks up every partition where it lives, side by side.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: ListOffsetsRequest,
) -> Reply<ListOffsetsResponse> {
    Reply::later(async move {
        let mut seen = BTreeSet::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut started = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let index = partition.partition_index;
                let is_first = seen.insert((topic.name.clone(), index));
                if !is_known(partition.timestamp, context.api_version) {
                    started.push((index, Err(ErrorCode::UNSUPPORTED_VERSION)));
                    continue;
                }
                if !is_first {
                    started.push((index, Err(ErrorCode::INVALID_REQUEST)));
                    continue;
                }
                let lookup = Lookup::from(partition.timestamp);
                let epoch = partition.current_leader_epoch;
                let found =
                    by_name::start(&context, &topic.name, index, move |replica| async move {
                        replica.lookup(epoch, lookup).await
                    });
                started.push((index, Ok(found.await)));
            }
            let mut partitions = Vec::with_capacity(started.len());
            for (index, found) in started {
                let found = match found {
                    Ok(found) => found.await,
                    Err(error) => Err(error),
                };
                partitions.push(partition_response(context.api_version, index, found));
            }
            topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
        }
        ListOffsetsResponse { topics, ..ListOffsetsResponse::default() }
    })
}

/// Whether a version has this special timestamp, where it is one.
fn is_known(timestamp: i64, api_version: i16) -> bool {
    match timestamp {
        -2.. => true,
        -3 => api_version >= 7,
        -4 => api_version >= 8,
        -5 => api_version >= 9,
        -6 => api_version >= 11,
        _ => false,
    }
}

fn partition_response(
    api_version: i16,
    partition_index: i32,
    found: Result<Position, ErrorCode>,
) -> ListOffsetsPartitionResponse {
    match found {
        Ok(Position { offset, timestamp, leader_epoch }) => ListOffsetsPartitionResponse {
            partition_index,
            timestamp,
            offset,
            // Older clients have no field for it.
            leader_epoch: if api_version >= 4 { leader_epoch } else { -1 },
            ..ListOffsetsPartitionResponse::default()
        },
        Err(error_code) => ListOffsetsPartitionResponse {
            partition_index,
            error_code,
            ..ListOffsetsPartitionResponse::default()
        },
    }
}
