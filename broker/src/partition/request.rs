//! What is asked of partitions and what they answer: values that travel between shards.

use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::encode::Part;

use super::error::PartitionError;
pub use crate::metadata::image::PartitionId;
use crate::runtime::Monotonic;

/// When a batch is answered (`acks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Once it is on the leader's disk: another leader may not have it.
    Leader,
    /// Once it is committed. Refused where fewer replicas are in sync than the topic asks for.
    All,
}

/// What a client's batch waits for, and until when.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// For what.
    pub acks: Acks,
    /// Where the partition has several replicas, one of which may be slow.
    pub deadline: Monotonic,
}

/// One batch for one partition.
#[derive(Clone, Debug)]
pub struct AppendTo {
    /// Which partition.
    pub partition: PartitionId,
    /// One valid batch (`validate`).
    pub batch: Bytes,
    /// What its producer waits for.
    pub terms: Terms,
}

/// What became of a batch: as durable as its terms ask for; or not taken, or not known to be.
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
#[derive(Clone, Debug)]
pub struct ReadFrom {
    /// Which partition.
    pub partition: PartitionId,
    /// The caller's idea of the leader epoch; -1: none.
    pub current_leader_epoch: i32,
    /// The epoch of the last batch the caller has; -1: it does not say (KIP-595 fetches of
    /// replicas, and KIP-320).
    pub last_fetched_epoch: i32,
    /// A replica that follows may answer (KIP-392).
    pub may_follow: bool,
    /// Nodes that are nearer to the caller than this one: a leader sends it to one of them.
    pub nearer: Option<Arc<[i32]>>,
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
    /// The first offset that is not committed, as far as the replica knows.
    pub high_watermark: i64,
    /// A new leader does not know yet what clients were told before.
    pub is_behind: bool,
    /// The first offset of the log; -1 where a new leader does not know that yet.
    pub log_start: i64,
    /// Where the caller's log and this one part: (epoch, its end offset).
    pub diverging: Option<(i32, i64)>,
    /// The node that the caller is to read from instead.
    pub preferred: Option<i32>,
}

/// What became of a read.
pub type ReadResult = Result<Found, PartitionError>;
