//! What shard 0 knows of each other node: where it is, which session there is, and why not.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::end::SessionEnd;
use super::greeting::{Introduction, RefusalCode};
use super::link::{SessionId, Socket};
use super::liveness::Liveness;
use super::options::Options;
use crate::runtime::sync::{Event, Latch};
use crate::runtime::{Connection, Monotonic, Runtime};

/// How long the log says nothing more of a node that is refused for the same reason.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Nodes that the log says this of, in that time.
const REFUSED_MAX: usize = 64;

/// A session from where it is begun to its end.
pub(super) struct Session<R: Runtime> {
    pub(super) id: SessionId,
    pub(super) introduction: Arc<Introduction>,
    pub(super) lanes: u16,
    /// The connection for heartbeats.
    pub(super) control: Socket<R>,
    pub(super) liveness: RefCell<Liveness>,
    /// The other side has all its lanes.
    pub(super) started: Latch,
    pub(super) ended: Latch,
    why: RefCell<Option<SessionEnd>>,
    /// This node stops, and is to say so.
    pub(super) leaving: Latch,
    /// When all shards had been told that it is up.
    pub(super) up_since: Cell<Option<Monotonic>>,
}

impl<R: Runtime> Session<R> {
    pub(super) fn new(
        id: SessionId,
        introduction: Arc<Introduction>,
        own_shards: usize,
        control: Socket<R>,
        options: &Options,
    ) -> Rc<Self> {
        // Each shard of both has a lane of its own to write on.
        let own_shards = u16::try_from(own_shards).unwrap_or(u16::MAX);
        Rc::new(Self {
            id,
            lanes: introduction.shards.max(own_shards),
            introduction,
            control,
            liveness: RefCell::new(Liveness::new(options.heartbeats_missed_max)),
            started: Latch::default(),
            ended: Latch::default(),
            why: RefCell::default(),
            leaving: Latch::default(),
            up_since: Cell::new(None),
        })
    }

    /// Ends it; only the first reason counts.
    pub(super) fn end(&self, why: SessionEnd) {
        if self.ended.is_set() {
            return;
        }
        *self.why.borrow_mut() = Some(why);
        self.control.close();
        self.ended.set();
    }

    /// Why it ended.
    pub(super) fn take_why(&self) -> SessionEnd {
        self.why.borrow_mut().take().unwrap_or(SessionEnd::Closed)
    }
}

/// Another node.
pub(super) struct Node<R: Runtime> {
    pub(super) id: i32,
    /// Where it is found; `None`: it finds this one.
    pub(super) address: Cell<Option<SocketAddr>>,
    /// The highest number that a session with it had, or was begun with.
    pub(super) latest: Cell<u64>,
    session: RefCell<Option<Rc<Session<R>>>>,
    /// The session has gone, or the other node asks for one, or the address is another.
    pub(super) changed: Event,
    pub(super) is_forgotten: Cell<bool>,
    /// An attempt may succeed now that could not before.
    pub(super) is_in_hurry: Cell<bool>,
    /// It has said that it stops: that it cannot be reached is no news.
    pub(super) is_expected_down: Cell<bool>,
    /// What was logged last about why there is no session: said once, not at each attempt.
    last_words: RefCell<String>,
}

impl<R: Runtime> Node<R> {
    /// An attempt need not wait any longer.
    pub(super) fn hurry(&self) {
        self.is_in_hurry.set(true);
        self.changed.notify();
    }

    pub(super) fn session(&self) -> Option<Rc<Session<R>>> {
        self.session.borrow().clone()
    }

    /// A session is begun; false where there is one.
    pub(super) fn begin(&self, session: &Rc<Session<R>>) -> bool {
        let mut current = self.session.borrow_mut();
        if current.is_some() {
            return false;
        }
        *current = Some(Rc::clone(session));
        true
    }

    /// It has ended, on all shards.
    pub(super) fn finish(&self) {
        let ended = self.session.take();
        drop(ended);
        self.changed.notify();
    }

    /// Whether this was not said last.
    pub(super) fn is_news(&self, words: &str) -> bool {
        let mut last = self.last_words.borrow_mut();
        if *last == words {
            return false;
        }
        words.clone_into(&mut last);
        true
    }
}

/// What is known of another node, for people.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Its number.
    pub node: i32,
    /// Where it is looked for.
    pub address: Option<SocketAddr>,
    /// The session, where it is up, and since when.
    pub session: Option<(u64, Monotonic)>,
    /// Why there is none, or how the last one ended; empty where nothing ever went wrong.
    pub last_words: String,
}

/// All other nodes. On shard 0; empty on the others.
pub(super) struct Desk<R: Runtime> {
    nodes: RefCell<BTreeMap<i32, Rc<Node<R>>>>,
    /// When the log said of a node that it was refused, and why.
    refused: RefCell<BTreeMap<(i32, RefusalCode), Monotonic>>,
}

impl<R: Runtime> Default for Desk<R> {
    fn default() -> Self {
        Self { nodes: RefCell::default(), refused: RefCell::default() }
    }
}

impl<R: Runtime> Desk<R> {
    pub(super) fn node(&self, id: i32) -> Option<Rc<Node<R>>> {
        self.nodes.borrow().get(&id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Rc<Node<R>>> {
        self.nodes.borrow().values().cloned().collect()
    }

    /// The node of this number; `latest` is what its sessions' numbers begin above where it is new.
    pub(super) fn node_or_new(&self, id: i32, latest: u64) -> Rc<Node<R>> {
        let mut nodes = self.nodes.borrow_mut();
        let node = nodes.entry(id).or_insert_with(|| {
            Rc::new(Node {
                id,
                address: Cell::new(None),
                latest: Cell::new(latest),
                session: RefCell::default(),
                changed: Event::new(),
                is_forgotten: Cell::new(false),
                is_in_hurry: Cell::new(false),
                is_expected_down: Cell::new(false),
                last_words: RefCell::default(),
            })
        });
        Rc::clone(node)
    }

    pub(super) fn remove(&self, id: i32) -> Option<Rc<Node<R>>> {
        self.nodes.borrow_mut().remove(&id)
    }

    /// Ends a session, if it is still the one there is.
    pub(super) fn end(&self, id: SessionId, why: SessionEnd) {
        let session = self.node(id.node).and_then(|node| node.session());
        if let Some(session) = session.filter(|session| session.id == id) {
            session.end(why);
        }
    }

    /// Whether it was not said for a while that a node is refused: it tries again and again.
    pub(super) fn is_news_of(&self, node: i32, code: RefusalCode, now: Monotonic) -> bool {
        if code == RefusalCode::STALE_SESSION {
            return false;
        }
        let mut refused = self.refused.borrow_mut();
        refused.retain(|_, said| now.since(*said) < SAY_AGAIN);
        let is_news = !refused.contains_key(&(node, code)) && refused.len() < REFUSED_MAX;
        if is_news {
            refused.insert((node, code), now);
        }
        is_news
    }

    pub(super) fn status(&self) -> Vec<NodeStatus> {
        let status = |node: Rc<Node<R>>| NodeStatus {
            node: node.id,
            address: node.address.get(),
            session: node
                .session()
                .and_then(|session| Some((session.id.number, session.up_since.get()?))),
            last_words: node.last_words.borrow().clone(),
        };
        self.all().into_iter().map(status).collect()
    }
}
