//! How the cluster stands, counted, as far as this node knows it: for whoever watches.

use std::rc::Rc;

use super::view::Node;
use crate::metadata::image::PartitionId;
use crate::partition::replica::Replica;
use crate::runtime::Runtime;

/// How many of each; of a shard, or of all shards of this node together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Partitions that this node leads.
    pub led: usize,
    /// Those of them of which not all replicas are in sync.
    pub under_replicated: usize,
    /// Partitions of the cluster without a leader that clients are told of.
    pub without_leader: usize,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Those of them that this node reaches, itself among them.
    pub nodes_reached: usize,
}

impl Tally {
    /// Adds another shard's.
    pub fn add(&mut self, other: Self) {
        self.led += other.led;
        self.under_replicated += other.under_replicated;
        self.without_leader += other.without_leader;
        self.nodes += other.nodes;
        self.nodes_reached += other.nodes_reached;
    }
}

impl<R: Runtime> Node<R> {
    /// What this shard knows. What is the whole cluster's, shard 0 counts.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for (id, replica) in self.parts.partitions.all_local() {
            if replica.leads().is_some() {
                tally.led += 1;
                tally.under_replicated += usize::from(self.is_under_replicated(id, &replica));
            }
        }
        if self.parts.jobs.own() > 0 {
            return tally;
        }
        let (image, leaders) = (self.image(), self.leaders());
        let (shown, present) = (self.shown(), self.present());
        let is_led = |id: &PartitionId| {
            leaders.leader(*id).is_some_and(|leader| shown.contains(&leader.node_id))
        };
        let partitions = image.topics().flat_map(|topic| topic.partition_ids());
        tally.without_leader = partitions.filter(|id| !is_led(id)).count();
        // Who was added and was never there is none yet.
        let nodes = image.nodes().filter(|node| !node.disks.is_empty());
        tally.nodes = nodes.clone().count();
        tally.nodes_reached = nodes.filter(|node| present.contains(&node.id)).count();
        tally
    }

    fn is_under_replicated(&self, id: PartitionId, replica: &Rc<Replica<R>>) -> bool {
        let (_, in_sync) = replica.in_sync(self.parts.config.node_id);
        let image = self.image();
        let topic = image.topic_by_id(id.topic_id);
        let nodes = match topic.and_then(|topic| topic.partition(id.index)) {
            Some(partition) => partition.node_ids(),
            // Group 0, whose members are in its own log only. Alone, a node is there by no number.
            None => replica.members().voters().map(|id| id.node).filter(|id| *id >= 0).collect(),
        };
        !nodes.iter().all(|node| in_sync.contains(node))
    }
}
