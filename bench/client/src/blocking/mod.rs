//! The client over blocking sockets: for commands, which do one thing at a time.
//!
//! [`Link`] is one connection; [`Cluster`] has one for each broker it needs, knows the metadata,
//! and tries again what may succeed later.

mod address;
mod cluster;
mod link;

pub use address::Address;
pub use cluster::{Cluster, ClusterOptions};
pub use link::{Link, connect};
