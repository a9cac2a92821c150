//! What stands before the faults begin: the topics.

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use vltava_protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use vltava_protocol::types::Str;

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
    let configs = workload.swarm.topic_configs.iter();
    let configs = configs.map(|(name, value)| CreatableTopicConfig {
        name: Str::from_static(name),
        value: Some(Str::from(value.as_str())),
    });
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: Str::from(&*topic.name),
            num_partitions: topic.partitions,
            replication_factor: 1,
            assignments: Vec::new(),
            configs: configs.collect(),
        }],
        timeout_ms: 30_000,
        validate_only: false,
    };
    let answer = client.call(2, |_| request).await?;
    let told = answer.topics.first();
    let error = told.map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |topic| topic.error_code);
    promise!(
        error.is_none() || error.is_retriable() || error == ErrorCode::TOPIC_ALREADY_EXISTS,
        "CreateTopics: {} {:?}",
        error.name(),
        told.map(|topic| topic.error_message.clone())
    );
    Ok(error.is_none() || error == ErrorCode::TOPIC_ALREADY_EXISTS)
}

/// Asks for the topic's id, in a version that tells it.
async fn learn(client: &mut Client, topic: &Topic) -> Result<bool, CallError> {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(Str::from(&*topic.name)),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let answer = client.call(10, |_| request).await?;
    let Some(told) = answer.topics.first() else {
        return Ok(false);
    };
    if !told.error_code.is_none() {
        return Ok(false);
    }
    topic.id.set(told.topic_id);
    let known = told.partitions.iter().filter(|partition| partition.error_code.is_none());
    Ok(known.count() == topic.partitions.unsigned_abs() as usize)
}
