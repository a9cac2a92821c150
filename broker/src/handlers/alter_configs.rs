//! AlterConfigs (key 33): replaces all settings of topics (KIP-133); superseded by
//! IncrementalAlterConfigs.
//!
//! Versions: 2 flexible.
//!
//! Ours: of a node's settings, those can be altered that say what is wanted of it
//! (`vltava.node.*`), its replication throttles, and two defaults of topics; the others are read at
//! start. Whatever else is asked for, settings of groups, of client metrics and log levels among
//! it, is refused: INVALID_REQUEST, with a message that says so.

use vltava_protocol::api::ApiKey;
use vltava_protocol::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResourceResponse, AlterConfigsResponse, AlterableConfig,
};

use super::context::Context;
use super::{Reply, settings};
use crate::cluster::alter_settings::{Change, Resource, SET};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::ALTER_CONFIGS;

/// Every setting that is given is set; the others are the defaults again.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: AlterConfigsRequest,
) -> Reply<AlterConfigsResponse> {
    let change =
        |config: AlterableConfig| Change { name: config.name, operation: SET, value: config.value };
    let resources = request.resources.into_iter().map(|resource| Resource {
        kind: resource.resource_type,
        name: resource.resource_name,
        changes: resource.configs.into_iter().map(change).collect(),
    });
    let altered =
        settings::alter(&context, resources.collect(), false, request.validate_only).await;
    let responses = altered.into_iter().map(|altered| AlterConfigsResourceResponse {
        error_code: altered.error_code,
        error_message: altered.error_message,
        resource_type: altered.kind,
        resource_name: altered.name,
    });
    Reply::Now(AlterConfigsResponse {
        responses: responses.collect(),
        ..AlterConfigsResponse::default()
    })
}
