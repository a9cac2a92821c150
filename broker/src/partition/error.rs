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
    /// This replica does not lead.
    #[error("another replica leads, or none does")]
    NotLeader,
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
        /// The offset behind the last that may be asked for.
        end: i64,
    },
    /// This replica leads, and does not know yet what of its log is committed.
    #[error("a new leader does not know yet what is committed, or a follower is behind")]
    NotAvailable,
    /// Fewer replicas are in sync than `min.insync.replicas` asks for: nothing was written.
    #[error("fewer replicas are in sync than min.insync.replicas asks for")]
    NotEnoughReplicas,
    /// The same; and the batch is in the log, and committed.
    #[error("fewer replicas are in sync than min.insync.replicas asks for, since it was written")]
    NotEnoughReplicasAfterAppend,
    /// It is written, and not known to be committed in the time that its producer gave.
    #[error("not enough replicas have flushed it in time")]
    TimedOut,
    /// An idempotent producer's batch is not the next one.
    #[error("the batch is out of order")]
    OutOfOrderSequence,
    /// An idempotent producer with an epoch older than one seen.
    #[error("the producer's epoch is older than one that was seen")]
    StaleProducerEpoch,
    /// The disk is full, or below its reserve.
    #[error("the disk is full")]
    Full,
    /// The process has no descriptor left for its files.
    #[error("no descriptor is left for its files (ulimit -n, LimitNOFILE=)")]
    NoDescriptor,
    /// What its files hold is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// The log has ended, after an I/O error or because it was closed: nothing more can be made
    /// durable before a restart.
    #[error("the log has ended after an I/O error, or was closed")]
    Ended,
    /// The log cannot be read, or not be opened.
    #[error("the log cannot be used: {0}")]
    Storage(String),
}

impl PartitionError {
    /// Whether what is missing may be there in a moment, and the log is as it was.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Full | Self::NoDescriptor)
    }
}

impl From<StorageError> for PartitionError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Full(_) => Self::Full,
            StorageError::NoDescriptor(_) => Self::NoDescriptor,
            StorageError::Corrupt(corruption) => Self::Damaged(corruption.to_string()),
            StorageError::OutOfRange { start, end, .. } => Self::OutOfRange { start, end },
            StorageError::Failed(_) | StorageError::Closed => Self::Ended,
            other => Self::Storage(other.to_string()),
        }
    }
}
