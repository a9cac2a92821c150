//! This node's part in the cluster: follows group 0, makes the local replicas match the image, and
//! is the way to the controller.
//!
//! [`view::Node`] lives on every shard and holds that shard's image. Group 0 lives on shard 0:
//! [`lead`] opens it and registers the node there, [`follow`] applies what it has committed, one
//! image after the other, to all shards; [`reconcile`] opens and removes the replicas of a shard.
//!
//! - [`identity`]: who this node is; [`announce`]: who leads what, told to all shards.
//! - [`logs`], [`options`]: how a replica's log is opened, and with which options.
//! - [`upkeep`], [`verify`]: what logs need now and then, and the look for bit rot.
//! - [`group_offsets`]: offsets of topics that were deleted end, too.
//!
//! Invariants:
//! - A shard's image never goes back, and holds only what group 0 has committed.
//! - A change by the controller is answered when all shards of this node hold it, and have done
//!   what it asks of them.

pub mod announce;
pub mod follow;
pub mod group_offsets;
pub mod identity;
pub mod lead;
pub mod logs;
pub mod options;
pub mod reconcile;
pub mod upkeep;
pub mod verify;
pub mod view;

pub use self::view::Node;
