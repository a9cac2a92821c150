//! OffsetForLeaderEpoch (key 23): where a leader epoch ended (KIP-101, KIP-320).
//!
//! Versions: 2 the caller's idea of the current epoch, 3 replica id, 4 flexible.

use std::rc::Rc;

use vltava_protocol::api::ApiKey;
use vltava_protocol::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderTopicResult,
};

use super::context::Context;
use super::{Reply, by_name};
use crate::partition::replica::Replica;
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::OFFSET_FOR_LEADER_EPOCH;

/// Asks every partition where it lives, side by side.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: OffsetForLeaderEpochRequest,
) -> Reply<OffsetForLeaderEpochResponse> {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut started = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let (current, epoch) = (asked.current_leader_epoch, asked.leader_epoch);
            let work = move |replica: Rc<Replica<R>>| async move {
                replica.check_epoch(current)?;
                Ok(replica.end_of_epoch(epoch))
            };
            let end = by_name::start(&context, &topic.topic, asked.partition, work).await;
            started.push((asked.partition, end));
        }
        let mut partitions = Vec::with_capacity(started.len());
        for (partition, end) in started {
            partitions.push(match end.await {
                Ok((leader_epoch, end_offset)) => EpochEndOffset {
                    partition,
                    leader_epoch,
                    end_offset,
                    ..EpochEndOffset::default()
                },
                Err(error_code) => {
                    EpochEndOffset { partition, error_code, ..EpochEndOffset::default() }
                }
            });
        }
        topics.push(OffsetForLeaderTopicResult { topic: topic.topic, partitions });
    }
    Reply::Now(OffsetForLeaderEpochResponse { topics, ..OffsetForLeaderEpochResponse::default() })
}
