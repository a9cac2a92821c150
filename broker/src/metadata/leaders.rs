//! Who leads what, at which epoch, with which in-sync set.
//!
//! Each new leader announces itself to all nodes; announcements overtake each other, and the
//! highest epoch stands. Within an epoch the leader counts the changes of its in-sync set.

use std::sync::Arc;

use super::image::PartitionId;
use super::sorted_map::SortedMap;

/// No node's number.
pub const NOBODY: i32 = -1;

/// What a leader says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The node.
    pub node_id: i32,
    /// Its epoch: raft's term.
    pub epoch: i32,
    /// Counts the in-sync sets of this epoch.
    pub in_sync_version: u32,
    /// Replicas that are caught up, itself among them.
    pub in_sync: Arc<[i32]>,
}

impl Leader {
    /// What stands where it leads no more, and nobody else does.
    pub fn nobody(&self) -> Self {
        let in_sync_version = self.in_sync_version.saturating_add(1);
        Self { node_id: NOBODY, in_sync_version, ..self.clone() }
    }
}

/// The leaders that a shard knows. A clone is cheap and stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leaders {
    known: SortedMap<PartitionId, Leader>,
}

impl Leaders {
    /// Who leads a partition, as far as it was heard; a partition that is new has no leader yet.
    pub fn leader(&self, partition: PartitionId) -> Option<&Leader> {
        self.known.get(&partition)
    }

    /// All that are known, by partition.
    pub fn iter(&self) -> impl Iterator<Item = (PartitionId, &Leader)> {
        self.known.iter().map(|(partition, leader)| (*partition, leader))
    }

    /// Takes an announcement; true where it was news, false where what is known is as new or newer.
    pub fn announce(&mut self, partition: PartitionId, leader: Leader) -> bool {
        let place = |leader: &Leader| (leader.epoch, leader.in_sync_version);
        let is_news = self.leader(partition).is_none_or(|known| place(known) < place(&leader));
        if is_news {
            self.known.insert(partition, leader);
        }
        is_news
    }

    /// A node has lost its disk, and leads nothing any more that it led: nobody does in that epoch.
    pub fn lost(&mut self, node_id: i32) {
        let led = self.known.iter().filter(|(_, leader)| leader.node_id == node_id);
        let led: Vec<_> = led.map(|(partition, leader)| (*partition, leader.nobody())).collect();
        for (partition, nobody) in led {
            self.known.insert(partition, nobody);
        }
    }

    /// Forgets a partition that was deleted.
    pub fn forget(&mut self, partition: PartitionId) {
        self.known.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use vltava_protocol::types::Uuid;

    use super::*;

    const PARTITION: PartitionId = PartitionId { topic_id: Uuid(7), index: 0 };

    fn leader(node_id: i32, epoch: i32, in_sync_version: u32) -> Leader {
        Leader { node_id, epoch, in_sync_version, in_sync: Arc::from([node_id]) }
    }

    #[test]
    fn the_highest_epoch_stands() {
        let mut leaders = Leaders::default();
        assert_eq!(leaders.leader(PARTITION), None);
        assert!(leaders.announce(PARTITION, leader(1, 3, 0)));
        assert!(!leaders.announce(PARTITION, leader(2, 2, 9)), "an old leader, heard late");
        assert!(!leaders.announce(PARTITION, leader(1, 3, 0)), "the same again");
        assert!(leaders.announce(PARTITION, leader(1, 3, 1)), "another in-sync set");
        assert!(!leaders.announce(PARTITION, leader(1, 3, 0)));
        assert!(leaders.announce(PARTITION, leader(2, 4, 0)));
        assert_eq!(leaders.leader(PARTITION), Some(&leader(2, 4, 0)));
        assert_eq!(leaders.known.len(), 1);
    }

    #[test]
    fn what_a_node_led_that_has_lost_its_disk_nobody_leads() {
        let other = PartitionId { index: 1, ..PARTITION };
        let mut leaders = Leaders::default();
        leaders.announce(PARTITION, leader(1, 3, 0));
        leaders.announce(other, leader(2, 3, 0));
        leaders.lost(1);
        let led_by = |leaders: &Leaders, id| leaders.leader(id).map(|leader| leader.node_id);
        assert_eq!(led_by(&leaders, PARTITION), Some(NOBODY));
        assert_eq!(led_by(&leaders, other), Some(2));
        assert!(!leaders.announce(PARTITION, leader(1, 3, 0)), "said before, and heard late");
        assert!(leaders.announce(PARTITION, leader(1, 4, 0)));
    }

    #[test]
    fn what_is_deleted_is_forgotten() {
        let mut leaders = Leaders::default();
        leaders.announce(PARTITION, leader(1, 3, 0));
        let before = leaders.clone();
        leaders.forget(PARTITION);
        assert_eq!(leaders, Leaders::default());
        assert!(before.leader(PARTITION).is_some());
    }
}
