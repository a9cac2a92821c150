//! UnregisterBroker (key 64): a broker is gone for good.
//!
//! Ours: refused while the broker keeps replicas, and for the last one: `vltava cluster remove`
//! moves them away first, and unregisters then.

use vltava_protocol::api::ApiKey;
use vltava_protocol::messages::unregister_broker::{
    UnregisterBrokerRequest, UnregisterBrokerResponse,
};

use super::Reply;
use super::context::Context;
use crate::cluster::controller::{self, Input, Reply as Decided};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::UNREGISTER_BROKER;

/// Has the controller forget the broker.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: UnregisterBrokerRequest,
) -> Reply<UnregisterBrokerResponse> {
    let input = Input::UnregisterNode { node_id: request.broker_id };
    Reply::Now(match context.services.node.ask_controller(input).await {
        Ok(Decided::NodeUnregistered) => UnregisterBrokerResponse::default(),
        other => {
            let (error_code, message) = controller::refusal(other);
            UnregisterBrokerResponse {
                error_code,
                error_message: Some(message),
                ..UnregisterBrokerResponse::default()
            }
        }
    })
}
