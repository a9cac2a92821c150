//! The network: listeners, connections, framing, answers in order, back-pressure.
//!
//! Lives on every shard. A connection is served by one at a time: by that which accepted it, later
//! by that of the partitions it uses (see `hand_over`). `listener` accepts, within the limits that
//! `counts` keeps for the node. Invariants:
//! - Answers leave in the order of their requests, whatever order they were ready in.
//! - A connection does not start its next request before this one's work is in order (`handlers`
//!   says when).
//! - Memory for a request is charged to the shard's [`budget::Budget`] as its bytes arrive, and
//!   given back when its answer has left and no log holds its bytes, whatever becomes of the
//!   connection; so is the number of requests a connection has under way bounded.
//! - What a connection ended for first is what is logged and counted.
//! - Whatever a peer sends ends in an answer or in a closed connection and a (rate-limited) line in
//!   the log.

mod answers;
pub mod budget;
pub mod connection;
pub mod counts;
mod hand_over;
pub mod listener;
