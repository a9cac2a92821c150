//! DescribeProducers (key 61): which producers a partition remembers (KIP-664).

use std::rc::Rc;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState,
    TopicResponse,
};
use vltava_storage::producer_state::ProducerEntry;

use super::context::Context;
use super::{Reply, by_name};
use crate::partition::replica::Replica;
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::DESCRIBE_PRODUCERS;

/// Asks every partition where it lives, side by side.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: DescribeProducersRequest,
) -> Reply<DescribeProducersResponse> {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut started = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let work = |replica: Rc<Replica<R>>| async move { Ok(replica.producers()) };
            started.push((index, by_name::start(&context, &topic.name, index, work).await));
        }
        let mut partitions = Vec::with_capacity(started.len());
        for (partition_index, producers) in started {
            partitions.push(match producers.await {
                Ok(producers) => PartitionResponse {
                    partition_index,
                    active_producers: producers.into_iter().map(state).collect(),
                    ..PartitionResponse::default()
                },
                Err(error_code) => PartitionResponse {
                    partition_index,
                    error_code,
                    error_message: Some(ErrorCode::message(error_code).into()),
                    ..PartitionResponse::default()
                },
            });
        }
        topics.push(TopicResponse { name: topic.name, partitions });
    }
    Reply::Now(DescribeProducersResponse { topics, ..DescribeProducersResponse::default() })
}

fn state((producer_id, producer): (i64, ProducerEntry)) -> ProducerState {
    ProducerState {
        producer_id,
        producer_epoch: producer.epoch.into(),
        last_sequence: producer.last_sequence(),
        last_timestamp: producer.last_timestamp,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.transaction_start.unwrap_or(-1),
    }
}
