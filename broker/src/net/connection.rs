//! One connection: requests in, answers out in their order.
//!
//! Two tasks share it. The *reader* cuts the stream into frames and hands each to its handler; it
//! goes on to the next frame when the handler says that the order is kept. The *writer* sends what
//! is ready, in order, several answers in one call where they are ready together.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use vltava_protocol::encode::{ExternalBytes, Part};
use vltava_protocol::frame;

use super::budget::{Admission, Budget, Charge, ConnectionId};
use crate::handlers::context::{Client, Services};
use crate::handlers::{self, Answer, Refusal};
use crate::metrics::ShardMetrics;
use crate::runtime::log_limit::LogLimit;
use crate::runtime::{Connection, Monotonic, Network, Queue, Runtime};

/// What a connection reads into while it does not know how large its next request is, in bytes: all
/// that an idle one holds.
const SMALL_BUFFER_BYTES: usize = 4 * 1024;
/// Memory reserved at once for a request whose length is known, in bytes; a larger one grows as its
/// bytes arrive.
const RESERVE_BYTES_MAX: usize = 1024 * 1024;
/// Answers below this size are gathered into one send, in bytes.
const GATHER_BYTES_MAX: usize = 256 * 1024;

/// Limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionOptions {
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// Requests under way at once; reading waits beyond.
    pub in_flight_max: usize,
}

type Socket<R> = <<R as Runtime>::Network as Network>::Connection;

/// Why a connection ended, for the log. Not an error of ours.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the peer closed it")]
    Peer,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("a request announces {announced} bytes; socket.request.max.bytes is {allowed}")]
    FrameLength { announced: i32, allowed: usize },
    #[error("its request made no progress while the memory for requests was used up")]
    OutOfMemory,
    #[error("{0}")]
    Refused(Refusal),
}

/// An answer that the writer owes the peer.
struct Owed {
    answer: Answer,
    /// Given back when the answer has left.
    _charge: Charge,
}

/// What reader and writer share.
struct Shared<R: Runtime> {
    runtime: R,
    socket: Socket<R>,
    metrics: Rc<ShardMetrics>,
    id: ConnectionId,
    owed: RefCell<VecDeque<Owed>>,
    /// Waits for something to be owed (writer), or for room to owe more (reader).
    writer: RefCell<Option<Waker>>,
    reader: RefCell<Option<Waker>>,
    closed: Cell<bool>,
    last_progress: Cell<Monotonic>,
}

impl<R: Runtime> Shared<R> {
    fn sent(&self, bytes: usize) {
        self.metrics.count(|counters| counters.sent_bytes += bytes as u64);
        self.last_progress.set(self.runtime.now());
    }
}

/// A connection as others on its shard see it.
pub trait Handle {
    /// When it last received or sent something.
    fn last_progress(&self) -> Monotonic;
    /// Whether an answer is owed.
    fn is_busy(&self) -> bool;
    /// Ends it.
    fn close(&self);
}

impl<R: Runtime> Handle for Shared<R> {
    fn last_progress(&self) -> Monotonic {
        self.last_progress.get()
    }

    fn is_busy(&self) -> bool {
        !self.owed.borrow().is_empty()
    }

    fn close(&self) {
        self.closed.set(true);
        self.socket.close();
        wake(&self.writer);
        wake(&self.reader);
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
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
}

/// Starts the two tasks of a new connection. `ended` is called once when it is over.
pub fn start<R: Runtime>(
    common: &Common<R>,
    socket: Socket<R>,
    client: Rc<Client>,
    id: ConnectionId,
    ended: impl FnOnce() + 'static,
) -> Rc<dyn Handle> {
    let Common { services, budget, log_limit, options } = common;
    let runtime = services.runtime.clone();
    let shared = Rc::new(Shared {
        last_progress: Cell::new(runtime.now()),
        runtime: runtime.clone(),
        socket,
        metrics: Rc::clone(&services.metrics),
        id,
        owed: RefCell::default(),
        writer: RefCell::default(),
        reader: RefCell::default(),
        closed: Cell::new(false),
    });
    let reader = Reader {
        close: {
            let shared = Rc::clone(&shared);
            Rc::new(move || shared.close())
        },
        shared: Rc::clone(&shared),
        services: Rc::clone(services),
        client,
        budget: budget.clone(),
        log_limit: Rc::clone(log_limit),
        options: *options,
        buffer: BytesMut::new(),
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
    buffer: BytesMut,
    close: Rc<dyn Fn()>,
}

impl<R: Runtime> Reader<R> {
    async fn run(mut self, ended: impl FnOnce() + 'static) {
        let why = self.read_requests().await;
        self.note_end(&why);
        self.shared.close();
        self.budget.forget(self.shared.id);
        // Dropped here, not with the writer: what parked requests hold must not outlive the
        // connection.
        self.shared.owed.borrow_mut().clear();
        ended();
    }

    /// A connection that a peer ended, or its network, is no news; one that we ended is.
    fn note_end(&self, why: &Ended) {
        if matches!(why, Ended::Peer | Ended::Io(_)) {
            return;
        }
        let metrics = &self.shared.metrics;
        metrics.count(|counters| counters.connections_refused += 1);
        if let Some(left_out) = self.log_limit.admit(self.shared.runtime.now()) {
            let Client { peer, listener } = &*self.client;
            tracing::warn!(%peer, %listener, left_out, "closed a connection: {why}");
        }
    }

    async fn read_requests(&mut self) -> Ended {
        loop {
            let frame = match self.next_frame().await {
                Ok(frame) => frame,
                Err(why) => return why,
            };
            let charge = self.budget.complete(self.shared.id, frame::LENGTH_BYTES + frame.len());
            let answer = match handlers::dispatch(&self.services, &self.client, frame).await {
                Ok(answer) => answer,
                Err(refusal) => return Ended::Refused(refusal),
            };
            if self.shared.closed.get() {
                return Ended::Peer;
            }
            self.owe(Owed { answer, _charge: charge }).await;
        }
    }

    /// Hands an answer to the writer, and waits while too many are owed.
    async fn owe(&self, owed: Owed) {
        if !matches!(owed.answer, Answer::None) {
            self.shared.owed.borrow_mut().push_back(owed);
            wake(&self.shared.writer);
        }
        let in_flight_max = self.options.in_flight_max;
        poll_fn(|context| {
            if self.shared.owed.borrow().len() < in_flight_max || self.shared.closed.get() {
                return Poll::Ready(());
            }
            *self.shared.reader.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
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
        if self.buffer.capacity() > self.buffer.len() {
            return;
        }
        let held = self.buffer.len();
        let capacity = match needed {
            Some(bytes) if bytes > SMALL_BUFFER_BYTES => bytes.min(RESERVE_BYTES_MAX.max(held * 2)),
            _ => held + SMALL_BUFFER_BYTES,
        };
        let mut larger = BytesMut::with_capacity(capacity);
        larger.extend_from_slice(&self.buffer);
        self.buffer = larger;
    }

    async fn receive(&mut self) -> Result<(), Ended> {
        let buffer = std::mem::take(&mut self.buffer);
        let (received, buffer) = self.shared.socket.receive(buffer).await;
        self.buffer = buffer;
        let bytes = received?;
        if bytes == 0 {
            return Err(Ended::Peer);
        }
        let metrics = &self.shared.metrics;
        metrics.count(|counters| counters.received_bytes += bytes as u64);
        let now = self.shared.runtime.now();
        self.shared.last_progress.set(now);
        match self.budget.admit(self.shared.id, bytes, now, &self.close).await {
            Admission::Granted => Ok(()),
            Admission::Refused => Err(Ended::OutOfMemory),
        }
    }
}

/// Sends answers until the connection is closed.
async fn write_answers<R: Runtime>(shared: Rc<Shared<R>>) {
    while !shared.closed.get() {
        let parts = poll_fn(|context| poll_gather(&shared, context)).await;
        let Some(parts) = parts else { return };
        if send(&shared, parts).await.is_err() {
            shared.close();
            return;
        }
    }
}

/// The answers at the front that are ready, as one list of parts; `None` once the connection is
/// closed.
fn poll_gather<R: Runtime>(
    shared: &Rc<Shared<R>>,
    context: &mut Context<'_>,
) -> Poll<Option<(Vec<Part>, Vec<Owed>)>> {
    if shared.closed.get() {
        return Poll::Ready(None);
    }
    *shared.writer.borrow_mut() = Some(context.waker().clone());
    let mut parts = Vec::new();
    let mut sent = Vec::new();
    let mut gathered = 0;
    while gathered < GATHER_BYTES_MAX {
        // Taken out while it is polled: a handler may reach this connection again.
        let Some(mut front) = shared.owed.borrow_mut().pop_front() else {
            break;
        };
        match poll_answer(&mut front.answer, context) {
            Poll::Ready(Err(_)) => {
                shared.close();
                return Poll::Ready(None);
            }
            Poll::Ready(Ok(answer)) => {
                gathered += answer.iter().map(Part::len).sum::<usize>();
                parts.extend(answer);
                sent.push(front);
            }
            Poll::Pending => {
                shared.owed.borrow_mut().push_front(front);
                break;
            }
        }
    }
    if sent.is_empty() {
        return Poll::Pending;
    }
    wake(&shared.reader);
    Poll::Ready(Some((parts, sent)))
}

fn poll_answer(answer: &mut Answer, context: &mut Context<'_>) -> Poll<Result<Vec<Part>, Refusal>> {
    match answer {
        Answer::None => Poll::Ready(Ok(Vec::new())),
        Answer::Now(parts) => Poll::Ready(Ok(std::mem::take(parts))),
        Answer::Later(future) => Pin::new(future).poll(context),
    }
}

/// Sends parts in order. The charges of their requests are given back afterwards.
async fn send<R: Runtime>(
    shared: &Rc<Shared<R>>,
    (parts, owed): (Vec<Part>, Vec<Owed>),
) -> std::io::Result<()> {
    let mut in_memory = Vec::new();
    for part in parts {
        match part {
            Part::Memory(bytes) => in_memory.push(bytes),
            Part::External(range) => {
                send_in_memory(shared, &mut in_memory).await?;
                send_external(shared, &range).await?;
            }
        }
    }
    send_in_memory(shared, &mut in_memory).await?;
    drop(owed);
    Ok(())
}

async fn send_in_memory<R: Runtime>(
    shared: &Rc<Shared<R>>,
    parts: &mut Vec<Bytes>,
) -> std::io::Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let bytes = parts.iter().map(Bytes::len).sum();
    shared.socket.send(std::mem::take(parts)).await?;
    shared.sent(bytes);
    Ok(())
}

async fn send_external<R: Runtime>(
    shared: &Rc<Shared<R>>,
    range: &ExternalBytes,
) -> std::io::Result<()> {
    shared.socket.send_file(range).await?;
    shared.sent(range.len);
    Ok(())
}
