//! FindCoordinator (key 10): which node coordinates a group.
//!
//! Versions: 1 transactional ids (KIP-98), 3 flexible, 4 several keys (KIP-699), 5 and 6 share
//! groups (KIP-932).
//!
//! Ours: there are no transactions and no share groups yet. A transactional id gets
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which every client takes as final, with a message that
//! says so.

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use vltava_protocol::types::Str;

use super::context::Context;
use super::{Reply, group};
use crate::metadata::topic_name::CONSUMER_OFFSETS;
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::FIND_COORDINATOR;

/// The first version that asks for several keys.
const KEYS_FROM: i16 = 4;
/// A group's id.
const GROUP: i8 = 0;
/// A transactional id.
const TRANSACTION: i8 = 1;

/// Creates the topic of offsets where nobody has used a group yet, and names, for each group, the
/// node that leads its partition of it.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: FindCoordinatorRequest,
) -> Reply<FindCoordinatorResponse> {
    let one = context.api_version < KEYS_FROM;
    let keys = if one { vec![request.key] } else { request.coordinator_keys };
    let ready = prepare(&context, request.key_type).await;
    let mut coordinators = keys.into_iter().map(|key| match &ready {
        Ok(()) => Coordinator { key: key.clone(), ..coordinator(&context, &key) },
        Err(failed) => Coordinator { key, ..failed.clone() },
    });
    if !one {
        let coordinators = coordinators.collect();
        return Reply::Now(FindCoordinatorResponse {
            coordinators,
            ..FindCoordinatorResponse::default()
        });
    }
    let found = coordinators.next().unwrap_or_default();
    Reply::Now(FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    })
}

/// Sees to it that there can be coordinators of this type.
async fn prepare<R: Runtime>(context: &Context<R>, key_type: i8) -> Result<(), Coordinator> {
    match key_type {
        GROUP => {
            let ensured = context.services.node.ensure_topic(CONSUMER_OFFSETS).await;
            // As Kafka does: for clients any other error is final.
            ensured.map_err(|error| {
                failed(ErrorCode::COORDINATOR_NOT_AVAILABLE, ErrorCode::message(error))
            })
        }
        TRANSACTION => Err(failed(
            ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            "transactions are not implemented yet; use the idempotent producer without \
             transactional.id",
        )),
        _ => {
            let error = ErrorCode::INVALID_REQUEST;
            Err(failed(error, "there is no coordinator of this type here"))
        }
    }
}

/// The coordinator of a group: the node that leads its partition, where clients are told of that
/// node at all. While there is no other, a client would ask one that is gone again and again.
fn coordinator<R: Runtime>(context: &Context<R>, group_id: &str) -> Coordinator {
    let node = &context.services.node;
    let image = node.image();
    let leader = group::partition_of(context, group_id)
        .and_then(|partition| node.leader_shown(partition))
        .and_then(|leader| image.node(leader));
    match leader.and_then(|node| Some((node.id, node.endpoint(&context.client.listener)?))) {
        Some((node_id, endpoint)) => Coordinator {
            node_id,
            host: endpoint.host.clone(),
            port: endpoint.port.into(),
            ..Coordinator::default()
        },
        None => {
            let error = ErrorCode::COORDINATOR_NOT_AVAILABLE;
            failed(error, ErrorCode::message(error))
        }
    }
}

fn failed(error_code: ErrorCode, message: &'static str) -> Coordinator {
    Coordinator {
        node_id: -1,
        port: -1,
        error_code,
        error_message: Some(Str::from_static(message)),
        ..Coordinator::default()
    }
}
