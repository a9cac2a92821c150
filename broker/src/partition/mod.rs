//! One replica of one partition: its log, its raft group, who waits for it, what fetches remember.
//!
//! A replica lives on the one shard that owns its partition; [`client::Partitions`] is every
//! shard's way to all partitions of the node, wherever they live. Errors here speak of logs, not of
//! Kafka: handlers choose Kafka's codes.
//!
//! - [`replica`]: one log with its raft group; [`waiters`]: who waits for its commits; [`in_sync`]:
//!   whose replicas have all; [`throttle`]: how fast the others are sent what they lack;
//!   [`flights`]: how much of it their disks may be behind; [`copy`]: what they take as it is.
//! - [`surroundings`]: what the replicas of a shard share; [`elections`]: how many of their groups
//!   ask for votes at a time; [`standstill`]: whether they have missed something.
//! - [`client`]: the same calls here and on another shard; [`routing`]: on which; [`request`],
//!   [`error`]: what they say.
//! - [`validate`], [`append`]: what producers send. [`fetch`], [`fetch_session`], [`lookup`]: what
//!   consumers ask.
//! - [`replay`]: a log of the broker's own records. [`left`]: what becomes of a partition whose
//!   majority is gone. [`kept`]: what a disk keeps of a group beside its log.
//!
//! Invariants (`docs/invariants.md` says where each is asserted):
//! - An append is answered only when the high watermark has reached its end; the high watermark
//!   only follows flushed ends.
//! - A duplicate of an idempotent batch is answered when the original is committed, never before.
//! - Nothing at or above the high watermark is served.
//! - Work of one connection on one partition is enqueued in the order of its requests:
//!   [`replica::Replica::append`] does it without waiting; also while the partition moves to
//!   another shard ([`client::Partitions::when_here`]).
//! - At most one shard has a partition's log open for writing.

pub mod append;
pub mod client;
pub mod copy;
pub mod elections;
pub mod error;
pub mod fetch;
pub mod fetch_session;
pub mod flights;
pub mod in_sync;
pub mod kept;
pub mod left;
pub mod lookup;
pub mod replay;
pub mod replica;
pub mod request;
pub mod routing;
pub mod standstill;
pub mod surroundings;
#[cfg(test)]
#[cfg(feature = "simulator")]
mod tests;
pub mod throttle;
pub mod validate;
pub mod waiters;
