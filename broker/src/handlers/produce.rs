//! Produce (key 0): appends record batches.
//!
//! Versions: 3 magic 2 (KIP-98), 7 zstd (KIP-110), 8 which record was wrong (KIP-467), 9 flexible,
//! 10 the leader in the answer (KIP-951), 12 transactions v2 (KIP-890), 13 topic ids (KIP-516).
//! ApiVersions says 0, because librdkafka turns compression off otherwise; 0 to 2 are refused.
//!
//! Ours: acks=1 is answered when the batch is durable, as acks=all is; a request with a
//! transactional id is refused.

use std::collections::BTreeMap;
use std::rc::Rc;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceData, TopicProduceResponse,
};
use vltava_protocol::types::Str;

use super::Reply;
use super::context::Context;
use super::errors;
use crate::metadata::image::Topic;
use crate::partition::append::append_all;
use crate::partition::client::Partitions;
use crate::partition::error::PartitionError;
use crate::partition::request::{AppendResult, AppendTo, Appended, PartitionId};
use crate::partition::validate::{self, AppendRules};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::PRODUCE;

/// Where a partition's place in the answer is, and what stands there: known already, or the owing
/// shard and its place in that shard's results.
enum Place {
    Known(PartitionProduceResponse),
    Owed { index: i32, shard: usize, position: usize, log_append_time_ms: i64 },
}

/// Enqueues every batch at its partition before it returns; answers when all are committed.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: ProduceRequest,
) -> Reply<ProduceResponse> {
    if request.transactional_id.is_some() {
        return Reply::Now(refuse_transaction(&request));
    }
    let mut by_shard: BTreeMap<usize, Vec<AppendTo>> = BTreeMap::new();
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic_data in request.topic_data {
        topics.push(place_topic(&context, request.acks, topic_data, &mut by_shard));
    }
    let mut owed = BTreeMap::new();
    for (shard, batches) in by_shard {
        let job = move |partitions: &Rc<Partitions<R>>| {
            let results = append_all(partitions, batches);
            async move { Ok(results.await) }
        };
        owed.insert(shard, context.services.partitions.on_shard(shard, job).await);
    }
    if request.acks == 0 {
        return known_error(&topics).map_or(Reply::Nothing, Reply::Refuse);
    }
    Reply::later(async move {
        let mut results = BTreeMap::new();
        for (shard, owed) in owed {
            results.insert(shard, owed.await);
        }
        ProduceResponse { responses: answer(topics, &results), ..ProduceResponse::default() }
    })
}

/// No transactions yet: the code that InitProducerId gave for this id, which clients take as final.
fn refuse_transaction(request: &ProduceRequest) -> ProduceResponse {
    let error = ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    let responses = request.topic_data.iter().map(|topic| TopicProduceResponse {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partition_responses: topic
            .partition_data
            .iter()
            .map(|partition| failed(partition.index, error, None))
            .collect(),
    });
    ProduceResponse { responses: responses.collect(), ..ProduceResponse::default() }
}

fn failed(index: i32, error_code: ErrorCode, message: Option<Str>) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code,
        base_offset: -1,
        error_message: message,
        ..PartitionProduceResponse::default()
    }
}

type Places = (TopicProduceResponse, Vec<Place>);

fn place_topic<R: Runtime>(
    context: &Context<R>,
    acks: i16,
    data: TopicProduceData,
    by_shard: &mut BTreeMap<usize, Vec<AppendTo>>,
) -> Places {
    let by_id = context.api_version >= 13;
    let image = context.services.node.image();
    let topic = if by_id { image.topic_by_id(data.topic_id) } else { image.topic(&data.name) };
    let unknown =
        if by_id { ErrorCode::UNKNOWN_TOPIC_ID } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
    let rules = topic.map(|topic| context.services.append_rules(topic));
    let places = data.partition_data.into_iter().map(|partition| {
        let (Some(topic), Some(rules)) = (topic, &rules) else {
            return Place::Known(failed(partition.index, unknown, None));
        };
        if let Some(error) = refuse_partition(context, acks, topic, partition.index) {
            return Place::Known(failed(partition.index, error, None));
        }
        place_partition(context, topic, rules, partition, by_shard)
    });
    let places = places.collect();
    let response = TopicProduceResponse {
        name: data.name,
        topic_id: data.topic_id,
        partition_responses: Vec::new(),
    };
    (response, places)
}

/// Why nobody may write to this partition, whatever it is.
fn refuse_partition<R: Runtime>(
    context: &Context<R>,
    acks: i16,
    topic: &Topic,
    index: i32,
) -> Option<ErrorCode> {
    if !topic.has_partition(index) {
        Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    } else if !(-1..=1).contains(&acks) {
        Some(ErrorCode::INVALID_REQUIRED_ACKS)
    } else if topic.is_internal() && !context.is_admin_client() {
        Some(ErrorCode::INVALID_TOPIC_EXCEPTION)
    } else {
        None
    }
}

fn place_partition<R: Runtime>(
    context: &Context<R>,
    topic: &Topic,
    rules: &AppendRules,
    data: PartitionProduceData,
    by_shard: &mut BTreeMap<usize, Vec<AppendTo>>,
) -> Place {
    let index = data.index;
    let records = data.records.and_then(|records| records.to_bytes()).unwrap_or_default();
    let now_ms = context.services.runtime.wall_clock_ms();
    let mut decompressor = context.services.decompressor.borrow_mut();
    let version = context.api_version;
    match validate::validate(&records, rules, version, now_ms, &mut decompressor) {
        Ok(batch) => {
            let partition = PartitionId { topic_id: topic.id, index };
            let shard = context.services.partitions.shard_of(partition);
            let batches = by_shard.entry(shard).or_default();
            batches.push(AppendTo { partition, batch });
            let log_append_time_ms = if rules.is_log_append_time() { now_ms } else { -1 };
            Place::Owed { index, shard, position: batches.len() - 1, log_append_time_ms }
        }
        Err(rejection) => {
            let error = errors::of_rejection(&rejection);
            let message = Str::from(rejection.to_string());
            let mut response = failed(index, error, Some(message.clone()));
            response.record_errors = rejection
                .record_index()
                .map(|batch_index| BatchIndexAndErrorMessage {
                    batch_index,
                    batch_index_error_message: Some(message),
                })
                .into_iter()
                .collect();
            Place::Known(response)
        }
    }
}

/// An error that is known before anything was written.
fn known_error(topics: &[Places]) -> Option<ErrorCode> {
    topics.iter().flat_map(|(_, places)| places).find_map(|place| match place {
        Place::Known(response) => Some(response.error_code),
        Place::Owed { .. } => None,
    })
}

fn answer(
    topics: Vec<Places>,
    results: &BTreeMap<usize, Result<Vec<AppendResult>, PartitionError>>,
) -> Vec<TopicProduceResponse> {
    let topics = topics.into_iter().map(|(mut response, places)| {
        response.partition_responses = places
            .into_iter()
            .map(|place| match place {
                Place::Known(known) => known,
                Place::Owed { index, shard, position, log_append_time_ms } => {
                    let result = match results.get(&shard) {
                        Some(Ok(results)) => results.get(position).cloned(),
                        Some(Err(error)) => Some(Err(error.clone())),
                        None => None,
                    };
                    let result = result.unwrap_or(Err(PartitionError::Unknown));
                    appended(index, log_append_time_ms, result)
                }
            })
            .collect();
        response
    });
    topics.collect()
}

fn appended(index: i32, log_append_time_ms: i64, result: AppendResult) -> PartitionProduceResponse {
    match result {
        Ok(Appended { base_offset, log_start }) => PartitionProduceResponse {
            index,
            base_offset,
            log_append_time_ms,
            log_start_offset: log_start,
            ..PartitionProduceResponse::default()
        },
        Err(error) => failed(index, errors::of_append(&error), Some(error.to_string().into())),
    }
}
