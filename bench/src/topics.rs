//! The topics of a run: made before it, found with their leaders, deleted after it.

use std::thread;
use std::time::{Duration, Instant};

use vltava_client::blocking::Cluster;
use vltava_client::error::ClientError;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreatableTopicResult, CreateTopicsRequest,
};
use vltava_protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use vltava_protocol::types::{Str, Uuid};

use crate::scenario::Topics;

/// How long the broker may take to make or to delete them, in milliseconds.
const TIMEOUT_MS: i32 = 120_000;
/// How long its answer to that may take: longer, for what stands before it.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);
/// How long a broker may not know of a topic that has been made.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);
/// How long nodes of a cluster may take to be there.
const REGISTERED_WITHIN: Duration = Duration::from_secs(10);
/// From this version on, -1 asks for the broker's own replication factor.
const CREATE_TOPICS_DEFAULTS: i16 = 4;
/// From this version on, topics are deleted by name or id, each in an entry of its own.
const DELETE_TOPICS_ENTRIES: i16 = 6;

/// The names of a run's topics: no other run has this prefix.
pub fn names(topics: &Topics, prefix: &str) -> Vec<Str> {
    (0..topics.count).map(|index| Str::from(format!("{prefix}-{index}"))).collect()
}

/// Makes the topics under these names, and waits until each partition has a leader.
///
/// # Errors
/// What the cluster says.
pub fn create(cluster: &mut Cluster, topics: &Topics, names: &[Str]) -> Result<(), ClientError> {
    let config = |(name, value): (&String, &String)| CreatableTopicConfig {
        name: Str::from(name.as_str()),
        value: Some(Str::from(value.as_str())),
    };
    let topic = |name: &Str| CreatableTopic {
        name: name.clone(),
        num_partitions: i32::try_from(topics.partitions).unwrap_or(i32::MAX),
        replication_factor: topics.replication_factor,
        configs: topics.configs.iter().map(config).collect(),
        ..CreatableTopic::default()
    };
    let mut request = CreateTopicsRequest {
        topics: names.iter().map(topic).collect(),
        timeout_ms: TIMEOUT_MS,
        ..CreateTopicsRequest::default()
    };
    let node = cluster.metadata().controller_id;
    let has_defaults = cluster
        .link(node)
        .and_then(|link| link.version::<CreateTopicsRequest>())
        .is_ok_and(|version| version >= CREATE_TOPICS_DEFAULTS);
    if topics.replication_factor < 0 && !has_defaults {
        request.topics.iter_mut().for_each(|topic| topic.replication_factor = 1);
    }
    if let Ok(link) = cluster.link(node) {
        link.answer_within(ANSWER_WITHIN)?;
    }
    make(cluster, &request)?;
    // Not every broker knows at once what its controller has made.
    let began = Instant::now();
    loop {
        match cluster.await_topics(names, false) {
            Err(ClientError::Missing(_)) if began.elapsed() < KNOWN_WITHIN => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error),
            Ok(()) => break,
        }
    }
    let all: Vec<_> =
        names.iter().flat_map(|name| cluster.metadata().partitions_of(name)).collect();
    let patience = cluster.patience();
    cluster.await_leaders(&all, patience)
}

/// Asks for them. Of a cluster that has just begun, not all nodes may be registered: they are
/// waited for.
fn make(cluster: &mut Cluster, request: &CreateTopicsRequest) -> Result<(), ClientError> {
    let began = Instant::now();
    let lacks_nodes = |made: &CreatableTopicResult| {
        [ErrorCode::INVALID_REPLICATION_FACTOR, ErrorCode::NOT_ENOUGH_REPLICAS]
            .contains(&made.error_code)
    };
    let mut topics = cluster.call_controller(request)?.topics;
    while topics.iter().all(lacks_nodes) && began.elapsed() < REGISTERED_WITHIN {
        thread::sleep(Duration::from_millis(100));
        topics = cluster.call_controller(request)?.topics;
    }
    for made in topics {
        let what = format!("making topic {}", made.name);
        ClientError::check(made.error_code, made.error_message.as_ref(), what)?;
    }
    Ok(())
}

/// Deletes them. One that is gone already is no error.
///
/// # Errors
/// What the cluster says.
pub fn delete(cluster: &mut Cluster, names: &[Str]) -> Result<(), ClientError> {
    let node = cluster.metadata().controller_id;
    cluster.link(node)?.answer_within(ANSWER_WITHIN)?;
    let response = cluster.call_with(node, |version| {
        let mut request =
            DeleteTopicsRequest { timeout_ms: TIMEOUT_MS, ..DeleteTopicsRequest::default() };
        if version < DELETE_TOPICS_ENTRIES {
            request.topic_names = names.to_vec();
        } else {
            let entry =
                |name: &Str| DeleteTopicState { name: Some(name.clone()), topic_id: Uuid::ZERO };
            request.topics = names.iter().map(entry).collect();
        }
        request
    })?;
    for deleted in response.responses {
        if deleted.error_code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
            continue;
        }
        let what = "deleting the topics of the run";
        ClientError::check(deleted.error_code, deleted.error_message.as_ref(), what)?;
    }
    Ok(())
}
