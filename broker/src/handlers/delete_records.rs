//! DeleteRecords (key 21): moves the start of a log (KIP-107).
//!
//! Versions: 2 flexible.
//!
//! Ours: answered when the new start is committed, and durable on the leader. Kafka waits for all
//! replicas that are there, and writes it with its next checkpoint, so a crash may bring records
//! back.

use std::rc::Rc;
use std::time::Duration;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};

use super::context::Context;
use super::{Reply, by_name};
use crate::partition::replica::Replica;
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::DELETE_RECORDS;

/// Moves the start of every log named, side by side.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: DeleteRecordsRequest,
) -> Reply<DeleteRecordsResponse> {
    let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
    let deadline = context.received.after(Duration::from_millis(timeout_ms));
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let refused = refusal(&context, &topic.name);
        let mut started = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let work = move |replica: Rc<Replica<R>>| async move {
                let to = if asked.offset == -1 { replica.high_watermark() } else { asked.offset };
                replica.delete_records_until(to, deadline).await
            };
            let moved = match refused {
                Some(error) => Err(error),
                None => {
                    Ok(by_name::start(&context, &topic.name, asked.partition_index, work).await)
                }
            };
            started.push((asked.partition_index, moved));
        }
        let mut partitions = Vec::with_capacity(started.len());
        for (partition_index, moved) in started {
            let moved = match moved {
                Ok(moved) => moved.await,
                Err(error) => Err(error),
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index,
                low_watermark: moved.unwrap_or(-1),
                error_code: moved.err().unwrap_or(ErrorCode::NONE),
            });
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    Reply::Now(DeleteRecordsResponse { topics, ..DeleteRecordsResponse::default() })
}

/// Records of a topic that is only compacted are not deleted by offset, nor are those of internal
/// topics.
fn refusal<R: Runtime>(context: &Context<R>, topic: &str) -> Option<ErrorCode> {
    let image = context.services.node.image();
    let topic = image.topic(topic)?;
    if topic.is_internal() {
        return Some(ErrorCode::INVALID_TOPIC_EXCEPTION);
    }
    let deletes = context.services.node.topic_config(topic).delete;
    (!deletes).then_some(ErrorCode::POLICY_VIOLATION)
}
