//! Which of Kafka's error codes says what a partition said.

use vltava_protocol::batch::{BatchError, ProducerRuleError};
use vltava_protocol::error_code::ErrorCode;

use crate::partition::error::PartitionError;
use crate::partition::validate::Rejection;

/// Why nothing is created below `disk.reserve.bytes`.
pub const LOW_ON_SPACE: &str = "The disk has less than disk.reserve.bytes free.";

/// What a producer is told of a batch that breaks the rules: Kafka's choice for each.
pub fn of_rejection(rejection: &Rejection) -> ErrorCode {
    match rejection {
        Rejection::TooLarge { .. } => ErrorCode::MESSAGE_TOO_LARGE,
        Rejection::LargerThanSegment { .. } => ErrorCode::RECORD_LIST_TOO_LARGE,
        Rejection::Transactional => ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        Rejection::CodecTooNew => ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
        Rejection::Timestamp { .. } | Rejection::Header(ProducerRuleError::LogAppendTime) => {
            ErrorCode::INVALID_TIMESTAMP
        }
        Rejection::Batch(BatchError::OldMagic(_) | BatchError::Incomplete { .. }) => {
            ErrorCode::INVALID_RECORD
        }
        Rejection::Batch(_) | Rejection::Compression(_) => ErrorCode::CORRUPT_MESSAGE,
        Rejection::NotOneBatch
        | Rejection::BaseOffset(_)
        | Rejection::Unfolded { .. }
        | Rejection::Header(_)
        | Rejection::Record(_)
        | Rejection::NoKey { .. } => ErrorCode::INVALID_RECORD,
    }
}

/// What a producer is told of a batch that its partition did not take.
pub fn of_append(error: &PartitionError) -> ErrorCode {
    match error {
        PartitionError::OutOfOrderSequence => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        PartitionError::StaleProducerEpoch => ErrorCode::INVALID_PRODUCER_EPOCH,
        other => of_partition(other),
    }
}

/// What anyone else is told.
pub fn of_partition(error: &PartitionError) -> ErrorCode {
    match error {
        // Not "unknown": the image has it, so it is on its way here or from here.
        PartitionError::Unknown | PartitionError::Opening | PartitionError::NotLeader => {
            ErrorCode::NOT_LEADER_OR_FOLLOWER
        }
        PartitionError::FencedEpoch => ErrorCode::FENCED_LEADER_EPOCH,
        PartitionError::UnknownEpoch => ErrorCode::UNKNOWN_LEADER_EPOCH,
        PartitionError::OutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        PartitionError::NotAvailable => ErrorCode::OFFSET_NOT_AVAILABLE,
        PartitionError::NotEnoughReplicas => ErrorCode::NOT_ENOUGH_REPLICAS,
        PartitionError::NotEnoughReplicasAfterAppend => ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        PartitionError::TimedOut => ErrorCode::REQUEST_TIMED_OUT,
        PartitionError::Full
        | PartitionError::NoDescriptor
        | PartitionError::Damaged(_)
        | PartitionError::Ended
        | PartitionError::Storage(_) => ErrorCode::KAFKA_STORAGE_ERROR,
        PartitionError::OutOfOrderSequence | PartitionError::StaleProducerEpoch => {
            ErrorCode::UNKNOWN_SERVER_ERROR
        }
    }
}
