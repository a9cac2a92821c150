//! IncrementalAlterConfigs (key 44): changes settings of topics one by one (KIP-339).
//!
//! Versions: 1 flexible.
//!
//! Ours: settings of nodes are read at start and cannot be altered; settings of groups, of client
//! metrics and log levels are not supported yet. All of them: INVALID_REQUEST, with a message that
//! says so.

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::incremental_alter_configs::{
    AlterConfigsResourceResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use vltava_protocol::types::Str;

use super::Reply;
use super::context::Context;
use crate::cluster::controller::{self, Input};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::INCREMENTAL_ALTER_CONFIGS;

/// Hands the request to the controller. Answered when every shard of this node goes by the new
/// settings.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: IncrementalAlterConfigsRequest,
) -> Reply<IncrementalAlterConfigsResponse> {
    let asked = request.resources.iter();
    let asked = asked.map(|resource| (resource.resource_type, resource.resource_name.clone()));
    let asked: Vec<(i8, Str)> = asked.collect();
    let node_id = context.services.config.node_id;
    let input = Input::IncrementalAlterConfigs { request, node_id };
    Reply::Now(match context.services.node.ask_controller(input).await {
        Ok(controller::Reply::IncrementalAlterConfigs(response)) => response,
        Ok(controller::Reply::Refused { error, message }) => refused(asked, error, &message),
        Ok(_) => refused(asked, ErrorCode::UNKNOWN_SERVER_ERROR, ""),
        Err(error) => refused(asked, error, error.message()),
    })
}

fn refused(
    asked: Vec<(i8, Str)>,
    error_code: ErrorCode,
    message: &str,
) -> IncrementalAlterConfigsResponse {
    let failed = |(resource_type, resource_name)| AlterConfigsResourceResponse {
        error_code,
        error_message: Some(Str::from(message)),
        resource_type,
        resource_name,
    };
    let responses = asked.into_iter().map(failed).collect();
    IncrementalAlterConfigsResponse { responses, ..IncrementalAlterConfigsResponse::default() }
}
