//! Leaders out and in: each leader tells all shards of this node who it is.
//!
//! One node is a cluster of one: every partition is led here as soon as its log is open. In a
//! cluster the same announcement also goes to the other nodes.

use std::rc::Rc;
use std::sync::Arc;

use super::view::Node;
use crate::metadata::image::PartitionId;
use crate::metadata::leaders::{Leader, Leaders};
use crate::runtime::Runtime;

/// What is announced.
pub type Announced = Vec<(PartitionId, Leader)>;

impl<R: Runtime> Node<R> {
    /// Who leads what, as far as this shard has heard. A clone is cheap, and stays as it is.
    pub fn leaders(&self) -> Leaders {
        self.leaders.borrow().clone()
    }

    /// Tells all shards who leads the partitions that this shard has just opened. Returns when all
    /// know.
    pub(super) async fn announce(self: &Rc<Self>, opened: Vec<PartitionId>) {
        let node_id = self.parts.config.node_id;
        let alone: Arc<[i32]> = Arc::from([node_id]);
        let leaders = opened.into_iter().filter_map(|id| {
            let replica = self.parts.partitions.local(id).ok()?;
            let epoch = replica.leader_epoch();
            let in_sync = Arc::clone(&alone);
            Some((id, Leader { node_id, epoch, in_sync_version: 0, in_sync }))
        });
        let announced: Arc<Announced> = Arc::new(leaders.collect());
        if announced.is_empty() {
            return;
        }
        let mut told = Vec::new();
        for shard in (0..self.parts.jobs.count()).filter(|shard| *shard != self.parts.jobs.own()) {
            let announced = Arc::clone(&announced);
            let job = move |node: &Rc<Self>| {
                node.hear(&announced);
                std::future::ready(())
            };
            told.push(self.parts.jobs.start(shard, job).await);
        }
        self.hear(&announced);
        for pending in told {
            // A shard that has ended hears nothing: the process stops.
            let _ = pending.await;
        }
    }

    fn hear(&self, announced: &Announced) {
        let mut leaders = self.leaders.borrow_mut();
        for (partition, leader) in announced {
            leaders.announce(*partition, leader.clone());
        }
    }

    /// Forgets who led a partition that is deleted.
    pub(super) fn forget_leader(&self, partition: PartitionId) {
        self.leaders.borrow_mut().forget(partition);
    }
}
