//! Fetch (key 1): reads record batches.
//!
//! Versions: 4 magic 2 (KIP-98), 5 log start (KIP-107), 7 sessions (KIP-227), 9 leader epochs
//! (KIP-320), 10 zstd (KIP-110), 11 racks (KIP-392), 12 flexible and diverging epochs (KIP-595), 13
//! topic ids (KIP-516), 15 replica state (KIP-903), 16 endpoints (KIP-951), 17 directory ids
//! (KIP-853), 18 the follower's high watermark.
//!
//! Ours: nothing is sent between a fetch that found too little and the commit that satisfies it,
//! and nothing runs: the partitions themselves end the wait. There are no transactions yet, so the
//! last stable offset is the high watermark. A replica that follows answers only while it can talk
//! to its leader.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::select_all;
use vltava_protocol::api::ApiKey;
use vltava_protocol::encode::Records;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::fetch::{
    EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch,
    NodeEndpoint, PartitionData,
};
use vltava_protocol::types::{Str, Uuid};

use super::context::Context;
use super::leader_hints::LeaderHints;
use super::{Reply, errors};
use crate::partition::client::Partitions;
use crate::partition::error::PartitionError;
use crate::partition::fetch::{read_all, wait_for_more};
use crate::partition::fetch_session::{Fetching, SessionError, Told, TopicRef, Wanted};
use crate::partition::request::{Found, PartitionId, ReadFrom};
use crate::runtime::{Monotonic, Runtime};

/// The API of this file.
pub const API: ApiKey = ApiKey::FETCH;

/// The first version that names topics by id.
const TOPIC_IDS_FROM: i16 = 13;
/// The first version of who may read from a replica that follows.
const RACKS_FROM: i16 = 11;

/// What holds for all partitions of a request.
struct Limits {
    deadline: Monotonic,
    bytes_min: usize,
    bytes_max: usize,
    read_committed: bool,
    may_follow: bool,
}

/// One partition of a round: what it is, and what came of it.
struct Outcome {
    wanted: Wanted,
    partition: Option<PartitionId>,
    result: Result<Found, ErrorCode>,
}

/// Reads what is there; waits for more where that is too little.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: FetchRequest,
) -> Reply<FetchResponse> {
    let by_id = context.api_version >= TOPIC_IDS_FROM;
    let limits = limits(&context, &request);
    let nearer = nearer(&context, &request.rack_id);
    let session = (request.session_id, request.session_epoch);
    let forgotten: Vec<_> = request
        .forgotten_topics_data
        .into_iter()
        .flat_map(|topic| {
            let reference = reference(by_id, topic.topic, topic.topic_id);
            topic.partitions.into_iter().map(move |partition| (reference.clone(), partition))
        })
        .collect();
    let wanted = request.topics.into_iter().flat_map(|topic| {
        let reference = reference(by_id, topic.topic, topic.topic_id);
        topic.partitions.into_iter().map(move |partition| Wanted {
            topic: reference.clone(),
            partition: partition.partition,
            offset: partition.fetch_offset,
            bytes_max: partition.partition_max_bytes,
            current_leader_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
        })
    });
    let wanted = wanted.collect();
    let now_ms = context.services.runtime.now().0 / 1_000_000;
    let random = context.services.runtime.random_u64();
    let begun = context
        .services
        .fetch_sessions
        .borrow_mut()
        .begin(session, wanted, &forgotten, by_id, now_ms, random);
    match begun {
        Ok(fetching) => {
            context.client.fetch_session.set(fetching.session_id);
            Reply::later(fetch(context, fetching, limits, nearer))
        }
        Err(error) => Reply::Now(FetchResponse {
            error_code: match error {
                SessionError::NotFound => ErrorCode::FETCH_SESSION_ID_NOT_FOUND,
                SessionError::WrongEpoch => ErrorCode::INVALID_FETCH_SESSION_EPOCH,
                SessionError::TopicIds => ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR,
            },
            ..FetchResponse::default()
        }),
    }
}

fn reference(by_id: bool, name: Str, id: Uuid) -> TopicRef {
    // A fetch may wait for long, and its session longer: neither keeps the request's frame.
    if by_id { TopicRef::Id(id) } else { TopicRef::Name(name.detached()) }
}

/// Where the setting asks for it, the nodes of the client's rack that it can reach, unless this one
/// is among them.
fn nearer<R: Runtime>(context: &Context<R>, rack: &str) -> Option<Arc<[i32]>> {
    let config = &context.services.config;
    let is_near = config.rack.as_deref() == Some(rack);
    if !config.reads_closest_replica || rack.is_empty() || is_near {
        return None;
    }
    let image = context.services.node.image();
    let in_rack = image.nodes().filter(|node| node.rack.as_deref() == Some(rack));
    let reached = in_rack.filter(|node| node.endpoint(&context.client.listener).is_some());
    let nodes: Arc<[i32]> = reached.map(|node| node.id).collect();
    (!nodes.is_empty()).then_some(nodes)
}

fn limits<R: Runtime>(context: &Context<R>, request: &FetchRequest) -> Limits {
    let wait_ms = u64::try_from(request.max_wait_ms).unwrap_or(0);
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0);
    let allowed = usize::try_from(context.services.config.fetch_bytes_max).unwrap_or(usize::MAX);
    Limits {
        deadline: context.received.after(Duration::from_millis(wait_ms)),
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
        bytes_max: bytes_max.min(allowed),
        read_committed: request.isolation_level == 1,
        may_follow: context.api_version >= RACKS_FROM,
    }
}

async fn fetch<R: Runtime>(
    context: Context<R>,
    fetching: Fetching,
    limits: Limits,
    nearer: Option<Arc<[i32]>>,
) -> FetchResponse {
    loop {
        let (mut round, has_moved) =
            read(&context, &fetching.wanted, &limits, nearer.as_ref()).await;
        if has_moved {
            // Not seen by the client: what it asked for is on another shard by now.
            continue;
        }
        let bytes = trim(&mut round, limits.bytes_max);
        let enough = bytes >= limits.bytes_min || has_news(&round);
        if enough || context.services.runtime.now() >= limits.deadline {
            let metrics = &context.services.metrics;
            metrics.count(|counters| counters.fetched_bytes += bytes as u64);
            let elsewhere = round
                .iter()
                .filter(|outcome| matches!(outcome.result, Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)));
            let elsewhere = elsewhere.filter_map(|outcome| outcome.partition);
            context.services.node.successors_known(elsewhere).await;
            return respond(&context, &fetching, round, limits.read_committed).await;
        }
        wait(&context, &round, &limits, limits.bytes_min - bytes).await;
    }
}

/// Whether a fetch is answered at once, whatever it found. A topic or partition that is not there
/// is no news to wait for: its error goes out with the answer, and a client that does not know yet
/// that it was deleted must not ask in a loop.
fn has_news(round: &[Outcome]) -> bool {
    let mut there = round.iter().filter(|outcome| outcome.partition.is_some()).peekable();
    there.peek().is_none()
        || there.any(|outcome| match &outcome.result {
            Ok(found) => found.diverging.is_some() || found.preferred.is_some(),
            Err(_) => true,
        })
}

/// One look at every partition, each on its shard, all shards at once; and whether one of them was
/// no longer where it was asked.
async fn read<R: Runtime>(
    context: &Context<R>,
    wanted: &[Wanted],
    limits: &Limits,
    nearer: Option<&Arc<[i32]>>,
) -> (Vec<Outcome>, bool) {
    let bytes_max = limits.bytes_max;
    let mut outcomes = Vec::with_capacity(wanted.len());
    let mut by_shard: BTreeMap<usize, (Vec<usize>, Vec<ReadFrom>)> = BTreeMap::new();
    for wanted in wanted {
        let resolved = resolve(context, wanted);
        if let Ok(partition) = resolved {
            let shard = context.services.partitions.shard_of(partition);
            let (positions, reads) = by_shard.entry(shard).or_default();
            positions.push(outcomes.len());
            reads.push(ReadFrom {
                partition,
                current_leader_epoch: wanted.current_leader_epoch,
                last_fetched_epoch: wanted.last_fetched_epoch,
                may_follow: limits.may_follow,
                nearer: nearer.cloned(),
                offset: wanted.offset,
                bytes_max: usize::try_from(wanted.bytes_max).unwrap_or(0),
            });
        }
        outcomes.push(Outcome {
            wanted: wanted.clone(),
            partition: resolved.ok(),
            // Read below, where it was resolved.
            result: Err(resolved.err().unwrap_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
        });
        // There may be very many partitions; so below.
        context.services.runtime.yield_if_needed().await;
    }
    context.client.route.named(by_shard.keys().copied());
    let mut started = Vec::with_capacity(by_shard.len());
    for (shard, (positions, reads)) in by_shard {
        let job = move |partitions: &Rc<Partitions<R>>| {
            let results = read_all(Rc::clone(partitions), reads, bytes_max);
            async move { Ok(results.await) }
        };
        let results = context.services.partitions.on_shard(shard, job).await;
        started.push((shard, positions, results));
    }
    let mut has_moved = false;
    for (shard, positions, results) in started {
        let Ok(results) = results.await else { continue };
        for (position, result) in positions.into_iter().zip(results) {
            let outcome = &mut outcomes[position];
            let is_here = |id| context.services.partitions.shard_of(id) == shard;
            has_moved |= result.is_err() && !outcome.partition.is_none_or(is_here);
            outcome.result = result.map_err(|error| errors::of_partition(&error));
        }
    }
    (outcomes, has_moved)
}

fn resolve<R: Runtime>(context: &Context<R>, wanted: &Wanted) -> Result<PartitionId, ErrorCode> {
    let image = context.services.node.image();
    let (topic, unknown) = match &wanted.topic {
        TopicRef::Id(id) => (image.topic_by_id(*id), ErrorCode::UNKNOWN_TOPIC_ID),
        TopicRef::Name(name) => (image.topic(name), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
    };
    let topic = topic.ok_or(unknown)?;
    if !topic.has_partition(wanted.partition) {
        return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
    Ok(topic.partition_id(wanted.partition))
}

/// Shards read side by side, so together they may find more than is to be sent: leaves out, in
/// order, what does not fit. What the first finds always fits. Returns what is left, in bytes.
fn trim(round: &mut [Outcome], bytes_max: usize) -> usize {
    let mut total = 0;
    for found in round.iter_mut().filter_map(|outcome| outcome.result.as_mut().ok()) {
        if total > 0 && total + found.bytes > bytes_max {
            found.parts.clear();
            found.bytes = 0;
        }
        total += found.bytes;
    }
    total
}

/// Waits until one of the shards has seen its share of what is missing: then the sum is looked at
/// again.
async fn wait<R: Runtime>(
    context: &Context<R>,
    round: &[Outcome],
    limits: &Limits,
    missing_bytes: usize,
) {
    let mut by_shard: BTreeMap<usize, Vec<(PartitionId, i64)>> = BTreeMap::new();
    for outcome in round {
        if let (Some(partition), Ok(found)) = (outcome.partition, &outcome.result) {
            let shard = context.services.partitions.shard_of(partition);
            by_shard.entry(shard).or_default().push((partition, found.high_watermark));
        }
        context.services.runtime.yield_if_needed().await;
    }
    let share = missing_bytes.div_ceil(by_shard.len().max(1));
    let share = u64::try_from(share).unwrap_or(u64::MAX);
    let time = limits.deadline.since(context.services.runtime.now());
    let mut waits = Vec::with_capacity(by_shard.len());
    // Dropped with this wait, whether it ends or its connection does.
    let mut wants = Vec::with_capacity(by_shard.len());
    for (shard, seen) in by_shard {
        let (still_wants, wanted) = oneshot::channel();
        wants.push(still_wants);
        let job = move |partitions: &Rc<Partitions<R>>| {
            let waiting = wait_for_more(Rc::clone(partitions), seen, share, time, wanted);
            async move {
                waiting.await;
                Ok::<_, PartitionError>(())
            }
        };
        waits.push(Box::pin(context.services.partitions.on_shard(shard, job).await));
    }
    if !waits.is_empty() {
        // Whichever ended, and however: all are looked at again.
        let _ = select_all(waits).await;
    }
}

async fn respond<R: Runtime>(
    context: &Context<R>,
    fetching: &Fetching,
    round: Vec<Outcome>,
    read_committed: bool,
) -> FetchResponse {
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let mut previous: Option<TopicRef> = None;
    let mut hints = LeaderHints::new(&context.services, &context.client);
    for Outcome { wanted, partition, result } in round {
        context.services.runtime.yield_if_needed().await;
        let mut data = partition_data(wanted.partition, result, read_committed);
        let leader = partition.and_then(|partition| hints.leader(partition, data.error_code));
        if let Some((leader_id, leader_epoch)) = leader {
            data.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
        }
        if fetching.session_id != 0 {
            let told = told(&data);
            let mut sessions = context.services.fetch_sessions.borrow_mut();
            let is_new = sessions.tell(fetching.session_id, &wanted.topic, wanted.partition, told);
            if fetching.is_incremental && !is_new {
                continue;
            }
        }
        if previous.as_ref() != Some(&wanted.topic) {
            responses.push(topic_response(&wanted.topic));
            previous = Some(wanted.topic);
        }
        if let Some(topic) = responses.last_mut() {
            topic.partitions.push(data);
        }
    }
    let node_endpoints = hints.nodes().map(|node| NodeEndpoint {
        node_id: node.id,
        host: node.endpoint.host.clone(),
        port: node.endpoint.port.into(),
        rack: node.rack.cloned(),
    });
    FetchResponse {
        session_id: fetching.session_id,
        responses,
        node_endpoints: node_endpoints.collect(),
        ..FetchResponse::default()
    }
}

fn topic_response(topic: &TopicRef) -> FetchableTopicResponse {
    match topic {
        TopicRef::Name(name) => {
            FetchableTopicResponse { topic: name.clone(), ..FetchableTopicResponse::default() }
        }
        TopicRef::Id(id) => {
            FetchableTopicResponse { topic_id: *id, ..FetchableTopicResponse::default() }
        }
    }
}

fn told(data: &PartitionData) -> Told {
    let has_error = data.error_code != ErrorCode::NONE;
    let has_records = data.records.as_ref().is_some_and(|records| !records.is_empty());
    let diverges = data.diverging_epoch != EpochEndOffset::default();
    let is_elsewhere = data.preferred_read_replica >= 0;
    Told {
        high_watermark: data.high_watermark,
        log_start: data.log_start_offset,
        has_news: has_records || has_error || diverges || is_elsewhere,
        has_error,
    }
}

/// What is said of topics and partitions that are not known.
const UNKNOWN: [ErrorCode; 3] = [
    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode::UNKNOWN_TOPIC_ID,
    ErrorCode::INCONSISTENT_TOPIC_ID,
];

/// An empty record set is empty, never null: librdkafka stops for ever at a null.
fn partition_data(
    partition_index: i32,
    result: Result<Found, ErrorCode>,
    read_committed: bool,
) -> PartitionData {
    let mut data = PartitionData {
        partition_index,
        records: Some(Records::default()),
        high_watermark: -1,
        ..PartitionData::default()
    };
    match result {
        Ok(found) => {
            let is_read = found.diverging.is_none() && found.preferred.is_none();
            data.aborted_transactions = (read_committed && is_read).then(Vec::new);
            // What is not known, though it was waited for (fewer may be in sync than clients are to
            // wait for), is not told: it never goes back, as a client sees it.
            let high_watermark = if found.is_behind { -1 } else { found.high_watermark };
            data.high_watermark = high_watermark;
            data.last_stable_offset = high_watermark;
            data.log_start_offset = found.log_start;
            data.preferred_read_replica = found.preferred.unwrap_or(-1);
            data.records = Some(Records { parts: found.parts });
            if let Some((epoch, end_offset)) = found.diverging {
                data.diverging_epoch = EpochEndOffset { epoch, end_offset };
            }
        }
        Err(error_code) => {
            data.error_code = error_code;
            // As Kafka has it: none for a topic that is not known, null for other errors.
            data.aborted_transactions = UNKNOWN.contains(&error_code).then(Vec::new);
        }
    }
    data
}
