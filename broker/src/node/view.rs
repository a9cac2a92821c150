//! The image as one shard sees it, and the way to the controller.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::Uuid;
use vltava_storage::LogEnvironment;

use crate::cluster::controller::{Controller, Input, Reply};
use crate::config::values::BrokerConfig;
use crate::coordinator::host::HostError;
use crate::coordinator::hosts::Hosts;
use crate::groups::machine::GroupMachine;
use crate::metadata::image::{Image, PartitionId};
use crate::partition::client::Partitions;
use crate::runtime::Runtime;
use crate::runtime::jobs::Jobs;
use crate::runtime::sync::Event;

/// The topic of group offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// What a node is made of, on one shard.
pub struct Parts<R: Runtime> {
    /// The shard's executor.
    pub runtime: R,
    /// Settings, fixed at start.
    pub config: Arc<BrokerConfig>,
    /// What the logs of this shard share.
    pub logs: Rc<LogEnvironment<R::Disk>>,
    /// The partitions of this node.
    pub partitions: Rc<Partitions<R>>,
    /// The group coordinators of this node.
    pub groups: Rc<Hosts<GroupMachine, R>>,
    /// The controller, where this node has it.
    pub controllers: Rc<Hosts<Controller, R>>,
    /// The same room on the other shards.
    pub jobs: Rc<Jobs<Node<R>>>,
}

/// This node, as one shard sees it.
pub struct Node<R: Runtime> {
    pub(super) parts: Parts<R>,
    image: RefCell<Arc<Image>>,
    /// On shard 0: below which offset of group 0 all shards have applied everything.
    applied: Cell<i64>,
    applied_more: Event,
    /// Whether this shard has applied a first image.
    pub(super) ready: Cell<bool>,
    pub(super) became_ready: Event,
}

impl<R: Runtime> Node<R> {
    /// A node without an image.
    pub fn new(parts: Parts<R>) -> Rc<Self> {
        Rc::new(Self {
            parts,
            image: RefCell::default(),
            applied: Cell::new(0),
            applied_more: Event::new(),
            ready: Cell::new(false),
            became_ready: Event::new(),
        })
    }

    /// The image as this shard holds it.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.borrow())
    }

    pub(super) fn set_image(&self, image: Arc<Image>) {
        *self.image.borrow_mut() = image;
    }

    /// Completes when this shard has applied its first image: its partitions are open.
    pub async fn ready(&self) {
        while !self.ready.get() {
            let listen = self.became_ready.listen();
            if !self.ready.get() {
                listen.await;
            }
        }
    }

    /// Asks the controller. Where it decided something, all shards of this node hold the image before this returns.
    pub async fn ask_controller(self: &Rc<Self>, input: Input) -> Result<Reply, ErrorCode> {
        let submitted = self.parts.controllers.submit(PartitionId::CLUSTER_METADATA, input).await;
        let reply = submitted.map_err(|error| match error {
            HostError::Loading | HostError::NotHere => ErrorCode::NOT_CONTROLLER,
            HostError::Lost(_) => ErrorCode::KAFKA_STORAGE_ERROR,
        })?;
        self.settled().await;
        Ok(reply)
    }

    /// Waits until all shards hold everything that group 0 has committed by now.
    async fn settled(self: &Rc<Self>) {
        let here = |node: &Rc<Self>| {
            let node = Rc::clone(node);
            async move {
                if let Ok(group) = node.parts.partitions.local(PartitionId::CLUSTER_METADATA) {
                    node.applied_to(group.high_watermark()).await;
                }
            }
        };
        if self.parts.jobs.own() == 0 {
            here(self).await;
        } else {
            // The only way not to come back is that the process stops.
            let _ = self.parts.jobs.start(0, here).await.await;
        }
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

    /// Creates a topic with default settings where it does not exist.
    pub async fn ensure_topic(self: &Rc<Self>, name: &str) -> Result<(), ErrorCode> {
        if self.image().topic(name).is_some() {
            return Ok(());
        }
        let input = Input::ensure_topic(name, self.random_uuid(), &self.parts.config);
        match self.ask_controller(input).await? {
            Reply::EnsureTopic(ErrorCode::NONE) => Ok(()),
            Reply::EnsureTopic(error) => Err(error),
            _ => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
        }
    }

    /// A random id, for what is to be made.
    pub fn random_uuid(&self) -> Uuid {
        let high = u128::from(self.parts.runtime.random_u64());
        Uuid(high << 64 | u128::from(self.parts.runtime.random_u64()))
    }
}
