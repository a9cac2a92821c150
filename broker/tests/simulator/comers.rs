//! Nodes that come to a cluster and leave it, while everything goes on.

use vltava::metadata::image::{Image, NodeState, PartitionId};
use vltava::runtime::sim::{Crash, MILLION, Random, SimRuntime};
use vltava::shard::Shard;

use crate::cluster::Cluster;

/// Fewer nodes than this do not stay: partitions have so many replicas.
const NODES_MIN: usize = 3;

impl Cluster {
    /// One of the nodes that may leave now.
    pub fn draw_leaving(&self, random: &mut Random) -> Option<usize> {
        let nodes = self.places(true);
        (nodes.len() > NODES_MIN).then(|| *random.pick(&nodes))
    }

    /// Starts a node that is none of the cluster, with an empty disk: it is told of some that are,
    /// of one at least.
    pub async fn come(&self, node: usize, random: &mut Random) {
        let mut told = self.places(true);
        while told.len() > 1 && random.chance(MILLION / 2) {
            told.swap_remove(random.index(told.len()));
        }
        told.push(node);
        self.take_this(node).await;
        self.place(node, Some(self.peers(told)));
        self.start(node, random).await;
        self.give_back(node);
    }

    /// Ends a node that the cluster knows no more, in one way or another, and empties its disk.
    pub async fn leave(&self, node: usize, random: &mut Random) {
        self.take_this(node).await;
        match random.chance(MILLION / 2) {
            true => self.stop(node, random).await,
            false => self.crash_now(node, Crash::Power, random).await,
        }
        self.place(node, None);
        self.simulation.kill(self.host(node), Crash::Power);
        self.simulation.replace_disk(self.host(node));
        self.checkers.replicas.borrow_mut().has_left(Self::id(node));
        self.simulation.executor().note(&format!("node {} has left", Self::id(node)));
        self.give_back(node);
    }

    /// Looks at the cluster as whoever leads its metadata knows it; `None` where nobody does.
    pub fn as_led<T>(&self, look: impl FnOnce(&Image) -> T) -> Option<T> {
        let group = PartitionId::CLUSTER_METADATA;
        let leads = |shard: &std::rc::Rc<Shard<SimRuntime>>| {
            let group = shard.services.partitions.local(group);
            group.is_ok_and(|group| group.leads().is_some())
        };
        let shards = self.nodes().flat_map(|node| self.shards(node));
        let leader = shards.into_iter().find(leads)?;
        Some(look(&leader.services.node.image()))
    }

    /// What is wanted of a node, as whoever leads knows; `Some(None)`: it is none of them.
    pub fn state_of(&self, node: usize) -> Option<Option<NodeState>> {
        self.as_led(|image| image.node(Self::id(node)).map(|node| node.state))
    }

    /// Whether all nodes run, and all know that this one is there.
    pub fn is_known_to_all(&self, node: usize) -> bool {
        let is_there = |image: &Image| {
            let known = image.node(Self::id(node));
            known.is_some_and(|known| known.state != NodeState::Expected)
        };
        self.nodes().all(|other| {
            let shards = self.shards(other);
            !shards.is_empty() && shards.iter().all(|shard| is_there(&shard.services.node.image()))
        })
    }
}
