//! The way from a group's id to its coordinator.

use std::future::ready;

use futures_util::future::Either;
use vltava_protocol::error_code::ErrorCode;

use super::context::Context;
use crate::coordinator::host::HostError;
use crate::groups::{Client, Input, Reply};
use crate::metadata::topic_name::CONSUMER_OFFSETS;
use crate::partition::error::PartitionError;
use crate::partition::request::PartitionId;
use crate::runtime::Runtime;

/// Hands an input to the coordinator of a group. When this returns, the input stands behind all
/// that the same connection handed to that coordinator before: a handler awaits this before it
/// returns, and what it completes with, the coordinator's reply, in [`super::Reply::Later`].
pub async fn ask<R: Runtime>(
    context: &Context<R>,
    group_id: &str,
    input: Input,
) -> impl Future<Output = Result<Reply, ErrorCode>> + use<R> {
    match partition_of(context, group_id) {
        Some(partition) => Either::Left(ask_partition(context, partition, input).await),
        None => Either::Right(ready(Err(ErrorCode::NOT_COORDINATOR))),
    }
}

/// As [`ask`], for the coordinator over one partition of the topic.
pub async fn ask_partition<R: Runtime>(
    context: &Context<R>,
    partition: PartitionId,
    input: Input,
) -> impl Future<Output = Result<Reply, ErrorCode>> + use<R> {
    let submitted = context.services.groups.submit(partition, input).await;
    async move {
        submitted.await.map_err(|error| match error {
            HostError::Loading => ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
            HostError::NotHere | HostError::Lost(PartitionError::NotLeader) => {
                ErrorCode::NOT_COORDINATOR
            }
            HostError::Lost(_) => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        })
    }
}

/// All partitions of the topic; none where nobody has used a group yet.
pub fn partitions<R: Runtime>(context: &Context<R>) -> Vec<PartitionId> {
    let image = context.services.node.image();
    image.topic(CONSUMER_OFFSETS).into_iter().flat_map(|topic| topic.partition_ids()).collect()
}

/// The partition whose leader coordinates a group; `None` before anybody has used one.
pub fn partition_of<R: Runtime>(context: &Context<R>, group_id: &str) -> Option<PartitionId> {
    let image = context.services.node.image();
    let topic = image.topic(CONSUMER_OFFSETS)?;
    let count = Some(topic.partition_count()).filter(|count| *count > 0)?;
    Some(topic.partition_id(partition_for(group_id, count)))
}

/// Kafka's choice, which its tools repeat: the absolute of Java's string hash, modulo the number of
/// partitions.
fn partition_for(group_id: &str, partitions: i32) -> i32 {
    let hash = group_id
        .encode_utf16()
        .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partitions
}

/// The error of an answer that is not the one asked for: the coordinator's, or ours.
pub fn error_of(answer: Result<Reply, ErrorCode>) -> ErrorCode {
    answer.err().unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR)
}

/// Who asks, as a group shows its members.
pub fn client<R: Runtime>(context: &Context<R>) -> Client {
    Client {
        id: context.client_id.clone().unwrap_or_default(),
        host: format!("/{}", context.client.peer.ip()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::partition_for;

    #[test]
    fn partitions_are_those_of_kafka() {
        // Java: "".hashCode() is 0, "abc".hashCode() is 96354, "polygenelubricants".hashCode() is
        // Integer.MIN_VALUE.
        assert_eq!(partition_for("", 50), 0);
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        assert_eq!(partition_for("abc", 50), 96354 % 50);
    }
}
