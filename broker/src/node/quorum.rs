//! Group 0 as Kafka describes a quorum: who votes, who follows, and how far each is. Its leader
//! knows; any node can be asked.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::message::{Message, from_versioned_bytes, to_versioned_bytes};
use vltava_protocol::messages::describe_quorum::{
    DescribeQuorumResponse, Listener, Node as QuorumNode, ReplicaState, ResponsePartitionData,
    ResponseTopicData,
};
use vltava_protocol::types::{Str, Uuid};

use super::peers::QUORUM;
use super::view::Node;
use crate::metadata::image::PartitionId;
use crate::metadata::topic_name::CLUSTER_METADATA;
use crate::partition::replica::Standing;
use crate::raft::membership::ReplicaId;
use crate::runtime::Runtime;

/// How often the leader looks who is there.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// When a member was there, and was caught up: in milliseconds since 1970; -1: not since this node
/// leads.
#[derive(Clone, Copy, Debug)]
pub struct LastSeen {
    there_ms: i64,
    caught_up_ms: i64,
}

impl<R: Runtime> Node<R> {
    /// Group 0, as its leader sees it, as the answer to a client that asks for it.
    ///
    /// # Errors
    /// NOT_LEADER_OR_FOLLOWER where no leader can be reached.
    pub async fn describe_quorum(self: &Rc<Self>) -> Result<DescribeQuorumResponse, ErrorCode> {
        let nobody = ErrorCode::NOT_LEADER_OR_FOLLOWER;
        let leader = self.controller_id();
        if leader == self.parts.config.node_id {
            return self.quorum().await.ok_or(nobody);
        }
        let answer = self.ask_peer(leader, QUORUM, Bytes::new()).await.ok_or(nobody)?;
        from_versioned_bytes(&answer).map_err(|_| nobody)
    }

    /// Another node asks.
    pub(super) async fn answer_quorum(self: &Rc<Self>) -> Bytes {
        let Some(answer) = self.quorum().await else { return Bytes::new() };
        to_versioned_bytes(&answer, DescribeQuorumResponse::VERSION_MAX).unwrap_or_default()
    }

    async fn quorum(self: &Rc<Self>) -> Option<DescribeQuorumResponse> {
        self.on(0, |node| std::future::ready(node.quorum_here())).await.flatten()
    }

    fn quorum_here(&self) -> Option<DescribeQuorumResponse> {
        let group = self.parts.partitions.local(PartitionId::CLUSTER_METADATA).ok()?;
        let standings = group.standings()?;
        self.look_at_quorum(&standings);
        let state = |standing: &Standing| self.replica_state(standing);
        let (voters, observers): (Vec<_>, Vec<_>) = standings.iter().partition(|it| it.is_voter);
        let current_voters: Vec<_> = voters.into_iter().map(state).collect();
        let image = self.image();
        let nodes = current_voters.iter().filter_map(|voter| {
            let node = image.node(voter.replica_id)?;
            let listeners = node.endpoints.iter().map(|endpoint| Listener {
                name: endpoint.listener.clone(),
                host: endpoint.host.clone(),
                port: endpoint.port,
            });
            Some(QuorumNode { node_id: node.id, listeners: listeners.collect() })
        });
        let partition = ResponsePartitionData {
            partition_index: PartitionId::CLUSTER_METADATA.index,
            leader_id: self.parts.config.node_id,
            leader_epoch: group.leader_epoch(),
            high_watermark: group.high_watermark(),
            observers: observers.into_iter().map(state).collect(),
            current_voters: current_voters.clone(),
            ..ResponsePartitionData::default()
        };
        let topic_name = Str::from_static(CLUSTER_METADATA);
        Some(DescribeQuorumResponse {
            topics: vec![ResponseTopicData { topic_name, partitions: vec![partition] }],
            nodes: nodes.collect(),
            ..DescribeQuorumResponse::default()
        })
    }

    fn replica_state(&self, standing: &Standing) -> ReplicaState {
        let own = self.identity.borrow();
        let own = own.as_ref().map_or(Uuid::ZERO, |identity| identity.disk_id);
        // Alone, a node has no name in its group.
        let is_alone = standing.id.node < 0;
        let seen = self.last_seen.borrow().get(&standing.id).copied();
        let LastSeen { there_ms, caught_up_ms } =
            seen.unwrap_or(LastSeen { there_ms: -1, caught_up_ms: -1 });
        ReplicaState {
            replica_id: if is_alone { self.parts.config.node_id } else { standing.id.node },
            replica_directory_id: if is_alone { own } else { standing.id.disk },
            log_end_offset: standing.flushed_end,
            last_fetch_timestamp: there_ms,
            last_caught_up_timestamp: caught_up_ms,
        }
    }

    /// Notes who is there, and who is caught up.
    fn look_at_quorum(&self, standings: &[Standing]) {
        let now_ms = self.parts.runtime.wall_clock_ms();
        let present = self.present();
        let mut seen = self.last_seen.borrow_mut();
        seen.retain(|id, _| standings.iter().any(|standing| standing.id == *id));
        for standing in standings {
            if standing.id.node >= 0 && !present.contains(&standing.id.node) {
                continue;
            }
            let never = LastSeen { there_ms: -1, caught_up_ms: -1 };
            let seen = seen.entry(standing.id).or_insert(never);
            seen.there_ms = now_ms;
            if standing.is_caught_up {
                seen.caught_up_ms = now_ms;
            }
        }
    }

    /// Notes who is there, while this node leads group 0, and ends sessions with strangers that
    /// were let in while nobody led. For as long as the process lives, on shard 0.
    pub(super) async fn watch_quorum(self: Rc<Self>) {
        let runtime = &self.parts.runtime;
        loop {
            runtime.sleep(WATCH_PERIOD).await;
            let group = self.parts.partitions.local(PartitionId::CLUSTER_METADATA);
            match group.ok().and_then(|group| group.standings()) {
                Some(standings) => self.look_at_quorum(&standings),
                None => self.last_seen.borrow_mut().clear(),
            }
            self.forget_strangers(&self.image());
        }
    }
}

/// What the leader of group 0 knows of its members.
pub type SeenMembers = BTreeMap<ReplicaId, LastSeen>;
