//! Builds the rooms of one shard and wires them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::{StreamExt, stream};
use vltava_protocol::types::Str;
use vltava_storage::io::Disk;
use vltava_storage::{
    EnvironmentOptions, LogEnvironment, StorageEvent, load_notes, remove_leftovers,
};

use crate::admin;
use crate::admin::server::ProcessProbe;
use crate::admin::view::View;
use crate::cluster::controller::Controller;
use crate::config::listeners::Endpoint;
use crate::config::values::BrokerConfig;
use crate::coordinator::hosts::Hosts;
use crate::groups::{GroupMachine, Memory as GroupMemory};
use crate::handlers::context::Services;
use crate::machine::Machine;
use crate::metadata::features::Levels;
use crate::metadata::image::{NodeEndpoint, PeerEndpoint};
use crate::metadata::shard_table::ShardTable;
use crate::metrics::{Memory, ShardMetrics};
use crate::net::budget::Budget;
use crate::net::connection::{Common, ConnectionOptions};
use crate::net::counts::ConnectionCounts;
use crate::net::listener::{self, Acceptor, Connections};
use crate::node::admission::PEER_LISTENER;
use crate::node::level::Ended;
use crate::node::peers::PeerParts;
use crate::node::view::{Node, Parts, Stage};
use crate::node::{lead, shard_balance, upkeep, verify};
use crate::partition::client::Partitions;
use crate::partition::fetch_session::FetchSessions;
use crate::partition::surroundings::GroupPeers;
use crate::runtime::jobs::{Jobs, Message};
use crate::runtime::mesh::{MeshPort, mesh};
use crate::runtime::{Listener, Network, Queue, Runtime};

/// Messages that may wait between two shards: requests of clients for partitions.
const PARTITION_MESSAGES_MAX: usize = 1024;
/// The same in each other room, where there are few.
const ROOM_MESSAGES_MAX: usize = 64;
/// Requests that a connection may have under way.
const IN_FLIGHT_MAX: usize = 64;
/// How long a shard waits for the others at each stage when the broker stops: longer than that may
/// take.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(15);
/// Logs that a shard closes side by side: each waits for the disk several times.
const CLOSED_SIDE_BY_SIDE: usize = 16;
/// Least and most memory of a shard for older ranges that are read: a few readers ahead of whom it
/// reads, up to as much as they can make use of.
const READ_BYTES_MIN: usize = 4 << 20;
const READ_BYTES_MAX: usize = 32 << 20;

/// One shard's ports: one for each room that spans shards.
pub struct Ports<R: Runtime> {
    partitions: MeshPort<Message<Partitions<R>>>,
    groups: MeshPort<Message<Hosts<GroupMachine, R>>>,
    controllers: MeshPort<Message<Hosts<Controller, R>>>,
    node: MeshPort<Message<Node<R>>>,
    peers: MeshPort<Message<GroupPeers<R>>>,
    views: MeshPort<Message<View<R>>>,
    connections: MeshPort<Message<Connections<R>>>,
}

/// The ports of so many shards.
pub fn ports<R: Runtime>(shards: usize) -> Vec<Ports<R>> {
    let partitions = mesh(shards, PARTITION_MESSAGES_MAX);
    let groups = mesh(shards, ROOM_MESSAGES_MAX);
    let controllers = mesh(shards, ROOM_MESSAGES_MAX);
    let node = mesh(shards, ROOM_MESSAGES_MAX);
    let peers = mesh(shards, PARTITION_MESSAGES_MAX);
    let views = mesh(shards, ROOM_MESSAGES_MAX);
    let connections = mesh(shards, ROOM_MESSAGES_MAX);
    partitions
        .into_iter()
        .zip(groups)
        .zip(controllers)
        .zip(node)
        .zip(peers)
        .zip(views)
        .zip(connections)
        .map(|((((((partitions, groups), controllers), node), peers), views), connections)| Ports {
            partitions,
            groups,
            controllers,
            node,
            peers,
            views,
            connections,
        })
        .collect()
}

/// What a shard is given beside its ports: the same for all.
#[derive(Clone)]
pub struct Blueprint {
    /// Settings.
    pub config: Arc<BrokerConfig>,
    /// Memory of one shard, in bytes: for requests, the batch cache, and groups.
    pub memory_bytes: usize,
    /// Connections of the node.
    pub connections: ConnectionCounts,
    /// The feature levels that the process serves: [`Levels::SERVED`], where no test claims others.
    pub levels: Levels,
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
    /// The data directory cannot be read.
    #[error("the data directory cannot be read: {0}")]
    DataDirectory(String),
    /// A log of the node's own cannot be used.
    #[error("the log of group 0 (__cluster_metadata-0) cannot be used: {0}")]
    Group0(String),
    /// This process, its release or its number, is not one for its cluster, or its data directory.
    #[error("{0}")]
    Unfit(String),
}

/// The rooms of one shard.
pub struct Shard<R: Runtime> {
    /// What handlers use.
    pub services: Rc<Services<R>>,
    number: usize,
    controllers: Rc<Hosts<Controller, R>>,
    connections: Rc<Connections<R>>,
    view: Rc<View<R>>,
}

impl<R: Runtime> Shard<R> {
    /// Builds the rooms and starts their loops. Nothing is written yet.
    pub async fn build(
        runtime: R,
        ports: Ports<R>,
        blueprint: Blueprint,
    ) -> Result<Rc<Self>, ShardFailure> {
        let (own, count) = (ports.node.shard(), ports.node.shards());
        let config = Arc::clone(&blueprint.config);
        let logs = log_environment(&runtime, own, &blueprint).await?;
        let shards = NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        let table = Arc::new(ShardTable::new(shards, BTreeMap::new()));
        let metrics = Rc::new(ShardMetrics::default());
        let jobs = Jobs::new(ports.partitions);
        let partitions =
            Partitions::new(runtime.clone(), Rc::clone(&jobs), table, Rc::clone(&metrics));
        serve(&runtime, jobs, &partitions);
        let groups = hosts(&runtime, ports.groups, &partitions);
        let controllers = hosts(&runtime, ports.controllers, &partitions);
        let jobs = Jobs::new(ports.node);
        let node = Node::new(Parts {
            runtime: runtime.clone(),
            levels: blueprint.levels,
            config: Arc::clone(&config),
            logs: Rc::clone(&logs),
            partitions: Rc::clone(&partitions),
            groups: Rc::clone(&groups),
            group_memory: GroupMemory::default(),
            group_memory_bytes_max: blueprint.memory_bytes / 8,
            controllers: Rc::clone(&controllers),
            jobs: Rc::clone(&jobs),
            peers: peer_parts(&runtime, &config, ports.peers).await?,
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
            metrics,
            log_limit: Rc::default(),
            append_rules: RefCell::default(),
            decompressor: RefCell::default(),
            producer_ids: RefCell::new(0..0),
        });
        let connections = connections(&services, &blueprint, ports.connections);
        let memory = memory_of(&blueprint, connections.budget(), &logs);
        let view = view(&services, &controllers, memory, ports.views);
        Ok(Rc::new(Self { services, number: own, controllers, connections, view }))
    }

    /// Serves for ever; completes only with an error. Shard 0 leads group 0 beside. `serving` runs
    /// once this shard accepts connections. `host` is this machine's name, for listeners that are
    /// advertised by no other.
    pub async fn run(
        self: &Rc<Self>,
        acceptors: Vec<Acceptor<R>>,
        host: &str,
        serving: impl Future<Output = ()>,
    ) -> Result<(), ShardFailure> {
        let mending = upkeep::mend(Rc::clone(&self.services.node));
        self.services.runtime.spawn(Queue::Background, mending);
        let endpoints = acceptors.iter().filter_map(|acceptor| acceptor.endpoint(host)).collect();
        let accepting = async {
            self.accept(acceptors).await;
            serving.await;
            std::future::pending::<()>().await;
        };
        if self.number > 0 {
            accepting.await;
            return Ok(());
        }
        match select(pin!(self.lead(endpoints)), pin!(accepting)).await {
            Either::Left((ended, _)) => ended,
            Either::Right(((), _)) => Ok(()),
        }
    }

    /// Opens group 0 and follows it. Completes only with an error. `endpoints` is how clients reach
    /// this node.
    async fn lead(&self, endpoints: Vec<NodeEndpoint>) -> Result<(), ShardFailure> {
        let failed = |ended| match ended {
            Ended::Group0(why) => ShardFailure::Group0(why),
            Ended::Unfit(why) => ShardFailure::Unfit(why),
        };
        self.services.node.check_directory().await.map_err(failed)?;
        let cleaned = remove_leftovers(self.services.runtime.disk()).await;
        cleaned.map_err(|e| ShardFailure::DataDirectory(e.to_string()))?;
        self.services.node.load_table().await;
        lead::lead(&self.services.node, endpoints).await.map_err(failed)
    }

    /// Opens this shard's part of every listener. Nothing is accepted yet.
    pub async fn listen(&self) -> Result<Vec<Acceptor<R>>, ShardFailure> {
        let mut acceptors = Vec::new();
        for listener in &self.services.config.listeners {
            let socket = self.open(&listener.bind).await?;
            let name = Str::from(listener.bind.name.as_str());
            acceptors.push(Acceptor { socket, name, advertised: listener.advertised.clone() });
        }
        Ok(acceptors)
    }

    async fn open(
        &self,
        endpoint: &Endpoint,
    ) -> Result<<R::Network as Network>::Listener, ShardFailure> {
        let failed = |error| ShardFailure::Listen { address: endpoint.to_string(), error };
        let address = listener::address(endpoint).map_err(failed)?;
        let network = self.services.runtime.network();
        network.listen(address).await.map_err(failed)
    }

    /// Opens the admin port, where there is to be one, and serves it from now on: to be called on
    /// shard 0. Returns its address.
    pub async fn serve_admin(
        &self,
        process: ProcessProbe,
    ) -> Result<Option<SocketAddr>, ShardFailure> {
        let Some(endpoint) = admin_endpoint(&self.services.config) else {
            return Ok(None);
        };
        let listener = self.open(&endpoint).await?;
        let address = listener.local_address();
        let server = admin::server::Server::new(Rc::clone(&self.view), process);
        self.services.runtime.spawn(Queue::Control, server.accept(listener));
        Ok(Some(address))
    }

    /// Accepts connections, and looks after the logs, once this shard's partitions are open.
    async fn accept(self: &Rc<Self>, acceptors: Vec<Acceptor<R>>) {
        self.services.node.ready.wait().await;
        let runtime = &self.services.runtime;
        let connections = &self.connections;
        for acceptor in acceptors {
            let connections = Rc::clone(connections);
            runtime.spawn(Queue::Foreground, connections.accept(acceptor));
        }
        runtime.spawn(Queue::Control, Rc::clone(connections).close_idle());
        runtime.spawn(Queue::Background, Rc::clone(&self.services).give_scratch_back());
        runtime.spawn(Queue::Background, upkeep::run(Rc::clone(&self.services.node)));
        runtime.spawn(Queue::Background, upkeep::prepare_buffers(Rc::clone(&self.services.node)));
        runtime.spawn(Queue::Background, verify::run(Rc::clone(&self.services.node)));
        if self.number == 0 {
            runtime.spawn(Queue::Control, shard_balance::run(Rc::clone(&self.services.node)));
        }
        let parting = Rc::clone(&self.services.node).part_with_left_over();
        runtime.spawn(Queue::Background, parting);
        let balancing = Rc::clone(&self.services.node).balance_leaders();
        runtime.spawn(Queue::Background, balancing);
        runtime.spawn(Queue::Control, Rc::clone(&self.services.node).drain());
        self.services.node.serving.set();
    }

    /// Ends everything in order: other nodes take over what this one leads; then the connections of
    /// all shards are closed, since their requests are under way on each other's partitions; then
    /// sessions with other nodes, coordinators and logs.
    pub async fn close(&self) {
        self.view.stop();
        let node = &self.services.node;
        node.hand_over_all().await;
        self.with_all(Stage::HandedOver).await;
        self.connections.stop().await;
        self.with_all(Stage::Drained).await;
        node.leave_peers().await;
        self.services.groups.stop();
        self.controllers.stop();
        let logs = stream::iter(self.services.partitions.all_local());
        let closed = logs.for_each_concurrent(CLOSED_SIDE_BY_SIDE, |(_, replica)| async move {
            if let Err(error) = replica.close().await {
                tracing::error!(
                    partition = replica.name(), %error,
                    "a log did not close cleanly; it will be recovered at the next start"
                );
            }
        });
        closed.await;
    }

    /// Waits for the other shards; one that does not come to this keeps them for so long only.
    async fn with_all(&self, stage: Stage) {
        let through = self.services.node.all_through(stage);
        let _patience_is_over = self.services.runtime.in_time(DRAIN_TIME_MAX, through).await;
    }
}

/// What this shard needs to talk to other nodes, where there are to be any.
async fn peer_parts<R: Runtime>(
    runtime: &R,
    config: &BrokerConfig,
    port: MeshPort<Message<GroupPeers<R>>>,
) -> Result<Option<PeerParts<R>>, ShardFailure> {
    let Some(bind) = peer_endpoint(config) else { return Ok(None) };
    let failed = |address: String| move |error| ShardFailure::Listen { address, error };
    let address = listener::address(&bind).map_err(failed(bind.to_string()))?;
    let listening = runtime.network().listen(address).await;
    let listener = listening.map_err(failed(bind.to_string()))?;
    let own = config.peers.iter().find(|peer| peer.node_id == config.node_id);
    let advertised = own.map(|own| PeerEndpoint { host: own.host.as_str().into(), port: own.port });
    let Some(advertised) = advertised else { return Ok(None) };
    Ok(Some(PeerParts {
        jobs: Jobs::new(port),
        listener: RefCell::new(Some(listener)),
        advertised,
        resolve,
    }))
}

/// Where another node is.
fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let name = PEER_LISTENER.to_owned();
    listener::address(&Endpoint { name, host: Some(host.to_owned()), port })
}

/// Where other nodes connect, where there are to be any.
pub fn peer_endpoint(config: &BrokerConfig) -> Option<Endpoint> {
    let own = config.peers.iter().find(|peer| peer.node_id == config.node_id)?;
    let as_named = || (Some(own.host.clone()), own.port);
    let (host, port) = config.peer_listener.clone().unwrap_or_else(as_named);
    Some(Endpoint { name: PEER_LISTENER.to_owned(), host, port })
}

/// The hosts of one kind of machine, with their loop started.
fn hosts<M: Machine, R: Runtime>(
    runtime: &R,
    port: MeshPort<Message<Hosts<M, R>>>,
    partitions: &Rc<Partitions<R>>,
) -> Rc<Hosts<M, R>>
where
    M::Input: Send,
    M::Reply: Send,
{
    let jobs = Jobs::new(port);
    let hosts = Hosts::new(runtime.clone(), Rc::clone(&jobs), Rc::clone(partitions));
    serve(runtime, jobs, &hosts);
    hosts
}

/// The connections of this shard, with their loop started.
fn connections<R: Runtime>(
    services: &Rc<Services<R>>,
    blueprint: &Blueprint,
    port: MeshPort<Message<Connections<R>>>,
) -> Rc<Connections<R>> {
    let jobs = Jobs::new(port);
    let common = Common {
        services: Rc::clone(services),
        budget: Budget::new(blueprint.memory_bytes / 4),
        log_limit: Rc::clone(&services.log_limit),
        options: connection_options(&blueprint.config),
        counts: blueprint.connections.clone(),
    };
    let connections = Connections::new(common, Rc::clone(&jobs));
    serve(&services.runtime, jobs, &connections);
    connections
}

/// What the admin port sees of this shard, with its loop started.
fn view<R: Runtime>(
    services: &Services<R>,
    controllers: &Rc<Hosts<Controller, R>>,
    memory: Box<dyn Fn() -> Memory>,
    port: MeshPort<Message<View<R>>>,
) -> Rc<View<R>> {
    let jobs = Jobs::new(port);
    let view = View::new(admin::view::Parts {
        runtime: services.runtime.clone(),
        metrics: Rc::clone(&services.metrics),
        partitions: Rc::clone(&services.partitions),
        groups: Rc::clone(&services.groups),
        controllers: Rc::clone(controllers),
        node: Rc::clone(&services.node),
        memory,
        jobs: Rc::clone(&jobs),
        disk_reserve_bytes: services.config.disk_reserve_bytes,
    });
    serve(&services.runtime, jobs, &view);
    view
}

fn serve<R: Runtime, T: 'static>(runtime: &R, jobs: Rc<Jobs<T>>, room: &Rc<T>) {
    runtime.spawn(Queue::Foreground, jobs.serve(runtime.clone(), Rc::clone(room)));
}

/// Where the admin port is to be.
pub fn admin_endpoint(config: &BrokerConfig) -> Option<Endpoint> {
    let (host, port) = config.admin_listener.clone()?;
    Some(Endpoint { name: "ADMIN".to_owned(), host, port })
}

/// What memory a shard holds.
fn memory_of<D: Disk>(
    blueprint: &Blueprint,
    budget: &Budget,
    logs: &Rc<LogEnvironment<D>>,
) -> Box<dyn Fn() -> Memory> {
    let (budget, logs) = (budget.clone(), Rc::clone(logs));
    let cache_bytes_max = cache_bytes_max(blueprint) as u64;
    Box::new(move || Memory {
        request_bytes: budget.used() as u64,
        request_bytes_max: budget.limit() as u64,
        buffer_bytes: logs.buffer_bytes() as u64,
        cache_bytes_max,
    })
}

/// What the batch cache of a shard may hold.
fn cache_bytes_max(blueprint: &Blueprint) -> usize {
    blueprint.memory_bytes / 2
}

/// What is kept of older ranges that are read; answers on their way may hold as much again.
fn read_bytes_max(blueprint: &Blueprint) -> usize {
    (blueprint.memory_bytes / 16).clamp(READ_BYTES_MIN, READ_BYTES_MAX)
}

fn connection_options(config: &BrokerConfig) -> ConnectionOptions {
    ConnectionOptions {
        request_bytes_max: usize::try_from(config.request_bytes_max).unwrap_or(usize::MAX),
        in_flight_max: IN_FLIGHT_MAX,
    }
}

/// What the logs of a shard share: the notes of all shards, since a log may have been another's
/// before.
async fn log_environment<R: Runtime>(
    runtime: &R,
    shard: usize,
    blueprint: &Blueprint,
) -> Result<Rc<LogEnvironment<R::Disk>>, ShardFailure> {
    let disk = runtime.disk();
    let loaded = load_notes(disk).await.map_err(|e| ShardFailure::DataDirectory(e.to_string()))?;
    for file in &loaded.damaged {
        tracing::warn!(file, "damaged notes of what was flushed: recovery is less sharp");
    }
    let config = &blueprint.config;
    let defaults = EnvironmentOptions::default();
    let write_bytes_max = usize::try_from(config.write_bytes_max).unwrap_or(usize::MAX);
    let options = EnvironmentOptions {
        write_bytes_max,
        zero_bytes_max: defaults.zero_bytes_max.min(write_bytes_max),
        cache_bytes_max: cache_bytes_max(blueprint),
        read_bytes_max: read_bytes_max(blueprint),
        reserve_bytes: config.disk_reserve_bytes,
        ..defaults
    };
    let number = u32::try_from(shard).unwrap_or(u32::MAX);
    let logs = LogEnvironment::new(disk.clone(), options, number, loaded);
    // Known before anything is opened or served: below the reserve no client writes.
    match logs.refresh_space().await {
        Ok(space) if logs.is_low() && shard == 0 => upkeep::warn_of_low(space),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the disk does not say how much space is left"),
    }
    logs.on_event(|event| match event {
        StorageEvent::LogEnded { .. }
        | StorageEvent::VotesEnded { .. }
        | StorageEvent::VotesLost { .. } => tracing::error!("{event}"),
        event => tracing::warn!("{event}"),
    });
    Ok(logs)
}
