//! The controller: the machine of group 0, which decides what the cluster is made of. Pure: no I/O,
//! no clock, no async, no randomness (ids are made from random bits that come with the input).
//!
//! Lives over `__cluster_metadata-0`, in the view of the whole cluster, on shard 0 of the node that
//! leads it. What it decides becomes records ([`crate::metadata::records`]); its state ([`state`])
//! is the image that they make. A request gets one answer and one batch of records: either all that
//! it decided is in the log or nothing.
//!
//! - [`controller`]: what it is asked and what it answers; `refusal`: a "no".
//! - [`create_topics`], [`delete_topics`], [`create_partitions`], [`alter_settings`]: one request
//!   each, with Kafka's error codes and words.
//! - [`reassign`]: changes of a partition's replicas, and when one is done.
//! - [`name_leader`]: a leader by decision, where a majority is gone.
//! - `features`: raising the feature level.
//! - [`nodes`]: forming the cluster, registering nodes, blocks of producer ids.
//! - [`node_settings`]: what is to become of a node; [`quorum`]: who is to be in group 0.
//! - [`dynamic_settings`]: settings of nodes that change while they run.
//! - [`evacuate`]: what moves without anybody asking.
//! - [`wire`]: what is asked and answered, as bytes between nodes.
//! - [`placement`]: which nodes keep a new partition; `new_partitions` asks it, or the client.
//!   [`spread`]: what has to move so that those that are there are spread evenly.

pub mod alter_settings;
pub mod controller;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_topics;
pub mod dynamic_settings;
pub mod evacuate;
mod features;
pub mod name_leader;
mod new_partitions;
pub mod node_settings;
pub mod nodes;
pub mod placement;
pub mod quorum;
pub mod reassign;
mod refusal;
pub mod spread;
pub mod state;
pub mod wire;
