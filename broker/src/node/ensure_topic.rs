//! Topics that nobody described: of automatic creation, and the broker's own.

use std::rc::Rc;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};

use super::view::Node;
use crate::cluster::controller::{self, Input, Reply};
use crate::config::values::BrokerConfig;
use crate::metadata::topic_name::CONSUMER_OFFSETS;
use crate::runtime::Runtime;

impl<R: Runtime> Node<R> {
    /// Creates a topic with default settings where it does not exist: automatic creation, and
    /// internal topics.
    pub async fn ensure_topic(self: &Rc<Self>, name: &str) -> Result<(), ErrorCode> {
        if self.image().topic(name).is_some() {
            return Ok(());
        }
        // What groups commit may use the reserve, and so may the topic for it.
        if self.is_low_on_space() && name != CONSUMER_OFFSETS {
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        let request = CreateTopicsRequest {
            topics: vec![creatable_topic(name, &self.parts.config, self.present().len())],
            ..CreateTopicsRequest::default()
        };
        let input = Input::CreateTopics { request, random: self.random_uuid().0 };
        let error = match self.ask_controller(input).await {
            Ok(Reply::CreateTopics(response)) => {
                response.topics.first().map_or(ErrorCode::NONE, |topic| topic.error_code)
            }
            other => controller::refusal(other).0,
        };
        match error {
            ErrorCode::NONE | ErrorCode::TOPIC_ALREADY_EXISTS => Ok(()),
            error => Err(error),
        }
    }
}

/// What is asked of the controller for a topic that nobody described. The topic of offsets has
/// settings of its own.
fn creatable_topic(name: &str, config: &BrokerConfig, nodes: usize) -> CreatableTopic {
    let mut topic = CreatableTopic {
        name: name.into(),
        num_partitions: -1,
        replication_factor: -1,
        ..CreatableTopic::default()
    };
    if name == CONSUMER_OFFSETS {
        let nodes = i16::try_from(nodes).unwrap_or(i16::MAX);
        topic.num_partitions = config.offsets.topic_partitions;
        topic.replication_factor = config.offsets.topic_replication_factor.min(nodes).max(1);
        let settings = [
            ("cleanup.policy", "compact".to_owned()),
            ("compression.type", "producer".to_owned()),
            ("segment.bytes", config.offsets.topic_segment_bytes.to_string()),
        ];
        let configs = settings.into_iter().map(|(name, value)| CreatableTopicConfig {
            name: name.into(),
            value: Some(value.into()),
        });
        topic.configs = configs.collect();
    }
    topic
}
