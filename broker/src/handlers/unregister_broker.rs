//! UnregisterBroker (key 64): a broker is gone for good.
//!
//! Ours: refused while the broker keeps replicas, and for the last one: `vltava cluster remove`
//! moves them away first, and unregisters then. Answered when the broker has no vote in group 0 any
//! more, and is forgotten.

use std::time::Duration;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::unregister_broker::{
    UnregisterBrokerRequest, UnregisterBrokerResponse,
};

use super::Reply;
use super::context::{Context, Services};
use crate::cluster::controller::{self, Input, Reply as Decided};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::UNREGISTER_BROKER;

/// Before it is looked again whether the broker is forgotten.
const PAUSE: Duration = Duration::from_millis(100);

/// Has the controller forget the broker.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: UnregisterBrokerRequest,
) -> Reply<UnregisterBrokerResponse> {
    let node_id = request.broker_id;
    let input = Input::UnregisterNode { node_id };
    let decided = match context.ask_controller(None, input).await {
        Ok(Decided::NodeUnregistered) => await_forgotten(&context, node_id).await,
        other => other,
    };
    Reply::Now(match decided {
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

/// Waits until this node knows the broker no more; does not where it is the one, which may not hear
/// of it.
async fn await_forgotten<R: Runtime>(
    context: &Context<R>,
    node_id: i32,
) -> Result<Decided, ErrorCode> {
    let Services { runtime, node, .. } = &*context.services;
    let deadline = context.controller_deadline(None);
    while node.node_id() != node_id && node.image().node(node_id).is_some() {
        if runtime.now() >= deadline {
            return Err(ErrorCode::REQUEST_TIMED_OUT);
        }
        runtime.sleep(PAUSE).await;
    }
    Ok(Decided::NodeUnregistered)
}
