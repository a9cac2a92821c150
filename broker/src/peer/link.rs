//! One shard's part of one session with one node: its lanes, what waits to be sent, what is asked.
//!
//! A link is made before the session begins, is up from then on, and ends once. Nothing is taken in
//! before it is up on all shards, and nothing after its end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_channel::oneshot;

use super::greeting::Introduction;
use super::options::Options;
use super::outbox::{Item, Outbox, Turn};
use super::window::{Taken, Window};
use crate::runtime::sync::{Event, Latch};
use crate::runtime::{Connection, Network, Runtime};

pub(super) type Socket<R> = <<R as Runtime>::Network as Network>::Connection;

/// A request's id is the shard that asks, above so many bits of a count.
const ASKED_BITS: u32 = 48;

/// The shard that asked, by a request's id.
pub(super) fn asking_shard(id: u64) -> usize {
    usize::try_from(id >> ASKED_BITS).unwrap_or(usize::MAX)
}

/// Names a session with a node. The number is the same at both ends, and goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId {
    /// The other node.
    pub node: i32,
    /// Its number.
    pub number: u64,
}

/// Where a link is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Lanes come in.
    Gathering,
    Up,
    Ended,
}

/// A connection of a session, at the shard that serves this end of it.
pub(super) struct Lane<R: Runtime> {
    pub(super) number: u16,
    pub(super) socket: Socket<R>,
    /// Checks in a row at which it waited, and nothing came.
    pub(super) silent_checks: Cell<u32>,
    /// It waits for something to come.
    pub(super) is_waiting: Cell<bool>,
}

/// See the module.
pub(super) struct Link<R: Runtime> {
    pub(super) id: SessionId,
    /// Who is there.
    pub(super) introduction: Arc<Introduction>,
    /// Lanes of the session, over all shards.
    pub(super) lanes_total: u16,
    stage: Cell<Stage>,
    lanes: RefCell<BTreeMap<u16, Rc<Lane<R>>>>,
    outbox: RefCell<Outbox>,
    /// Something waits to be sent, or it has ended.
    changed: Event,
    pub(super) window: Window,
    asked: RefCell<BTreeMap<u64, oneshot::Sender<Result<Bytes, Busy>>>>,
    next_request: Cell<u64>,
    /// More waits than may: nothing is added, and the session ends.
    is_overfull: Cell<bool>,
    /// Requests of the other side that are being answered.
    pub(super) serving: Cell<usize>,
    pub(super) ended: Latch,
}

/// The other side had too much to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Busy;

impl<R: Runtime> Link<R> {
    pub(super) fn new(
        id: SessionId,
        introduction: Arc<Introduction>,
        lanes_total: u16,
        options: &Options,
    ) -> Rc<Self> {
        Rc::new(Self {
            id,
            introduction,
            lanes_total,
            stage: Cell::new(Stage::Gathering),
            lanes: RefCell::default(),
            outbox: RefCell::new(Outbox::new()),
            changed: Event::new(),
            window: Window::new(options.window_bytes),
            asked: RefCell::default(),
            next_request: Cell::new(0),
            is_overfull: Cell::new(false),
            serving: Cell::new(0),
            ended: Latch::default(),
        })
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage.get()
    }

    pub(super) fn is_up(&self) -> bool {
        self.stage() == Stage::Up
    }

    /// Takes a lane in; false where it has no place here.
    pub(super) fn add_lane(&self, number: u16, socket: Socket<R>) -> bool {
        let mut lanes = self.lanes.borrow_mut();
        let is_free = self.stage() == Stage::Gathering && !lanes.contains_key(&number);
        if !is_free || number >= self.lanes_total {
            return false;
        }
        let (silent_checks, is_waiting) = (Cell::new(0), Cell::new(false));
        lanes.insert(number, Rc::new(Lane { number, socket, silent_checks, is_waiting }));
        true
    }

    pub(super) fn lanes(&self) -> Vec<Rc<Lane<R>>> {
        self.lanes.borrow().values().cloned().collect()
    }

    /// Whether all lanes are there that this shard, one of so many, serves.
    pub(super) fn is_complete(&self, shard: usize, shards: usize) -> bool {
        let own = (0..self.lanes_total).filter(|lane| usize::from(*lane) % shards == shard);
        own.count() == self.lanes.borrow().len()
    }

    /// The session begins; false where it cannot any more.
    pub(super) fn raise(&self) -> bool {
        let may = self.stage() == Stage::Gathering;
        if may {
            self.stage.set(Stage::Up);
        }
        may
    }

    /// The end: closes the lanes, forgets what was to be sent, tells who waits. Whether it was up.
    pub(super) fn end(&self) -> bool {
        let was_up = self.stage.replace(Stage::Ended) == Stage::Up;
        for lane in self.lanes.borrow().values() {
            lane.socket.close();
        }
        let outbox = self.outbox.replace(Outbox::new());
        let asked = self.asked.take();
        drop((outbox, asked));
        self.window.close();
        self.ended.set();
        self.changed.notify();
        was_up
    }

    /// Has this said, in its turn. What waits then, in bytes; dropped where the link is not up.
    pub(super) fn push(&self, item: Item, room: Option<Taken>) -> usize {
        if !self.is_up() || self.is_overfull.get() {
            return 0;
        }
        let mut outbox = self.outbox.borrow_mut();
        let was_empty = outbox.is_empty();
        outbox.push(item, room);
        let bytes = outbox.bytes();
        drop(outbox);
        if was_empty {
            self.changed.notify();
        }
        bytes
    }

    /// Says no more, though the session's end is yet to come; false where that was known.
    pub(super) fn end_early(&self) -> bool {
        !self.is_overfull.replace(true)
    }

    /// What is to be sent next; waits for it. `None` at the end of the link.
    pub(super) async fn next_turn(&self, payload_bytes: usize) -> Option<Turn> {
        loop {
            let changed = self.changed.listen();
            if !self.is_up() {
                return None;
            }
            let turn = self.outbox.borrow_mut().take(payload_bytes);
            if turn.is_some() {
                return turn;
            }
            changed.await;
        }
    }

    /// Whether nothing waits to be sent.
    pub(super) fn is_idle(&self) -> bool {
        self.outbox.borrow().is_empty()
    }

    /// A number for a request of this shard, and where its answer comes.
    pub(super) fn ask(&self, shard: usize) -> (u64, oneshot::Receiver<Result<Bytes, Busy>>) {
        let count = self.next_request.get();
        self.next_request.set((count + 1) % (1 << ASKED_BITS));
        let id = (shard as u64) << ASKED_BITS | count;
        let (sender, receiver) = oneshot::channel();
        self.asked.borrow_mut().insert(id, sender);
        (id, receiver)
    }

    /// An answer has come. Whoever asked may have given up.
    pub(super) fn answered(&self, id: u64, answer: Result<Bytes, Busy>) {
        let asked = self.asked.borrow_mut().remove(&id);
        if let Some(sender) = asked {
            let _gave_up = sender.send(answer);
        }
    }

    /// Nobody waits for this answer any more.
    pub(super) fn forget(&self, id: u64) {
        let asked = self.asked.borrow_mut().remove(&id);
        drop(asked);
    }
}
