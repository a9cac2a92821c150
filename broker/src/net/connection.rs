//! One connection: requests in, answers out in their order.
//!
//! Two tasks share it. The *reader* cuts the stream into frames and hands each to its handler; it
//! goes on to the next frame when the handler says that the order is kept. The *writer*
//! (`answers`) sends what is ready, in order, several answers in one call where they are ready
//! together.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::{Bytes, BytesMut};
use vltava_protocol::frame;

use super::answers::{Owed, UnderWay, bring_to_end, write_answers};
use super::budget::{Admission, Ask, Budget, ConnectionId, STALL_MAX};
use super::counts::{ConnectionCounts, OpenConnection};
use crate::handlers::client::Client;
use crate::handlers::context::Services;
use crate::handlers::{self, Answer, Refusal};
use crate::metrics::ShardMetrics;
use crate::runtime::log_limit::LogLimit;
use crate::runtime::{Connection, Monotonic, Network, Queue, Runtime};

/// What a connection reads into while it does not know how large its next request is, in bytes: at
/// most this, at least the other. An idle connection holds nothing else.
const SMALL_BUFFER_BYTES: usize = 4 * 1024;
/// What a connection begins with, and one whose requests are small goes on with.
const IDLE_BUFFER_BYTES: usize = 512;
/// Memory reserved at once for a request whose length is known, in bytes; a larger one grows as its
/// bytes arrive.
const RESERVE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes received at once while the memory for requests is short: those that wait for it afterwards
/// are not charged yet.
const SCARCE_BYTES: usize = 16 * 1024;

/// Bytes of answers that wait behind another: whoever asks for much and reads little is not heard
/// meanwhile.
const OWED_BYTES_MAX: usize = 1024 * 1024;

/// Limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionOptions {
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// Requests under way at once; reading waits beyond.
    pub in_flight_max: usize,
}

type Socket<R> = <<R as Runtime>::Network as Network>::Connection;
type Detached<R> = <Socket<R> as Connection>::Detached;

/// Why a connection ended, for the log. Not an error of ours.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The peer sends no more.
    #[error("the peer closed it")]
    Peer,
    /// The network failed, or the peer is gone.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The broker stops.
    #[error("the broker stops")]
    Stopping,
    /// A frame that is longer than allowed, or has no length at all.
    #[error("a request announces {announced} bytes; socket.request.max.bytes is {allowed}")]
    FrameLength {
        /// What it says.
        announced: i32,
        /// `socket.request.max.bytes`.
        allowed: usize,
    },
    /// The budget gave it up.
    #[error(
        "others needed the memory of its incomplete request, which was too slow (less than it \
         takes in {} s), or larger than half of it",
        STALL_MAX.as_secs()
    )]
    OutOfMemory,
    /// It goes on at this shard, where the partitions are that it uses.
    #[error("it moved to shard {0}")]
    Moved(usize),
    /// Nothing moved for `connections.max.idle.ms`.
    #[error("nothing moved for connections.max.idle.ms")]
    Idle,
    /// A request that gets no answer.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

impl Ended {
    /// A connection that a peer ended, or its network, is no news; one that we ended is.
    fn is_news(&self) -> bool {
        !matches!(self, Self::Peer | Self::Io(_) | Self::Stopping | Self::Moved(_))
    }
}

/// What reader and writer share.
pub(super) struct Shared<R: Runtime> {
    pub(super) runtime: R,
    pub(super) socket: Socket<R>,
    metrics: Rc<ShardMetrics>,
    id: ConnectionId,
    pub(super) owed: RefCell<VecDeque<Owed>>,
    /// Requests that are complete and whose answers have not left.
    under_way: Rc<Cell<usize>>,
    /// Waits for something to be owed (writer); for room to owe more, or for memory (reader).
    pub(super) writer: RefCell<Option<Waker>>,
    pub(super) reader: RefCell<Option<Waker>>,
    /// The first reason for which it ended: what comes of that is no other.
    ended: RefCell<Option<Ended>>,
    /// No further request is begun.
    is_draining: Cell<bool>,
    last_progress: Cell<Monotonic>,
}

impl<R: Runtime> Shared<R> {
    pub(super) fn sent(&self, bytes: usize) {
        self.metrics.count(|counters| counters.sent_bytes += bytes as u64);
        self.last_progress.set(self.runtime.now());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Ends the connection; only the first reason counts.
    pub(super) fn end(&self, why: Ended) {
        if self.is_closed() {
            return;
        }
        if !matches!(why, Ended::Moved(_)) {
            self.socket.close();
        }
        *self.ended.borrow_mut() = Some(why);
        wake(&self.writer);
        wake(&self.reader);
    }

    /// What a future gives; `None` where the connection ended before. For the reader only.
    async fn unless_closed<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|context| {
            if self.is_closed() {
                return Poll::Ready(None);
            }
            *self.reader.borrow_mut() = Some(context.waker().clone());
            future.as_mut().poll(context).map(Some)
        })
        .await
    }
}

/// A connection as others on its shard see it.
pub trait Handle {
    /// When it last received or sent something.
    fn last_progress(&self) -> Monotonic;
    /// Whether a request is under way: it is complete, and its answer has not left.
    fn is_busy(&self) -> bool;
    /// Whether the first of them waits for a commit.
    fn awaits_commit(&self) -> bool;
    /// Begins no further request; what is under way goes on.
    fn drain(&self);
    /// Ends it.
    fn close(&self, why: Ended);
}

impl<R: Runtime> Handle for Shared<R> {
    fn last_progress(&self) -> Monotonic {
        self.last_progress.get()
    }

    fn is_busy(&self) -> bool {
        self.under_way.get() > 0
    }

    fn awaits_commit(&self) -> bool {
        self.owed.borrow().front().is_some_and(Owed::awaits_commit)
    }

    fn drain(&self) {
        self.is_draining.set(true);
    }

    fn close(&self, why: Ended) {
        self.end(why);
    }
}

pub(super) fn wake(waker: &RefCell<Option<Waker>>) {
    let waker = waker.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What the connections of a shard share.
pub struct Common<R: Runtime> {
    /// The shard's services.
    pub services: Rc<Services<R>>,
    /// Memory for requests.
    pub budget: Budget,
    /// Lines about peers.
    pub log_limit: Rc<LogLimit>,
    /// Limits of each.
    pub options: ConnectionOptions,
    /// Connections of the node.
    pub counts: ConnectionCounts,
}

/// A connection that is new to a shard.
pub struct Arrival<R: Runtime> {
    /// Its socket.
    pub socket: Socket<R>,
    /// Who is at the other end.
    pub client: Rc<Client>,
    /// Counts it.
    pub counted: OpenConnection,
    /// What was received already.
    pub received: BytesMut,
}

/// A connection that goes on at another shard: nothing of it is under way here.
pub struct Departure<R: Runtime> {
    /// Which shard.
    pub to: usize,
    /// Its socket.
    pub socket: Detached<R>,
    /// Counts it, there already.
    pub counted: OpenConnection,
    /// What was received, and not begun.
    pub received: BytesMut,
}

/// Starts the two tasks of a new connection. `ended` is called once when it is over here.
pub fn start<R: Runtime>(
    common: &Common<R>,
    arrival: Arrival<R>,
    id: ConnectionId,
    ended: impl FnOnce(Option<Departure<R>>) + 'static,
) -> Rc<dyn Handle> {
    let Arrival { socket, client, counted, received } = arrival;
    let Common { services, budget, log_limit, options, .. } = common;
    let runtime = services.runtime.clone();
    let shared = Rc::new(Shared {
        last_progress: Cell::new(runtime.now()),
        runtime: runtime.clone(),
        socket,
        metrics: Rc::clone(&services.metrics),
        id,
        owed: RefCell::default(),
        under_way: Rc::default(),
        writer: RefCell::default(),
        reader: RefCell::default(),
        ended: RefCell::default(),
        is_draining: Cell::new(false),
    });
    let reader = Reader {
        close: {
            let shared = Rc::clone(&shared);
            Rc::new(move || shared.end(Ended::OutOfMemory))
        },
        shared: Rc::clone(&shared),
        services: Rc::clone(services),
        client,
        budget: budget.clone(),
        log_limit: Rc::clone(log_limit),
        options: *options,
        counted,
        buffer: received,
        expected_bytes: IDLE_BUFFER_BYTES,
    };
    runtime.spawn(Queue::Foreground, reader.run(ended));
    runtime.spawn(Queue::Foreground, write_answers(Rc::clone(&shared)));
    shared
}

struct Reader<R: Runtime> {
    shared: Rc<Shared<R>>,
    services: Rc<Services<R>>,
    client: Rc<Client>,
    budget: Budget,
    log_limit: Rc<LogLimit>,
    options: ConnectionOptions,
    counted: OpenConnection,
    buffer: BytesMut,
    /// Room for the next request, going by those before it.
    expected_bytes: usize,
    close: Rc<dyn Fn()>,
}

impl<R: Runtime> Reader<R> {
    async fn run(mut self, ended: impl FnOnce(Option<Departure<R>>) + 'static) {
        let why = self.read_requests().await;
        self.shared.end(why);
        self.note_end();
        self.budget.forget(self.shared.id);
        // Taken here, not with the writer: what parked requests hold must not outlive the
        // connection. What logs hold does, and so does its charge.
        let owed = std::mem::take(&mut *self.shared.owed.borrow_mut());
        bring_to_end(&self.shared.runtime, owed);
        ended(self.departure());
    }

    fn departure(self) -> Option<Departure<R>> {
        let Some(Ended::Moved(to)) = *self.shared.ended.borrow() else {
            return None;
        };
        let socket = self.shared.socket.clone().detach();
        Some(Departure { to, socket, counted: self.counted, received: self.buffer })
    }

    fn note_end(&self) {
        let ended = self.shared.ended.borrow();
        let Some(why) = ended.as_ref().filter(|why| why.is_news()) else {
            return;
        };
        let metrics = &self.shared.metrics;
        metrics.count(|counters| counters.connections_refused += 1);
        if let Some(left_out) = self.log_limit.admit(self.shared.runtime.now()) {
            let Client { peer, listener, .. } = &*self.client;
            tracing::warn!(%peer, %listener, left_out, "closed a connection: {why}");
        }
    }

    async fn read_requests(&mut self) -> Ended {
        if let Err(why) = self.charge(self.buffer.len()).await {
            return why;
        }
        loop {
            if let Some(shard) = self.leads_elsewhere()
                && self.is_at_rest().await
                && self.counted.move_to(shard)
            {
                return Ended::Moved(shard);
            }
            let frame = match self.next_frame().await {
                Ok(frame) => frame,
                Err(why) => return why,
            };
            if self.shared.is_draining.get() {
                // Closed by whoever drains, once the answers before this have left.
                self.shared.unless_closed(std::future::pending::<()>()).await;
            }
            // What a closed connection had sent before is not begun.
            if self.shared.is_closed() {
                return Ended::Peer;
            }
            let under_way = UnderWay::begin(&self.shared.under_way);
            let bytes = frame::LENGTH_BYTES + frame.len();
            let charge = self.budget.complete(self.shared.id, bytes, self.missing_bytes());
            match handlers::dispatch(&self.services, &self.client, frame).await {
                Ok(answer) => {
                    let holds_bytes = matches!(answer, Answer::Committed(_));
                    let charge = if holds_bytes { charge } else { charge.without_bytes() };
                    self.owe(Owed { answer, charge, _under_way: under_way }).await;
                }
                Err(refusal) => return Ended::Refused(refusal),
            }
        }
    }

    /// The shard that this connection had better be on.
    fn leads_elsewhere(&self) -> Option<usize> {
        let shard = self.client.route.settled()?;
        let is_elsewhere = shard != self.counted.shard() && self.counted.may_move_to(shard);
        is_elsewhere.then_some(shard)
    }

    /// Waits until all answers have left, as Kafka does after each request. Whether the connection
    /// is to go on then.
    async fn is_at_rest(&self) -> bool {
        let at_rest = poll_fn(|_| match self.shared.is_busy() {
            false => Poll::Ready(()),
            // Woken by the writer.
            true => Poll::Pending,
        });
        self.shared.unless_closed(at_rest).await.is_some() && !self.shared.is_draining.get()
    }

    /// Hands an answer to the writer, and waits while too many, or too much, are owed.
    async fn owe(&self, owed: Owed) {
        self.shared.owed.borrow_mut().push_back(owed);
        wake(&self.shared.writer);
        let in_flight_max = self.options.in_flight_max;
        let room = poll_fn(|_| {
            let owed = self.shared.owed.borrow();
            let bytes: usize = owed.iter().map(Owed::memory_bytes).sum();
            match owed.len() < in_flight_max && bytes < OWED_BYTES_MAX {
                true => Poll::Ready(()),
                // Woken by the writer, and where the connection ends.
                false => Poll::Pending,
            }
        });
        self.shared.unless_closed(room).await;
    }

    /// The next request, without its length.
    async fn next_frame(&mut self) -> Result<Bytes, Ended> {
        loop {
            let needed = match self.buffer.first_chunk::<{ frame::LENGTH_BYTES }>() {
                None => None,
                Some(length) => Some(self.frame_bytes(i32::from_be_bytes(*length))?),
            };
            if let Some(bytes) = needed
                && self.buffer.len() >= bytes
            {
                let mut frame = self.buffer.split_to(bytes).freeze();
                let twice = (2 * bytes).clamp(IDLE_BUFFER_BYTES, SMALL_BUFFER_BYTES);
                self.expected_bytes = twice.max(self.expected_bytes / 2);
                return Ok(frame.split_off(frame::LENGTH_BYTES));
            }
            self.make_room(needed);
            self.receive().await?;
        }
    }

    fn frame_bytes(&self, announced: i32) -> Result<usize, Ended> {
        let allowed = self.options.request_bytes_max;
        match usize::try_from(announced) {
            Ok(length) if length <= allowed => Ok(frame::LENGTH_BYTES + length),
            _ => Err(Ended::FrameLength { announced, allowed }),
        }
    }

    /// Makes room for what comes next: exactly the rest of a request where that is large, so that
    /// it ends where its buffer ends and was never moved (memory that is reserved costs nothing
    /// before its bytes arrive).
    fn make_room(&mut self, needed: Option<usize>) {
        let (held, spare) = (self.buffer.len(), self.buffer.capacity() - self.buffer.len());
        if spare >= IDLE_BUFFER_BYTES || (held > 0 && spare > 0) {
            return;
        }
        let capacity = match needed {
            Some(bytes) if bytes > SMALL_BUFFER_BYTES => bytes.min(RESERVE_BYTES_MAX.max(held * 2)),
            Some(_) => held + SMALL_BUFFER_BYTES,
            None => held + self.expected_bytes,
        };
        let mut larger = BytesMut::with_capacity(capacity);
        larger.extend_from_slice(&self.buffer);
        self.buffer = larger;
    }

    /// What the request at the front of the buffer still lacks, as far as that is known.
    fn missing_bytes(&self) -> usize {
        let length = self.buffer.first_chunk::<{ frame::LENGTH_BYTES }>();
        let needed = length.and_then(|length| self.frame_bytes(i32::from_be_bytes(*length)).ok());
        needed.map_or(0, |needed| needed.saturating_sub(self.buffer.len()))
    }

    async fn receive(&mut self) -> Result<(), Ended> {
        let bytes = self.receive_into_buffer().await?;
        // What was sent before the connection was closed can still be received.
        if bytes == 0 || self.shared.is_closed() {
            return Err(Ended::Peer);
        }
        let metrics = &self.shared.metrics;
        metrics.count(|counters| counters.received_bytes += bytes as u64);
        self.shared.last_progress.set(self.shared.runtime.now());
        self.charge(bytes).await
    }

    /// Charges bytes that are in the buffer.
    async fn charge(&self, bytes: usize) -> Result<(), Ended> {
        if bytes == 0 {
            return Ok(());
        }
        let (connection, rest) = (self.shared.id, self.missing_bytes());
        let ask = Ask { connection, bytes, rest, close: &self.close };
        let admitted = self.budget.admit(&self.shared.runtime, ask);
        match self.shared.unless_closed(admitted).await {
            Some(Admission::Granted) => Ok(()),
            Some(Admission::Refused) => Err(Ended::OutOfMemory),
            None => Err(Ended::Peer),
        }
    }

    async fn receive_into_buffer(&mut self) -> std::io::Result<usize> {
        let (runtime, id) = (&self.shared.runtime, self.shared.id);
        let spare = self.buffer.capacity() - self.buffer.len();
        let is_scarce = spare > SCARCE_BYTES && self.budget.is_short_of(spare);
        let buffer = match is_scarce {
            true => BytesMut::with_capacity(SCARCE_BYTES),
            false => std::mem::take(&mut self.buffer),
        };
        self.budget.begin_reading(id, runtime.now());
        let (received, buffer) = self.shared.socket.receive(buffer).await;
        self.budget.end_reading(id, runtime.now());
        if is_scarce {
            self.buffer.extend_from_slice(&buffer);
        } else {
            self.buffer = buffer;
        }
        received
    }
}
