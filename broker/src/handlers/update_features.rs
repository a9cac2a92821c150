//! UpdateFeatures (key 57): raises the cluster's feature level (KIP-584).
//!
//! Versions: 1 validate only, kinds of downgrade (KIP-778), 2 one error for all (KIP-1022).
//!
//! Ours: there is one feature, `vltava.level`, which is not Kafka's `metadata.version`; it never
//! goes back ([why](../../docs/decisions/2026-11-22-feature-levels.md)).
//!
//! Answered when every shard of this node holds the new level.

use vltava_protocol::api::ApiKey;
use vltava_protocol::messages::update_features::{
    UpdatableFeatureResult, UpdateFeaturesRequest, UpdateFeaturesResponse,
};

use super::Reply;
use super::context::Context;
use crate::cluster::controller::{self, Input};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::UPDATE_FEATURES;

/// A downgrade that loses nothing, as a kind of update.
const SAFE_DOWNGRADE: i8 = 2;

/// Hands the request to the controller.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: UpdateFeaturesRequest,
) -> Reply<UpdateFeaturesResponse> {
    let version = context.api_version;
    let request = as_newest(request);
    let named: Vec<_> =
        request.feature_updates.iter().map(|update| update.feature.clone()).collect();
    let timeout_ms = Some(request.timeout_ms);
    let answer = context.ask_controller(timeout_ms, Input::UpdateFeatures(request)).await;
    let mut response = match answer {
        Ok(controller::Reply::UpdateFeatures(response)) => response,
        other => {
            let (error_code, message) = controller::refusal(other);
            let error_message = Some(message);
            UpdateFeaturesResponse { error_code, error_message, ..Default::default() }
        }
    };
    if version < 2 && response.error_code.is_none() {
        let done = |feature| UpdatableFeatureResult { feature, ..Default::default() };
        response.results = named.into_iter().map(done).collect();
    }
    Reply::Now(response)
}

/// As a client of the newest version says it: the first one only says whether to go back is
/// allowed.
fn as_newest(mut request: UpdateFeaturesRequest) -> UpdateFeaturesRequest {
    for update in &mut request.feature_updates {
        if std::mem::take(&mut update.allow_downgrade) {
            update.upgrade_type = SAFE_DOWNGRADE;
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use vltava_protocol::messages::update_features::FeatureUpdateKey;

    use super::*;

    #[test]
    fn the_first_version_says_otherwise_that_it_goes_back() {
        let update = |allow_downgrade| FeatureUpdateKey { allow_downgrade, ..Default::default() };
        let feature_updates = vec![update(false), update(true)];
        let request = as_newest(UpdateFeaturesRequest { feature_updates, ..Default::default() });
        let kinds = request.feature_updates.iter().map(|it| (it.upgrade_type, it.allow_downgrade));
        assert_eq!(kinds.collect::<Vec<_>>(), [(1, false), (2, false)]);
    }
}
