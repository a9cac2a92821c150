//! CreateTopics (key 19).
//!
//! Versions: 4 default counts (KIP-464), 5 flexible, counts and settings in the answer (KIP-525), 6
//! THROTTLING_QUOTA_EXCEEDED (KIP-599), 7 topic ids (KIP-516).
//!
//! Below `disk.reserve.bytes` of free space nothing is created: KAFKA_STORAGE_ERROR (ours).
//!
//! Answered when every shard of this node holds the topics and their logs are open. What is
//! refused, and in which words, is decided by the controller (`cluster/create_topics.rs`).

use std::collections::BTreeMap;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_topics::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use vltava_protocol::types::Str;

use super::Reply;
use super::context::Context;
use super::errors::LOW_ON_SPACE;
use super::node_settings::topic_defaults;
use crate::cluster::controller::{self, Input};
use crate::cluster::dynamic_settings::TOPIC_DEFAULTS;
use crate::config::describe::{self, Dynamic};
use crate::config::values::BrokerConfig;
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::CREATE_TOPICS;

/// The first version whose answer shows settings.
const SETTINGS_FROM: i16 = 5;

/// What each topic was given for its own.
type Given = BTreeMap<Str, BTreeMap<Str, Str>>;

/// Hands the request to the controller; describes what came of it.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: CreateTopicsRequest,
) -> Reply<CreateTopicsResponse> {
    let names: Vec<Str> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    if context.services.node.is_low_on_space() && !request.validate_only {
        return Reply::Now(refused(names, ErrorCode::KAFKA_STORAGE_ERROR, LOW_ON_SPACE));
    }
    let with_settings = context.api_version >= SETTINGS_FROM;
    let given = if with_settings { given(&request) } else { Given::new() };
    let random = context.services.node.random_uuid().0;
    let timeout_ms = Some(request.timeout_ms);
    let input = Input::CreateTopics { request, random };
    let mut response = match context.ask_controller(timeout_ms, input).await {
        Ok(controller::Reply::CreateTopics(response)) => response,
        other => {
            let (error, message) = controller::refusal(other);
            refused(names, error, &message)
        }
    };
    if with_settings {
        let node = &context.services.node;
        let altered = topic_defaults(&node.image(), node.node_id());
        let dynamic = Dynamic { names: &TOPIC_DEFAULTS, given: &altered };
        for created in response.topics.iter_mut().filter(|topic| topic.error_code.is_none()) {
            let own = given.get(&created.name);
            created.configs = Some(settings(&context.services.config, dynamic, own));
        }
    }
    Reply::Now(response)
}

fn given(request: &CreateTopicsRequest) -> Given {
    let topic_settings = |topic: &vltava_protocol::messages::create_topics::CreatableTopic| {
        let pairs = topic.configs.iter();
        let pairs = pairs.filter_map(|config| Some((config.name.clone(), config.value.clone()?)));
        (topic.name.clone(), pairs.collect())
    };
    request.topics.iter().map(topic_settings).collect()
}

fn settings(
    config: &BrokerConfig,
    dynamic: Dynamic<'_>,
    own: Option<&BTreeMap<Str, Str>>,
) -> Vec<CreatableTopicConfigs> {
    let own = own.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()));
    let described = describe::topic(config, dynamic, own).into_iter();
    let entry = described.map(|setting| CreatableTopicConfigs {
        name: Str::from_static(setting.name),
        value: setting.value.map(Str::from),
        read_only: setting.is_read_only,
        config_source: setting.source.code(),
        is_sensitive: false,
    });
    entry.collect()
}

fn refused(names: Vec<Str>, error_code: ErrorCode, message: &str) -> CreateTopicsResponse {
    let failed = |name| CreatableTopicResult {
        name,
        error_code,
        error_message: Some(Str::from(message)),
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    };
    let topics = names.into_iter().map(failed).collect();
    CreateTopicsResponse { topics, ..CreateTopicsResponse::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values;

    #[test]
    fn the_answer_shows_every_setting_with_its_source() {
        let config = values::load(&[]).unwrap().config;
        let own = [(Str::from_static("retention.ms"), Str::from_static(" 1000 "))];
        let own: BTreeMap<Str, Str> = own.into_iter().collect();
        let shown = settings(&config, Dynamic::default(), Some(&own));
        assert_eq!(shown.len(), 37);
        let retention = shown.iter().find(|entry| entry.name == "retention.ms").unwrap();
        assert_eq!((retention.value.as_deref(), retention.config_source), (Some("1000"), 1));
        let policy = shown.iter().find(|entry| entry.name == "cleanup.policy").unwrap();
        assert_eq!((policy.value.as_deref(), policy.config_source), (Some("delete"), 5));
    }
}
