//! Topics, partitions and nodes as answers show them.

use std::collections::BTreeSet;

use vltava_protocol::error_code::ErrorCode;

use crate::metadata::image::{Image, Node, NodeEndpoint, Partition, Topic};
use crate::metadata::leaders::{Leader, Leaders};

/// "Not asked for", where a client may ask what it is allowed to do.
pub const OPERATIONS_NOT_ASKED: i32 = i32::MIN;
/// Everything that can be done with a topic, as a set of Kafka's operations: nothing is forbidden
/// yet.
pub const TOPIC_OPERATIONS: i32 = 3576;
/// Everything that can be done with a cluster.
pub const CLUSTER_OPERATIONS: i32 = 8096;

/// A partition, as a client of one listener sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// Why the leader cannot be reached; `NONE` where it can.
    pub error_code: ErrorCode,
    /// Its number.
    pub index: i32,
    /// The leader's node; -1 where there is none.
    pub leader_id: i32,
    /// The leader's epoch; -1 where it is not known.
    pub leader_epoch: i32,
    /// The nodes that keep it.
    pub replica_nodes: Vec<i32>,
    /// Those that are caught up.
    pub in_sync_nodes: Vec<i32>,
    /// Those that are not there.
    pub offline_nodes: Vec<i32>,
}

/// From where the cluster is looked at.
#[derive(Clone, Copy)]
pub struct Standpoint<'a> {
    /// The listener that the client came to.
    pub listener: &'a str,
    /// The nodes that are there.
    pub present: &'a BTreeSet<i32>,
}

impl<'a> Standpoint<'a> {
    /// The nodes of the cluster that are there, and how a client of the listener reaches them.
    pub fn nodes(self, image: &'a Image) -> impl Iterator<Item = (&'a Node, &'a NodeEndpoint)> {
        let there = image.nodes().filter(move |node| self.present.contains(&node.id));
        there.filter_map(move |node| Some((node, node.endpoint(self.listener)?)))
    }
}

/// How a partition of a topic looks from there.
pub fn partition_view(
    image: &Image,
    leaders: &Leaders,
    Standpoint { listener, present }: Standpoint<'_>,
    topic: &Topic,
    (index, partition): (i32, &Partition),
) -> PartitionView {
    let replica_nodes = partition.node_ids();
    let is_gone = |id: &i32| image.node(*id).is_none() || !present.contains(id);
    let offline_nodes = replica_nodes.iter().copied().filter(is_gone).collect();
    let leader = leaders.leader(topic.partition_id(index));
    let endpoint = leader.filter(|leader| present.contains(&leader.node_id)).map(|leader| {
        image.node(leader.node_id).and_then(|node| node.endpoint(listener)).is_some()
    });
    let error_code = match endpoint {
        Some(true) => ErrorCode::NONE,
        Some(false) => ErrorCode::LISTENER_NOT_FOUND,
        None => ErrorCode::LEADER_NOT_AVAILABLE,
    };
    let reached = leader.filter(|_| error_code.is_none());
    PartitionView {
        error_code,
        index,
        leader_id: reached.map_or(-1, |leader| leader.node_id),
        leader_epoch: leader.map_or(-1, |leader| leader.epoch),
        in_sync_nodes: leader.map(|it| in_sync(it, &replica_nodes, present)).unwrap_or_default(),
        replica_nodes,
        offline_nodes,
    }
}

impl PartitionView {
    /// As the first Kafkas told of a partition.
    pub fn leave_out_offline(&mut self) {
        if self.offline_nodes.is_empty() {
            return;
        }
        let is_there = |node: &i32| !self.offline_nodes.contains(node);
        self.replica_nodes.retain(is_there);
        self.in_sync_nodes.retain(is_there);
        if self.error_code.is_none() {
            self.error_code = ErrorCode::REPLICA_NOT_AVAILABLE;
        }
    }
}

/// The replicas that were in sync as a leader last said, as far as they are there: who leads no
/// more says nothing of those that went with it. In the order of the replicas, as Kafka has them.
fn in_sync(leader: &Leader, replicas: &[i32], present: &BTreeSet<i32>) -> Vec<i32> {
    let said = replicas.iter().copied().filter(|id| leader.in_sync.contains(id));
    let there: Vec<i32> = said.clone().filter(|id| present.contains(id)).collect();
    // Somebody has it all, and has to come back.
    if there.is_empty() { said.collect() } else { there }
}

#[cfg(test)]
pub mod tests {
    use std::sync::Arc;

    use vltava_protocol::types::{Str, Uuid};

    use super::*;
    use crate::metadata::features::Levels;
    use crate::metadata::image::{Cluster, Node, NodeEndpoint, NodeState, PartitionId, Replica};
    use crate::metadata::leaders::Leader;
    use crate::metadata::records::{FORMAT_VERSION, Record};

    /// A cluster of one node with these topics (name, id, partitions); every partition is led, in
    /// epoch 3.
    pub fn cluster(topics: &[(&str, u128, i32)]) -> (Image, Leaders) {
        let (mut image, mut leaders) = (Image::default(), Leaders::default());
        let endpoint = NodeEndpoint {
            listener: Str::from_static("PLAINTEXT"),
            host: Str::from_static("kafka.example"),
            port: 9092,
        };
        let rack = Some(Str::from_static("r1"));
        let node = Node {
            id: 1,
            epoch: 0,
            rack,
            endpoints: vec![endpoint],
            disks: Vec::new(),
            peer_endpoint: None,
            state: NodeState::There,
            levels: Levels::default(),
        };
        let features = Arc::default();
        let formed = Cluster { id: Uuid(9), format_version: FORMAT_VERSION, features };
        image.apply(Record::Cluster(formed)).unwrap();
        image.apply(Record::Node(1, Some(node))).unwrap();
        for (name, id, partitions) in topics {
            image.apply(Record::Topic(Uuid(*id), Some(Str::from(*name)))).unwrap();
            for index in 0..*partitions {
                let id = PartitionId { topic_id: Uuid(*id), index };
                let replicas = vec![Replica { node_id: 1, disk_id: Uuid::ZERO }];
                image.apply(Record::Partition(id, Partition::new(replicas))).unwrap();
                let in_sync = Arc::from([1]);
                let leader = Leader { node_id: 1, epoch: 3, in_sync_version: 0, in_sync };
                leaders.announce(id, leader);
            }
        }
        (image, leaders)
    }

    fn view(image: &Image, leaders: &Leaders, listener: &str) -> PartitionView {
        let topic = image.topic("t").unwrap();
        let partition = topic.indexed_partitions().next().unwrap();
        let present = BTreeSet::from([1]);
        let from = Standpoint { listener, present: &present };
        partition_view(image, leaders, from, topic, partition)
    }

    #[test]
    fn a_partition_with_a_leader() {
        let (image, leaders) = cluster(&[("t", 5, 1)]);
        let expected = PartitionView {
            error_code: ErrorCode::NONE,
            index: 0,
            leader_id: 1,
            leader_epoch: 3,
            replica_nodes: vec![1],
            in_sync_nodes: vec![1],
            offline_nodes: vec![],
        };
        assert_eq!(view(&image, &leaders, "PLAINTEXT"), expected);
    }

    #[test]
    fn a_leader_that_is_not_on_this_listener_or_not_known_is_none() {
        let (image, leaders) = cluster(&[("t", 5, 1)]);
        let hidden = view(&image, &leaders, "INSIDE");
        assert_eq!((hidden.error_code, hidden.leader_id), (ErrorCode::LISTENER_NOT_FOUND, -1));
        let unknown = view(&image, &Leaders::default(), "PLAINTEXT");
        assert_eq!((unknown.error_code, unknown.leader_id), (ErrorCode::LEADER_NOT_AVAILABLE, -1));
        assert_eq!(unknown.replica_nodes, [1]);
    }

    #[test]
    fn who_is_gone_is_not_in_sync_but_where_all_are() {
        let leader = Leader { node_id: 1, epoch: 3, in_sync_version: 0, in_sync: [1, 2, 3].into() };
        for (present, expected) in
            [(&[1, 2, 3][..], &[3, 1, 2][..]), (&[2], &[2]), (&[1, 3], &[3, 1]), (&[4], &[3, 1, 2])]
        {
            let there = present.iter().copied().collect();
            assert_eq!(in_sync(&leader, &[3, 1, 2], &there), expected, "{present:?}");
        }
    }

    #[test]
    fn a_node_that_is_gone_is_offline() {
        let (mut image, leaders) = cluster(&[("t", 5, 1)]);
        let nobody = BTreeSet::new();
        let from = Standpoint { listener: "PLAINTEXT", present: &nobody };
        let topic = image.topic("t").unwrap();
        let partition = topic.indexed_partitions().next().unwrap();
        let view = partition_view(&image, &leaders, from, topic, partition);
        assert_eq!((view.error_code, view.leader_id), (ErrorCode::LEADER_NOT_AVAILABLE, -1));
        assert_eq!((view.offline_nodes.as_slice(), view.leader_epoch), ([1].as_slice(), 3));
        image.apply(Record::Node(1, None)).unwrap();
        let view = self::view(&image, &leaders, "PLAINTEXT");
        assert_eq!(view.offline_nodes, [1]);
        assert_eq!(view.error_code, ErrorCode::LISTENER_NOT_FOUND);
    }
}
