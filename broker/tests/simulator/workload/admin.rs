//! An administrator: creates and deletes topics, and finds what it was told, on the node that told
//! it: others may hear of it later.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use vltava::runtime::sim::MILLION;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use vltava_protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use vltava_protocol::messages::metadata::MetadataRequest;
use vltava_protocol::types::Str;

use super::{RETRY, Workload};
use crate::client::{CallError, Client};
use crate::promise;

/// What the administrator knows of a topic of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Exists,
    Gone,
    /// An answer was lost.
    Unknown,
}

/// `DeleteTopics` names topics in structures from this version on.
const IN_STRUCTURES: i16 = 6;
/// Names that one administrator uses at a time.
const NAMES_MAX: usize = 4;

/// Creates and deletes topics until the run is to end. A name whose fate is unknown is never used
/// again: a request whose answer was lost may take effect at any later time.
pub async fn administrate(workload: &Workload, mut client: Client) {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let mut told_by: BTreeMap<String, SocketAddr> = BTreeMap::new();
    let mut names: Vec<String> = Vec::new();
    while !workload.is_finishing() {
        names.retain(|name| known.get(name) != Some(&Known::Unknown));
        if names.len() < NAMES_MAX {
            names.push(format!("{}-{}", client.name, known.len()));
        }
        let name = client.random.pick(&names).clone();
        let before = known.get(&name).copied().unwrap_or(Known::Gone);
        let creates = client.random.chance(MILLION / 2);
        let changed = match creates {
            true => create(workload, &mut client, &name, before).await,
            false => delete(&mut client, &name, before).await,
        };
        let lost = changed.is_err();
        let now = changed.unwrap_or(Known::Unknown);
        // Who asks to try again has told nothing.
        if now != before {
            told_by.insert(name.clone(), client.home());
        }
        known.insert(name, now);
        if lost || look(&mut client, &known, &told_by).await.is_err() {
            client.pause(RETRY).await;
        }
        client.pause(workload.swarm.think_max * 10).await;
    }
}

async fn create(
    workload: &Workload,
    client: &mut Client,
    name: &str,
    before: Known,
) -> Result<Known, CallError> {
    let partitions = i32::try_from(client.random.between(1..=4)).unwrap_or(1);
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Str::from(name),
            num_partitions: partitions,
            replication_factor: workload.swarm.shape.draw_replication(&mut client.random),
            ..CreatableTopic::default()
        }],
        timeout_ms: 30_000,
        validate_only: false,
    };
    let answer = client.call(2, |_| request).await?;
    let told = answer.topics.first().map(|topic| topic.error_code);
    let told = told.unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR);
    match told {
        ErrorCode::NONE => {
            promise!(before != Known::Exists, "{name} was created twice");
            Ok(Known::Exists)
        }
        ErrorCode::TOPIC_ALREADY_EXISTS => {
            promise!(before != Known::Gone, "{name} exists, but should not");
            Ok(Known::Exists)
        }
        other => {
            promise!(other.is_retriable(), "CreateTopics {name}: {}", other.name());
            // It may have happened, or happen later, whatever there was before.
            Ok(Known::Unknown)
        }
    }
}

async fn delete(client: &mut Client, name: &str, before: Known) -> Result<Known, CallError> {
    let make = |version| {
        let in_structures = version >= IN_STRUCTURES;
        let state = DeleteTopicState { name: Some(Str::from(name)), ..DeleteTopicState::default() };
        DeleteTopicsRequest {
            topics: if in_structures { vec![state] } else { Vec::new() },
            topic_names: match in_structures {
                true => Vec::new(),
                false => vec![Str::from(name)],
            },
            timeout_ms: 30_000,
        }
    };
    let answer = client.call(1, make).await?;
    let told = answer.responses.first().map(|topic| topic.error_code);
    let told = told.unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR);
    match told {
        ErrorCode::NONE => {
            promise!(before != Known::Gone, "{name} was deleted twice");
            Ok(Known::Gone)
        }
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
            promise!(before != Known::Exists, "{name} does not exist, but should");
            Ok(Known::Gone)
        }
        other => {
            promise!(other.is_retriable(), "DeleteTopics {name}: {}", other.name());
            Ok(Known::Unknown)
        }
    }
}

/// Every topic that is known to exist is listed, and none that is known to be gone.
async fn look(
    client: &mut Client,
    known: &BTreeMap<String, Known>,
    told_by: &BTreeMap<String, SocketAddr>,
) -> Result<(), CallError> {
    let asked = client.home();
    let request = MetadataRequest {
        topics: None,
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    // Version 0 says "all" in another way.
    let answer = client.call(4, |_| request).await?;
    if answer.error_code.is_retriable() {
        return Ok(());
    }
    let listed = |name: &str| {
        let mut topics = answer.topics.iter().filter(|topic| topic.error_code.is_none());
        topics.any(|topic| topic.name.as_ref().is_some_and(|listed| listed.as_str() == name))
    };
    for (name, state) in known.iter().filter(|(name, _)| told_by.get(*name) == Some(&asked)) {
        match state {
            Known::Exists => promise!(listed(name), "{name} was created and is not listed"),
            Known::Gone => promise!(!listed(name), "{name} was deleted and is listed"),
            Known::Unknown => {}
        }
    }
    Ok(())
}
