//! Accepts connections, bounds their number, and closes those that are idle.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::{Either, select};
use vltava_protocol::types::Str;

use super::budget::{Budget, ConnectionId};
use super::connection::{self, Arrival, Common, Departure, Ended, Handle};
use super::counts::ConnectionLimits;
use crate::config::listeners::Endpoint;
use crate::handlers::client::Client;
use crate::metadata::image::NodeEndpoint;
use crate::runtime::jobs::Jobs;
use crate::runtime::sync::Latch;
use crate::runtime::{Connection, Listener, Network, Runtime};

/// How long to wait after an accept failed: descriptors are used up, and some may come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often idle connections are looked for.
const IDLE_PERIOD: Duration = Duration::from_secs(1);

/// How long answers that are owed may take when the broker stops.
const STOP_GRACE: Duration = Duration::from_millis(600);
/// The same for those that wait for a commit: their clients would have to send again what is
/// written.
const STOP_COMMIT_GRACE: Duration = Duration::from_secs(10);
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

/// The connections of one shard.
pub struct Connections<R: Runtime> {
    pub(super) common: Common<R>,
    pub(super) jobs: Rc<Jobs<Self>>,
    next: Cell<u64>,
    open: RefCell<BTreeMap<ConnectionId, Rc<dyn Handle>>>,
    stopping: Latch,
}

impl<R: Runtime> Connections<R> {
    /// No connections yet.
    pub fn new(common: Common<R>, jobs: Rc<Jobs<Self>>) -> Rc<Self> {
        Rc::new(Self {
            common,
            jobs,
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
                    runtime.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn start(self: &Rc<Self>, socket: Socket<R>, listener: &Str) {
        let peer = socket.peer_address();
        let config = &self.common.services.config;
        let limits = ConnectionLimits {
            total: config.connections_max,
            per_ip: config.connections_per_ip_max,
        };
        let own = self.jobs.own();
        let counted = match self.common.counts.open(peer.ip(), own, limits) {
            Ok(counted) => counted,
            Err(reached) => {
                self.note_refusal(peer, reached.0);
                return socket.close();
            }
        };
        self.common.services.metrics.count(|counters| counters.connections_accepted += 1);
        let client = Rc::new(Client::new(peer, listener.clone()));
        self.serve(Arrival { socket, client, counted, received: BytesMut::new() });
    }

    /// Serves a connection from now on.
    pub(super) fn serve(self: &Rc<Self>, arrival: Arrival<R>) {
        let id = ConnectionId(self.next.replace(self.next.get() + 1));
        let connections = Rc::clone(self);
        let client = Rc::clone(&arrival.client);
        let metrics = Rc::clone(&self.common.services.metrics);
        metrics.connection_arrived();
        let ended = move |departure: Option<Departure<R>>| {
            metrics.connection_left();
            connections.open.borrow_mut().remove(&id);
            if let Some(departure) = departure {
                connections.hand_over(departure, &client);
            }
        };
        let handle = connection::start(&self.common, arrival, id, ended);
        self.open.borrow_mut().insert(id, handle);
    }

    /// Whether connections are being closed.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_set()
    }

    fn note_refusal(&self, peer: SocketAddr, limit: &'static str) {
        let services = &self.common.services;
        services.metrics.count(|counters| counters.connections_refused += 1);
        if let Some(left_out) = self.common.log_limit.admit(services.runtime.now()) {
            tracing::warn!(%peer, limit, left_out, "refused a connection");
        }
    }

    fn all_open(&self) -> Vec<Rc<dyn Handle>> {
        self.open.borrow().values().cloned().collect()
    }

    /// Closes connections on which nothing has moved for `connections.max.idle.ms`.
    pub async fn close_idle(self: Rc<Self>) {
        let Some(idle_ms_max) = self.common.services.config.connections_idle_ms_max else {
            return;
        };
        let idle_max = Duration::from_millis(idle_ms_max);
        let runtime = &self.common.services.runtime;
        loop {
            runtime.sleep(IDLE_PERIOD).await;
            let now = runtime.now();
            for handle in self.all_open() {
                if now.since(handle.last_progress()) > idle_max {
                    handle.close(Ended::Idle);
                }
            }
        }
    }

    /// Accepts nothing more, begins no further request, and closes the connections: each when its
    /// answers have left, or when the time for that is over.
    pub async fn stop(&self) {
        self.stopping.set();
        let runtime = &self.common.services.runtime;
        let begin = runtime.now();
        loop {
            let time = runtime.now().since(begin);
            let may_go_on = |handle: &Rc<dyn Handle>| {
                let goes_on =
                    time < STOP_GRACE || (time < STOP_COMMIT_GRACE && handle.awaits_commit());
                handle.is_busy() && goes_on
            };
            let (busy, over): (Vec<_>, Vec<_>) = self.all_open().into_iter().partition(may_go_on);
            over.iter().for_each(|handle| handle.close(Ended::Stopping));
            if busy.is_empty() {
                return;
            }
            busy.iter().for_each(|handle| handle.drain());
            runtime.sleep(STOP_STEP).await;
        }
    }
}
