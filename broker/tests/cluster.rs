//! Three real processes are one cluster: they form it, tell the same of it, refuse who does not
//! belong to it, and lose nothing that was acknowledged while any one of them is killed.
//!
//! - `VLTAVA_CLUSTER_ROUNDS` (3): kills of one node, each in turn.
//! - `VLTAVA_CLUSTER_PARTITIONS` (300): where there are to be many.
//! - `VLTAVA_CLUSTER_SEED`: of sizes and choices; printed.
//! - `VLTAVA_CLUSTER_ONLY`: which scenarios and clients, by a part of their names.
//! - `VLTAVA_OLDER_BIN`: an earlier build, which the cluster is upgraded from.
//! - `VLTAVA_CLUSTER_KEEP`: where it is set, data directories stay, with what the nodes said.
#![allow(
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails by panicking, and its numbers are small"
)]

#[path = "cluster/absences.rs"]
mod absences;
#[path = "cluster/check.rs"]
mod check;
#[path = "cluster/damage.rs"]
mod damage;
#[path = "cluster/described.rs"]
mod described;
#[path = "cluster/descriptors.rs"]
mod descriptors;
#[path = "cluster/disks.rs"]
mod disks;
#[path = "cluster/faults.rs"]
mod faults;
#[path = "cluster/fencing.rs"]
mod fencing;
#[path = "cluster/forming.rs"]
mod forming;
#[path = "cluster/group.rs"]
mod group;
#[path = "cluster/kills.rs"]
mod kills;
#[path = "cluster/many.rs"]
mod many;
#[path = "cluster/membership.rs"]
mod membership;
#[path = "cluster/namespaces.rs"]
mod namespaces;
#[path = "cluster/network.rs"]
mod network;
#[path = "cluster/nodes.rs"]
mod nodes;
#[path = "cluster/offsets.rs"]
mod offsets;
#[path = "cluster/presence.rs"]
mod presence;
#[path = "cluster/producer.rs"]
mod producer;
#[path = "cluster/promises.rs"]
mod promises;
#[path = "cluster/racks.rs"]
mod racks;
#[path = "cluster/reassign.rs"]
mod reassign;
#[path = "cluster/recover.rs"]
mod recover;
#[path = "cluster/relays.rs"]
mod relays;
#[path = "cluster/repeats.rs"]
mod repeats;
#[path = "cluster/riders.rs"]
mod riders;
#[path = "cluster/rides.rs"]
mod rides;
#[path = "cluster/script.rs"]
mod script;
#[path = "cluster/shards.rs"]
mod shards;
#[path = "cluster/steps.rs"]
mod steps;
mod support;
#[allow(dead_code, reason = "what is compared line by line is in the test `apis`")]
#[path = "apis/talk.rs"]
mod talk;
#[path = "cluster/throttles.rs"]
mod throttles;
#[path = "cluster/tool_moves.rs"]
mod tool_moves;
#[path = "cluster/tools.rs"]
mod tools;
#[path = "cluster/unclean.rs"]
mod unclean;
#[path = "cluster/versions.rs"]
mod versions;
#[path = "cluster/view.rs"]
mod view;
#[path = "cluster/work.rs"]
mod work;
