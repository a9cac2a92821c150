//! ApiVersions (key 18): which APIs and versions are served here.
//!
//! Versions: 3 flexible, client's software (KIP-511), features (KIP-584), 4 features whose minimum
//! is 0 (KAFKA-17011), 5 cluster and node id as a client believes them to be (KIP-1242): one that
//! has reached another node than it wanted is told to begin anew.
//!
//! A version that is not served is answered in version 0, with UNSUPPORTED_VERSION and this API's
//! own versions. Features are advertised as they are implemented: none of group, transaction, share
//! or streams yet, and not `metadata.version`, which names Kafka's own metadata log. Ours is the
//! cluster's feature level; it only rises, so it is the epoch of what is finalized, too.

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::frame::RequestHeader;
use vltava_protocol::messages::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use vltava_protocol::types::Str;

use super::context::Context;
use super::{Answer, Refusal, Reply, SERVED, encode};
use crate::metadata::features::{LEVEL, Levels};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::API_VERSIONS;

/// Lists what is served.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: ApiVersionsRequest,
) -> Reply<ApiVersionsResponse> {
    let named = |name: &str| {
        let mut bytes = name.bytes();
        let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        first && rest && !name.ends_with(['-', '.'])
    };
    let is_named = named(&request.client_software_name) && named(&request.client_software_version);
    if context.api_version >= 3 && !is_named {
        let error_code = ErrorCode::INVALID_REQUEST;
        return Reply::Now(ApiVersionsResponse { error_code, ..ApiVersionsResponse::default() });
    }
    if let Err(error_code) = check_destination(&context, &request) {
        return Reply::Now(ApiVersionsResponse { error_code, ..ApiVersionsResponse::default() });
    }
    Reply::Now(ApiVersionsResponse {
        api_keys: SERVED.iter().filter_map(|key| key.api()).map(row).collect(),
        ..features(context.services.node.levels(), context.services.node.image().level())
    })
}

/// What this node serves, and what the cluster is at.
fn features(served: Levels, level: i16) -> ApiVersionsResponse {
    let name = Str::from_static(LEVEL);
    let supported = SupportedFeatureKey {
        name: name.clone(),
        min_version: served.min,
        max_version: served.max,
    };
    let finalized =
        FinalizedFeatureKey { name, max_version_level: level, min_version_level: level };
    ApiVersionsResponse {
        supported_features: vec![supported],
        finalized_features_epoch: level.into(),
        finalized_features: vec![finalized],
        ..ApiVersionsResponse::default()
    }
}

/// Whether this is the node of the cluster that the client wanted; it names both or none.
fn check_destination<R: Runtime>(
    context: &Context<R>,
    request: &ApiVersionsRequest,
) -> Result<(), ErrorCode> {
    let (Some(cluster_id), 0..) = (&request.cluster_id, request.node_id) else {
        let is_none = request.cluster_id.is_none() && request.node_id < 0;
        return if is_none { Ok(()) } else { Err(ErrorCode::INVALID_REQUEST) };
    };
    let image = context.services.node.image();
    let is_here = image.cluster().is_some_and(|cluster| cluster.id.to_string() == **cluster_id)
        && request.node_id == context.services.config.node_id;
    if is_here { Ok(()) } else { Err(ErrorCode::REBOOTSTRAP_REQUIRED) }
}

fn row(api: &'static Api) -> ApiVersion {
    // librdkafka turns compression off for a broker whose Produce does not begin at 0
    // (KAFKA-18659). Versions 0 to 2 are refused.
    let min_version = if api.key == ApiKey::PRODUCE { 0 } else { api.min_version };
    ApiVersion { api_key: api.key.0, min_version, max_version: api.max_version }
}

/// What a request in a version that is not served gets: this API answers in version 0, others have
/// no answer.
pub fn refuse_version(api: &'static Api, header: &RequestHeader) -> Result<Answer, Refusal> {
    if api.key != API {
        return Err(Refusal::UnknownVersion { api: api.name, version: header.api_version });
    }
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION,
        api_keys: vec![row(api)],
        ..ApiVersionsResponse::default()
    };
    let header = RequestHeader { api_version: 0, ..header.clone() };
    Ok(Answer::Now(encode(&response, &header)?.0))
}
