//! What the replicas of a shard share where the node has others beside it: who they are, where
//! votes and marks are kept, the way to the other nodes, and what comes from there.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use vltava_storage::KeyedJournal;

use super::client::Partitions;
use super::copy::{self, COPY};
use super::elections::Elections;
use super::flights::Flights;
use super::replica::Replica;
use super::request::PartitionId;
use super::standstill::Standstill;
use super::throttle::{ShardThrottles, THROTTLE};
use crate::peer::SessionId;
use crate::peer::events::PeerEvents;
use crate::peer::greeting::{Introduction, Refusal};
use crate::peer::message::GroupMessage;
use crate::peer::peers::Peers;
use crate::raft::membership::ReplicaId;
use crate::runtime::Runtime;

/// The connections of a shard, as its replicas use them.
pub type GroupPeers<R> = Peers<R, FromPeers<R>>;

/// See the module.
pub struct Surroundings<R: Runtime> {
    /// This node, with its disk.
    pub own: ReplicaId,
    /// What the shard's groups must not forget.
    pub journal: KeyedJournal<R::Disk>,
    /// The way to the other nodes.
    pub peers: Rc<GroupPeers<R>>,
    /// How fast replicas that are not in sync are sent what they lack.
    pub throttles: Rc<ShardThrottles>,
    /// Who may ask for votes now.
    pub elections: Rc<Elections<R>>,
    /// What was sent to other nodes and is not on their disks.
    pub flights: Flights,
    /// Whether the process has just stood still.
    pub standstill: Arc<Standstill>,
}

/// What the rooms above this one make of what other nodes do.
pub trait NodeEvents {
    /// Whether this node may be talked to.
    ///
    /// # Errors
    /// The reason, for both operators.
    fn admit(&self, introduction: &Introduction) -> Result<(), Refusal>;

    /// A session begins.
    fn peer_up(&self, session: SessionId, introduction: &Arc<Introduction>);

    /// It has ended.
    fn peer_down(&self, session: SessionId);

    /// The other node asks this node's room `kind`.
    fn requested(&self, from: SessionId, kind: u16, body: Bytes) -> LocalBoxFuture<'static, Bytes>;
}

/// What comes from other nodes, on one shard: to the replicas it is for, and to the rooms above.
pub struct FromPeers<R: Runtime> {
    partitions: Weak<Partitions<R>>,
    throttles: Rc<ShardThrottles>,
    above: RefCell<Option<Rc<dyn NodeEvents>>>,
    /// Nodes of whose sessions the replicas are being told, one after the other.
    telling: RefCell<Vec<i32>>,
}

impl<R: Runtime> FromPeers<R> {
    /// For the replicas of this shard.
    pub fn new(partitions: &Rc<Partitions<R>>, throttles: Rc<ShardThrottles>) -> Self {
        Self {
            partitions: Rc::downgrade(partitions),
            throttles,
            above: RefCell::default(),
            telling: RefCell::default(),
        }
    }

    /// Whether the replicas of this shard are being told that a session with this node begins, or
    /// has ended: some have not heard of it yet.
    pub(super) fn is_telling(&self, node: i32) -> bool {
        self.telling.borrow().contains(&node)
    }

    async fn tell_replicas(
        &self,
        partitions: &Partitions<R>,
        node: i32,
        tell: fn(&Replica<R>, i32),
    ) {
        self.telling.borrow_mut().push(node);
        for (_, replica) in partitions.all_local() {
            tell(&replica, node);
            partitions.runtime().yield_if_needed().await;
        }
        let mut telling = self.telling.borrow_mut();
        if let Some(nth) = telling.iter().position(|told| *told == node) {
            telling.swap_remove(nth);
        }
    }

    /// From now on these are told and asked, too.
    pub fn tell(&self, above: Rc<dyn NodeEvents>) {
        *self.above.borrow_mut() = Some(above);
    }

    fn above(&self) -> Option<Rc<dyn NodeEvents>> {
        self.above.borrow().clone()
    }
}

impl<R: Runtime> PeerEvents for FromPeers<R> {
    fn admit(&self, introduction: &Introduction) -> Result<(), Refusal> {
        self.above().map_or(Ok(()), |above| above.admit(introduction))
    }

    async fn peer_up(&self, session: SessionId, introduction: &Arc<Introduction>) {
        let Some(partitions) = self.partitions.upgrade() else { return };
        self.tell_replicas(&partitions, session.node, Replica::peer_up).await;
        if let Some(above) = self.above() {
            above.peer_up(session, introduction);
        }
    }

    async fn peer_down(&self, session: SessionId) {
        let Some(partitions) = self.partitions.upgrade() else { return };
        self.tell_replicas(&partitions, session.node, Replica::peer_down).await;
        if let Some(above) = self.above() {
            above.peer_down(session);
        }
    }

    fn shard_of(&self, group: PartitionId) -> usize {
        self.partitions.upgrade().map_or(0, |partitions| partitions.shard_of(group))
    }

    async fn received(&self, from: SessionId, messages: Vec<GroupMessage>) {
        let Some(partitions) = self.partitions.upgrade() else { return };
        for message in messages {
            // A group that is not here yet, or no longer, is asked again. One that comes from
            // another shard hears it when it is here.
            drop(partitions.when_here(message.group, move |replica| {
                replica.received(from.node, message);
                Ok(())
            }));
        }
    }

    async fn requested(&self, from: SessionId, kind: u16, body: Bytes) -> Bytes {
        let Some(partitions) = self.partitions.upgrade() else { return Bytes::new() };
        match (kind, self.above()) {
            (COPY, _) => copy::answer(&partitions, from.node, body).await,
            (THROTTLE, _) => self.throttles.answer(partitions.now(), body),
            (_, Some(above)) => above.requested(from, kind, body).await,
            (_, None) => Bytes::new(),
        }
    }
}
