//! CreatePartitions (key 37): more partitions for topics (KIP-195).
//!
//! Versions: 2 flexible, 3 THROTTLING_QUOTA_EXCEEDED (KIP-599).
//!
//! Below `disk.reserve.bytes` of free space nothing is created: KAFKA_STORAGE_ERROR (ours).
//!
//! Answered when every shard of this node holds the partitions and their logs are open.

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopicResult,
};
use vltava_protocol::types::Str;

use super::Reply;
use super::context::Context;
use super::errors::LOW_ON_SPACE;
use crate::cluster::controller::{self, Input};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::CREATE_PARTITIONS;

/// Hands the request to the controller.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: CreatePartitionsRequest,
) -> Reply<CreatePartitionsResponse> {
    let names: Vec<Str> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    if context.services.node.is_low_on_space() && !request.validate_only {
        return Reply::Now(refused(names, ErrorCode::KAFKA_STORAGE_ERROR, LOW_ON_SPACE));
    }
    let timeout_ms = Some(request.timeout_ms);
    let input = Input::CreatePartitions(request);
    Reply::Now(match context.ask_controller(timeout_ms, input).await {
        Ok(controller::Reply::CreatePartitions(response)) => response,
        other => {
            let (error, message) = controller::refusal(other);
            refused(names, error, &message)
        }
    })
}

fn refused(names: Vec<Str>, error_code: ErrorCode, message: &str) -> CreatePartitionsResponse {
    let failed = |name| CreatePartitionsTopicResult {
        name,
        error_code,
        error_message: Some(Str::from(message)),
    };
    let results = names.into_iter().map(failed).collect();
    CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() }
}
