//! This node as one shard sees it: what it is made of, and the image.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use futures_util::lock::Mutex;
use vltava_protocol::types::Uuid;
use vltava_storage::LogEnvironment;

use super::admission::Addresses;
use super::identity::Identity;
use super::level::HeardLevels;
use super::peers::PeerParts;
use super::presence::Presence;
use super::quorum::SeenMembers;
use super::reconcile::Taken;
use super::shards::Moves;
use crate::cluster::controller::Controller;
use crate::config::values::BrokerConfig;
use crate::coordinator::hosts::Hosts;
use crate::groups::{GroupMachine, Memory};
use crate::metadata::features::Levels;
use crate::metadata::image::{Image, PartitionId};
use crate::metadata::leaders::Leaders;
use crate::partition::client::Partitions;
use crate::partition::replica::Replica;
use crate::partition::surroundings::Surroundings;
use crate::runtime::jobs::Jobs;
use crate::runtime::sync::{Event, Latch};
use crate::runtime::{Monotonic, Runtime};

/// What a node is made of, on one shard.
pub struct Parts<R: Runtime> {
    /// The shard's executor.
    pub runtime: R,
    /// The feature levels that this process serves.
    pub levels: Levels,
    /// Settings, fixed at start.
    pub config: Arc<BrokerConfig>,
    /// What the logs of this shard share.
    pub logs: Rc<LogEnvironment<R::Disk>>,
    /// The partitions of this node.
    pub partitions: Rc<Partitions<R>>,
    /// The group coordinators of this node.
    pub groups: Rc<Hosts<GroupMachine, R>>,
    /// What the group coordinators of this shard hold, and may hold, in bytes.
    pub group_memory: Memory,
    /// See `group_memory`.
    pub group_memory_bytes_max: usize,
    /// The controller, where this node has it.
    pub controllers: Rc<Hosts<Controller, R>>,
    /// The same room on the other shards.
    pub jobs: Rc<Jobs<Node<R>>>,
    /// The way to the other nodes; `None` where this one is to be alone.
    pub peers: Option<PeerParts<R>>,
}

/// What all shards do together as the broker stops: none begins the next before all are through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Leaders are handed over.
    HandedOver,
    /// Connections are closed.
    Drained,
}

const STAGES: [Stage; 2] = [Stage::HandedOver, Stage::Drained];

/// How many shards are through a stage.
#[derive(Default)]
struct Arrivals {
    count: Cell<usize>,
    all: Latch,
}

/// This node, as one shard sees it.
pub struct Node<R: Runtime> {
    pub(super) parts: Parts<R>,
    pub(super) surroundings: OnceCell<Rc<Surroundings<R>>>,
    /// On shard 0: who this node is, once that is known.
    pub(super) identity: RefCell<Option<Identity>>,
    pub(super) heard_levels: HeardLevels,
    image: RefCell<Arc<Image>>,
    /// Who leads what, as this shard has heard.
    pub(super) leaders: RefCell<Leaders>,
    /// Which disk each other node had when it was last heard of.
    pub(super) disks: RefCell<BTreeMap<i32, Uuid>>,
    /// What of this shard is to be announced next.
    pub(super) to_announce: RefCell<BTreeSet<PartitionId>>,
    /// It was heard of a leader.
    pub(super) leaders_heard: Event,
    /// Who is there, as this shard has heard.
    pub(super) presence: RefCell<Presence>,
    /// Nodes that have said that they are about to stop.
    pub(super) leaving_peers: RefCell<BTreeSet<i32>>,
    /// On shard 0: below which offset of group 0 all shards have applied everything.
    applied: Cell<i64>,
    applied_more: Event,
    /// On shard 0 of the node that leads group 0.
    pub(super) last_seen: RefCell<SeenMembers>,
    /// On shard 0: where other nodes are looked for,
    pub(super) addresses: RefCell<Addresses>,
    /// and where the image has them.
    pub(super) image_addresses: RefCell<Addresses>,
    /// On shard 0: the last image had this node.
    pub(super) was_there: Cell<bool>,
    /// On shard 0 of the node that leads group 0: since when it has not seen which nodes.
    pub(super) absent_since: RefCell<BTreeMap<i32, Monotonic>>,
    /// Held while partitions are opened, created or removed.
    pub(super) reconciling: Arc<Mutex<()>>,
    /// What the moves of partitions between shards need.
    pub(super) moves: Moves,
    /// A partition could not be opened for want of space or descriptors.
    pub(super) awaits_room: Cell<bool>,
    /// What a newer image asks for, once all shards have removed what is gone.
    pub(super) taken: RefCell<Taken>,
    /// Partitions of this shard whose change of replicas is being led here.
    pub(super) driving: RefCell<BTreeSet<PartitionId>>,
    /// Replicas of this shard that the image names no more, with what is left of them.
    pub(super) parting: RefCell<BTreeMap<PartitionId, Option<Rc<Replica<R>>>>>,
    /// Partitions whose replica this process opens for a second time.
    pub(super) reopened: RefCell<BTreeSet<PartitionId>>,
    /// Offsets of damaged batches, as the last pass over each log found them (`verify`).
    pub(super) damage: RefCell<BTreeMap<PartitionId, Vec<i64>>>,
    /// This shard has applied a first image: its partitions are open.
    pub ready: Latch,
    /// This shard accepts connections.
    pub serving: Latch,
    /// How far the shards are, as the broker stops.
    stopping: BTreeMap<Stage, Arrivals>,
}

impl<R: Runtime> Node<R> {
    /// A node without an image.
    pub fn new(parts: Parts<R>) -> Rc<Self> {
        Rc::new(Self {
            parts,
            surroundings: OnceCell::new(),
            identity: RefCell::default(),
            disks: RefCell::default(),
            heard_levels: HeardLevels::default(),
            image: RefCell::default(),
            leaders: RefCell::default(),
            to_announce: RefCell::default(),
            leaders_heard: Event::new(),
            presence: RefCell::default(),
            leaving_peers: RefCell::default(),
            applied: Cell::new(0),
            applied_more: Event::new(),
            last_seen: RefCell::default(),
            addresses: RefCell::default(),
            image_addresses: RefCell::default(),
            was_there: Cell::new(false),
            absent_since: RefCell::default(),
            reconciling: Arc::default(),
            moves: Moves::default(),
            awaits_room: Cell::new(false),
            taken: RefCell::default(),
            driving: RefCell::default(),
            parting: RefCell::default(),
            reopened: RefCell::default(),
            damage: RefCell::default(),
            ready: Latch::default(),
            serving: Latch::default(),
            stopping: STAGES.map(|stage| (stage, Arrivals::default())).into(),
        })
    }

    /// This node's number.
    pub fn node_id(&self) -> i32 {
        self.parts.config.node_id
    }

    /// The feature levels that this process serves.
    pub fn levels(&self) -> Levels {
        self.parts.levels
    }

    /// The image as this shard holds it.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.borrow())
    }

    pub(super) fn set_image(&self, image: Arc<Image>) {
        *self.image.borrow_mut() = image;
    }

    /// This shard has done its part of a stage: tells all shards, and completes when those of all
    /// have. Each tells and none asks: a shard ends once it has heard of all, and would answer no
    /// more.
    pub async fn all_through(self: &Rc<Self>, stage: Stage) {
        for shard in 0..self.parts.jobs.count() {
            if shard == self.parts.jobs.own() {
                self.count_through(stage);
            } else {
                let tell = move |node: &Rc<Self>| {
                    node.count_through(stage);
                    std::future::ready(())
                };
                drop(self.parts.jobs.start(shard, tell).await);
            }
        }
        if let Some(arrivals) = self.stopping.get(&stage) {
            arrivals.all.wait().await;
        }
    }

    fn count_through(&self, stage: Stage) {
        if let Some(arrivals) = self.stopping.get(&stage) {
            arrivals.count.set(arrivals.count.get() + 1);
            if arrivals.count.get() == self.parts.jobs.count() {
                arrivals.all.set();
            }
        }
    }

    /// Completes when all shards accept connections.
    pub async fn all_serving(self: &Rc<Self>) {
        // A shard that has ended is waited for by nobody: the process stops.
        self.on_all(|node| async move { node.serving.wait().await }).await;
    }

    /// Waits until all shards hold everything that group 0 has committed by now.
    pub(super) async fn settled(self: &Rc<Self>) {
        self.settled_to(0).await;
    }

    /// The same, and what stands below this offset.
    pub(super) async fn settled_to(self: &Rc<Self>, end: i64) {
        // The only way not to come back is that the process stops.
        self.on(0, move |node| async move {
            if let Ok(group) = node.parts.partitions.local(PartitionId::CLUSTER_METADATA) {
                node.applied_to(group.high_watermark().max(end)).await;
            }
        })
        .await;
    }

    async fn applied_to(&self, offset: i64) {
        while self.applied.get() < offset {
            let listen = self.applied_more.listen();
            if self.applied.get() < offset {
                listen.await;
            }
        }
    }

    pub(super) fn set_applied(&self, offset: i64) {
        assert!(offset >= self.applied.get(), "what the shards have applied went back");
        self.applied.set(offset);
        self.applied_more.notify();
    }

    /// Whether less than the reserve is free, as far as is known: then clients create nothing,
    /// since what they would create could not be written to, or not be opened at all.
    pub fn is_low_on_space(&self) -> bool {
        self.parts.logs.is_low()
    }

    /// A random id, for what is to be made.
    pub fn random_uuid(&self) -> Uuid {
        let high = u128::from(self.parts.runtime.random_u64());
        Uuid(high << 64 | u128::from(self.parts.runtime.random_u64()))
    }
}
