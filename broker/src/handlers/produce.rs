//! Produce (key 0): appends record batches.
//!
//! Versions: 3 magic 2 (KIP-98), 7 zstd (KIP-110), 8 which record was wrong (KIP-467), 9 flexible,
//! 10 the leader in the answer (KIP-951), 12 transactions v2 (KIP-890), 13 topic ids (KIP-516).
//! ApiVersions says 0, because librdkafka turns compression off otherwise; 0 to 2 are refused.
//!
//! Ours: acks=1 is answered when the batch is on the leader's disk, not only in its memory, and
//! acks=0 counts as under way until then; a request with a transactional id is refused.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceData,
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use vltava_protocol::types::Str;

use super::context::Context;
use super::leader_hints::LeaderHints;
use super::{Reply, by_name, errors};
use crate::metadata::image::{PartitionId, Topic};
use crate::partition::append::append_all;
use crate::partition::client::Partitions;
use crate::partition::error::PartitionError;
use crate::partition::request::{Acks, AppendResult, AppendTo, Appended, Terms};
use crate::partition::routing::Routing;
use crate::partition::validate::{self, AppendRules};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::PRODUCE;

/// The first version that names topics by id.
const TOPIC_IDS_FROM: i16 = 13;

/// No transactions yet: the code that InitProducerId gave for this id, which clients take as final.
const TRANSACTION_REFUSED: ErrorCode = ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;

/// Where a partition's place in the answer is, and what stands there: known already, or the owing
/// shard and its place in that shard's results.
enum Place {
    Known(PartitionProduceResponse),
    Owed { partition: PartitionId, shard: usize, position: usize, log_append_time_ms: i64 },
}

/// Enqueues every batch at its partition before it returns; answers when all are as durable as
/// `acks` asks for.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: ProduceRequest,
) -> Reply<ProduceResponse> {
    if request.transactional_id.is_some() {
        return match request.acks {
            0 => Reply::silent(std::future::ready(TRANSACTION_REFUSED)),
            _ => Reply::Now(refuse_transaction(&request)),
        };
    }
    let mut batches = Batches {
        terms: terms(&context, &request),
        routing: context.services.partitions.routing(),
        by_shard: BTreeMap::new(),
    };
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic_data in request.topic_data {
        topics.push(place_topic(&context, request.acks, topic_data, &mut batches).await);
    }
    let Batches { by_shard, routing, .. } = batches;
    context.client.route.named(by_shard.keys().copied());
    let mut owed = BTreeMap::new();
    for (shard, batches) in by_shard {
        let job = move |partitions: &Rc<Partitions<R>>| {
            let results = append_all(partitions, batches);
            async move { Ok(results.await) }
        };
        owed.insert(shard, context.services.partitions.on_shard(shard, job).await);
    }
    drop(routing);
    let acks = request.acks;
    let response = async move {
        let mut results = BTreeMap::new();
        for (shard, owed) in owed {
            results.insert(shard, owed.await);
        }
        let elsewhere = led_elsewhere(&topics, &results);
        context.services.node.successors_known(elsewhere.iter().copied()).await;
        answer(&context, topics, &results)
    };
    if acks == 0 {
        return Reply::silent(async move { first_error(&response.await.responses) });
    }
    Reply::committed(response)
}

/// The batches of a request, by the shard that owns the partition.
struct Batches {
    /// Kept until all stands in the mesh.
    routing: Rc<Routing>,
    terms: Terms,
    by_shard: BTreeMap<usize, Vec<AppendTo>>,
}

fn terms<R: Runtime>(context: &Context<R>, request: &ProduceRequest) -> Terms {
    let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
    Terms {
        acks: if request.acks == -1 { Acks::All } else { Acks::Leader },
        deadline: context.received.after(Duration::from_millis(timeout_ms)),
    }
}

fn refuse_transaction(request: &ProduceRequest) -> ProduceResponse {
    let responses = request.topic_data.iter().map(|topic| TopicProduceResponse {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partition_responses: topic
            .partition_data
            .iter()
            .map(|partition| failed(partition.index, TRANSACTION_REFUSED, None))
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

/// A batch can take a while to unfold, so others have their turn between two partitions: the
/// connection waits for all of them, and what it sends keeps its order.
async fn place_topic<R: Runtime>(
    context: &Context<R>,
    acks: i16,
    data: TopicProduceData,
    batches: &mut Batches,
) -> Places {
    let by_id = context.api_version >= TOPIC_IDS_FROM;
    let image = context.services.node.image();
    let found = by_name::topic(&image, by_id, data.topic_id, &data.name);
    let found = found.map(|topic| (topic, context.services.append_rules(topic)));
    let mut places = Vec::with_capacity(data.partition_data.len());
    for partition in data.partition_data {
        let index = partition.index;
        places.push(match &found {
            Ok((topic, rules)) => match refuse_partition(context, acks, topic, index) {
                Some(error) => Place::Known(failed(index, error, None)),
                None => place_partition(context, topic, rules, partition, batches),
            },
            Err(error) => Place::Known(failed(index, *error, None)),
        });
        context.services.runtime.yield_if_needed().await;
    }
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
    batches: &mut Batches,
) -> Place {
    let index = data.index;
    let records = data.records.and_then(|records| records.to_bytes()).unwrap_or_default();
    let now_ms = context.services.runtime.wall_clock_ms();
    let mut decompressor = context.services.decompressor.borrow_mut();
    let version = context.api_version;
    match validate::validate(&records, rules, version, now_ms, &mut decompressor) {
        Ok(batch) => {
            let partition = topic.partition_id(index);
            let shard = batches.routing.shard_of(partition);
            let terms = batches.terms;
            let batches = batches.by_shard.entry(shard).or_default();
            batches.push(AppendTo { partition, batch, terms });
            let log_append_time_ms = if rules.is_log_append_time() { now_ms } else { -1 };
            Place::Owed { partition, shard, position: batches.len() - 1, log_append_time_ms }
        }
        Err(rejection) => {
            let error = errors::of_rejection(&rejection);
            let message = Str::from(rejection.to_string());
            let mut response = failed(index, error, Some(message.clone()));
            let record_errors = rejection.record_indexes().iter();
            let record_errors = record_errors.map(|batch_index| BatchIndexAndErrorMessage {
                batch_index: *batch_index,
                batch_index_error_message: Some(message.clone()),
            });
            response.record_errors = record_errors.collect();
            Place::Known(response)
        }
    }
}

fn first_error(responses: &[TopicProduceResponse]) -> ErrorCode {
    let partitions = responses.iter().flat_map(|topic| &topic.partition_responses);
    let mut errors = partitions.map(|partition| partition.error_code);
    errors.find(|error| !error.is_none()).unwrap_or(ErrorCode::NONE)
}

/// The partitions that took nothing because another node is to lead them.
fn led_elsewhere(
    topics: &[Places],
    results: &BTreeMap<usize, Result<Vec<AppendResult>, PartitionError>>,
) -> Vec<PartitionId> {
    let places = topics.iter().flat_map(|(_, places)| places);
    let elsewhere = places.filter_map(|place| match place {
        Place::Owed { partition, shard, position, .. } => {
            let result = results.get(shard)?.as_ref().ok()?.get(*position)?;
            matches!(result, Err(PartitionError::NotLeader)).then_some(*partition)
        }
        Place::Known(_) => None,
    });
    elsewhere.collect()
}

fn answer<R: Runtime>(
    context: &Context<R>,
    topics: Vec<Places>,
    results: &BTreeMap<usize, Result<Vec<AppendResult>, PartitionError>>,
) -> ProduceResponse {
    let mut hints = LeaderHints::new(&context.services, &context.client);
    let mut owed = |partition: PartitionId, shard, position: usize, log_append_time_ms| {
        let result = match results.get(&shard) {
            Some(Ok(results)) => results.get(position).cloned(),
            Some(Err(error)) => Some(Err(error.clone())),
            None => None,
        };
        let result = result.unwrap_or(Err(PartitionError::Unknown));
        let mut response = appended(partition.index, log_append_time_ms, result);
        if let Some((leader_id, leader_epoch)) = hints.leader(partition, response.error_code) {
            response.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
        }
        response
    };
    let topics = topics.into_iter().map(|(mut response, places)| {
        response.partition_responses = places
            .into_iter()
            .map(|place| match place {
                Place::Known(known) => known,
                Place::Owed { partition, shard, position, log_append_time_ms } => {
                    owed(partition, shard, position, log_append_time_ms)
                }
            })
            .collect();
        response
    });
    let responses = topics.collect();
    let node_endpoints = hints.nodes().map(|node| NodeEndpoint {
        node_id: node.id,
        host: node.endpoint.host.clone(),
        port: node.endpoint.port.into(),
        rack: node.rack.cloned(),
    });
    let node_endpoints = node_endpoints.collect();
    ProduceResponse { responses, node_endpoints, ..ProduceResponse::default() }
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
