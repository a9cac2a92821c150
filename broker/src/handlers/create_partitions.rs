//! CreatePartitions (key 37): more partitions for topics (KIP-195).
//!
//! Versions: 2 flexible, 3 THROTTLING_QUOTA_EXCEEDED (KIP-599).
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
    Reply::Now(match context.services.node.ask_controller(Input::CreatePartitions(request)).await {
        Ok(controller::Reply::CreatePartitions(response)) => response,
        Ok(controller::Reply::Refused { error, message }) => refused(names, error, &message),
        Ok(_) => refused(names, ErrorCode::UNKNOWN_SERVER_ERROR, ""),
        Err(error) => refused(names, error, error.message()),
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
