//! The network: listeners, connections, framing, answers in order, back-pressure.
//!
//! Lives on every shard; a connection stays on the shard that accepted it. Invariants:
//! - Answers leave in the order of their requests, whatever order they were ready in.
//! - A connection does not start its next request before this one's work is in order (`handlers`
//!   says when).
//! - Memory for a request is charged to the shard's [`budget::Budget`] as its bytes arrive, and
//!   given back when its answer has left; so is the number of requests a connection has under way
//!   bounded.
//! - Whatever a peer sends ends in an answer or in a closed connection and a (rate-limited) line in
//!   the log.

pub mod budget;
pub mod connection;
pub mod listener;
