//! What AlterConfigs and IncrementalAlterConfigs have in common.

use vltava_protocol::types::Str;

use super::context::Context;
use crate::cluster::alter_settings::{Alteration, Altered, Resource};
use crate::cluster::controller::{self, Input, Reply};
use crate::runtime::Runtime;

/// Has the controller alter the resources. Answered when every shard of this node goes by the new
/// settings.
pub async fn alter<R: Runtime>(
    context: &Context<R>,
    resources: Vec<Resource>,
    is_incremental: bool,
    validate_only: bool,
) -> Vec<Altered> {
    let asked: Vec<(i8, Str)> =
        resources.iter().map(|resource| (resource.kind, resource.name.clone())).collect();
    let node_id = context.services.config.node_id;
    let alteration = Alteration { resources, is_incremental, validate_only, node_id };
    match context.ask_controller(None, Input::AlterSettings(alteration)).await {
        Ok(Reply::AlterSettings(altered)) => altered,
        other => {
            let (error_code, message) = controller::refusal(other);
            let refused = |(kind, name)| {
                let error_message = Some(message.clone());
                Altered { kind, name, error_code, error_message }
            };
            asked.into_iter().map(refused).collect()
        }
    }
}
