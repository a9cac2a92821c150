//! What a partition refuses, in the words of logs. Handlers turn it into Kafka's error codes.

use vltava_storage::StorageError;

/// Why a partition did not do what it was asked. Travels between shards.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    /// No such partition on this node.
    #[error("there is no such partition on this node")]
    Unknown,
    /// Its log is still being opened.
    #[error("its log is being opened")]
    Opening,
    /// The caller's leader epoch is older than the partition's.
    #[error("the caller's leader epoch is older")]
    FencedEpoch,
    /// The caller's leader epoch is newer than any this partition has had.
    #[error("the caller's leader epoch is newer")]
    UnknownEpoch,
    /// An offset outside of what may be asked for.
    #[error("the offset is outside of {start}..{end}")]
    OutOfRange {
        /// The first offset of the log.
        start: i64,
        /// The first offset that is not committed.
        end: i64,
    },
    /// An idempotent producer's batch is not the next one.
    #[error("the batch is out of order")]
    OutOfOrderSequence,
    /// An idempotent producer with an epoch older than one seen.
    #[error("the producer's epoch is older than one that was seen")]
    StaleProducerEpoch,
    /// The disk is full, or below its reserve.
    #[error("the disk is full")]
    Full,
    /// The log has ended, after an I/O error or because it was closed: nothing more can be made
    /// durable before a restart.
    #[error("the log has ended after an I/O error, or was closed")]
    Ended,
    /// The log holds damage that nobody has accepted yet, or cannot be read.
    #[error("the log cannot be used: {0}")]
    Storage(String),
}

impl From<StorageError> for PartitionError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Full(_) => Self::Full,
            StorageError::OutOfRange { start, end, .. } => Self::OutOfRange { start, end },
            StorageError::Failed(_) | StorageError::Closed => Self::Ended,
            other => Self::Storage(other.to_string()),
        }
    }
}
