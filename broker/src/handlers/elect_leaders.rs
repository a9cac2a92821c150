//! ElectLeaders (key 43): partitions get the leaders that they prefer (KIP-183).
//!
//! Versions: 1 unclean elections (KIP-460), 2 flexible.
//!
//! The preferred replica is the first that is to stay. Its leader hands over to it in order: no
//! write is refused for longer than that takes. A replica that is not in sync, or whose node is not
//! there, is not available: PREFERRED_LEADER_NOT_AVAILABLE. One that is in sync may be behind for a
//! moment, or its disk busy: that is tried again, for as long as the caller waits.
//!
//! An unclean election is for a partition without a leader. Where a majority of its replicas is
//! there it elects one by itself, in a moment, and that is waited for; else the one that is left
//! and has most leads, and what only others had is lost (`cluster/name_leader.rs`). A partition
//! that is led is told ELECTION_NOT_NEEDED, and one of which nothing is left
//! ELIGIBLE_LEADERS_NOT_AVAILABLE. Asked for all partitions, only those are named that were elected
//! or could not be, as in Kafka.
//!
//! Answered when leadership has moved, or cannot.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
    TopicPartitions,
};
use vltava_protocol::types::Str;

use super::Reply;
use super::context::Context;
use crate::metadata::image::{Image, Partition, Topic};
use crate::node::Node;
use crate::node::named::Elected;
use crate::runtime::{Monotonic, Runtime};

/// The API of this file.
pub const API: ApiKey = ApiKey::ELECT_LEADERS;

/// Kafka's numbers.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;
/// Partitions that change their leaders side by side.
const SIDE_BY_SIDE: usize = 32;
/// After so long a leader that is new knows who is in sync.
const IN_SYNC_KNOWN: Duration = Duration::from_secs(2);
/// Before it is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// Why nobody leads.
const NOBODY_LEFT: &str =
    "No replica that could lead is left. Start a node that kept the partition.";
const NOT_IN_TIME: &str = "No replica led in the time that was given.";

/// Each partition for itself.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: ElectLeadersRequest,
) -> Reply<ElectLeadersResponse> {
    let kind = request.election_type;
    if kind != PREFERRED && kind != UNCLEAN {
        return Reply::Now(ElectLeadersResponse {
            error_code: ErrorCode::INVALID_REQUEST,
            ..ElectLeadersResponse::default()
        });
    }
    let node = &context.services.node;
    let image = node.image();
    let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
    let runtime = &context.services.runtime;
    let deadline = runtime.now().after(Duration::from_millis(timeout_ms));
    let is_for_all = request.topic_partitions.is_none();
    let asked = request.topic_partitions.unwrap_or_else(|| all(&image));
    let mut replica_election_results = Vec::new();
    for TopicPartitions { topic: name, partitions } in asked {
        let (topic, name) = (image.topic(&name), &name);
        let elected = stream::iter(partitions).map(|index| async move {
            let elected = match topic {
                Some(topic) if kind == UNCLEAN => elect_unclean(node, topic, index, deadline).await,
                Some(topic) => elect(node, topic, index, runtime, deadline).await,
                None => Err(Refused::unknown(format!("No such topic as {name}"))),
            };
            result(index, elected)
        });
        let mut results: Vec<PartitionResult> = elected.buffered(SIDE_BY_SIDE).collect().await;
        if is_for_all {
            results.retain(|result| result.error_code != ErrorCode::ELECTION_NOT_NEEDED);
        }
        if !results.is_empty() {
            let result = ReplicaElectionResult { topic: name.clone(), partition_result: results };
            replica_election_results.push(result);
        }
    }
    Reply::Now(ElectLeadersResponse { replica_election_results, ..ElectLeadersResponse::default() })
}

/// Why a partition has no other leader.
struct Refused {
    error: ErrorCode,
    message: Str,
}

impl Refused {
    fn plain(error: ErrorCode) -> Self {
        Self { error, message: Str::from_static(error.message()) }
    }

    fn unknown(message: String) -> Self {
        Self { error: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message: Str::from(message) }
    }
}

fn all(image: &Image) -> Vec<TopicPartitions> {
    let of_topic = |topic: &Arc<Topic>| TopicPartitions {
        topic: topic.name.clone(),
        partitions: topic.partition_indexes().collect(),
    };
    image.topics().map(of_topic).collect()
}

fn partition_of(topic: &Topic, index: i32) -> Result<&Partition, Refused> {
    topic
        .partition(index)
        .ok_or_else(|| Refused::unknown(format!("No such partition as {}-{index}", topic.name)))
}

async fn elect_unclean<R: Runtime>(
    node: &Rc<Node<R>>,
    topic: &Topic,
    index: i32,
    deadline: Monotonic,
) -> Result<(), Refused> {
    partition_of(topic, index)?;
    let error = ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE;
    match node.elect_unclean(topic.partition_id(index), deadline).await {
        Elected::Leads => Ok(()),
        Elected::NotNeeded => Err(Refused::plain(ErrorCode::ELECTION_NOT_NEEDED)),
        Elected::Nobody => Err(Refused { error, message: Str::from_static(NOBODY_LEFT) }),
        Elected::NotInTime => Err(Refused { error, message: Str::from_static(NOT_IN_TIME) }),
    }
}

async fn elect<R: Runtime>(
    node: &Rc<Node<R>>,
    topic: &Topic,
    index: i32,
    runtime: &R,
    deadline: Monotonic,
) -> Result<(), Refused> {
    let preferred = partition_of(topic, index)?.preferred();
    let id = topic.partition_id(index);
    if node.leader_there(id) == Some(preferred) {
        return Err(Refused::plain(ErrorCode::ELECTION_NOT_NEEDED));
    }
    let known_by = runtime.now().after(IN_SYNC_KNOWN);
    loop {
        let moved = node.hand_over(id, Some(preferred)).await;
        let leaders = node.leaders();
        let leader = leaders.leader(id);
        if moved.is_ok() || leader.is_some_and(|leader| leader.node_id == preferred) {
            return Ok(());
        }
        // A leader that is new does not know yet who is in sync.
        let is_in_sync = leader.is_some_and(|leader| leader.in_sync.contains(&preferred));
        let now = runtime.now();
        if now >= deadline || !(is_in_sync || now < known_by) {
            return Err(Refused::plain(ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE));
        }
        runtime.sleep_until(runtime.now().after(PAUSE)).await;
    }
}

fn result(partition_id: i32, elected: Result<(), Refused>) -> PartitionResult {
    let (error_code, error_message) = match elected {
        Ok(()) => (ErrorCode::NONE, None),
        Err(Refused { error, message }) => (error, Some(message)),
    };
    PartitionResult { partition_id, error_code, error_message }
}
