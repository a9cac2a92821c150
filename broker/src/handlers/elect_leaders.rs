//! ElectLeaders (key 43): partitions get the leaders that they prefer (KIP-183).
//!
//! Versions: 1 unclean elections (KIP-460), 2 flexible.
//!
//! The preferred replica is the first that is to stay. Its leader hands over to it in order: no
//! write is refused for longer than that takes. A replica whose node is not there is not available,
//! which is said at once, and neither is one that is not in sync: PREFERRED_LEADER_NOT_AVAILABLE.
//! One that is in sync may be behind for a moment, or its disk busy: that is tried again, for
//! nearly as long as the caller waits, which is to hear of it.
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
/// How much of its time the answer has to come back to the caller.
const ANSWER_SHARE: u64 = 10;
const ANSWER_MS_MAX: u64 = 1000;
/// After so long, counted once for a request, a leader that is new knows who is in sync.
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
        return Reply::Now(unknown_kind(kind, &request.topic_partitions.unwrap_or_default()));
    }
    let node = &context.services.node;
    let image = node.image();
    let runtime = &context.services.runtime;
    let time = Time {
        in_sync_known: runtime.now().after(IN_SYNC_KNOWN),
        deadline: runtime.now().after(time_to_elect(request.timeout_ms)),
    };
    let is_for_all = request.topic_partitions.is_none();
    let asked = request.topic_partitions.unwrap_or_else(|| all(&image));
    let partitions = asked.iter().flat_map(|asked| {
        let topic = image.topic(&asked.topic);
        asked.partitions.iter().map(move |index| (topic, &asked.topic, *index))
    });
    // Those of all topics side by side: one that waits holds up no other topic.
    let elected = stream::iter(partitions).map(|(topic, name, index)| async move {
        let elected = match topic {
            Some(topic) if kind == UNCLEAN => elect_unclean(node, topic, index, time).await,
            Some(topic) => elect(node, topic, index, runtime, time).await,
            None => Err(Refused::unknown(format!("No such topic as {name}"))),
        };
        (name, result(index, elected))
    });
    let elected: Vec<(&Str, PartitionResult)> = elected.buffered(SIDE_BY_SIDE).collect().await;
    let replica_election_results = by_topic(elected, is_for_all);
    Reply::Now(ElectLeadersResponse { replica_election_results, ..ElectLeadersResponse::default() })
}

/// As Kafka: each partition is told, too.
fn unknown_kind(kind: i8, asked: &[TopicPartitions]) -> ElectLeadersResponse {
    let error_code = ErrorCode::INVALID_REQUEST;
    let message = Str::from(format!("Unknown election type {kind}"));
    let of_topic = |asked: &TopicPartitions| {
        let refused = |index: &i32| {
            result(*index, Err(Refused { error: error_code, message: message.clone() }))
        };
        let partition_result = asked.partitions.iter().map(refused).collect();
        ReplicaElectionResult { topic: asked.topic.clone(), partition_result }
    };
    let replica_election_results = asked.iter().map(of_topic).collect();
    ElectLeadersResponse { error_code, replica_election_results, ..ElectLeadersResponse::default() }
}

/// How long one request may take.
#[derive(Clone, Copy)]
struct Time {
    /// From then on leaders know who is in sync.
    in_sync_known: Monotonic,
    /// Then it is answered.
    deadline: Monotonic,
}

/// A little less than the caller waits: it is to hear what came of it.
fn time_to_elect(timeout_ms: i32) -> Duration {
    let timeout_ms = u64::try_from(timeout_ms).unwrap_or(0);
    Duration::from_millis(timeout_ms - (timeout_ms / ANSWER_SHARE).min(ANSWER_MS_MAX))
}

/// Results in the order of what was asked. Where that was everything, nothing is said of what is
/// as it should be.
fn by_topic(elected: Vec<(&Str, PartitionResult)>, is_for_all: bool) -> Vec<ReplicaElectionResult> {
    let mut results: Vec<ReplicaElectionResult> = Vec::new();
    for (name, result) in elected {
        if is_for_all && result.error_code == ErrorCode::ELECTION_NOT_NEEDED {
            continue;
        }
        match results.last_mut().filter(|last| last.topic == *name) {
            Some(last) => last.partition_result.push(result),
            None => results.push(ReplicaElectionResult {
                topic: name.clone(),
                partition_result: vec![result],
            }),
        }
    }
    results
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
    time: Time,
) -> Result<(), Refused> {
    partition_of(topic, index)?;
    let error = ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE;
    match node.elect_unclean(topic.partition_id(index), time.deadline).await {
        Elected::Leads => Ok(()),
        Elected::NotNeeded => Err(Refused::plain(ErrorCode::ELECTION_NOT_NEEDED)),
        Elected::Nobody => Err(Refused { error, message: Str::from_static(NOBODY_LEFT) }),
        Elected::Unsure(node) => {
            let message = format!(
                "Node {node} is there, keeps the partition, and cannot say what it has: its log is \
                 being opened, cannot be, or has ended. Wait for it, or restart it; where what it \
                 has is to be given up, stop it."
            );
            Err(Refused { error, message: message.into() })
        }
        Elected::NotInTime => Err(Refused { error, message: Str::from_static(NOT_IN_TIME) }),
    }
}

async fn elect<R: Runtime>(
    node: &Rc<Node<R>>,
    topic: &Topic,
    index: i32,
    runtime: &R,
    time: Time,
) -> Result<(), Refused> {
    let preferred = partition_of(topic, index)?.preferred();
    let id = topic.partition_id(index);
    if node.leader_there(id) == Some(preferred) {
        return Err(Refused::plain(ErrorCode::ELECTION_NOT_NEEDED));
    }
    loop {
        if !node.shown().contains(&preferred) {
            return Err(Refused::plain(ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE));
        }
        let moved = node.hand_over(id, Some(preferred)).await;
        let leaders = node.leaders();
        let leader = leaders.leader(id);
        if moved.is_ok() || leader.is_some_and(|leader| leader.node_id == preferred) {
            node.leader_heard(id, preferred).await;
            return Ok(());
        }
        // A leader that is new does not know yet who is in sync.
        let is_in_sync = leader.is_some_and(|leader| leader.in_sync.contains(&preferred));
        let now = runtime.now();
        if now >= time.deadline || !(is_in_sync || now < time.in_sync_known) {
            return Err(Refused::plain(ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE));
        }
        runtime.sleep(PAUSE).await;
    }
}

fn result(partition_id: i32, elected: Result<(), Refused>) -> PartitionResult {
    let (error_code, error_message) = match elected {
        Ok(()) => (ErrorCode::NONE, None),
        Err(Refused { error, message }) => (error, Some(message)),
    };
    PartitionResult { partition_id, error_code, error_message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_time_to_come_back() {
        for (said, ms) in [(60_000, 59_000), (2_000, 1_800), (5, 5), (0, 0), (-1, 0)] {
            assert_eq!(time_to_elect(said), Duration::from_millis(ms), "{said}");
        }
    }

    #[test]
    fn asked_for_everything_only_what_changed_or_failed_is_said() {
        let (a, b, c) = (Str::from_static("a"), Str::from_static("b"), Str::from_static("c"));
        let not_needed = || Err(Refused::plain(ErrorCode::ELECTION_NOT_NEEDED));
        let elected = || {
            let all =
                [(&a, 0, not_needed()), (&b, 0, Ok(())), (&b, 1, not_needed()), (&c, 4, Ok(()))];
            all.into_iter().map(|(name, index, it)| (name, result(index, it))).collect::<Vec<_>>()
        };
        let said = |is_for_all| {
            let results = by_topic(elected(), is_for_all).into_iter();
            let shown = results.map(|it| {
                let partitions = it.partition_result.iter().map(|it| it.partition_id);
                (it.topic.to_string(), partitions.collect::<Vec<_>>())
            });
            shown.collect::<Vec<_>>()
        };
        let shown = |all: &[(&str, &[i32])]| {
            all.iter().map(|(name, it)| ((*name).to_owned(), it.to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(said(false), shown(&[("a", &[0]), ("b", &[0, 1]), ("c", &[4])]));
        assert_eq!(said(true), shown(&[("b", &[0]), ("c", &[4])]));
    }
}
