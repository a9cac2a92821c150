//! This node among the others: what it asks them, and what it answers.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{FutureExt, LocalBoxFuture};
use vltava_storage::{KeyedJournal, LoadedJournals, StorageError};

use super::admission::PEER_LISTENER;
use super::announce::Announced;
use super::form::Standing;
use super::identity::{Founding, Identity};
use super::messages;
use super::room::once_there_is_room;
use super::view::Node;
use crate::metadata::image::{NodeEndpoint, PeerEndpoint};
use crate::partition::elections::{ELECTIONS_MAX, Elections};
use crate::partition::flights::Flights;
use crate::partition::standstill::Standstill;
use crate::partition::surroundings::{FromPeers, GroupPeers, NodeEvents, Surroundings};
use crate::partition::throttle::{ShardThrottles, Throttles};
use crate::peer::SessionId;
use crate::peer::greeting::{Introduction, PROTOCOL_MAX, PROTOCOL_MIN, Refusal};
use crate::peer::options::Options;
use crate::peer::peers::{Peers, RequestError};
use crate::raft::membership::ReplicaId;
use crate::runtime::jobs::Jobs;
use crate::runtime::{Network, Queue, Runtime};

/// What a node asks another: who it is.
const STANDING: u16 = 1;
/// To ask its controller.
pub(super) const CONTROLLER: u16 = 2;
/// To hear who leads what.
const LEADERS: u16 = 3;
/// To give the lead of a partition to another.
pub(super) const HAND_OVER: u16 = 4;
/// To hear that it is about to stop, and is to lead nothing more.
const LEAVING: u16 = 5;
/// For what it knows of group 0 as its leader.
pub(super) const QUORUM: u16 = 6;
/// Whether clients may write there.
pub(super) const ROOM: u16 = 7;
/// To ask its controller for another node, which does not reach it.
pub(super) const CONTROLLER_FOR: u16 = 8;
/// To hear who is there, as the leader of group 0 sees it.
pub(super) const PRESENCE: u16 = 9;
/// For what it has of partitions that nobody leads.
pub(super) const LEFT: u16 = 12;

/// How long another node may take to answer.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long a node that is busy is left alone.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// How long it may take to hear that this one stops.
const LEAVING_TIME_MAX: Duration = Duration::from_millis(200);

/// How this program calls itself.
pub(super) const SOFTWARE: &str = concat!("vltava ", env!("CARGO_PKG_VERSION"));

/// What a shard needs to talk to other nodes.
pub struct PeerParts<R: Runtime> {
    /// The same room on the other shards.
    pub jobs: Rc<Jobs<GroupPeers<R>>>,
    /// Where other nodes connect, on this shard.
    pub listener: RefCell<Option<<R::Network as Network>::Listener>>,
    /// How this node is reached by the others.
    pub advertised: PeerEndpoint,
    /// The address of a host and port. It may take long.
    pub resolve: fn(&str, u16) -> io::Result<SocketAddr>,
}

/// What the shards of a node have in common as they begin to talk to other nodes.
#[derive(Clone)]
pub(super) struct Common {
    /// What its groups must not forget.
    pub(super) loaded: Arc<LoadedJournals>,
    /// Who it is.
    pub(super) introduction: Arc<Introduction>,
    /// How fast it sends replicas what they lack.
    pub(super) throttles: Arc<Throttles>,
    /// Whether it has just stood still.
    pub(super) standstill: Arc<Standstill>,
}

/// What the rooms below this one tell it.
struct Events<R: Runtime>(Weak<Node<R>>);

impl<R: Runtime> NodeEvents for Events<R> {
    fn admit(&self, introduction: &Introduction) -> Result<(), Refusal> {
        let Some(node) = self.0.upgrade() else { return Ok(()) };
        node.admit_level(introduction)?;
        node.admit(introduction)
    }

    fn peer_up(&self, session: SessionId, introduction: &Arc<Introduction>) {
        if let Some(node) = self.0.upgrade() {
            node.hear_of_disk(session.node, introduction.disk_id);
            let runtime = node.parts.runtime.clone();
            runtime.spawn(Queue::Control, async move {
                if node.parts.jobs.own() == 0 {
                    node.say_presence();
                    node.pass_presence_on(session.node).await;
                }
                node.tell_leaders(session.node).await;
            });
        }
    }

    fn peer_down(&self, session: SessionId) {
        if let Some(node) = self.0.upgrade() {
            node.leaving_peers.borrow_mut().remove(&session.node);
            if node.parts.jobs.own() == 0 {
                node.say_presence();
            }
        }
    }

    fn requested(&self, from: SessionId, kind: u16, body: Bytes) -> LocalBoxFuture<'static, Bytes> {
        let node = self.0.upgrade();
        async move {
            let Some(node) = node else { return Bytes::new() };
            match kind {
                STANDING => node.standing().await,
                CONTROLLER | CONTROLLER_FOR => node.answer_controller(from.node, kind, body).await,
                LEADERS => {
                    match messages::leaders_from_bytes(&body) {
                        Ok(announced) => node.spread(announced).await,
                        Err(error) => {
                            let node = from.node;
                            tracing::warn!(node, %error, "a list of leaders is unreadable");
                        }
                    }
                    Bytes::new()
                }
                HAND_OVER => node.answer_hand_over(&body).await,
                PRESENCE => node.answer_presence(from.node, &body).await,
                QUORUM => node.answer_quorum().await,
                ROOM => node.answer_room().await,
                LEFT => node.answer_left(&body).await,
                LEAVING => {
                    node.hear_leaving(from.node).await;
                    Bytes::new()
                }
                kind => {
                    let node = from.node;
                    tracing::warn!(node, kind, "a node asks what this release cannot do");
                    Bytes::new()
                }
            }
        }
        .boxed_local()
    }
}

impl<R: Runtime> Node<R> {
    /// What the replicas of this shard share, where the node is to have others beside it.
    pub(super) fn surroundings(&self) -> Option<Rc<Surroundings<R>>> {
        self.surroundings.get().cloned()
    }

    pub(super) fn peers(&self) -> Option<Rc<GroupPeers<R>>> {
        self.surroundings.get().map(|surroundings| Rc::clone(&surroundings.peers))
    }

    /// Begins to talk to other nodes, on this shard.
    pub(super) async fn meet(
        self: &Rc<Self>,
        own: ReplicaId,
        common: Common,
    ) -> Result<(), String> {
        let Common { loaded, introduction, throttles, standstill } = common;
        let parts = &self.parts;
        let Some(with) = &parts.peers else { return Ok(()) };
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let (shard, shards) = (small(parts.jobs.own()), small(parts.jobs.count()));
        let is_full = |error: &StorageError| matches!(error, StorageError::Full(_));
        let open =
            async || KeyedJournal::open(&parts.logs, shard, shards, Arc::clone(&loaded)).await;
        let journal = once_there_is_room(&parts.runtime, "what it votes", is_full, open).await;
        let journal = journal.map_err(|error| error.to_string())?;
        let throttles = Rc::new(ShardThrottles::new(throttles));
        let events = FromPeers::new(&parts.partitions, Rc::clone(&throttles));
        events.tell(Rc::new(Events(Rc::downgrade(self))));
        let (runtime, jobs) = (parts.runtime.clone(), Rc::clone(&with.jobs));
        let peers =
            Peers::new(runtime.clone(), Rc::clone(&jobs), events, introduction, Options::default());
        runtime.spawn(Queue::Foreground, jobs.serve(runtime.clone(), Rc::clone(&peers)));
        if let Some(listener) = with.listener.borrow_mut().take() {
            runtime.spawn(Queue::Foreground, Rc::clone(&peers).accept(listener));
        }
        let elections = Elections::new(runtime, ELECTIONS_MAX);
        let flights = Flights::default();
        let surroundings =
            Surroundings { own, journal, peers, throttles, elections, flights, standstill };
        let surroundings = Rc::new(surroundings);
        assert!(self.surroundings.set(surroundings).is_ok(), "met twice");
        Ok(())
    }

    /// How this node introduces itself.
    pub(super) fn introduction(&self, identity: &Identity) -> Arc<Introduction> {
        let parts = &self.parts;
        let endpoint = parts.peers.as_ref().map(|with| NodeEndpoint {
            listener: PEER_LISTENER.into(),
            host: with.advertised.host.clone(),
            port: with.advertised.port,
        });
        Arc::new(Introduction {
            protocol: (PROTOCOL_MIN, PROTOCOL_MAX),
            feature_level: u16::try_from(parts.levels.max).unwrap_or(0),
            cluster_id: identity.founding.as_ref().map(|founding| founding.cluster_id),
            node_id: identity.node_id,
            disk_id: identity.disk_id,
            start: u64::try_from(parts.runtime.wall_clock_ms()).unwrap_or(0),
            shards: u16::try_from(parts.jobs.count()).unwrap_or(u16::MAX),
            software: SOFTWARE.into(),
            rack: parts.config.rack.as_deref().map(Into::into),
            endpoints: endpoint.into_iter().collect(),
        })
    }

    /// Who this node is, for one that may not be in its cluster yet.
    async fn standing(self: &Rc<Self>) -> Bytes {
        let known = self.on(0, |node| std::future::ready(node.identity.borrow().clone())).await;
        let bytes = known.flatten().and_then(|identity| {
            let Identity { node_id, disk_id, founding, .. } = identity;
            messages::standing_to_bytes(node_id, &Standing { disk_id, founding }).ok()
        });
        bytes.unwrap_or_default()
    }

    /// Why there is no session with these nodes, in words for a person.
    pub(super) fn why_missing(&self, nodes: &[i32]) -> Option<String> {
        let known = self.surroundings().map(|near| near.peers.status()).unwrap_or_default();
        let missing = known.iter().filter(|it| nodes.contains(&it.node) && it.session.is_none());
        let said = missing.filter(|it| !it.last_words.is_empty());
        let words = said.map(|it| format!("node {}: {}", it.node, it.last_words));
        words.reduce(|all, next| format!("{all}; {next}"))
    }

    /// Asks another node who it is; `None` where it does not say.
    pub(super) async fn ask_standing(&self, node: i32) -> Option<Standing> {
        let answer = self.ask_peer(node, STANDING, Bytes::new()).await?;
        messages::standing_from_bytes(&answer).ok().map(|(_, standing)| standing)
    }

    pub(super) async fn ask_peer(&self, node: i32, kind: u16, body: Bytes) -> Option<Bytes> {
        self.ask_peer_for(ANSWER_TIME, node, kind, body).await
    }

    async fn ask_peer_for(
        &self,
        time: Duration,
        node: i32,
        kind: u16,
        body: Bytes,
    ) -> Option<Bytes> {
        let answer = self.try_peer(time, node, kind, body).await;
        answer.ok().filter(|answer| !answer.is_empty())
    }

    /// Asks another node. Where the time is over, whether it did what it was asked is not known.
    pub(super) async fn try_peer(
        &self,
        time: Duration,
        node: i32,
        kind: u16,
        body: Bytes,
    ) -> Result<Bytes, RequestError> {
        let peers = self.peers().ok_or(RequestError::Down)?;
        let answer = self.parts.runtime.in_time(time, peers.request(node, kind, body)).await;
        answer.unwrap_or(Err(RequestError::Broken))
    }

    /// Tells another node what is led on this shard.
    async fn tell_leaders(self: &Rc<Self>, node: i32) {
        let led = self.led_here();
        if led.is_empty() {
            return;
        }
        if let Ok(bytes) = messages::leaders_to_bytes(&led) {
            self.tell(node, LEADERS, bytes).await;
        }
    }

    /// Tells all other nodes that this one is about to stop.
    pub(super) async fn tell_leaving(&self) {
        let Some(peers) = self.peers() else { return };
        if self.parts.jobs.own() == 0 {
            let tell = |node| self.ask_peer_for(LEAVING_TIME_MAX, node, LEAVING, Bytes::new());
            let told = peers.up().into_iter().map(tell);
            futures_util::future::join_all(told).await;
        }
    }

    /// Another node is about to stop: nothing is handed over to it.
    async fn hear_leaving(self: &Rc<Self>, peer: i32) {
        self.on_all(move |node| {
            node.leaving_peers.borrow_mut().insert(peer);
            std::future::ready(())
        })
        .await;
    }

    /// Says to all other nodes that this one stops, and ends all sessions.
    pub async fn leave_peers(&self) {
        let Some(peers) = self.peers() else { return };
        match self.parts.jobs.own() {
            0 => peers.say_goodbye().await,
            _ => peers.stop(),
        }
    }

    /// Tells all other nodes.
    pub(super) async fn tell_all(self: &Rc<Self>, announced: &Announced) {
        if let Ok(bytes) = messages::leaders_to_bytes(announced) {
            self.tell_each(LEADERS, bytes).await;
        }
    }

    pub(super) async fn tell_each(&self, kind: u16, bytes: Bytes) {
        let up = self.peers().map(|peers| peers.up()).unwrap_or_default();
        let told = up.into_iter().map(|node| self.tell(node, kind, bytes.clone()));
        futures_util::future::join_all(told).await;
    }

    /// Tells another node something that it is told once. Who is busy is told again: nobody would
    /// repeat it.
    pub(super) async fn tell(&self, node: i32, kind: u16, bytes: Bytes) {
        let runtime = &self.parts.runtime;
        while let Err(RequestError::Busy) =
            self.try_peer(ANSWER_TIME, node, kind, bytes.clone()).await
        {
            runtime.sleep(BUSY_PAUSE).await;
        }
    }
}

/// Founders as group 0 takes them.
pub(super) fn founders(founding: &Founding) -> impl Iterator<Item = ReplicaId> {
    let founders = founding.founders.iter();
    founders.map(|founder| ReplicaId { node: founder.node_id, disk: founder.disk_id })
}
