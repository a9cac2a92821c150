//! Leaders leave this node in order: one partition's because somebody asks, or all of them before
//! the node stops or while it is drained.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use vltava_protocol::error_code::ErrorCode;

use super::messages;
use super::peers::HAND_OVER;
use super::view::Node;
use crate::metadata::image::PartitionId;
use crate::metadata::leaders::Leaders;
use crate::runtime::{Monotonic, Runtime};

/// Partitions of a shard that are handed over side by side.
const SIDE_BY_SIDE: usize = 64;
/// How long a node that stops waits for those who could lead instead.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// How long it waits before it tries again what could not be.
const STEP: Duration = Duration::from_millis(20);
/// How often a drained node looks whether it leads.
const DRAIN_PERIOD: Duration = Duration::from_millis(250);
/// How long an answer that says "not the leader" waits for the name of who is.
const SUCCESSOR_TIME_MAX: Duration = Duration::from_millis(250);
/// How long an answer that says "it leads" waits until this node has heard so itself.
const HEARD_TIME_MAX: Duration = Duration::from_secs(2);

impl<R: Runtime> Node<R> {
    /// Has the partition's leader give its place to node `to`, or to whichever can and leads least;
    /// returns when it has, or cannot.
    ///
    /// # Errors
    /// LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER: nobody leads, or somebody else does by now.
    /// PREFERRED_LEADER_NOT_AVAILABLE: no replica can take over. REQUEST_TIMED_OUT: no answer.
    pub async fn hand_over(
        self: &Rc<Self>,
        partition: PartitionId,
        to: Option<i32>,
    ) -> Result<(), ErrorCode> {
        let leader = self.leaders().leader(partition).map(|leader| leader.node_id);
        match leader {
            None => Err(ErrorCode::LEADER_NOT_AVAILABLE),
            Some(leader) if leader == self.parts.config.node_id => {
                self.hand_over_here(partition, to).await
            }
            Some(leader) => {
                let body = messages::hand_over_to_bytes(partition, to);
                let body = body.map_err(|_| ErrorCode::UNKNOWN_SERVER_ERROR)?;
                let answer = self.ask_peer(leader, HAND_OVER, body).await;
                let answer = answer.ok_or(ErrorCode::REQUEST_TIMED_OUT)?;
                let answer = messages::handed_over_from_bytes(&answer);
                match answer.unwrap_or(ErrorCode::UNKNOWN_SERVER_ERROR) {
                    ErrorCode::NONE => Ok(()),
                    error => Err(error),
                }
            }
        }
    }

    /// What another node asks, answered.
    pub(super) async fn answer_hand_over(self: &Rc<Self>, body: &Bytes) -> Bytes {
        let Ok((partition, to)) = messages::hand_over_from_bytes(body) else {
            return Bytes::new();
        };
        let error = self.hand_over_here(partition, to).await.err().unwrap_or(ErrorCode::NONE);
        messages::handed_over_to_bytes(error).unwrap_or_default()
    }

    /// The same on this node, on whichever shard the partition is.
    async fn hand_over_here(
        self: &Rc<Self>,
        partition: PartitionId,
        to: Option<i32>,
    ) -> Result<(), ErrorCode> {
        let shard = self.parts.partitions.shard_of(partition);
        let hand_over =
            move |node: Rc<Self>| async move { node.hand_over_local(partition, to).await };
        self.on(shard, hand_over).await.unwrap_or(Err(ErrorCode::REQUEST_TIMED_OUT))
    }

    async fn hand_over_local(
        &self,
        partition: PartitionId,
        to: Option<i32>,
    ) -> Result<(), ErrorCode> {
        let not_here = ErrorCode::NOT_LEADER_OR_FOLLOWER;
        let replica = self.parts.partitions.local(partition).map_err(|_| not_here)?;
        if replica.leads().is_none() {
            return Err(not_here);
        }
        if to == Some(self.parts.config.node_id) {
            return Ok(());
        }
        let mut load = self.leaders_by_node();
        let none = ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE;
        let to = to.or_else(|| self.successor(&replica.successors(), &mut load)).ok_or(none)?;
        if replica.hand_over(to).await { Ok(()) } else { Err(none) }
    }

    /// How many partitions each node leads, as this shard has heard.
    pub(super) fn leaders_by_node(&self) -> BTreeMap<i32, usize> {
        let mut load = BTreeMap::new();
        for (_, leader) in self.leaders.borrow().iter() {
            *load.entry(leader.node_id).or_default() += 1;
        }
        load
    }

    /// Who of these is to lead one more: whoever leads least, and does not leave itself.
    pub(super) fn successor(&self, of: &[i32], load: &mut BTreeMap<i32, usize>) -> Option<i32> {
        let (leaving, image) = (self.leaving_peers.borrow(), self.image());
        let is_drained = |id| image.node(id).is_none_or(|node| node.state.is_drained());
        let may = |node: &&i32| !leaving.contains(*node) && !is_drained(**node);
        let chosen = of.iter().filter(may).min_by_key(|node| load.get(*node).copied());
        let chosen = chosen.copied()?;
        *load.entry(chosen).or_default() += 1;
        Some(chosen)
    }

    /// Whether another node is there that is not about to stop: who stops with all others waits for
    /// nobody.
    fn does_somebody_stay(&self) -> bool {
        let (own, leaving) = (self.parts.config.node_id, self.leaving_peers.borrow());
        self.present().iter().any(|id| *id != own && !leaving.contains(id))
    }

    /// Hands over, once, all that is led on this shard and that somebody else could lead; whether
    /// there is more for which somebody may yet be found.
    async fn hand_over_led(&self) -> bool {
        let mut load = self.leaders_by_node();
        let led = self.parts.partitions.local_where(|replica| replica.leads().is_some());
        let mut is_rest = false;
        let mut chosen = Vec::new();
        for (_, replica) in led {
            match self.successor(&replica.successors(), &mut load) {
                Some(to) => chosen.push((replica, to)),
                None => is_rest |= replica.has_company() && self.does_somebody_stay(),
            }
        }
        let moved = stream::iter(chosen)
            .map(|(replica, to)| async move { replica.hand_over(to).await })
            .buffer_unordered(SIDE_BY_SIDE);
        let is_moved = moved.fold(true, async |all, moved| all && moved).await;
        is_rest || !is_moved
    }

    /// Before this node stops: hands over all that is led on this shard. Returns when that is done,
    /// or took too long.
    pub async fn hand_over_all(self: &Rc<Self>) {
        if self.parts.peers.is_none() {
            return;
        }
        let (runtime, partitions) = (&self.parts.runtime, &self.parts.partitions);
        let begun = runtime.now();
        self.tell_leaving().await;
        let led = || partitions.local_where(|replica| replica.leads().is_some()).len();
        let (before, until) = (led(), begun.after(STOP_TIME_MAX));
        while self.hand_over_led().await && runtime.now() < until {
            runtime.sleep(STEP).await;
        }
        let (left, time) = (led(), runtime.now().since(begun));
        let (shard, handed_over) = (self.parts.jobs.own(), before.saturating_sub(left));
        tracing::info!(shard, handed_over, left, ?time, "leaders are handed over");
    }

    /// For as long as the process lives: whatever this shard leads while the cluster wants this
    /// node drained, it hands over.
    pub async fn drain(self: Rc<Self>) {
        let runtime = &self.parts.runtime;
        loop {
            runtime.sleep(DRAIN_PERIOD).await;
            if self.is_drained() {
                self.hand_over_led().await;
            }
        }
    }

    /// Whether the cluster wants this node to lead nothing.
    fn is_drained(&self) -> bool {
        self.image().node(self.parts.config.node_id).is_some_and(|node| node.state.is_drained())
    }

    /// Waits, but not for long, for the name of who leads these partitions, as far as this node was
    /// the last to lead them: then an answer names the next leader, and its client need not guess.
    pub async fn successors_known(&self, partitions: impl Iterator<Item = PartitionId> + Clone) {
        let runtime = &self.parts.runtime;
        let until = runtime.now().after(SUCCESSOR_TIME_MAX);
        let own = self.parts.config.node_id;
        let is_known = |leaders: &Leaders| {
            let is_own = |id| leaders.leader(id).is_some_and(|leader| leader.node_id == own);
            !partitions.clone().any(is_own)
        };
        self.heard(until, is_known).await;
    }

    /// Waits, but not for long, until this node has heard what a leader told who handed over to it:
    /// who asks here next is to be told the same.
    pub async fn leader_heard(&self, partition: PartitionId, leader: i32) {
        let until = self.parts.runtime.now().after(HEARD_TIME_MAX);
        let is_known = |leaders: &Leaders| {
            leaders.leader(partition).is_some_and(|known| known.node_id == leader)
        };
        self.heard(until, is_known).await;
    }

    async fn heard(&self, until: Monotonic, is_known: impl Fn(&Leaders) -> bool) {
        let runtime = &self.parts.runtime;
        while !is_known(&self.leaders.borrow()) && runtime.now() < until {
            let heard = self.leaders_heard.listen();
            if !is_known(&self.leaders.borrow()) {
                runtime.before(until, heard).await;
            }
        }
    }
}
