//! The shape of a run: how many nodes, how many replicas. Drawn from a stream of its own.

use vltava::runtime::sim::{Purpose, Random};

/// How a cluster is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Nodes that form the cluster: 1, 3 or 5.
    pub nodes: usize,
    /// Nodes that may come later.
    pub comers: usize,
    /// Replicas of each partition, for each topic of the run.
    pub replication: Vec<i16>,
    /// Replicas of each partition of `__consumer_offsets`.
    pub offsets_replication: i16,
    /// Troubles that go on at the same time, at most.
    pub troubles_at_once: usize,
    /// Disks may be lost for good, one at a time: then every partition has three replicas at least.
    pub disks_are_lost: bool,
}

/// The least replicas that survive the loss of one of them without a pause.
const SAFE: i16 = 3;

/// Of so many runs, how many have which number of nodes.
const NODES: [usize; 10] = [1, 1, 1, 3, 3, 3, 3, 3, 5, 5];

impl Shape {
    /// What the seed says; `nodes` instead of what it says of them, where that is given.
    pub fn new(seed: u64, topics: usize, nodes: Option<usize>) -> Self {
        let random = &mut Random::new(seed, Purpose::Faults, 6);
        let drawn = *random.pick(&NODES);
        let nodes = nodes.unwrap_or(drawn);
        let mut shape = Self {
            nodes,
            comers: 0,
            replication: Vec::new(),
            offsets_replication: 1,
            troubles_at_once: usize::try_from(random.between(1..=3)).unwrap_or(1),
            disks_are_lost: false,
        };
        shape.replication = (0..topics).map(|_| shape.draw_replication(random)).collect();
        shape.offsets_replication = shape.draw_replication(random);
        if nodes == 1 {
            shape.troubles_at_once = 1;
        }
        shape
    }

    /// One node alone, which is nobody's peer.
    pub fn is_alone(&self) -> bool {
        self.nodes == 1
    }

    /// Disks may be lost in this run.
    pub fn lose_disks(&mut self) {
        self.disks_are_lost = true;
        for replicas in self.replication.iter_mut().chain([&mut self.offsets_replication]) {
            *replicas = SAFE.max(*replicas);
        }
    }

    /// So many nodes may come later, and others leave: three stay at least, so no more than three
    /// replicas are asked for.
    pub fn come_and_go(&mut self, comers: usize) {
        self.comers = comers;
        for replicas in self.replication.iter_mut().chain([&mut self.offsets_replication]) {
            *replicas = SAFE.min(*replicas);
        }
    }

    /// Replicas of a topic: mostly three, or as many as there are nodes.
    pub fn draw_replication(&self, random: &mut Random) -> i16 {
        if self.is_alone() {
            return 1;
        }
        let most = match self.comers {
            0 => i16::try_from(self.nodes).unwrap_or(1),
            _ => SAFE,
        };
        let least = if self.disks_are_lost { SAFE } else { 1 };
        let drawn = match random.below(8) {
            0 => 1,
            1 => 2,
            2 => most,
            _ => 3,
        };
        drawn.max(least)
    }
}
