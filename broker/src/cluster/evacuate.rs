//! What the cluster moves by itself: off nodes that are removed or gone for long, onto disks that
//! took the place of others, and to more nodes where a topic of its own has too few replicas.

use std::collections::BTreeMap;

use crate::metadata::image::{Image, Node, NodeState, Partition, PartitionId};
use crate::metadata::topic_name::CONSUMER_OFFSETS;

/// What is seen of the nodes and partitions.
pub trait Sight {
    /// Whether a node is there.
    fn is_present(&self, node_id: i32) -> bool;
    /// Whether a node is gone for so long that it is not waited for.
    fn is_gone_for_long(&self, node_id: i32) -> bool;
    /// Whether a partition has a leader: else nobody would make the change.
    fn is_led(&self, partition: PartitionId) -> bool;
}

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Partitions that are on their way at a time.
    pub moves_max: usize,
    /// Replicas that the topic of offsets is to have, as soon as there are nodes.
    pub offsets_replicas: usize,
}

/// The nodes that keep partitions next, in order of preference: for those that are to be changed
/// now.
pub fn next_moves(
    image: &Image,
    sight: &impl Sight,
    limits: Limits,
) -> Vec<(PartitionId, Vec<i32>)> {
    let mut planner = Planner::new(image, sight);
    let mut moves = Vec::new();
    let mut room = limits.moves_max;
    for topic in image.topics() {
        let is_offsets = topic.name == CONSUMER_OFFSETS;
        let least = if is_offsets { limits.offsets_replicas } else { 0 };
        for (index, partition) in topic.indexed_partitions() {
            let id = topic.partition_id(index);
            if !sight.is_led(id) {
                continue;
            }
            match planner.target(partition, least) {
                Some(target) => moves.push((id, target)),
                None if is_on_its_way(partition, sight) => room = room.saturating_sub(1),
                None => {}
            }
        }
    }
    moves.truncate(room);
    moves
}

/// Whether a partition is copied to where it is to be, or will be in a moment. One that waits for
/// nodes that are gone keeps nobody else waiting.
fn is_on_its_way(partition: &Partition, sight: &impl Sight) -> bool {
    let is_there = partition.adding.iter().all(|replica| sight.is_present(replica.node_id));
    partition.is_changing() && is_there
}

struct Planner<'a, S> {
    image: &'a Image,
    sight: &'a S,
    /// Replicas of each node that could take more.
    load: BTreeMap<i32, usize>,
}

impl<'a, S: Sight> Planner<'a, S> {
    fn new(image: &'a Image, sight: &'a S) -> Self {
        let takes = |node: &&Node| {
            node.state == NodeState::There && !node.disks.is_empty() && sight.is_present(node.id)
        };
        let mut load: BTreeMap<i32, usize> =
            image.nodes().filter(takes).map(|node| (node.id, 0)).collect();
        for partition in image.topics().flat_map(|topic| &topic.partitions) {
            for replica in partition.target() {
                if let Some(count) = load.get_mut(&replica.node_id) {
                    *count += 1;
                }
            }
        }
        Self { image, sight, load }
    }

    /// Where the partition is to be, if that is not where it is, or on its way to; `least`: with so
    /// many replicas, where there are nodes for them.
    fn target(&mut self, partition: &Partition, least: usize) -> Option<Vec<i32>> {
        let mut nodes = Vec::new();
        let mut is_other_disk = false;
        for replica in partition.target() {
            if !nodes.contains(&replica.node_id) {
                nodes.push(replica.node_id);
            }
            let node = self.image.node(replica.node_id);
            let has_disk = |node: &Node| node.disks.contains(&replica.disk_id);
            is_other_disk |= !replica.disk_id.is_zero()
                && node.is_some_and(|node| !node.disks.is_empty() && !has_disk(node));
        }
        let before = nodes.clone();
        let leaving: Vec<i32> = before.iter().copied().filter(|id| self.must_leave(*id)).collect();
        for leaving in leaving {
            if let Some(other) = self.other(&nodes, leaving) {
                nodes.iter_mut().filter(|id| **id == leaving).for_each(|id| *id = other);
            } else if self.is_removed(leaving) && nodes.len() > 1 && !self.is_awaited(&nodes) {
                nodes.retain(|id| *id != leaving);
            }
        }
        while nodes.len() < least
            && !partition.is_changing()
            && let Some(more) = self.other(&nodes, -1)
        {
            nodes.push(more);
        }
        (nodes != before || is_other_disk).then_some(nodes)
    }

    /// Whether there is a node for one more replica beside these, which takes none now: it is down,
    /// or drained, and will be back. Only where there is none are fewer replicas enough.
    fn is_awaited(&self, beside: &[i32]) -> bool {
        self.image.nodes().any(|node| {
            matches!(node.state, NodeState::There | NodeState::Draining)
                && !node.disks.is_empty()
                && !self.sight.is_gone_for_long(node.id)
                && !beside.contains(&node.id)
        })
    }

    fn must_leave(&self, id: i32) -> bool {
        self.is_removed(id) || self.sight.is_gone_for_long(id)
    }

    /// Whether the node is none of the cluster's any more, or is not to be.
    fn is_removed(&self, id: i32) -> bool {
        self.image.node(id).is_none_or(|node| node.state == NodeState::Removing)
    }

    /// A node for one more replica beside these, in place of one of them: on a rack that none of
    /// the others is on, if there is one, and with the fewest replicas.
    fn other(&mut self, beside: &[i32], instead_of: i32) -> Option<i32> {
        let rack = |id: i32| self.image.node(id).and_then(|node| node.rack.clone());
        let stay = beside.iter().filter(|id| **id != instead_of);
        let racks: Vec<_> = stay.map(|id| rack(*id)).collect();
        let free = self.load.iter().filter(|(id, _)| !beside.contains(id));
        let chosen = free.min_by_key(|(id, count)| (racks.contains(&rack(**id)), **count, **id));
        let chosen = chosen.map(|(id, _)| *id)?;
        if let Some(count) = self.load.get_mut(&chosen) {
            *count += 1;
        }
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use vltava_protocol::types::{Str, Uuid};

    use super::*;
    use crate::metadata::image::{Cluster, Replica};
    use crate::metadata::records::{FORMAT_VERSION, Record};

    struct Seen {
        absent: Vec<i32>,
        gone: Vec<i32>,
        leaderless: bool,
    }

    impl Sight for Seen {
        fn is_present(&self, node_id: i32) -> bool {
            !self.absent.contains(&node_id) && !self.gone.contains(&node_id)
        }

        fn is_gone_for_long(&self, node_id: i32) -> bool {
            self.gone.contains(&node_id)
        }

        fn is_led(&self, _: PartitionId) -> bool {
            !self.leaderless
        }
    }

    const LIMITS: Limits = Limits { moves_max: 4, offsets_replicas: 3 };
    const ALL_THERE: Seen = Seen { absent: Vec::new(), gone: Vec::new(), leaderless: false };

    fn disk(node_id: i32) -> Uuid {
        Uuid(100 + u128::from(node_id.unsigned_abs()))
    }

    /// Nodes with their racks and states; topics with their partitions' nodes.
    fn image(nodes: &[(i32, &str, NodeState)], topics: &[(&str, &[&[i32]])]) -> Image {
        let mut image = Image::default();
        let (id, format_version) = (Uuid(9), FORMAT_VERSION);
        let cluster = Cluster { id, format_version, features: Arc::default() };
        image.apply(Record::Cluster(cluster)).unwrap();
        for (id, rack, state) in nodes {
            let node = Node {
                id: *id,
                epoch: 0,
                rack: (!rack.is_empty()).then(|| Str::from(*rack)),
                endpoints: Vec::new(),
                disks: vec![disk(*id)],
                peer_endpoint: None,
                state: *state,
                levels: crate::metadata::features::Levels::default(),
            };
            image.apply(Record::Node(*id, Some(node))).unwrap();
        }
        for (nth, (name, partitions)) in (1..).zip(topics) {
            let topic_id = Uuid(nth);
            image.apply(Record::Topic(topic_id, Some(Str::from(*name)))).unwrap();
            for (index, replicas) in (0..).zip(*partitions) {
                let replica =
                    |node_id: &i32| Replica { node_id: *node_id, disk_id: disk(*node_id) };
                let partition = Partition::new(replicas.iter().map(replica).collect());
                let id = PartitionId { topic_id, index };
                image.apply(Record::Partition(id, partition)).unwrap();
            }
        }
        image
    }

    fn targets(image: &Image, seen: &Seen) -> Vec<Vec<i32>> {
        next_moves(image, seen, LIMITS).into_iter().map(|(_, target)| target).collect()
    }

    use NodeState::{Draining, Removing, There};

    #[test]
    fn nothing_moves_where_all_is_well() {
        let nodes = [(1, "", There), (2, "", There), (3, "", There)];
        let image =
            image(&nodes, &[("t", &[&[1, 2], &[3, 1]]), ("__consumer_offsets", &[&[1, 2, 3]])]);
        assert_eq!(targets(&image, &ALL_THERE), Vec::<Vec<i32>>::new());
        let absent = Seen { absent: vec![3], ..ALL_THERE };
        assert_eq!(targets(&image, &absent), Vec::<Vec<i32>>::new(), "it may be back in a moment");
    }

    #[test]
    fn replicas_leave_a_node_that_is_removed_to_where_there_are_fewest() {
        let nodes = [(1, "", Removing), (2, "", There), (3, "", There), (4, "", There)];
        let image = image(&nodes, &[("t", &[&[1, 2], &[3, 1], &[2, 3]])]);
        assert_eq!(targets(&image, &ALL_THERE), [vec![4, 2], vec![3, 4]]);
        let leaderless = Seen { leaderless: true, ..ALL_THERE };
        assert_eq!(targets(&image, &leaderless), Vec::<Vec<i32>>::new());
    }

    #[test]
    fn racks_stay_apart_and_drained_or_absent_nodes_take_nothing() {
        let nodes = [(1, "a", Removing), (2, "b", There), (3, "b", There), (4, "c", There)];
        let by_rack = image(&nodes, &[("t", &[&[1, 2]]), ("u", &[&[4], &[4]])]);
        assert_eq!(
            targets(&by_rack, &ALL_THERE),
            [vec![4, 2]],
            "fewer are on 3, and its rack is 2's"
        );
        let nodes = [(1, "", Removing), (2, "", There), (3, "", Draining), (4, "", There)];
        let others = image(&nodes, &[("t", &[&[1, 2]])]);
        let absent = Seen { absent: vec![4], ..ALL_THERE };
        assert_eq!(targets(&others, &absent), Vec::<Vec<i32>>::new(), "3 and 4 will be back");
        let nodes = [(1, "", Removing), (2, "", There), (3, "", Removing), (4, "", There)];
        let fewer = image(&nodes, &[("t", &[&[1, 2]])]);
        let gone = Seen { gone: vec![4], ..ALL_THERE };
        assert_eq!(targets(&fewer, &gone), [vec![2]], "nowhere to go: with fewer");
        let last = image(&nodes, &[("t", &[&[1]])]);
        let alone = Seen { absent: vec![2, 4], ..ALL_THERE };
        assert_eq!(targets(&last, &alone), Vec::<Vec<i32>>::new(), "the last copy stays");
    }

    #[test]
    fn who_is_gone_for_long_is_replaced_where_there_is_another() {
        let nodes = [(1, "", There), (2, "", There), (3, "", There), (4, "", There)];
        let four = image(&nodes, &[("t", &[&[1, 2, 3]])]);
        let gone = Seen { gone: vec![3], ..ALL_THERE };
        assert_eq!(targets(&four, &gone), [vec![1, 2, 4]]);
        let three = image(&nodes[..3], &[("t", &[&[1, 2, 3]])]);
        assert_eq!(targets(&three, &gone), Vec::<Vec<i32>>::new());
    }

    #[test]
    fn a_disk_that_was_wiped_gets_its_replicas_again() {
        let nodes = [(1, "", There), (2, "", There)];
        let mut image = image(&nodes, &[("t", &[&[1, 2], &[1]])]);
        let node = Node { disks: vec![Uuid(7)], ..image.node(2).unwrap().clone() };
        image.apply(Record::Node(2, Some(node))).unwrap();
        assert_eq!(targets(&image, &ALL_THERE), [vec![1, 2]]);
    }

    #[test]
    fn offsets_get_three_replicas_as_nodes_come_and_moves_are_bounded() {
        let nodes = [(1, "", There), (2, "", There), (3, "", There)];
        let one: &[i32] = &[1];
        let image = image(&nodes, &[("__consumer_offsets", &[one; 6]), ("t", &[one])]);
        let moves = targets(&image, &ALL_THERE);
        assert_eq!(moves.len(), LIMITS.moves_max);
        assert_eq!(moves[0], [1, 2, 3]);
        let mut changing = image.clone();
        let id = PartitionId { topic_id: Uuid(1), index: 0 };
        let replicas: Vec<_> =
            [1, 2, 3].map(|node_id| Replica { node_id, disk_id: disk(node_id) }).to_vec();
        let partition =
            Partition { adding: replicas[1..].to_vec(), ..Partition::new(replicas.clone()) };
        changing.apply(Record::Partition(id, partition)).unwrap();
        assert_eq!(targets(&changing, &ALL_THERE).len(), LIMITS.moves_max - 1);
    }
}
