//! What stands before the faults begin: the topics.

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use vltava_protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use vltava_protocol::types::{Str, Uuid};

use super::{RETRY, Topic, Workload};
use crate::client::{CallError, Client};
use crate::promise;

/// Creates the topics of the run and learns their ids, however long it takes.
pub async fn create_topics(workload: &Workload, client: &mut Client) {
    for topic in workload.topics.iter() {
        while !matches!(create(workload, client, topic).await, Ok(true)) {
            client.pause(RETRY).await;
        }
        while !matches!(learn(client, topic).await, Ok(true)) {
            client.pause(RETRY).await;
        }
    }
}

async fn create(
    workload: &Workload,
    client: &mut Client,
    topic: &Topic,
) -> Result<bool, CallError> {
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Str::from(&*topic.name),
            num_partitions: topic.partitions,
            replication_factor: topic.replication,
            assignments: Vec::new(),
            configs: workload.topic_configs(|_| true),
        }],
        timeout_ms: 30_000,
        validate_only: false,
    };
    let answer = client.call(2, |_| request).await?;
    let told = answer.topics.first();
    let error = told.map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |topic| topic.error_code);
    // Not all nodes may have registered yet.
    let is_early = error == ErrorCode::INVALID_REPLICATION_FACTOR && topic.replication > 1;
    promise!(
        error.is_none()
            || error.is_retriable()
            || error == ErrorCode::TOPIC_ALREADY_EXISTS
            || is_early,
        "CreateTopics: {} {:?}",
        error.name(),
        told.map(|topic| topic.error_message.clone())
    );
    Ok(error.is_none() || error == ErrorCode::TOPIC_ALREADY_EXISTS)
}

/// Asks for the topic's id; whether it is known, and all partitions have leaders.
async fn learn(client: &mut Client, topic: &Topic) -> Result<bool, CallError> {
    let Described::There { id, partitions } = describe(client, &topic.name).await? else {
        return Ok(false);
    };
    topic.id.set(id);
    Ok(partitions == topic.partitions)
}

/// What the node says of a topic.
pub enum Described {
    /// It is there.
    There {
        /// Its id.
        id: Uuid,
        /// How many partitions it has. All have leaders.
        partitions: i32,
    },
    /// There is none of that name.
    NotThere,
    /// It cannot say now.
    NotNow,
}

/// Asks for a topic by its name, in a version that tells its id.
pub async fn describe(client: &mut Client, name: &str) -> Result<Described, CallError> {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(Str::from(name)),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let answer = client.call(10, |_| request).await?;
    let Some(told) = answer.topics.first() else {
        return Ok(Described::NotNow);
    };
    let partitions = i32::try_from(told.partitions.len()).unwrap_or(i32::MAX);
    let are_led = told.partitions.iter().all(|partition| partition.error_code.is_none());
    Ok(match told.error_code {
        ErrorCode::NONE if !are_led => Described::NotNow,
        ErrorCode::NONE => Described::There { id: told.topic_id, partitions },
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Described::NotThere,
        error => {
            promise!(error.is_retriable(), "Metadata of {name}: {}", error.name());
            Described::NotNow
        }
    })
}
