//! Leaders out and in: each leader tells all shards of this node who it is.
//!
//! One node is a cluster of one: every partition is led here as soon as its log is open. In a
//! cluster the same announcement also goes to the other nodes.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use vltava_protocol::types::Uuid;

use super::view::Node;
use crate::metadata::image::PartitionId;
use crate::metadata::leaders::{Leader, Leaders, NOBODY};
use crate::partition::replica::Replica;
use crate::runtime::{Queue, Runtime};

/// How long another is given to lead before it is told that nobody does.
const LEADERLESS_TOLD: Duration = Duration::from_secs(1);
/// What is announced.
pub type Announced = Vec<(PartitionId, Leader)>;

impl<R: Runtime> Node<R> {
    /// Who leads what, as far as this shard has heard. A clone is cheap, and stays as it is.
    pub fn leaders(&self) -> Leaders {
        self.leaders.borrow().clone()
    }

    /// The node that leads group 0, as far as this shard has heard, and where clients are told of
    /// that node: alone, this one. -1 while there is none.
    pub fn controller_id(&self) -> i32 {
        let own = self.parts.peers.is_none().then_some(self.parts.config.node_id);
        own.or_else(|| self.leader_shown(PartitionId::CLUSTER_METADATA)).unwrap_or(NOBODY)
    }

    /// Tells all shards who leads the partitions that this shard has just opened. Returns when all
    /// know.
    pub(super) async fn announce(self: &Rc<Self>, opened: Vec<PartitionId>) {
        let led = opened.into_iter().filter_map(|id| Some((id, self.led(id)?)));
        self.spread(led.collect()).await;
    }

    /// This node as the leader of a partition of this shard, where it is.
    fn led(&self, id: PartitionId) -> Option<Leader> {
        let replica = self.parts.partitions.local(id).ok()?;
        let epoch = replica.leads()?;
        let (in_sync_version, in_sync) = replica.in_sync(self.parts.config.node_id);
        Some(Leader { node_id: self.parts.config.node_id, epoch, in_sync_version, in_sync })
    }

    /// All that is led on this shard.
    pub(super) fn led_here(&self) -> Announced {
        let all = self.parts.partitions.all_local().into_iter();
        all.filter_map(|(id, _)| Some((id, self.led(id)?))).collect()
    }

    /// Announces a partition to all nodes whenever this replica has begun to lead it, or its
    /// in-sync set is another; for as long as the replica lives. Nothing is asked in between: an
    /// idle partition costs nothing.
    pub(super) async fn announce_changes(self: Rc<Self>, id: PartitionId, replica: Rc<Replica<R>>) {
        let runtime = &self.parts.runtime;
        replica.set_lag_ms_max(self.parts.config.replica_lag_ms_max);
        let mut told = None;
        loop {
            let changed = replica.leadership_changes();
            let is_there =
                self.parts.partitions.local(id).is_ok_and(|it| Rc::ptr_eq(&it, &replica));
            if !is_there {
                return;
            }
            let led = self.led(id);
            if id == PartitionId::CLUSTER_METADATA {
                self.say_presence();
            }
            if led.is_some() && led != told {
                self.lead_change(id);
                self.announce_soon(id);
            }
            match (std::mem::replace(&mut told, led), &told) {
                (Some(former), None) => {
                    let pause = runtime.sleep(LEADERLESS_TOLD);
                    if let Either::Right(((), changed)) = select(pin!(changed), pin!(pause)).await {
                        self.announce_nobody(id, &replica, former).await;
                        changed.await;
                    }
                }
                _ => changed.await,
            }
        }
    }

    /// Announces that nobody leads a partition any more that this node has led, as far as that is
    /// known here: a majority of its replicas is gone.
    async fn announce_nobody(
        self: &Rc<Self>,
        id: PartitionId,
        replica: &Replica<R>,
        former: Leader,
    ) {
        if replica.left().is_none_or(|left| left.is_led) {
            return;
        }
        let nobody = vec![(id, former.nobody())];
        self.spread(nobody.clone()).await;
        self.tell_all(&nobody).await;
    }

    /// Announces a partition, with all others that change at this moment: where a node goes, many
    /// do. Who cannot be told now is told all when it can be talked to.
    fn announce_soon(self: &Rc<Self>, id: PartitionId) {
        let is_first = {
            let mut waiting = self.to_announce.borrow_mut();
            waiting.insert(id) && waiting.len() == 1
        };
        if is_first {
            let node = Rc::clone(self);
            self.parts.runtime.spawn(Queue::Control, async move {
                let changed = node.to_announce.take();
                let led = changed.into_iter().filter_map(|id| Some((id, node.led(id)?)));
                let led: Announced = led.collect();
                node.spread(led.clone()).await;
                if !led.is_empty() {
                    node.tell_all(&led).await;
                }
            });
        }
    }

    /// Tells all shards of this node. Returns when all know.
    pub(super) async fn spread(self: &Rc<Self>, announced: Announced) {
        if announced.is_empty() {
            return;
        }
        let announced = Arc::new(announced);
        self.on_all(move |node| {
            node.hear(&announced);
            std::future::ready(())
        })
        .await;
    }

    fn hear(&self, announced: &Announced) {
        let mut leaders = self.leaders.borrow_mut();
        for (partition, leader) in announced {
            leaders.announce(*partition, leader.clone());
        }
        drop(leaders);
        self.leaders_heard.notify();
    }

    /// A node begins a session, with this disk. What it led by another one it does not lead: that
    /// may have been the only replica, and then nobody else ever says so.
    pub(super) fn hear_of_disk(&self, node: i32, disk: Uuid) {
        let before = self.disks.borrow_mut().insert(node, disk);
        if before.is_some_and(|before| before != disk) {
            self.leaders.borrow_mut().lost(node);
        }
    }

    /// Forgets who led a partition that is deleted.
    pub(super) fn forget_leader(&self, partition: PartitionId) {
        self.leaders.borrow_mut().forget(partition);
    }
}
