//! The HTTP server of the admin port, on shard 0.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;

use super::http::{self, HEAD_BYTES_MAX, Method, Parsed, Response, Status};
use super::pages;
use super::view::View;
use crate::runtime::{Connection, Listener, Network, ProcessFacts, Queue, Runtime};

/// Connections at once; more are closed.
const CONNECTIONS_MAX: usize = 64;
/// How long the head of a request may take to arrive.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long the peer may take to receive the answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long is read what a refused peer still sends, so that it can read why.
const DRAIN_TIME: Duration = Duration::from_millis(200);
/// Bytes that are read of it.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// How long to wait after an accept failed: descriptors are used up, and some may come free.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

type Socket<R> = <<R as Runtime>::Network as Network>::Connection;

/// Looks at the process; may take a moment, and does not block the shard.
pub type ProcessProbe = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ProcessFacts>>>>;

/// The server.
pub struct Server<R: Runtime> {
    view: Rc<View<R>>,
    process: ProcessProbe,
    open: Cell<usize>,
}

impl<R: Runtime> Server<R> {
    /// A server without a listener yet.
    pub fn new(view: Rc<View<R>>, process: ProcessProbe) -> Rc<Self> {
        Rc::new(Self { view, process, open: Cell::new(0) })
    }

    fn runtime(&self) -> &R {
        &self.view.parts.runtime
    }

    /// Serves as long as the process lives.
    pub async fn accept(self: Rc<Self>, listener: <R::Network as Network>::Listener) {
        loop {
            match listener.accept().await {
                Ok(socket) if self.open.get() >= CONNECTIONS_MAX => socket.close(),
                Ok(socket) => {
                    self.open.set(self.open.get() + 1);
                    let server = Rc::clone(&self);
                    let serving = async move {
                        server.serve(&socket).await;
                        socket.close();
                        server.open.set(server.open.get() - 1);
                    };
                    self.runtime().spawn(Queue::Control, serving);
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin port cannot accept for a moment");
                    let runtime = self.runtime();
                    runtime.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(&self, socket: &Socket<R>) {
        let parsed = match self.runtime().in_time(REQUEST_TIME, read_request(socket)).await {
            Some(Some(parsed)) => parsed,
            // The peer has gone.
            Some(None) => return,
            None => {
                let response = Response::of_status(Status::RequestTimeout);
                return self.send(socket, response, false).await;
            }
        };
        match parsed {
            Parsed::Complete(request) => {
                let process = (self.process)();
                let response = pages::answer(&self.view, &request, process).await;
                self.send(socket, response, request.method == Method::Head).await;
            }
            Parsed::Incomplete => {}
            Parsed::Refused(status) => {
                self.send(socket, Response::of_status(status), false).await;
                self.runtime().in_time(DRAIN_TIME, drain(socket)).await;
            }
        }
    }

    /// A peer that goes, or takes too long, gets no answer: nobody else misses it.
    async fn send(&self, socket: &Socket<R>, response: Response, is_head: bool) {
        let sending = socket.send(response.into_parts(is_head));
        let _gone_or_late = self.runtime().in_time(ANSWER_TIME, sending).await;
    }
}

/// A request, or what else was sent; `None` where the peer has gone.
async fn read_request(socket: &impl Connection) -> Option<Parsed> {
    let mut buffer = BytesMut::with_capacity(HEAD_BYTES_MAX);
    loop {
        let (received, filled) = socket.receive(buffer).await;
        buffer = filled;
        if received.ok()? == 0 {
            return None;
        }
        match http::parse(&buffer) {
            // A head of `HEAD_BYTES_MAX` is never incomplete: there is room.
            Parsed::Incomplete => {}
            parsed => return Some(parsed),
        }
    }
}

/// Reads and forgets, to the peer's end: closing over unread bytes would take the answer away from
/// it.
async fn drain(socket: &impl Connection) {
    let mut left = DRAIN_BYTES_MAX;
    let mut buffer = BytesMut::with_capacity(HEAD_BYTES_MAX);
    while left > 0 {
        buffer.clear();
        let (received, filled) = socket.receive(buffer).await;
        buffer = filled;
        match received {
            Ok(bytes) if bytes > 0 => left = left.saturating_sub(bytes),
            _ => return,
        }
    }
}
