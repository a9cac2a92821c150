//! ListOffsets (key 2): which offset a timestamp means.
//!
//! Versions: 1 one offset, 2 isolation level (KIP-98), 4 leader epochs (KIP-320), 5 a new leader
//! that cannot say yet (KIP-207), 6 flexible, 7 the largest timestamp (KIP-734), 8 the local log's
//! start (KIP-405), 9 the last tiered offset (KIP-1005), 10 timeout (KIP-1075), 11 the earliest
//! offset not yet tiered (KIP-1023).
//!
//! Ours: nothing is tiered, so what asks for tiered offsets is answered with -1. There are no
//! transactions yet, so the isolation level changes nothing.

use std::collections::BTreeSet;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use vltava_protocol::types::Str;

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
    let repeated = repeated(&request);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut started = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let asked = lookup(context.api_version, partition.timestamp);
            let asked = match repeated.contains(&(topic.name.clone(), index)) {
                true => Err(ErrorCode::INVALID_REQUEST),
                false => asked,
            };
            let lookup = match asked {
                Ok(lookup) => lookup,
                Err(error) => {
                    started.push((index, Err(error)));
                    continue;
                }
            };
            let epoch = partition.current_leader_epoch;
            let found = by_name::start(&context, &topic.name, index, move |replica| async move {
                replica.lookup(epoch, lookup).await
            });
            started.push((index, Ok(found.await)));
        }
        let mut partitions = Vec::with_capacity(started.len());
        for (index, started) in started {
            let found = match started {
                Ok(found) => found.await.map_err(|error| known(context.api_version, error)),
                Err(error) => Err(error),
            };
            partitions.push(partition_response(context.api_version, index, found));
        }
        topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
    }
    Reply::Now(ListOffsetsResponse { topics, ..ListOffsetsResponse::default() })
}

/// What a timestamp asks for, which older versions of the API may not know.
fn lookup(api_version: i16, timestamp: i64) -> Result<Lookup, ErrorCode> {
    let known_from = match timestamp {
        -2.. => 1,
        -3 => 7,
        -4 => 8,
        -5 => 9,
        -6 => 11,
        _ => i16::MAX,
    };
    if api_version < known_from {
        return Err(ErrorCode::UNSUPPORTED_VERSION);
    }
    Ok(Lookup::from(timestamp))
}

/// An error as the versions of a client know it.
fn known(api_version: i16, error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::OFFSET_NOT_AVAILABLE if api_version < 5 => ErrorCode::LEADER_NOT_AVAILABLE,
        error => error,
    }
}

/// Partitions that a request names more than once.
fn repeated(request: &ListOffsetsRequest) -> BTreeSet<(Str, i32)> {
    let mut seen = BTreeSet::new();
    let named = request.topics.iter().flat_map(|topic| {
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        indexes.map(|index| (topic.name.clone(), index))
    });
    named.filter(|name| !seen.insert(name.clone())).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps_have_the_versions_they_came_with() {
        for (timestamp, from) in [(-3, 7), (-4, 8), (-5, 9), (-6, 11)] {
            assert_eq!(lookup(from - 1, timestamp), Err(ErrorCode::UNSUPPORTED_VERSION));
            assert!(lookup(from, timestamp).is_ok(), "{timestamp}");
        }
        assert!([0, -1, -2].iter().all(|timestamp| lookup(1, *timestamp).is_ok()));
        assert_eq!(lookup(11, -7), Err(ErrorCode::UNSUPPORTED_VERSION));
    }
}
