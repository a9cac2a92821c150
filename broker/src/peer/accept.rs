//! The listener for other nodes. Any shard accepts; the shard that the connection is for goes on.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::desk::Session;
use super::end::SessionEnd;
use super::events::PeerEvents;
use super::greeting::{self, Answer, Hello, Introduction, Purpose, Refusal, RefusalCode};
use super::link::{SessionId, Socket};
use super::peers::Peers;
use super::session::Side;
use crate::runtime::{Connection, Listener, Network, Queue, Runtime};

/// How long to wait where no descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl<R: Runtime, E: PeerEvents> Peers<R, E> {
    /// Accepts connections of other nodes until [`Peers::stop`]. To be spawned once on each shard.
    pub async fn accept(self: Rc<Self>, listener: <R::Network as Network>::Listener) {
        loop {
            let accepted = pin!(listener.accept());
            let Either::Left((accepted, _)) = select(accepted, pin!(self.stopping.wait())).await
            else {
                return;
            };
            match accepted {
                Ok(socket) if self.handshakes.get() < self.options.handshakes_max => {
                    self.handshakes.set(self.handshakes.get() + 1);
                    let peers = Rc::clone(&self);
                    self.runtime.spawn(Queue::Foreground, async move {
                        peers.receive_greeting(socket).await;
                        peers.handshakes.set(peers.handshakes.get() - 1);
                    });
                }
                Ok(socket) => {
                    self.note(&socket, "too many others have not said who they are");
                    socket.close();
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections of nodes for a moment");
                    self.runtime.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A line about a connection that leads to nothing; not too many of them.
    fn note(&self, socket: &Socket<R>, why: &str) {
        if let Some(left_out) = self.log_limit.admit(self.runtime.now()) {
            let peer = socket.peer_address();
            tracing::warn!(%peer, left_out, "refused a connection from a node: {why}");
        }
    }

    async fn receive_greeting(self: &Rc<Self>, socket: Socket<R>) {
        let first = self.first_frame(&socket);
        let first = self.in_time(self.options.handshake_timeout, "its greeting", first).await;
        let hello = first.and_then(|frame| Ok(greeting::read_hello(&frame)?));
        let hello = match hello {
            Ok(hello) => hello,
            Err(why) => {
                self.note(&socket, &why.to_string());
                return socket.close();
            }
        };
        let Hello { introduction, purpose } = hello;
        let shard = match purpose {
            Purpose::Lane { lane, .. } => usize::from(lane) % self.jobs.count(),
            Purpose::Control { .. } | Purpose::Knock => 0,
        };
        let detached = socket.detach();
        let job = move |peers: &Rc<Self>| {
            let peers = Rc::clone(peers);
            let socket = peers.attach(detached);
            async move {
                match purpose {
                    Purpose::Lane { session, lane } => {
                        peers.take_lane(socket, &introduction, session, lane).await;
                    }
                    Purpose::Knock => peers.answer_knock(socket, introduction).await,
                    Purpose::Control { session } => {
                        // It lasts as long as the session: not the greeter's to wait for.
                        let task = Rc::clone(&peers).take_session(socket, introduction, session);
                        peers.runtime.spawn(Queue::Sessions, task);
                    }
                }
            }
        };
        let _done = self.jobs.start(shard, job).await.await;
    }

    /// A lane of a session that was begun before.
    async fn take_lane(
        &self,
        socket: Socket<R>,
        introduction: &Introduction,
        session: u64,
        lane: u16,
    ) {
        let id = SessionId { node: introduction.node_id, number: session };
        let link = self.link_of(id);
        let is_same = link.is_some_and(|link| link.introduction.start == introduction.start);
        if !is_same || !self.add_lane(id, lane, socket.clone()) {
            let refusal = Refusal::new(RefusalCode::STALE_SESSION, "no such lane is expected");
            return self.refuse(&socket, &refusal, session).await;
        }
        // Nothing else is sent on it before all lanes have their answers.
        let introduction = self.introduction().as_ref().clone();
        let protocol = introduction.protocol.1;
        let welcome = greeting::answer_frame(&Answer::Welcome { introduction, protocol });
        if let Err(error) = socket.send(vec![welcome]).await {
            tracing::debug!(%error, "a lane broke before it was of use");
        }
    }

    /// Says no to a node, and to this node's operator.
    async fn turn_away(
        &self,
        socket: &Socket<R>,
        introduction: &Introduction,
        refusal: &Refusal,
        session_latest: u64,
    ) {
        let is_news = self.desk.is_news_of(introduction.node_id, refusal.code, self.runtime.now());
        if is_news && let Some(left_out) = self.log_limit.admit(self.runtime.now()) {
            let (node, peer) = (introduction.node_id, socket.peer_address());
            tracing::warn!(node, %peer, left_out, "refused a node: {refusal}");
        }
        self.refuse(socket, refusal, session_latest).await;
    }

    /// Another node asks for a session.
    async fn answer_knock(self: &Rc<Self>, socket: Socket<R>, introduction: Introduction) {
        match self.judge(&introduction) {
            Err(refusal) => self.turn_away(&socket, &introduction, &refusal, 0).await,
            Ok(protocol) => {
                if let Some(node) = self.desk.node(introduction.node_id) {
                    node.hurry();
                }
                let introduction = self.introduction().as_ref().clone();
                let welcome = Answer::Welcome { introduction, protocol };
                let welcome = greeting::answer_frame(&welcome);
                let sent = async { Ok(socket.send(vec![welcome]).await?) };
                let time = self.options.handshake_timeout;
                if let Err(why) = self.in_time(time, "answering", sent).await {
                    self.note(&socket, &why.to_string());
                }
                socket.close();
            }
        }
    }

    /// Another node begins a session.
    async fn take_session(
        self: Rc<Self>,
        socket: Socket<R>,
        introduction: Introduction,
        number: u64,
    ) {
        let judged = self.judge(&introduction).and_then(|protocol| {
            if introduction.node_id > self.introduction().node_id {
                let words = "of two nodes, the one with the lower number begins a session";
                return Err(Refusal::new(RefusalCode::VIOLATION, words));
            }
            Ok(protocol)
        });
        let protocol = match judged {
            Ok(protocol) => protocol,
            Err(refusal) => return self.turn_away(&socket, &introduction, &refusal, 0).await,
        };
        let node = self.desk.node_or_new(introduction.node_id, 0);
        let latest = node.latest.get();
        if number <= latest {
            let words = format!("session {latest} was there before session {number}");
            let refusal = Refusal::new(RefusalCode::STALE_SESSION, words);
            return self.turn_away(&socket, &introduction, &refusal, latest).await;
        }
        node.latest.set(number);
        let id = SessionId { node: node.id, number };
        let shards = self.jobs.count();
        let session = Session::new(id, Arc::new(introduction), shards, socket, &self.options);
        // The one before may not know yet that it is over.
        while node.latest.get() == number && !node.begin(&session) {
            let changed = node.changed.listen();
            if let Some(former) = node.session() {
                former.end(SessionEnd::Replaced);
                changed.await;
            }
        }
        let has_begun = node.session().is_some_and(|current| Rc::ptr_eq(&current, &session));
        if !has_begun || node.is_forgotten.get() || self.stopping.is_set() {
            session.end(SessionEnd::Replaced);
            if has_begun {
                node.finish();
            }
            return;
        }
        self.run_session(&node, &session, Side::Acceptor { protocol }).await;
    }
}
