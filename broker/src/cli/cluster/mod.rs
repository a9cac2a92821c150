//! `vltava cluster`: the nodes of a cluster, as operators see and change them.
//!
//! - `view`: what is known of the cluster, from Kafka's own requests to any of its nodes.
//! - `status`: shows it.
//! - `change`: add, drain and remove a node, and wait until that is done.
//! - `balance`: spread what there is evenly over the nodes.
//! - `recover`: go on without nodes that are gone for good.

mod balance;
mod change;
mod command;
mod recover;
mod status;
mod view;

pub(super) use command::{ClusterCommand, run};
