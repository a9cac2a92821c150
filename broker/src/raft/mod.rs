//! Replication, as a pure function of what it is told: inputs in, actions out. No clock, no I/O, no
//! async.
//!
//! One [`node::Node`] is one replica's view of one group; it lives on the shard that owns the
//! replica. A group's log *is* the partition's log: an entry is a record batch, its index is its
//! offset, its term is the batch's leader epoch.
//!
//! Today a group has one voter, which leads from the moment its log is open. Rules that already
//! hold, and that more voters will not change:
//! - The epoch of a new leader is above every epoch in the log (`node`).
//! - The high watermark is what [`quorum::flushed_on`] says of flushed ends: never what is merely
//!   written, never above this replica's own flushed end, and never back.
//!
//! Sources: Ongaro, *Consensus: bridging theory and practice* (2014); KIP-101 (leader epochs);
//! KIP-595.

pub mod message;
pub mod node;
pub mod quorum;
