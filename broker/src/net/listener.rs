//! Accepts connections, bounds their number, and closes those that are idle.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use vltava_protocol::types::Str;

use super::budget::{Budget, ConnectionId};
use super::connection::{self, Common, Handle};
use crate::config::listeners::Endpoint;
use crate::handlers::context::Client;
use crate::metadata::image::NodeEndpoint;
use crate::runtime::sync::Latch;
use crate::runtime::{Connection, Listener, Network, Runtime};

/// How long to wait after an accept failed: descriptors are used up, and some may come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often idle connections are looked for.
const IDLE_PERIOD: Duration = Duration::from_secs(1);

/// How long answers that are owed may take when the broker stops.
const STOP_GRACE: Duration = Duration::from_millis(600);
/// How often is looked whether they have left.
const STOP_STEP: Duration = Duration::from_millis(10);

type Socket<R> = <<R as Runtime>::Network as Network>::Connection;

/// A listener of this shard.
pub struct Acceptor<R: Runtime> {
    /// Its socket.
    pub socket: <R::Network as Network>::Listener,
    /// Its name: answers name endpoints of the listener that the request came to.
    pub name: Str,
    /// How clients reach it, as far as settings say.
    pub advertised: Option<Endpoint>,
}

impl<R: Runtime> Acceptor<R> {
    /// How clients reach this listener; `None` where it is not advertised. `host` is this machine's
    /// name, for a listener on all interfaces.
    pub fn endpoint(&self, host: &str) -> Option<NodeEndpoint> {
        let advertised = self.advertised.as_ref()?;
        let bound = self.socket.local_address();
        let host = match &advertised.host {
            Some(host) => host.clone(),
            None if bound.ip().is_unspecified() => host.to_owned(),
            None => bound.ip().to_string(),
        };
        let port = if advertised.port == 0 { bound.port() } else { advertised.port };
        Some(NodeEndpoint { listener: self.name.clone(), host: host.into(), port })
    }
}

/// The address that an endpoint means: all of this machine's where it names no host. A name that
/// means several, as localhost may, means the first in IPv4, which is what clients try.
pub fn address(endpoint: &Endpoint) -> io::Result<SocketAddr> {
    let Some(host) = &endpoint.host else {
        return Ok(SocketAddr::from(([0, 0, 0, 0], endpoint.port)));
    };
    let addresses = (host.as_str(), endpoint.port).to_socket_addrs()?;
    let first = addresses.min_by_key(|address| !address.is_ipv4());
    first.ok_or_else(|| io::Error::other(format!("{host} has no address")))
}

/// A connection that is open: who is at the other end, and how to end it.
type Open = (IpAddr, Rc<dyn Handle>);

/// The connections of one shard.
pub struct Connections<R: Runtime> {
    common: Common<R>,
    next: Cell<u64>,
    open: RefCell<BTreeMap<ConnectionId, Open>>,
    stopping: Latch,
}

impl<R: Runtime> Connections<R> {
    /// No connections yet.
    pub fn new(common: Common<R>) -> Rc<Self> {
        Rc::new(Self {
            common,
            next: Cell::new(0),
            open: RefCell::default(),
            stopping: Latch::default(),
        })
    }

    /// The memory that requests of these connections may hold.
    pub fn budget(&self) -> &Budget {
        &self.common.budget
    }

    /// Accepts until [`Connections::stop`].
    pub async fn accept(self: Rc<Self>, acceptor: Acceptor<R>) {
        loop {
            let accepted = pin!(acceptor.socket.accept());
            let Either::Left((accepted, _)) = select(accepted, pin!(self.stopping.wait())).await
            else {
                return;
            };
            match accepted {
                Ok(socket) => self.start(socket, &acceptor.name),
                Err(error) => {
                    tracing::warn!(
                        %error, listener = %acceptor.name,
                        "cannot accept connections for a moment"
                    );
                    let runtime = &self.common.services.runtime;
                    runtime.sleep_until(runtime.now().after(ACCEPT_PAUSE)).await;
                }
            }
        }
    }

    fn start(self: &Rc<Self>, socket: Socket<R>, listener: &Str) {
        let peer = socket.peer_address();
        if let Some(limit) = self.limit_reached(peer.ip()) {
            let metrics = &self.common.services.metrics;
            metrics.count(|counters| counters.connections_refused += 1);
            if let Some(left_out) = self.common.log_limit.admit(self.common.services.runtime.now())
            {
                tracing::warn!(%peer, limit, left_out, "refused a connection");
            }
            return socket.close();
        }
        let id = ConnectionId(self.next.replace(self.next.get() + 1));
        let client = Rc::new(Client { peer, listener: listener.clone() });
        let connections = Rc::clone(self);
        let metrics = Rc::clone(&self.common.services.metrics);
        metrics.connection_opened();
        let ended = move || {
            metrics.connection_closed();
            connections.open.borrow_mut().remove(&id);
        };
        let handle = connection::start(&self.common, socket, client, id, ended);
        self.open.borrow_mut().insert(id, (peer.ip(), handle));
    }

    /// Which limit one more connection would pass. Limits of the node are shared evenly by its
    /// shards.
    fn limit_reached(&self, peer: IpAddr) -> Option<&'static str> {
        let config = &self.common.services.config;
        let shards = self.common.services.partitions.shard_count();
        let share = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX).div_ceil(shards);
        let open = self.open.borrow();
        if open.len() >= share(config.connections_max) {
            return Some("max.connections");
        }
        if config.connections_per_ip_max < config.connections_max {
            let same = open.values().filter(|(address, _)| *address == peer).count();
            if same >= share(config.connections_per_ip_max) {
                return Some("max.connections.per.ip");
            }
        }
        None
    }

    /// Closes connections on which nothing has moved for `connections.max.idle.ms`.
    pub async fn close_idle(self: Rc<Self>) {
        let Some(idle_ms_max) = self.common.services.config.connections_idle_ms_max else {
            return;
        };
        let idle_max = Duration::from_millis(idle_ms_max);
        let runtime = &self.common.services.runtime;
        loop {
            runtime.sleep_until(runtime.now().after(IDLE_PERIOD)).await;
            let now = runtime.now();
            let open = self.open.borrow();
            let idle: Vec<_> = open
                .values()
                .filter(|(_, handle)| now.since(handle.last_progress()) > idle_max)
                .map(|(_, handle)| Rc::clone(handle))
                .collect();
            drop(open);
            idle.iter().for_each(|handle| handle.close());
        }
    }

    /// Accepts nothing more, and closes the connections: each when its answers have left, or when
    /// the time for that is over.
    pub async fn stop(&self) {
        self.stopping.set();
        let runtime = &self.common.services.runtime;
        let deadline = runtime.now().after(STOP_GRACE);
        loop {
            let open: Vec<_> =
                self.open.borrow().values().map(|(_, handle)| Rc::clone(handle)).collect();
            let is_over = runtime.now() >= deadline;
            open.iter()
                .filter(|handle| is_over || !handle.is_busy())
                .for_each(|handle| handle.close());
            if is_over || open.iter().all(|handle| !handle.is_busy()) {
                return;
            }
            runtime.sleep_until(runtime.now().after(STOP_STEP)).await;
        }
    }
}
