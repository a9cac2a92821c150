//! The host that runs any [`crate::machine::Machine`] over a partition.
//!
//! Lives on the shard that owns the partition. It loads the log by replay, hands inputs to the
//! machine one at a time, appends the records of each outcome as one batch, replays them at once,
//! and lets replies leave when what they saw is committed. Where an append fails, the
//! machine's state is dropped and loaded again: whoever waited is told so.
//!
//! [`host`] runs one machine; [`hosts`] is every shard's way to all of a kind; `timers` is what a
//! machine waits for.

pub mod host;
pub mod hosts;
pub mod timers;
