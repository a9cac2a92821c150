//! A session's life, on shard 0: lanes on all shards, then heartbeats until it ends.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};

use super::codec;
use super::desk::{Node, Session};
use super::end::SessionEnd;
use super::events::PeerEvents;
use super::frame::{Frame, FrameBuffer, FrameError, Kind};
use super::greeting::{self, Answer, Hello, Purpose, Refusal, RefusalCode};
use super::link::{SessionId, Socket};
use super::options::CONTROL_LIMITS;
use super::peers::Peers;
use crate::runtime::sync::Event;
use crate::runtime::{Connection, Monotonic, Network, Queue, Runtime};

/// Which side of a session this node is.
pub(super) enum Side {
    /// It began it, and opens the lanes.
    Dialer {
        /// Where the other node is.
        address: std::net::SocketAddr,
    },
    /// It waits for them.
    Acceptor {
        /// The version that both speak.
        protocol: u16,
    },
}

impl<R: Runtime, E: PeerEvents> Peers<R, E> {
    /// Runs a session that [`Node::begin`] has taken, to its end. How long it was up.
    pub(super) async fn run_session(
        self: &Rc<Self>,
        node: &Node<R>,
        session: &Rc<Session<R>>,
        side: Side,
    ) -> Option<Duration> {
        let why = match self.conduct(session, side).await {
            Ok(()) => session.take_why(),
            Err(why) => {
                session.end(SessionEnd::Closed);
                why
            }
        };
        let why = if self.stopping.is_set() { SessionEnd::Stopping } else { why };
        let id = session.id;
        let lowered = self.on_all_shards(|_| {
            move |peers: &Rc<Self>| {
                let peers = Rc::clone(peers);
                async move { peers.lower(id).await }
            }
        });
        lowered.await;
        let now = self.runtime.now();
        let was_up = session.up_since.get().map(|since| now.since(since));
        let is_news = node.is_news(&why.to_string());
        node.is_expected_down.set(matches!(why, SessionEnd::Goodbye));
        let session = id.number;
        let lasted_ms = was_up.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        if was_up.is_some() && why.is_orderly() {
            tracing::info!(
                node = id.node,
                session,
                lasted_ms,
                "a session with a node ended: {why}"
            );
        } else if was_up.is_some() || is_news {
            tracing::warn!(
                node = id.node,
                session,
                lasted_ms,
                "a session with a node ended: {why}"
            );
        }
        node.finish();
        was_up
    }

    async fn conduct(
        self: &Rc<Self>,
        session: &Rc<Session<R>>,
        side: Side,
    ) -> Result<(), SessionEnd> {
        let (id, lanes) = (session.id, session.lanes);
        let expected = self.on_all_shards(|_| {
            let introduction = Arc::clone(&session.introduction);
            move |peers: &Rc<Self>| std::future::ready(peers.expect(id, introduction, lanes))
        });
        if !expected.await {
            return Err(SessionEnd::Stopping);
        }
        match side {
            Side::Dialer { address } => {
                let opened = self.open_lanes(session, address);
                self.within(session, "opening the lanes", opened).await?;
                session.control.send(vec![codec::session_frame(Kind::Start, id.number)]).await?;
                self.listen(session);
            }
            Side::Acceptor { protocol } => {
                let introduction = self.introduction().as_ref().clone();
                let welcome = greeting::answer_frame(&Answer::Welcome { introduction, protocol });
                session.control.send(vec![welcome]).await?;
                self.listen(session);
                let started = async {
                    session.started.wait().await;
                    Ok(())
                };
                self.within(session, "opening the lanes", started).await?;
            }
        }
        let raised = self.on_all_shards(|_| {
            move |peers: &Rc<Self>| {
                let peers = Rc::clone(peers);
                async move { peers.raise(id).await }
            }
        });
        if !raised.await {
            return Err(SessionEnd::Closed);
        }
        // Only now: a message that is handed on to another shard must find the session up there.
        self.on_all_shards(|_| move |peers: &Rc<Self>| std::future::ready(peers.read(id))).await;
        session.up_since.set(Some(self.runtime.now()));
        let (software, shards) = (&session.introduction.software, session.introduction.shards);
        let address = session.control.peer_address();
        tracing::info!(
            node = id.node, session = id.number, %address, %software, shards,
            "a session with a node begins"
        );
        self.beat(session).await
    }

    /// What a future gives, where it does so in time and before the session ends.
    async fn within<T>(
        &self,
        session: &Session<R>,
        what: &'static str,
        future: impl Future<Output = Result<T, SessionEnd>>,
    ) -> Result<T, SessionEnd> {
        let ended = pin!(session.ended.wait());
        let timed = pin!(self.in_time(self.options.handshake_timeout, what, future));
        match select(timed, ended).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(session.take_why()),
        }
    }

    /// What a future gives, where it does so in time.
    pub(super) async fn in_time<T>(
        &self,
        time: Duration,
        what: &'static str,
        future: impl Future<Output = Result<T, SessionEnd>>,
    ) -> Result<T, SessionEnd> {
        let given = self.runtime.in_time(time, future).await;
        given.unwrap_or(Err(SessionEnd::Late(what)))
    }

    /// Has each shard connect the lanes that it serves.
    async fn open_lanes(
        self: &Rc<Self>,
        session: &Session<R>,
        address: std::net::SocketAddr,
    ) -> Result<(), SessionEnd> {
        let id = session.id;
        let mut pending = Vec::new();
        for lane in 0..session.lanes {
            let shard = usize::from(lane) % self.jobs.count();
            let job = move |peers: &Rc<Self>| {
                let peers = Rc::clone(peers);
                async move { peers.open_lane(id, lane, address).await }
            };
            pending.push(self.jobs.start(shard, job).await);
        }
        for pending in pending {
            pending.await.unwrap_or(Err(SessionEnd::Stopping))?;
        }
        Ok(())
    }

    async fn open_lane(
        &self,
        id: SessionId,
        lane: u16,
        address: std::net::SocketAddr,
    ) -> Result<(), SessionEnd> {
        let purpose = Purpose::Lane { session: id.number, lane };
        let (socket, answer) = self.greet(address, purpose).await?;
        match answer {
            Answer::Welcome { introduction, .. } if introduction.node_id == id.node => {
                match self.add_lane(id, lane, socket) {
                    true => Ok(()),
                    false => Err(SessionEnd::Closed),
                }
            }
            Answer::Welcome { .. } => Err(SessionEnd::Closed),
            Answer::Refused { refusal, .. } => Err(SessionEnd::RefusedThere(refusal)),
        }
    }

    /// Opens a connection and says what it is for; what the other side says to that.
    pub(super) async fn greet(
        &self,
        address: std::net::SocketAddr,
        purpose: Purpose,
    ) -> Result<(Socket<R>, Answer), SessionEnd> {
        let connect = async { Ok(self.network().connect(address).await?) };
        let time = self.options.connect_timeout;
        let socket = self.in_time(time, "connecting", connect).await?;
        let hello = Hello { introduction: self.introduction().as_ref().clone(), purpose };
        let greeting = async {
            socket.send(vec![greeting::hello_frame(&hello)]).await?;
            self.first_frame(&socket).await
        };
        let time = self.options.handshake_timeout;
        let answered = self.in_time(time, "greeting", greeting).await;
        let answer = answered.and_then(|frame| Ok(greeting::read_answer(&frame)?));
        if answer.is_err() {
            socket.close();
        }
        Ok((socket, answer?))
    }

    /// The first frame of a connection. Its sender says nothing more before it has an answer.
    pub(super) async fn first_frame(&self, socket: &Socket<R>) -> Result<Frame, SessionEnd> {
        let mut frames = FrameBuffer::new(super::options::GREETING_LIMITS);
        let frame = next_frame(socket, &mut frames).await?;
        match frames.is_empty() {
            true => Ok(frame),
            false => Err(FrameError::Unexpected(frame.kind).into()),
        }
    }

    /// Reads what comes on the connection for heartbeats, until the session ends.
    fn listen(self: &Rc<Self>, session: &Rc<Session<R>>) {
        let session = Rc::clone(session);
        self.runtime.spawn(Queue::Sessions, async move {
            let why = loop_control(&session).await;
            session.end(why);
        });
    }

    /// Says that this node lives, and watches whether the other does, until the session ends.
    async fn beat(self: &Rc<Self>, session: &Rc<Session<R>>) -> Result<(), SessionEnd> {
        let due = Event::new();
        // A sender that is held up must not hold up the watch.
        let sender = send_heartbeats(Rc::clone(session), due.clone());
        self.runtime.spawn(Queue::Sessions, sender);
        loop {
            due.notify();
            let ended = session.ended.wait();
            if self.runtime.before(self.next_beat(), ended).await.is_some() {
                return Ok(());
            }
            if !session.liveness.borrow_mut().beat() {
                let beats = self.options.heartbeats_missed_max;
                return Err(SessionEnd::Silent(self.options.heartbeat * beats));
            }
        }
    }

    /// Beats to all nodes fall together, so that the shard wakes once for all. A beat that comes
    /// late is one beat, however late.
    fn next_beat(&self) -> Monotonic {
        let now = self.runtime.now();
        let period = self.options.heartbeat;
        let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
        let next = Monotonic(now.0 - now.0 % period_ns).after(period);
        if next.since(now) >= period / 2 { next } else { next.after(period) }
    }
}

/// All that is said on the connection for heartbeats once the session is up, so that no two frames
/// mix: beats, and a last word where this node stops.
async fn send_heartbeats<R: Runtime>(session: Rc<Session<R>>, due: Event) {
    let heartbeat = codec::session_frame(Kind::Heartbeat, session.id.number);
    while !session.ended.is_set() {
        let next = due.listen();
        let is_leaving = session.leaving.is_set();
        let frame = if is_leaving { goodbye() } else { heartbeat.clone() };
        if let Err(error) = session.control.send(vec![frame]).await {
            return session.end(error.into());
        }
        if is_leaving {
            return;
        }
        // Both end with the session: nobody waits for an event that never comes.
        let (leaving, ended) = (pin!(session.leaving.wait()), pin!(session.ended.wait()));
        let _which = select(pin!(next), select(leaving, ended)).await;
    }
}

fn goodbye() -> Bytes {
    let refusal = Refusal::new(RefusalCode::STOPPING, "this node stops");
    greeting::answer_frame(&Answer::Refused { refusal, session_latest: 0 })
}

async fn loop_control<R: Runtime>(session: &Session<R>) -> SessionEnd {
    let mut frames = FrameBuffer::new(CONTROL_LIMITS);
    loop {
        let frame = match next_frame(&session.control, &mut frames).await {
            Ok(frame) => frame,
            Err(why) => return why,
        };
        match frame.kind {
            Kind::Start | Kind::Heartbeat => match codec::read_session(&frame) {
                Ok(number) if number == session.id.number => {
                    session.liveness.borrow_mut().heard();
                    if frame.kind == Kind::Start {
                        session.started.set();
                    }
                }
                Ok(_) => return FrameError::Unexpected(frame.kind).into(),
                Err(error) => return error.into(),
            },
            _ => match greeting::read_answer(&frame) {
                Ok(Answer::Refused { refusal, .. }) if refusal.code == RefusalCode::STOPPING => {
                    return SessionEnd::Goodbye;
                }
                Ok(Answer::Refused { refusal, .. }) => return SessionEnd::RefusedThere(refusal),
                Ok(_) => return FrameError::Unexpected(frame.kind).into(),
                Err(error) => return error.into(),
            },
        }
    }
}

async fn next_frame<C: Connection>(
    socket: &C,
    frames: &mut FrameBuffer,
) -> Result<Frame, SessionEnd> {
    loop {
        if let Some(frame) = frames.next_frame()? {
            return Ok(frame);
        }
        let (received, buffer) = socket.receive(frames.room()?).await;
        frames.put_back(buffer);
        if received? == 0 {
            return Err(SessionEnd::Closed);
        }
    }
}
