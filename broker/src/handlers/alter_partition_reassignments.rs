//! AlterPartitionReassignments (key 45): moves partitions to other brokers, or takes that back
//! (KIP-455).
//!
//! Versions: 1 may insist that the number of replicas stays (KIP-860).
//!
//! Ours: what is cancelled goes back by the way on which it came, and is listed until it is there;
//! cancelling that again changes nothing. A change that has begun goes on with whoever leads the
//! partition.
//!
//! Answered when it is decided, and every shard of this node knows of it.

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
};
use vltava_protocol::types::Str;

use super::Reply;
use super::context::Context;
use crate::cluster::controller::{self, Input};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::ALTER_PARTITION_REASSIGNMENTS;

/// Hands the request to the controller.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: AlterPartitionReassignmentsRequest,
) -> Reply<AlterPartitionReassignmentsResponse> {
    let timeout_ms = Some(request.timeout_ms);
    let input = Input::AlterReassignments(request);
    Reply::Now(match context.ask_controller(timeout_ms, input).await {
        Ok(controller::Reply::AlterReassignments(response)) => response,
        other => {
            let (error_code, message) = controller::refusal(other);
            refused(error_code, message)
        }
    })
}

fn refused(error_code: ErrorCode, message: Str) -> AlterPartitionReassignmentsResponse {
    AlterPartitionReassignmentsResponse {
        error_code,
        error_message: Some(message),
        ..AlterPartitionReassignmentsResponse::default()
    }
}
