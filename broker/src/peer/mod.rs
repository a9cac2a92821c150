//! Connections between the nodes of a cluster, on a listener of their own.
//!
//! Two nodes have one *session* at a time: a connection for heartbeats between their shards 0, and
//! a *lane* for each shard, on which it says what its groups have to say. What is said in a session
//! arrives, in order, or the session ends on both sides; then everybody is told, and a new session
//! gets a higher number. One connection that breaks ends the whole session.
//!
//! - [`peers`]: what the rooms above use, on each shard; [`events`]: what they are told.
//! - [`message`]: what replicas say to each other; this room understands none of it.
//! - [`greeting`]: who talks to whom, and why not. `dial` and `accept`: how sessions come about;
//!   `session`: how they live and end; `desk`: what shard 0 knows of each node.
//! - `link`, `lane`: one shard's part of a session. `outbox`: what goes first; `window`: who waits
//!   for room; `liveness`: who counts as dead. [`options`]: times, sizes, limits.
//! - [`frame`], `codec`: bytes. `schema/`: the flatbuffers, and the Rust that flatc makes of them
//!   (`broker/codegen`).
//!
//! Sessions are the node's, and are run by shard 0; a [`peers::Peers`] and its links are one
//! shard's. docs/protocol-between-nodes.md has the bytes and the rules.

mod accept;
mod codec;
mod desk;
mod dial;
mod end;
pub mod events;
pub mod frame;
pub mod greeting;
mod lane;
mod link;
mod liveness;
pub mod message;
pub mod options;
mod outbox;
pub mod peers;
#[path = "schema/peer_generated.rs"]
#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    deprecated,
    missing_docs,
    unsafe_op_in_unsafe_fn,
    unused_imports,
    reason = "made by flatc"
)]
mod schema;
mod session;
#[cfg(test)]
mod tests;
mod window;

pub use self::desk::NodeStatus;
pub use self::end::SessionEnd;
pub use self::link::SessionId;
