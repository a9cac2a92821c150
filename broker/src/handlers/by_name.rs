//! What a request names: a topic by its name or id, a partition by topic and number.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::Uuid;

use super::context::Context;
use super::errors;
use crate::metadata::image::{Image, Topic};
use crate::partition::error::PartitionError;
use crate::partition::replica::Replica;
use crate::partition::request::PartitionId;
use crate::runtime::Runtime;

/// The topic of this id, or of this name.
pub fn topic<'a>(
    image: &'a Image,
    by_id: bool,
    id: Uuid,
    name: &str,
) -> Result<&'a Arc<Topic>, ErrorCode> {
    if by_id {
        image.topic_by_id(id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)
    } else {
        image.topic(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }
}

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
