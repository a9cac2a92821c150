//! Builds the rooms of one shard and wires them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use vltava_protocol::types::{Str, Uuid};
use vltava_storage::{EnvironmentOptions, Log, LogEnvironment, LogOptions, Opened, StorageError};

use crate::cluster::controller::{Controller, Input};
use crate::config::values::BrokerConfig;
use crate::coordinator::hosts::Hosts;
use crate::groups::machine::GroupMachine;
use crate::handlers::context::Services;
use crate::metadata::image::PartitionId;
use crate::metadata::shard_table::ShardTable;
use crate::net::budget::Budget;
use crate::net::connection::ConnectionOptions;
use crate::net::listener::{self, Acceptor};
use crate::node::view::{Node, Parts};
use crate::node::{follow, upkeep};
use crate::partition::client::Partitions;
use crate::partition::fetch_session::FetchSessions;
use crate::partition::replica::Replica;
use crate::runtime::jobs::{Jobs, Message};
use crate::runtime::mesh::{MeshPort, mesh};
use crate::runtime::{Network, Queue, Runtime};

/// Messages that may wait between two shards, in each room.
const MESH_CAPACITY: usize = 1024;
/// The log of group 0.
const METADATA_LOG: &str = "__cluster_metadata-0";

/// One shard's ports: one for each room that spans shards.
pub struct Ports<R: Runtime> {
    partitions: MeshPort<Message<Partitions<R>>>,
    groups: MeshPort<Message<Hosts<GroupMachine, R>>>,
    controllers: MeshPort<Message<Hosts<Controller, R>>>,
    node: MeshPort<Message<Node<R>>>,
}

/// The ports of so many shards.
pub fn ports<R: Runtime>(shards: usize) -> Vec<Ports<R>> {
    let partitions = mesh(shards, MESH_CAPACITY);
    let groups = mesh(shards, MESH_CAPACITY);
    let controllers = mesh(shards, MESH_CAPACITY);
    let node = mesh(shards, MESH_CAPACITY);
    partitions
        .into_iter()
        .zip(groups)
        .zip(controllers)
        .zip(node)
        .map(|(((partitions, groups), controllers), node)| Ports {
            partitions,
            groups,
            controllers,
            node,
        })
        .collect()
}

/// What a shard is given beside its ports: the same for all.
#[derive(Clone)]
pub struct Blueprint {
    /// Settings.
    pub config: Arc<BrokerConfig>,
    /// Who this node is: written when the directory was formatted.
    pub identity: Identity,
    /// Memory of one shard, in bytes: for requests, and for the batch cache.
    pub memory_bytes: usize,
}

/// Who a node is. Made once, when its data directory is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster_id: Uuid,
    /// Its data directory: a wiped disk is another disk.
    pub disk_id: Uuid,
}

/// Why a shard cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ShardFailure {
    /// A listener cannot be opened.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        error: std::io::Error,
    },
    /// A log of the node's own cannot be used.
    #[error("the log of group 0 ({METADATA_LOG}) cannot be used: {0}")]
    Group0(String),
}

/// The rooms of one shard.
pub struct Shard<R: Runtime> {
    /// What handlers use.
    pub services: Rc<Services<R>>,
    logs: Rc<LogEnvironment<R::Disk>>,
    controllers: Rc<Hosts<Controller, R>>,
    blueprint: Blueprint,
}

impl<R: Runtime> Shard<R> {
    /// Builds the rooms and starts their loops. Nothing is read or written yet.
    pub fn build(runtime: R, ports: Ports<R>, blueprint: Blueprint) -> Rc<Self> {
        let (own, count) = (ports.node.shard(), ports.node.shards());
        let config = Arc::clone(&blueprint.config);
        let options = environment_options(&config, blueprint.memory_bytes);
        let logs = LogEnvironment::new(runtime.disk().clone(), options);
        let shards = NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        let table = Arc::new(ShardTable::new(shards, BTreeMap::new()));
        let jobs = Jobs::new(ports.partitions);
        let partitions = Partitions::new(Rc::clone(&jobs), table);
        serve(&runtime, jobs, &partitions);
        let jobs = Jobs::new(ports.groups);
        let groups = Hosts::new(runtime.clone(), Rc::clone(&jobs), Rc::clone(&partitions));
        serve(&runtime, jobs, &groups);
        let jobs = Jobs::new(ports.controllers);
        let controllers = Hosts::new(runtime.clone(), Rc::clone(&jobs), Rc::clone(&partitions));
        serve(&runtime, jobs, &controllers);
        let jobs = Jobs::new(ports.node);
        let node = Node::new(Parts {
            runtime: runtime.clone(),
            config: Arc::clone(&config),
            logs: Rc::clone(&logs),
            partitions: Rc::clone(&partitions),
            groups: Rc::clone(&groups),
            controllers: Rc::clone(&controllers),
            jobs: Rc::clone(&jobs),
        });
        serve(&runtime, jobs, &node);
        let sessions = usize::try_from(config.fetch_sessions_max).unwrap_or(usize::MAX) / count;
        let services = Rc::new(Services {
            runtime,
            config,
            node,
            partitions,
            groups,
            fetch_sessions: RefCell::new(FetchSessions::new(own, sessions.max(1))),
            decompressor: RefCell::default(),
            producer_ids: RefCell::new(0..0),
        });
        Rc::new(Self { services, logs, controllers, blueprint })
    }

    /// Opens group 0 and follows it: to be called on shard 0. Completes only with an error.
    pub async fn lead(self: &Rc<Self>) -> Result<(), ShardFailure> {
        let group = self.open_group0().await.map_err(|e| ShardFailure::Group0(e.to_string()))?;
        let id = PartitionId::CLUSTER_METADATA;
        self.services.partitions.ready(id, Rc::clone(&group));
        let controller = Controller::new(Arc::clone(&self.services.config));
        let host = self.controllers.add(id, controller, Rc::clone(&group));
        host.loaded().await;
        self.register().await?;
        let followed = follow::follow(Rc::clone(&self.services.node), group).await;
        followed.map_err(ShardFailure::Group0)
    }

    async fn open_group0(&self) -> Result<Rc<Replica<R>>, StorageError> {
        let options = LogOptions {
            // The controller writes its live state again when a segment is closed; nothing else deletes here.
            segment_bytes: 16 * 1024 * 1024,
            deletes: false,
            ..LogOptions::default()
        };
        let id = PartitionId::CLUSTER_METADATA;
        let opened = Log::open_or_create(&self.logs, METADATA_LOG, id.topic_id, options).await?;
        let log = match opened {
            Opened::Ready(log) => log,
            Opened::Corrupt(corrupt) => return Err(corrupt.corruption().clone().into()),
        };
        let runtime = self.services.runtime.clone();
        Ok(Replica::new(runtime, METADATA_LOG.to_owned(), id.topic_id, log, 1))
    }

    /// Tells the controller who this node is: forms the cluster where there is none yet.
    async fn register(&self) -> Result<(), ShardFailure> {
        let Identity { cluster_id, disk_id } = self.blueprint.identity;
        let input = Input::register(&self.services.config, cluster_id, disk_id);
        let registered = self.controllers.submit(PartitionId::CLUSTER_METADATA, input).await;
        registered.map(drop).map_err(|error| ShardFailure::Group0(error.to_string()))
    }

    /// Opens this shard's part of every listener. Nothing is accepted yet.
    pub async fn listen(&self) -> Result<Vec<Acceptor<R>>, ShardFailure> {
        let mut acceptors = Vec::new();
        for listener in &self.services.config.listeners {
            let name = Str::from(listener.bind.name.as_str());
            for address in listener::addresses(&listener.bind) {
                let address = address.map_err(|error| ShardFailure::Listen {
                    address: listener.bind.to_string(),
                    error,
                })?;
                let opened = self.services.runtime.network().listen(address).await;
                let socket = opened.map_err(|error| ShardFailure::Listen {
                    address: address.to_string(),
                    error,
                })?;
                acceptors.push(Acceptor { socket, name: name.clone() });
            }
        }
        Ok(acceptors)
    }

    /// Accepts connections, and looks after the logs, once this shard's partitions are open.
    pub async fn serve(self: &Rc<Self>, acceptors: Vec<Acceptor<R>>) {
        self.services.node.ready().await;
        let config = &self.services.config;
        let request_bytes_max = usize::try_from(config.request_bytes_max).unwrap_or(usize::MAX);
        let options = ConnectionOptions { request_bytes_max, in_flight_max: 64 };
        let budget = Budget::new(self.blueprint.memory_bytes / 4);
        let runtime = &self.services.runtime;
        let connections = listener::Connections::new(&self.services, budget, options);
        for acceptor in acceptors {
            let connections = Rc::clone(&connections);
            runtime.spawn(Queue::Foreground, connections.accept(acceptor));
        }
        runtime.spawn(Queue::Control, connections.close_idle());
        runtime.spawn(Queue::Background, upkeep::run(Rc::clone(&self.services.node)));
    }

    /// Closes everything in order: connections are the caller's to have ended.
    pub async fn close(&self) {
        self.services.groups.stop();
        self.controllers.stop();
        for (_, replica) in self.services.partitions.all_local() {
            if let Err(error) = replica.close().await {
                tracing::error!(partition = replica.name(), %error, "a log did not close cleanly; it will be recovered at the next start");
            }
        }
    }
}

fn serve<R: Runtime, T: 'static>(runtime: &R, jobs: Rc<Jobs<T>>, room: &Rc<T>) {
    runtime.spawn(Queue::Foreground, jobs.serve(runtime.clone(), Rc::clone(room)));
}

fn environment_options(config: &BrokerConfig, memory_bytes: usize) -> EnvironmentOptions {
    EnvironmentOptions {
        write_bytes_max: usize::try_from(config.write_bytes_max).unwrap_or(usize::MAX),
        cache_bytes_max: memory_bytes / 2,
        reserve_bytes: config.disk_reserve_bytes,
        ..EnvironmentOptions::default()
    }
}
