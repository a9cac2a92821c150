//! Leaders go back where their partitions prefer them to be.
//!
//! Each node looks, now and then, at what it leads: where another replica is preferred, is in sync,
//! and its node is there to stay and has room, it hands over, one partition after the other. Nobody
//! decides this for all, so nothing has to be agreed on.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use super::view::Node;
use crate::metadata::image::{Image, NodeState, PartitionId};
use crate::metadata::leaders::Leaders;
use crate::runtime::Runtime;

/// Between two partitions: clients of one are at its new leader before those of the next go.
const PAUSE: Duration = Duration::from_millis(20);

impl<R: Runtime> Node<R> {
    /// Hands back what others are preferred for, for as long as the process lives: from the first
    /// shard, for all.
    pub async fn balance_leaders(self: Rc<Self>) {
        let Some(seconds) = self.parts.config.leader_check_interval_s else { return };
        if self.parts.peers.is_none() || self.parts.jobs.own() > 0 {
            return;
        }
        let runtime = &self.parts.runtime;
        loop {
            runtime.sleep(Duration::from_secs(seconds.max(1))).await;
            let (image, present) = (self.image(), self.present());
            let own = self.parts.config.node_id;
            let preferred_elsewhere = to_hand_back(&image, &self.leaders(), own, &present);
            let mut room = BTreeMap::new();
            for (_, to) in &preferred_elsewhere {
                if !room.contains_key(to) {
                    room.insert(*to, self.has_room(*to).await);
                }
            }
            let (mut moved, all) = (0, preferred_elsewhere.len());
            for (partition, to) in preferred_elsewhere {
                // It would give it away again at once.
                if room.get(&to) != Some(&true) {
                    continue;
                }
                // Whoever cannot take it now may at the next look.
                moved += usize::from(self.hand_over(partition, Some(to)).await.is_ok());
                runtime.sleep(PAUSE).await;
            }
            if all > 0 {
                tracing::info!(moved, of = all, "leaders went back to the nodes they prefer");
            }
        }
    }
}

/// What this node leads and another should, with which.
fn to_hand_back(
    image: &Image,
    leaders: &Leaders,
    own: i32,
    present: &BTreeSet<i32>,
) -> Vec<(PartitionId, i32)> {
    let is_well = |id: i32| {
        let stays = image.node(id).is_some_and(|node| node.state == NodeState::There);
        stays && present.contains(&id)
    };
    let partitions = image.topics().flat_map(|topic| {
        let all = topic.indexed_partitions();
        all.map(|(index, partition)| (topic.partition_id(index), partition))
    });
    let elsewhere = partitions.filter_map(|(id, partition)| {
        let preferred = partition.preferred();
        let leader = leaders.leader(id).filter(|leader| leader.node_id == own)?;
        // Whoever moves it decides who leads meanwhile.
        let may = preferred != own
            && !partition.is_changing()
            && leader.in_sync.contains(&preferred)
            && is_well(preferred);
        may.then_some((id, preferred))
    });
    elsewhere.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use vltava_protocol::types::{Str, Uuid};

    use super::*;
    use crate::metadata::image::{Cluster, Node as Registered, Partition, Replica};
    use crate::metadata::leaders::Leader;
    use crate::metadata::records::Record;

    #[test]
    fn only_what_can_be_taken_at_once_is_handed_back() {
        let mut image = Image::default();
        let cluster = Cluster { id: Uuid(1), format_version: 1, features: <_>::default() };
        image.apply(Record::Cluster(cluster)).unwrap();
        for (id, state) in [(1, NodeState::There), (2, NodeState::There), (3, NodeState::Draining)]
        {
            let node = Registered {
                id,
                epoch: 0,
                rack: None,
                endpoints: vec![],
                disks: vec![],
                peer_endpoint: None,
                state,
                levels: crate::metadata::features::Levels::default(),
            };
            image.apply(Record::Node(id, Some(node))).unwrap();
        }
        image.apply(Record::Topic(Uuid(7), Some(Str::from("t")))).unwrap();
        let id = |index| PartitionId { topic_id: Uuid(7), index };
        // preferred, leader, in sync
        let table: [(i32, i32, &[i32]); 6] = [
            (2, 1, &[1, 2]),
            (1, 1, &[1, 2]),
            (2, 1, &[1, 3]),
            (3, 1, &[1, 3]),
            (2, 3, &[2, 3]),
            (2, 1, &[1, 2]),
        ];
        let mut leaders = Leaders::default();
        for (index, (preferred, node_id, in_sync)) in (0..).zip(table) {
            let replica = |node_id| Replica { node_id, disk_id: Uuid(8) };
            let rest = (1..4).filter(|id| *id != preferred);
            let replicas = std::iter::once(preferred).chain(rest).map(replica).collect();
            let mut partition = Partition::new(replicas);
            if index == 5 {
                partition.removing.push(replica(1));
            }
            image.apply(Record::Partition(id(index), partition)).unwrap();
            let in_sync = Arc::from(in_sync);
            leaders.announce(id(index), Leader { node_id, epoch: 1, in_sync_version: 0, in_sync });
        }
        let handed_back =
            |present: &[i32]| to_hand_back(&image, &leaders, 1, &present.iter().copied().collect());
        assert_eq!(handed_back(&[1, 2, 3]), [(id(0), 2)]);
        assert_eq!(handed_back(&[1, 3]), []);
    }
}
