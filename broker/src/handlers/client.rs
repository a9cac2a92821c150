//! Who sends requests: what a shard knows of one connection's client.

use std::cell::Cell;
use std::net::SocketAddr;

use vltava_protocol::types::Str;

use super::context::Services;
use super::route::Route;
use crate::partition::fetch_session::Session;
use crate::runtime::Runtime;

/// Who sent a request: one connection.
#[derive(Debug)]
pub struct Client {
    /// The other end.
    pub peer: SocketAddr,
    /// The name of the listener it came to: answers name endpoints of that listener.
    pub listener: Str,
    /// Where the partitions live that its requests name.
    pub route: Route,
    /// The fetch session that it used last; 0: none.
    pub fetch_session: Cell<i32>,
}

impl Client {
    /// A client that has asked for nothing yet.
    pub fn new(peer: SocketAddr, listener: Str) -> Self {
        Self { peer, listener, route: Route::default(), fetch_session: Cell::new(0) }
    }

    /// Its connection goes to another shard, and so does what this one keeps for it.
    pub fn leave<R: Runtime>(&self, services: &Services<R>) -> MovingClient {
        let id = self.fetch_session.get();
        let session = services.fetch_sessions.borrow_mut().take(id);
        MovingClient {
            peer: self.peer,
            listener: self.listener.clone(),
            fetch_session: session.map(|session| (id, session)),
        }
    }
}

/// A client between two shards.
pub struct MovingClient {
    peer: SocketAddr,
    listener: Str,
    fetch_session: Option<(i32, Session)>,
}

impl MovingClient {
    /// It has come to this shard.
    pub fn arrive<R: Runtime>(self, services: &Services<R>) -> Client {
        let client = Client::new(self.peer, self.listener);
        if let Some((id, session)) = self.fetch_session {
            client.fetch_session.set(id);
            services.fetch_sessions.borrow_mut().adopt(id, session);
        }
        client
    }
}
