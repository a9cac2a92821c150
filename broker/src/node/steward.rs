//! Looks after the cluster where this node leads group 0: moves replicas off nodes that are removed
//! or gone for long and onto disks that took the place of others, gives the topic of offsets more
//! replicas as nodes come, names leaders where topics allow it and no majority is left, and lets
//! nodes go that keep nothing any more.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use vltava_protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};

use super::named::Leaderless;
use super::view::Node;
use crate::cluster::controller::{Input, Reply};
use crate::cluster::evacuate::{Limits, Sight, next_moves};
use crate::metadata::image::{Image, NodeState, PartitionId};
use crate::metadata::leaders::Leaders;
use crate::runtime::Runtime;

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Partitions that it has on their way at a time.
const MOVES_MAX: usize = 32;

/// What the leader of group 0 sees.
struct Seen<'a, R: Runtime> {
    node: &'a Node<R>,
    leaders: Leaders,
    present: BTreeSet<i32>,
}

impl<R: Runtime> Sight for Seen<'_, R> {
    fn is_present(&self, node_id: i32) -> bool {
        self.present.contains(&node_id)
    }

    fn is_gone_for_long(&self, node_id: i32) -> bool {
        self.node.is_gone_for_long(node_id)
    }

    fn is_led(&self, partition: PartitionId) -> bool {
        self.leaders.leader(partition).is_some_and(|leader| self.is_present(leader.node_id))
    }
}

impl<R: Runtime> Node<R> {
    /// Does so for as long as the process lives. On shard 0.
    pub(super) async fn steward(self: Rc<Self>) {
        let runtime = &self.parts.runtime;
        let mut leaderless = Leaderless::new();
        loop {
            runtime.sleep(PERIOD).await;
            if self.controller_id() != self.parts.config.node_id {
                leaderless.clear();
                continue;
            }
            self.elect_where_allowed(&mut leaderless).await;
            let image = self.image();
            let factor = self.parts.config.offsets.topic_replication_factor;
            let limits = Limits {
                moves_max: MOVES_MAX,
                offsets_replicas: usize::try_from(factor).unwrap_or(0),
            };
            let (leaders, present) = (self.leaders(), self.present());
            let moves = next_moves(&image, &Seen { node: &self, leaders, present }, limits);
            if !moves.is_empty() {
                self.move_replicas(&image, moves).await;
            }
            self.let_go(&image).await;
        }
    }

    async fn move_replicas(self: &Rc<Self>, image: &Image, moves: Vec<(PartitionId, Vec<i32>)>) {
        let partitions = moves.len();
        let mut topics: BTreeMap<_, Vec<ReassignablePartition>> = BTreeMap::new();
        for (id, target) in moves {
            let Some(topic) = image.topic_by_id(id.topic_id) else { continue };
            topics
                .entry(topic.name.clone())
                .or_default()
                .push(ReassignablePartition { partition_index: id.index, replicas: Some(target) });
        }
        let topics =
            topics.into_iter().map(|(name, partitions)| ReassignableTopic { name, partitions });
        let request = AlterPartitionReassignmentsRequest {
            topics: topics.collect(),
            allow_replication_factor_change: true,
            ..AlterPartitionReassignmentsRequest::default()
        };
        match self.ask_controller(Input::AlterReassignments(request)).await {
            Ok(Reply::AlterReassignments(_)) => {
                tracing::info!(partitions, "replicas move, so that every partition has its own");
            }
            other => tracing::debug!(?other, "replicas cannot move now; it is tried again"),
        }
    }

    /// Unregisters nodes that are removed, keep nothing, lead nothing and have no vote.
    async fn let_go(self: &Rc<Self>, image: &Image) {
        let group = self.parts.partitions.local(PartitionId::CLUSTER_METADATA);
        let Ok(members) = group.map(|group| group.members()) else { return };
        let keeps = |id: i32| {
            let mut all = image.topics().flat_map(|topic| &topic.partitions);
            all.any(|partition| partition.is_on(id))
        };
        let votes = |id: i32| members.seats().iter().any(|it| it.id.node == id && !it.is_learner);
        for node in image.nodes().filter(|node| node.state == NodeState::Removing) {
            if !keeps(node.id) && !votes(node.id) {
                let node_id = node.id;
                let answer = self.ask_controller(Input::ForgetNode { node_id }).await;
                if !matches!(answer, Ok(Reply::NodeUnregistered)) {
                    tracing::debug!(node = node_id, ?answer, "a node cannot leave yet");
                }
            }
        }
    }
}
