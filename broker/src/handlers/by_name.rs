//! Work on a partition that a request names by topic and number.

use std::future::Future;
use std::rc::Rc;

use vltava_protocol::error_code::ErrorCode;

use super::context::Context;
use super::errors;
use crate::partition::error::PartitionError;
use crate::partition::replica::Replica;
use crate::partition::request::PartitionId;
use crate::runtime::Runtime;

/// Which partition a topic's name and a number mean.
pub fn resolve<R: Runtime>(
    context: &Context<R>,
    topic: &str,
    index: i32,
) -> Result<PartitionId, ErrorCode> {
    let image = context.services.node.image();
    let topic = image.topic(topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    if !topic.has_partition(index) {
        return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
    Ok(topic.partition_id(index))
}

/// Starts `work` on the shard that owns the partition; the future is its result. Start all of a
/// request before the first is awaited, and they run side by side.
pub async fn start<R, A, F, W>(
    context: &Context<R>,
    topic: &str,
    index: i32,
    work: W,
) -> impl Future<Output = Result<A, ErrorCode>> + use<R, A, F, W>
where
    R: Runtime,
    A: Send + 'static,
    F: Future<Output = Result<A, PartitionError>> + 'static,
    W: FnOnce(Rc<Replica<R>>) -> F + Send + 'static,
{
    let started = match resolve(context, topic, index) {
        Ok(partition) => Ok(context.services.partitions.on_owner(partition, work).await),
        Err(error) => Err(error),
    };
    async move { started?.await.map_err(|error| errors::of_partition(&error)) }
}
