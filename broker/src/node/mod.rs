//! This node's part in the cluster: follows group 0, makes the local replicas match the image, and
//! is the way to the controller.
//!
//! [`view::Node`] lives on every shard and holds that shard's image. Group 0 lives on shard 0:
//! [`lead`] opens it and registers the node there, [`follow`] applies what it has committed, one
//! image after the other, to all shards; [`reconcile`] opens and removes the replicas of a shard.
//!
//! - `across`: what a shard has the others do. `controller`: the way to it, wherever it is;
//!   `ensure_topic`: topics that are made where nobody described them.
//! - [`admission`]: with whom this node talks; [`voters`]: who is in group 0;
//!   [`steward`]: what is done where nobody asks.
//! - [`form`]: how nodes that were in no cluster come to be in one; [`identity`]: who this node is.
//! - [`level`]: the cluster's feature level, and whether this release serves it.
//! - [`peers`]: what other nodes are asked and answered; [`messages`]: as bytes. [`announce`]: who
//!   leads what, told to all shards.
//! - [`presence`]: who is there; [`quorum`]: who is in group 0, for clients; [`tally`]: how the
//!   cluster stands, for whoever watches.
//! - [`hand_over`]: leaders leave this node in order.
//! - [`members`]: changes of a partition's replicas, led where the partition is; [`parting`]:
//!   replicas that this node is to keep no more; `deleted`: logs of topics that are gone.
//! - [`named`]: leaders by decision, where a majority is gone; [`recover`]: group 0
//!   itself without one.
//! - [`balance`]: leaders go back where they are preferred.
//! - [`logs`], [`options`]: how a replica's log is opened, and with which options; `begin_anew`:
//!   what becomes of one that is damaged.
//! - [`shards`]: partitions go from one shard to another while they are served; [`shard_balance`]:
//!   when they do by themselves.
//! - [`upkeep`], [`verify`], `mend`: what logs need now and then, the look for bit rot, and what is
//!   made good; [`room`]: a node without space lets others lead; `throttles`: how fast replicas
//!   that lag are sent what they lack.
//! - [`group_offsets`]: offsets of topics that were deleted end, too.
//!
//! Invariants:
//! - A shard's image never goes back, and holds only what group 0 has committed.
//! - A change by the controller is answered when all shards of this node hold it, and have done
//!   what it asks of them.

mod across;
pub mod admission;
pub mod announce;
pub mod balance;
mod begin_anew;
mod controller;
mod deleted;
mod ensure_topic;
pub mod follow;
pub mod form;
pub mod group_offsets;
pub mod hand_over;
pub mod identity;
pub mod lead;
pub mod level;
pub mod logs;
pub mod members;
mod mend;
pub mod messages;
pub mod named;
pub mod options;
pub mod parting;
pub mod peers;
pub mod presence;
pub mod quorum;
pub mod reconcile;
pub mod recover;
pub mod room;
pub mod shard_balance;
pub mod shards;
pub mod steward;
pub mod tally;
mod throttles;
pub mod upkeep;
pub mod verify;
pub mod view;
pub mod voters;

pub use self::view::Node;
