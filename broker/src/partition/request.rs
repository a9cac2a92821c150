//! What is asked of partitions and what they answer: values that travel between shards.

use bytes::Bytes;
use vltava_protocol::encode::Part;

use super::error::PartitionError;
pub use crate::metadata::image::PartitionId;

/// One batch for one partition.
#[derive(Clone, Debug)]
pub struct AppendTo {
    /// Which partition.
    pub partition: PartitionId,
    /// One valid batch (`validate`).
    pub batch: Bytes,
}

/// What became of a batch: durable and committed, or not taken.
pub type AppendResult = Result<Appended, PartitionError>;

/// A batch that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record; of the original, where this was a duplicate.
    pub base_offset: i64,
    /// The first offset of the log.
    pub log_start: i64,
}

/// A read of one partition.
#[derive(Clone, Copy, Debug)]
pub struct ReadFrom {
    /// Which partition.
    pub partition: PartitionId,
    /// The caller's idea of the leader epoch; -1: none.
    pub current_leader_epoch: i32,
    /// The epoch of the last batch the caller has; -1: it does not say (KIP-595 fetches of
    /// replicas, and KIP-320).
    pub last_fetched_epoch: i32,
    /// The first offset wanted.
    pub offset: i64,
    /// At most so many bytes; the first batch is given whole where `at_least_one` allows.
    pub bytes_max: usize,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Batches, from the one that holds the offset on; all whole.
    pub parts: Vec<Part>,
    /// Their length in bytes.
    pub bytes: usize,
    /// The first offset that is not committed.
    pub high_watermark: i64,
    /// The first offset of the log.
    pub log_start: i64,
    /// Where the caller's log and this one part: (epoch, its end offset).
    pub diverging: Option<(i32, i64)>,
}

/// What became of a read.
pub type ReadResult = Result<Found, PartitionError>;
