//! The connections of one shard, as those who use them see them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::desk::Desk;
use super::end::SessionEnd;
use super::events::PeerEvents;
use super::greeting::Introduction;
use super::link::{Lane, Link, SessionId, Socket};
use super::message::GroupMessage;
use super::options::{MESSAGE_BYTES_MAX, Options};
use super::outbox::{Item, SMALL_BODY_BYTES};
use super::window::Taken;
use crate::raft::message::Message;
use crate::runtime::jobs::Jobs;
use crate::runtime::log_limit::LogLimit;
use crate::runtime::sync::Latch;
use crate::runtime::{Connection, Network, Queue, Runtime};

/// What a message may take on the wire without its payload ([`GroupMessage::wire_bytes`]): leaders
/// send a log with many marks in parts.
pub const WIRE_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no session with the node: nothing was sent.
    #[error("the node cannot be reached")]
    Down,
    /// The session ended: whether the request was served is not known.
    #[error("the connection to the node broke")]
    Broken,
    /// The node refused it for what it has to do: nothing was done.
    #[error("the node is busy")]
    Busy,
    /// The body is longer than any frame may be.
    #[error("the request is too long")]
    TooLong,
}

/// Connections to all other nodes, as one shard sees them: what it says leaves by lanes of its own.
pub struct Peers<R: Runtime, E: PeerEvents> {
    pub(super) runtime: R,
    pub(super) jobs: Rc<Jobs<Self>>,
    pub(super) events: E,
    pub(super) options: Options,
    introduction: RefCell<Arc<Introduction>>,
    links: RefCell<BTreeMap<i32, Rc<Link<R>>>>,
    /// Sessions begin and end on shard 0.
    pub(super) desk: Desk<R>,
    pub(super) log_limit: LogLimit,
    /// Connections that have not said who they are.
    pub(super) handshakes: Cell<usize>,
    pub(super) stopping: Latch,
}

impl<R: Runtime, E: PeerEvents> Peers<R, E> {
    /// This shard's part; `jobs` is to be served with it. Nothing happens before [`Self::know`] and
    /// [`Self::accept`].
    ///
    /// # Panics
    /// Where the introduction has another number of shards than the mesh.
    pub fn new(
        runtime: R,
        jobs: Rc<Jobs<Self>>,
        events: E,
        introduction: Arc<Introduction>,
        options: Options,
    ) -> Rc<Self> {
        assert_eq!(usize::from(introduction.shards), jobs.count(), "shards");
        Rc::new(Self {
            desk: Desk::default(),
            runtime,
            jobs,
            events,
            options,
            introduction: RefCell::new(introduction),
            links: RefCell::default(),
            log_limit: LogLimit::default(),
            handshakes: Cell::new(0),
            stopping: Latch::default(),
        })
    }

    /// What was given to [`Self::new`].
    pub fn events(&self) -> &E {
        &self.events
    }

    /// How this node introduces itself.
    pub fn introduction(&self) -> Arc<Introduction> {
        Arc::clone(&self.introduction.borrow())
    }

    /// From now on this node introduces itself like this (it has joined a cluster). Sessions stay.
    pub async fn introduce(&self, introduction: Arc<Introduction>) {
        self.on_all_shards(move |_| {
            let introduction = Arc::clone(&introduction);
            move |peers: &Rc<Self>| {
                *peers.introduction.borrow_mut() = introduction;
                std::future::ready(true)
            }
        })
        .await;
    }

    /// The session with a node, where it is up.
    pub fn session(&self, node: i32) -> Option<SessionId> {
        self.link(node).map(|link| link.id)
    }

    /// How a node introduced itself, where there is a session with it.
    pub fn introduction_of(&self, node: i32) -> Option<Arc<Introduction>> {
        self.link(node).map(|link| Arc::clone(&link.introduction))
    }

    /// The nodes with which there is a session.
    pub fn up(&self) -> BTreeSet<i32> {
        let links = self.links.borrow();
        links.iter().filter(|(_, link)| link.is_up()).map(|(node, _)| *node).collect()
    }

    fn link(&self, node: i32) -> Option<Rc<Link<R>>> {
        self.links.borrow().get(&node).filter(|link| link.is_up()).cloned()
    }

    /// Says something without a payload to a replica of a node; false where the node is down. Never
    /// waits: where more gathers than the options allow, the session ends.
    ///
    /// # Panics
    /// Where there is a payload, or more than [`WIRE_BYTES_MAX`] without it.
    pub fn send(self: &Rc<Self>, to: i32, message: GroupMessage) -> bool {
        assert!(message.payload.is_empty(), "a payload without room for it");
        assert!(message.wire_bytes() <= WIRE_BYTES_MAX, "{} bytes", message.wire_bytes());
        let Some(link) = self.link(to) else {
            return false;
        };
        self.say(&link, Item::Group(message));
        true
    }

    /// Room for so many bytes of payload: to be had before they are read. Waits in turn; `None`
    /// where the node is down, or goes down meanwhile.
    pub async fn room(&self, to: i32, bytes: usize) -> Option<Room<R>> {
        let link = self.link(to)?;
        let taken = link.window.take(bytes).await?;
        Some(Room { link, taken })
    }

    /// Asks room `kind` of another node. The answer comes in any order, and never where the node
    /// does not answer: the caller has a time for it.
    ///
    /// # Errors
    /// See each.
    pub async fn request(
        self: &Rc<Self>,
        to: i32,
        kind: u16,
        body: Bytes,
    ) -> Result<Bytes, RequestError> {
        if body.len() > self.options.payload_bytes_max {
            return Err(RequestError::TooLong);
        }
        let link = self.link(to).ok_or(RequestError::Down)?;
        let room = match body.len() > SMALL_BODY_BYTES {
            true => Some(link.window.take(body.len()).await.ok_or(RequestError::Down)?),
            false => None,
        };
        if !link.is_up() {
            return Err(RequestError::Down);
        }
        let (id, answer) = link.ask(self.jobs.own());
        let _asked = Asked { link: &link, id };
        link.push(Item::Request { id, kind, body }, room);
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(RequestError::Busy),
            Err(_) => Err(RequestError::Broken),
        }
    }

    // What shard 0 asks of all shards for a session.

    /// Does something on all shards at once; whether all say yes.
    pub(super) async fn on_all_shards<J, F>(&self, make: impl Fn(usize) -> J) -> bool
    where
        J: FnOnce(&Rc<Self>) -> F + Send + 'static,
        F: Future<Output = bool> + 'static,
    {
        let mut pending = Vec::with_capacity(self.jobs.count());
        for shard in 0..self.jobs.count() {
            pending.push(self.jobs.start(shard, make(shard)).await);
        }
        let mut all = true;
        for pending in pending {
            // A shard that has ended is as good as one that says no.
            all &= pending.await.unwrap_or(false);
        }
        all
    }

    /// Makes a link: lanes of this session may come. False where they cannot, also where a session
    /// with a node that was forgotten and is known again has not ended everywhere.
    pub(super) fn expect(
        &self,
        id: SessionId,
        introduction: Arc<Introduction>,
        lanes: u16,
    ) -> bool {
        let mut links = self.links.borrow_mut();
        if self.stopping.is_set() || links.contains_key(&id.node) {
            return false;
        }
        links.insert(id.node, Link::new(id, introduction, lanes, &self.options));
        true
    }

    /// The link of a session, whatever its stage.
    pub(super) fn link_of(&self, id: SessionId) -> Option<Rc<Link<R>>> {
        self.links.borrow().get(&id.node).filter(|link| link.id == id).cloned()
    }

    /// A connection of a session has come about; closed where it has no place.
    pub(super) fn add_lane(&self, id: SessionId, lane: u16, socket: Socket<R>) -> bool {
        let link = self.link_of(id);
        let is_added = link.is_some_and(|link| link.add_lane(lane, socket.clone()));
        if !is_added {
            socket.close();
        }
        is_added
    }

    /// The session begins: it can be sent to.
    pub(super) async fn raise(self: &Rc<Self>, id: SessionId) -> bool {
        let (own, count) = (self.jobs.own(), self.jobs.count());
        let Some(link) = self.link_of(id) else {
            return false;
        };
        if !link.is_complete(own, count) || !link.raise() {
            return false;
        }
        self.events.peer_up(id, &link.introduction).await;
        let writes = |lane: &Rc<Lane<R>>| usize::from(lane.number) == own;
        if let Some(lane) = link.lanes().into_iter().find(writes) {
            self.runtime.spawn(Queue::Foreground, Rc::clone(self).write_lane(link, lane));
        }
        true
    }

    /// It is up on all shards: what comes is taken in.
    pub(super) fn read(self: &Rc<Self>, id: SessionId) -> bool {
        let Some(link) = self.link_of(id) else {
            return false;
        };
        for lane in link.lanes() {
            let task = Rc::clone(self).read_lane(Rc::clone(&link), lane);
            self.runtime.spawn(Queue::Foreground, task);
        }
        self.runtime.spawn(Queue::Control, Rc::clone(self).watch_lanes(link));
        true
    }

    /// It has ended.
    pub(super) async fn lower(&self, id: SessionId) -> bool {
        let Some(link) = self.link_of(id) else {
            return true;
        };
        self.links.borrow_mut().remove(&id.node);
        if link.end() {
            self.events.peer_down(id).await;
        }
        true
    }

    /// Something of a session broke here: shard 0 ends it.
    pub(super) fn fail(self: &Rc<Self>, id: SessionId, why: SessionEnd) {
        let peers = Rc::clone(self);
        self.runtime.spawn(Queue::Foreground, async move {
            let job = move |peers: &Rc<Self>| {
                peers.desk.end(id, why);
                std::future::ready(())
            };
            let _done = peers.jobs.start(0, job).await;
        });
    }

    /// The shards' part of the network.
    pub(super) fn network(&self) -> &R::Network {
        self.runtime.network()
    }

    /// Takes over a connection that another shard accepted.
    pub(super) fn attach(&self, detached: <Socket<R> as Connection>::Detached) -> Socket<R> {
        self.network().attach(detached)
    }
}

/// Room for payload on the way to a node. Dropping it gives it back.
pub struct Room<R: Runtime> {
    link: Rc<Link<R>>,
    taken: Taken,
}

impl<R: Runtime> Room<R> {
    /// For so many bytes.
    pub fn bytes(&self) -> usize {
        self.taken.bytes()
    }

    /// Says something with its payload, in its turn: behind what this shard said about its group
    /// before. What is not needed of the room is given back. False where the node is down.
    ///
    /// # Panics
    /// Where the payload needs more room, or the rest more than [`WIRE_BYTES_MAX`].
    pub fn send(mut self, message: GroupMessage) -> bool {
        let bytes = message.payload.len();
        let may_have = bytes == 0 || matches!(message.body, Message::Append { .. });
        assert!(may_have, "a payload of what has none");
        assert!(bytes <= self.taken.bytes(), "{bytes} bytes in room for {}", self.taken.bytes());
        assert!(message.wire_bytes() <= WIRE_BYTES_MAX, "{} bytes", message.wire_bytes());
        self.taken.shrink(bytes);
        let is_up = self.link.is_up();
        self.link.push(Item::Group(message), Some(self.taken));
        is_up
    }
}

/// A request whose answer somebody waits for.
struct Asked<'a, R: Runtime> {
    link: &'a Link<R>,
    id: u64,
}

impl<R: Runtime> Drop for Asked<'_, R> {
    fn drop(&mut self) {
        self.link.forget(self.id);
    }
}
