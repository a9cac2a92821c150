//! The server, room by room, from the ground up: a room names only rooms that stand above it in
//! this list.
// They panic where nobody reads any more.
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod config;
pub mod metrics;
pub mod runtime;
pub mod raft;
pub mod metadata;
pub mod machine;
pub mod peer;
pub mod partition;
pub mod groups;
pub mod cluster;
pub mod coordinator;
pub mod node;
pub mod handlers;
pub mod net;
pub mod admin;
pub mod shard;
pub mod screen;
pub mod server;
pub mod cli;
