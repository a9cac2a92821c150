//! IncrementalAlterConfigs (key 44): changes settings of topics one by one (KIP-339).
//!
//! Versions: 1 flexible.
//!
//! Ours: as AlterConfigs.

use vltava_protocol::api::ApiKey;
use vltava_protocol::messages::incremental_alter_configs::{
    AlterConfigsResourceResponse, AlterableConfig, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use super::context::Context;
use super::{Reply, settings};
use crate::cluster::alter_settings::{Change, Resource};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::INCREMENTAL_ALTER_CONFIGS;

/// Each change by itself; settings that none names stay as they are.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: IncrementalAlterConfigsRequest,
) -> Reply<IncrementalAlterConfigsResponse> {
    let change = |config: AlterableConfig| Change {
        name: config.name,
        operation: config.config_operation,
        value: config.value,
    };
    let resources = request.resources.into_iter().map(|resource| Resource {
        kind: resource.resource_type,
        name: resource.resource_name,
        changes: resource.configs.into_iter().map(change).collect(),
    });
    let altered = settings::alter(&context, resources.collect(), true, request.validate_only).await;
    let responses = altered.into_iter().map(|altered| AlterConfigsResourceResponse {
        error_code: altered.error_code,
        error_message: altered.error_message,
        resource_type: altered.kind,
        resource_name: altered.name,
    });
    Reply::Now(IncrementalAlterConfigsResponse {
        responses: responses.collect(),
        ..IncrementalAlterConfigsResponse::default()
    })
}
