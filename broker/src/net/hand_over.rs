//! Hands a connection to the shard of the partitions that it uses.
//!
//! A request for another shard's partitions takes two messages between shards, and each wakes a
//! core where the cores sleep: about twice the time of a durable write, and some of the CPU of a
//! small request. A client that writes to, or reads, the partitions of one shard only has its
//! connection there after some requests.
//!
//! The connection moves when nothing is under way on it: all its answers have left, and of what was
//! received no request was begun. So its order holds, and no shard owes anything for it. What goes
//! along is the socket, the bytes received, and its fetch session.

use std::future::ready;
use std::rc::Rc;

use bytes::BytesMut;

use super::connection::{Arrival, Departure};
use super::counts::OpenConnection;
use super::listener::Connections;
use crate::handlers::client::{Client, MovingClient};
use crate::runtime::{Connection, Network, Queue, Runtime};

/// A connection on its way between two shards. Dropped on the way (the broker stops), it is closed.
struct Moving<D> {
    socket: D,
    client: MovingClient,
    counted: OpenConnection,
    received: BytesMut,
}

type Detached<R> = <<<R as Runtime>::Network as Network>::Connection as Connection>::Detached;

impl<R: Runtime> Connections<R> {
    /// Sends a connection of this shard to another.
    pub(super) fn hand_over(self: &Rc<Self>, departure: Departure<R>, client: &Client) {
        let services = &self.common.services;
        services.metrics.count(|counters| counters.connections_moved += 1);
        let Departure { to, socket, counted, received } = departure;
        let (peer, listener) = (client.peer, &client.listener);
        tracing::debug!(%peer, %listener, to, "a connection goes to the shard of its partitions");
        let moving = Moving { socket, client: client.leave(services), counted, received };
        let jobs = Rc::clone(&self.jobs);
        services.runtime.spawn(Queue::Foreground, async move {
            let adopt = |connections: &Rc<Self>| {
                connections.adopt(moving);
                ready(())
            };
            // Nobody waits for the result.
            drop(jobs.start(to, adopt).await);
        });
    }

    fn adopt(self: &Rc<Self>, moving: Moving<Detached<R>>) {
        let Moving { socket, client, counted, received } = moving;
        let services = &self.common.services;
        let socket = services.runtime.network().attach(socket);
        if self.is_stopping() {
            return socket.close();
        }
        let client = Rc::new(client.arrive(services));
        self.serve(Arrival { socket, client, counted, received });
    }
}
