//! The cluster as every node sees it. Pure: no I/O, no clock, no async.
//!
//! - [`image`]: topics, partitions, nodes, settings: an immutable image, made from the records of
//!   group 0 and cheap to clone ([`sorted_map`]), so that each shard holds one and a change costs
//!   little.
//! - [`records`]: what a record says, and what it does to an image; [`snapshot`]: an image as
//!   records; [`delta`]: how two images differ.
//! - [`leaders`]: who leads what, at which epoch, with which in-sync set. Not part of the image:
//!   leaders are announced, and the highest epoch stands.
//! - [`features`]: the cluster's feature level, and which levels a release serves.
//! - [`shard_table`]: which shard of this node owns a partition; [`shard_balance`]: which one
//!   should go to another.
//! - [`topic_name`]: which names a topic may have.
//!
//! The image and the leaders are the cluster's view, the shard table the node's; all three are
//! values that any shard may hold and send.

pub mod delta;
pub mod features;
pub mod image;
pub mod leaders;
pub mod records;
pub mod shard_balance;
pub mod shard_table;
pub mod snapshot;
pub mod sorted_map;
pub mod topic_name;
