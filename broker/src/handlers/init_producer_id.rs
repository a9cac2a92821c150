//! InitProducerId (key 22): an id for an idempotent producer (KIP-98, KIP-360).
//!
//! Versions: 2 flexible, 3 the producer's id and epoch so far, 4 PRODUCER_FENCED, 5 transactions v2
//! (KIP-890). Version 6 is unstable in Kafka and not served.
//!
//! Ours: there are no transactions yet. A transactional id gets
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which every client takes as final.

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

use super::Reply;
use super::context::Context;
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::INIT_PRODUCER_ID;

/// Gives an id out of the shard's block; group 0 gives the next block.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: InitProducerIdRequest,
) -> Reply<InitProducerIdResponse> {
    if let Some(id) = &request.transactional_id {
        // Kafka says INVALID_REQUEST to the empty one.
        if id.is_empty() {
            return Reply::Now(failed(ErrorCode::INVALID_REQUEST));
        }
        if let Some(left_out) = context.services.log_limit.admit(context.received) {
            tracing::warn!(
                transactional_id = %id,
                peer = %context.client.peer,
                left_out,
                "refused: transactions are not implemented yet; use the idempotent producer \
                 without transactional.id"
            );
        }
        return Reply::Now(failed(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED));
    }
    if (request.producer_id < 0) != (request.producer_epoch < 0) {
        return Reply::Now(failed(ErrorCode::INVALID_REQUEST));
    }
    Reply::Now(match context.services.next_producer_id().await {
        Ok(producer_id) => InitProducerIdResponse {
            producer_id,
            producer_epoch: 0,
            ..InitProducerIdResponse::default()
        },
        // As in Kafka: its broker, too, gets a block behind the client's back, and what a client
        // hears meanwhile it tries again.
        Err(ErrorCode::NOT_CONTROLLER) => failed(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
        Err(error) => failed(error),
    })
}

fn failed(error_code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    }
}
