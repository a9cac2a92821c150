//! How sessions come about: of two nodes, the one with the lower number begins them; the other
//! knocks while there is none.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::desk::{Node, NodeStatus, Session};
use super::end::SessionEnd;
use super::events::PeerEvents;
use super::greeting::{self, Answer, Introduction, Purpose, Refusal, RefusalCode};
use super::link::SessionId;
use super::peers::Peers;
use super::session::Side;
use crate::runtime::{Connection, Queue, Runtime};

/// How long a node may take to hear that this one stops.
const GOODBYE_TIME_MAX: Duration = Duration::from_millis(200);

/// How an attempt ended.
enum Attempt {
    /// In a session that was up for so long; `None`: it did not come to that. Logged already.
    Served(Option<Duration>),
    /// The other side knows that a session is wanted.
    Knocked,
    /// The other side knows of a session with this number or a higher one.
    Stale,
    /// Again in a moment.
    Failed(SessionEnd),
}

impl<R: Runtime, E: PeerEvents> Peers<R, E> {
    /// There is a node at this address: from now on this node has a session with it, as far as that
    /// can be. Said again, an attempt is made at once. For shard 0. A name is resolved by the
    /// caller, again where it may have changed.
    ///
    /// # Panics
    /// On another shard, and for this node's own number.
    pub fn know(self: &Rc<Self>, node: i32, address: SocketAddr) {
        assert_eq!(self.jobs.own(), 0, "nodes are known on shard 0");
        let own = self.introduction();
        assert_ne!(own.node_id, node, "a node is no peer of its own");
        // Who begins sessions numbers them: above those of earlier processes.
        let latest = if own.node_id < node { own.start } else { 0 };
        let node = self.desk.node_or_new(node, latest);
        let former = node.address.replace(Some(address));
        node.hurry();
        if former.is_none() {
            self.runtime.spawn(Queue::Sessions, Rc::clone(self).seek(node));
        }
    }

    /// The node is none of the peers any more: its session ends.
    pub fn forget(&self, node: i32) {
        if let Some(node) = self.desk.remove(node) {
            node.is_forgotten.set(true);
            node.changed.notify();
            if let Some(session) = node.session() {
                session.end(SessionEnd::Forgotten);
            }
        }
    }

    /// What is known of each other node. For shard 0.
    pub fn status(&self) -> Vec<NodeStatus> {
        self.desk.status()
    }

    /// Ends all sessions, and begins none. For each shard.
    pub fn stop(&self) {
        self.stopping.set();
        for node in self.desk.all() {
            node.changed.notify();
            if let Some(session) = node.session() {
                session.end(SessionEnd::Stopping);
            }
        }
    }

    /// Says to all nodes that this one stops, then does as [`Peers::stop`]. On shard 0.
    pub async fn say_goodbye(&self) {
        self.stopping.set();
        let sessions = self.desk.all().into_iter().filter_map(|node| node.session());
        let said = sessions.filter(|session| session.up_since.get().is_some()).map(|session| {
            session.leaving.set();
            async move {
                let ended = async {
                    session.ended.wait().await;
                    Ok(())
                };
                // Whoever does not take it in finds connections closed.
                let _ended = self.in_time(GOODBYE_TIME_MAX, "saying goodbye", ended).await;
            }
        });
        futures_util::future::join_all(said).await;
        self.stop();
    }

    /// Whether this node may be talked to; the version that both speak.
    pub(super) fn judge(&self, introduction: &Introduction) -> Result<u16, Refusal> {
        let own = self.introduction();
        let protocol = greeting::common_protocol(own.protocol, introduction.protocol)?;
        let node = introduction.node_id;
        if node == own.node_id {
            let (code, words) = match introduction.disk_id == own.disk_id {
                true => (RefusalCode::WRONG_NODE, format!("this is node {node} itself")),
                false => (
                    RefusalCode::DUPLICATE_NODE,
                    format!(
                        "two nodes are number {node}: disks {} and {}",
                        own.disk_id, introduction.disk_id
                    ),
                ),
            };
            return Err(Refusal::new(code, words));
        }
        if let (Some(here), Some(there)) = (own.cluster_id, introduction.cluster_id)
            && here != there
        {
            let words = format!(
                "node {} belongs to cluster {here}, node {node} to cluster {there}",
                own.node_id
            );
            return Err(Refusal::new(RefusalCode::WRONG_CLUSTER, words));
        }
        let session = self.desk.node(node).and_then(|node| node.session());
        if let Some(session) = session.filter(|session| session.up_since.get().is_some()) {
            refuse_second(&session.introduction, introduction)?;
        }
        self.events.admit(introduction)?;
        Ok(protocol)
    }

    /// Keeps up a session with a node, until it is forgotten.
    async fn seek(self: Rc<Self>, node: Rc<Node<R>>) {
        let dials = self.introduction().node_id < node.id;
        let mut pause = self.options.retry_min;
        while !node.is_forgotten.get() && !self.stopping.is_set() {
            let changed = node.changed.listen();
            if node.session().is_some() {
                changed.await;
                continue;
            }
            let Some(address) = node.address.get() else {
                return;
            };
            let attempt = match dials {
                true => self.dial(&node, address).await,
                false => self.knock(&node, address).await,
            };
            let longer = (pause * 2).min(self.options.retry_max);
            let wait = match attempt {
                Attempt::Served(Some(time)) if time >= self.options.retry_max => {
                    pause = self.options.retry_min;
                    continue;
                }
                Attempt::Served(_) | Attempt::Knocked | Attempt::Stale => {
                    std::mem::replace(&mut pause, longer)
                }
                Attempt::Failed(why) => {
                    self.note_failure(&node, &why);
                    match why {
                        SessionEnd::RefusedThere(_) | SessionEnd::RefusedHere(_) => {
                            self.options.refused_pause
                        }
                        _ => std::mem::replace(&mut pause, longer),
                    }
                }
            };
            self.pause(&node, wait).await;
        }
    }

    /// Waits, unless there is a reason to try again at once.
    async fn pause(&self, node: &Node<R>, wait: Duration) {
        let until = self.runtime.now().after(self.spread(wait));
        while !node.is_in_hurry.replace(false) && self.runtime.now() < until {
            let changed = node.changed.listen();
            if node.is_forgotten.get() || self.stopping.is_set() || node.session().is_some() {
                return;
            }
            self.runtime.before(until, changed).await;
        }
    }

    /// Between half as long and as long: two nodes do not keep meeting each other's attempts.
    fn spread(&self, pause: Duration) -> Duration {
        let half_ns = u64::try_from(pause.as_nanos() / 2).unwrap_or(u64::MAX);
        Duration::from_nanos(half_ns + self.runtime.random_u64() % half_ns.max(1))
    }

    fn note_failure(&self, node: &Node<R>, why: &SessionEnd) {
        let address = node.address.get().map(|address| address.to_string()).unwrap_or_default();
        let words = why.to_string();
        match node.is_news(&words) && !node.is_expected_down.get() {
            true => tracing::warn!(node = node.id, %address, "no session with a node: {why}"),
            false => tracing::debug!(node = node.id, %address, "no session with a node: {why}"),
        }
    }

    /// Begins a session, and runs it.
    async fn dial(self: &Rc<Self>, node: &Node<R>, address: SocketAddr) -> Attempt {
        let number = node.latest.get().saturating_add(1);
        node.latest.set(number);
        let (control, answer) =
            match self.greet(address, Purpose::Control { session: number }).await {
                Ok(answered) => answered,
                Err(why) => return Attempt::Failed(why),
            };
        let introduction = match answer {
            Answer::Welcome { introduction, .. } => introduction,
            Answer::Refused { refusal, session_latest } => {
                control.close();
                let is_stale = refusal.code == RefusalCode::STALE_SESSION;
                if is_stale && session_latest >= number {
                    node.latest.set(session_latest);
                    return Attempt::Stale;
                }
                return Attempt::Failed(SessionEnd::RefusedThere(refusal));
            }
        };
        if let Err(refusal) = self.judge_answer(node, &introduction) {
            self.refuse(&control, &refusal, 0).await;
            return Attempt::Failed(SessionEnd::RefusedHere(refusal));
        }
        let id = SessionId { node: node.id, number };
        let shards = self.jobs.count();
        let session = Session::new(id, Arc::new(introduction), shards, control, &self.options);
        if node.is_forgotten.get() || self.stopping.is_set() || !node.begin(&session) {
            session.end(SessionEnd::Stopping);
            return Attempt::Served(None);
        }
        Attempt::Served(self.run_session(node, &session, Side::Dialer { address }).await)
    }

    fn judge_answer(&self, node: &Node<R>, introduction: &Introduction) -> Result<u16, Refusal> {
        let found = introduction.node_id;
        let own = self.introduction();
        if found != node.id && found != own.node_id {
            let words = format!("node {} was asked for, and node {found} answered", node.id);
            return Err(Refusal::new(RefusalCode::WRONG_NODE, words));
        }
        self.judge(introduction)
    }

    /// Asks a node with a lower number to begin a session.
    async fn knock(&self, node: &Node<R>, address: SocketAddr) -> Attempt {
        let (socket, answer) = match self.greet(address, Purpose::Knock).await {
            Ok(answered) => answered,
            Err(why) => return Attempt::Failed(why),
        };
        socket.close();
        match answer {
            Answer::Refused { refusal, .. } => Attempt::Failed(SessionEnd::RefusedThere(refusal)),
            Answer::Welcome { introduction, .. } => match self.judge_answer(node, &introduction) {
                Ok(_) => Attempt::Knocked,
                Err(refusal) => Attempt::Failed(SessionEnd::RefusedHere(refusal)),
            },
        }
    }

    /// Says why not, and closes. Whoever does not read that in time does not get to.
    pub(super) async fn refuse(
        &self,
        socket: &super::link::Socket<R>,
        refusal: &Refusal,
        session_latest: u64,
    ) {
        let refusal = refusal.clone();
        let answer = greeting::answer_frame(&Answer::Refused { refusal, session_latest });
        let sent = async { Ok(socket.send(vec![answer]).await?) };
        let _sent = self.in_time(self.options.handshake_timeout, "refusing", sent).await;
        socket.close();
    }
}

/// While a process is there under a number, no other may be, but one that was started after it: the
/// end of the first may not have been seen yet. Whoever was started before it, and comes again, is
/// one of two that run with one data directory, or a copy of it.
fn refuse_second(first: &Introduction, second: &Introduction) -> Result<(), Refusal> {
    let (node, disk) = (first.node_id, first.disk_id);
    let words = if disk != second.disk_id {
        format!("node {node} runs with disk {disk}; another says it is, with {}", second.disk_id)
    } else if second.start < first.start {
        format!(
            "node {node} runs with disk {disk}, started after this process: was a data directory \
             copied? Stop one of the two, and empty its directory"
        )
    } else {
        return Ok(());
    };
    Err(Refusal::new(RefusalCode::DUPLICATE_NODE, words))
}
