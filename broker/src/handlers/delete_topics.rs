//! DeleteTopics (key 20).
//!
//! Versions: 3 TOPIC_DELETION_DISABLED, 4 flexible, 5 messages (KIP-599), 6 topics by id (KIP-516).
//!
//! Answered when every shard of this node has given up the topics' partitions.

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse,
};
use vltava_protocol::types::{Str, Uuid};

use super::Reply;
use super::context::Context;
use crate::cluster::controller::{self, Input};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::DELETE_TOPICS;

/// The first version that knows TOPIC_DELETION_DISABLED.
const DISABLED_FROM: i16 = 3;

/// Hands the request to the controller.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: DeleteTopicsRequest,
) -> Reply<DeleteTopicsResponse> {
    if !context.services.config.delete_topics {
        let error = match context.api_version {
            DISABLED_FROM.. => ErrorCode::TOPIC_DELETION_DISABLED,
            _ => ErrorCode::INVALID_REQUEST,
        };
        return Reply::Now(refused(named(&request), error, "Topic deletion is disabled."));
    }
    let named = named(&request);
    let timeout_ms = Some(request.timeout_ms);
    let input = Input::DeleteTopics(request);
    Reply::Now(match context.ask_controller(timeout_ms, input).await {
        Ok(controller::Reply::DeleteTopics(response)) => response,
        other => {
            let (error, message) = controller::refusal(other);
            refused(named, error, &message)
        }
    })
}

fn named(request: &DeleteTopicsRequest) -> Vec<(Option<Str>, Uuid)> {
    let by_name = request.topic_names.iter().map(|name| (Some(name.clone()), Uuid::ZERO));
    let states = request.topics.iter().map(|topic| (topic.name.clone(), topic.topic_id));
    by_name.chain(states).collect()
}

fn refused(
    named: Vec<(Option<Str>, Uuid)>,
    error_code: ErrorCode,
    message: &str,
) -> DeleteTopicsResponse {
    let failed = |(name, topic_id)| DeletableTopicResult {
        name,
        topic_id,
        error_code,
        error_message: Some(Str::from(message)),
    };
    let responses = named.into_iter().map(failed).collect();
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}
