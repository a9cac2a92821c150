//! What is known of a cluster. Everything is asked of any node, by Kafka's own requests.

use std::collections::BTreeMap;

use vltava_client::blocking::Cluster;
use vltava_client::error::ClientError;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::describe_cluster::{DescribeClusterBroker, DescribeClusterRequest};
use vltava_protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
};
use vltava_protocol::messages::describe_quorum::{
    DescribeQuorumRequest, PartitionData, ReplicaState, ResponsePartitionData, TopicData,
};
use vltava_protocol::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;
use vltava_protocol::types::Str;

use crate::cluster::node_settings::{ADDRESS, STATE};
use crate::handlers::node_settings::{DISKS, NODES, SOFTWARE};
use crate::metadata::topic_name::CLUSTER_METADATA;

/// In DescribeConfigs: a node.
const NODE: i8 = 4;
/// In DescribeCluster: brokers.
const BROKERS: i8 = 1;
const TIMEOUT_MS: i32 = 30_000;

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its number.
    pub id: i32,
    /// What is wanted of it: there, draining, removing, expected.
    pub state: String,
    /// It is there.
    pub is_present: bool,
    /// Where the other nodes reach it; empty where that is not known.
    pub peer_address: String,
    /// Where clients do.
    pub address: String,
    /// Where it stands.
    pub rack: Option<String>,
    /// Its program; empty where it is not there.
    pub software: String,
    /// The ids of its disks.
    pub disks: Vec<String>,
    /// Replicas that it keeps.
    pub replicas: usize,
    /// Partitions that it leads.
    pub leads: usize,
    /// Those of them that no other node keeps, as `topic-0`.
    pub leads_alone: Vec<String>,
    /// Those of them that others keep, none of whom is in sync.
    pub leads_ahead: Vec<String>,
    /// Its part in group 0: leader, voter, learner, or nothing.
    pub role: &'static str,
}

/// Group 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuorumView {
    /// The leader's node; `None` where there is none.
    pub leader: Option<i32>,
    /// Its epoch.
    pub epoch: i32,
    /// Nodes with a vote.
    pub voters: Vec<i32>,
    /// Nodes without.
    pub learners: Vec<i32>,
}

/// The cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Its id.
    pub id: String,
    /// By number.
    pub nodes: BTreeMap<i32, NodeView>,
    /// Group 0.
    pub quorum: QuorumView,
    /// How many partitions there are.
    pub partitions: usize,
    /// Partitions of which not all replicas are caught up, as `topic-0`.
    pub under_replicated: Vec<String>,
    /// Partitions that nobody leads.
    pub offline: Vec<String>,
    /// Partitions whose replicas change.
    pub moving: Vec<String>,
}

/// Asks for all of it.
pub(super) fn view(cluster: &mut Cluster) -> Result<View, ClientError> {
    let mut view = View { nodes: nodes(cluster)?, ..View::default() };
    let brokers = brokers(cluster)?;
    for broker in brokers {
        let Some(node) = view.nodes.get_mut(&broker.broker_id) else { continue };
        node.is_present = !broker.is_fenced;
        node.address = format!("{}:{}", broker.host, broker.port);
        node.rack = broker.rack.map(|rack| rack.to_string());
    }
    view.quorum = quorum(cluster)?;
    for (id, node) in &mut view.nodes {
        let QuorumView { leader, voters, learners, .. } = &view.quorum;
        node.role = match id {
            id if *leader == Some(*id) => "leader",
            id if voters.contains(id) => "voter",
            id if learners.contains(id) => "learner",
            _ => "",
        };
    }
    if view.quorum.leader.is_none() {
        // Then Metadata tells of all brokers, as in Kafka. Who has a session with the node that is
        // asked is there.
        view.nodes.values_mut().for_each(|node| node.is_present &= !node.software.is_empty());
    }
    cluster.refresh(None, false)?;
    let leaving = leaving(cluster)?;
    count_partitions(cluster, &leaving, &mut view);
    view.moving = leaving.into_keys().collect();
    Ok(view)
}

/// What is said of each partition. One that moves has all of its replicas where as many are in sync
/// as are to stay.
fn count_partitions(cluster: &Cluster, leaving: &BTreeMap<String, usize>, view: &mut View) {
    let metadata = cluster.metadata();
    view.id = metadata.cluster_id.as_ref().map(ToString::to_string).unwrap_or_default();
    for (name, topic) in &metadata.topics {
        for (index, partition) in &topic.partitions {
            let named = || format!("{name}-{index}");
            view.partitions += 1;
            let is_there = |id: &i32| view.nodes.get(id).is_none_or(|node| node.is_present);
            let leader = partition.leader.filter(is_there);
            if leader.is_none() {
                view.offline.push(named());
            }
            let leaving = leaving.get(&named()).copied().unwrap_or_default();
            if partition.in_sync.len() + leaving < partition.replicas.len() {
                view.under_replicated.push(named());
            }
            for id in &partition.replicas {
                if let Some(node) = view.nodes.get_mut(id) {
                    node.replicas += 1;
                }
            }
            if let Some(node) = leader.and_then(|id| view.nodes.get_mut(&id)) {
                node.leads += 1;
                let is_other = |id: &&i32| **id != node.id;
                if partition.replicas.iter().find(is_other).is_none() {
                    node.leads_alone.push(named());
                } else if partition.in_sync.iter().find(is_other).is_none() {
                    node.leads_ahead.push(named());
                }
            }
        }
    }
}

/// What is wanted of the nodes, and what they say of themselves.
fn nodes(cluster: &mut Cluster) -> Result<BTreeMap<i32, NodeView>, ClientError> {
    let all = describe(cluster, &[String::new()], &[NODES])?;
    let list = all.first().and_then(|all| all.get(NODES)).cloned().unwrap_or_default();
    let ids: Vec<String> = list.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
    if ids.is_empty() {
        return Err(ClientError::Missing("a Vltava cluster at this address".to_owned()));
    }
    let described = describe(cluster, &ids, &[STATE, ADDRESS, DISKS, SOFTWARE])?;
    let nodes = ids.iter().zip(described).filter_map(|(id, settings)| {
        let id: i32 = id.parse().ok()?;
        let value = |name: &str| settings.get(name).cloned().unwrap_or_default();
        let disks = value(DISKS);
        let node = NodeView {
            id,
            state: value(STATE),
            peer_address: value(ADDRESS),
            software: value(SOFTWARE),
            disks: disks.split(',').filter(|disk| !disk.is_empty()).map(str::to_owned).collect(),
            ..NodeView::default()
        };
        Some((id, node))
    });
    Ok(nodes.collect())
}

/// These settings of some nodes, in their order; of one that is not there (any more), none.
fn describe(
    cluster: &mut Cluster,
    names: &[String],
    keys: &[&'static str],
) -> Result<Vec<BTreeMap<String, String>>, ClientError> {
    let keys: Vec<Str> = keys.iter().map(|key| Str::from_static(key)).collect();
    let resource = |name: &String| DescribeConfigsResource {
        resource_type: NODE,
        resource_name: Str::from(name.as_str()),
        configuration_keys: Some(keys.clone()),
    };
    let request = DescribeConfigsRequest {
        resources: names.iter().map(resource).collect(),
        ..DescribeConfigsRequest::default()
    };
    let response = cluster.call_any(&request)?;
    let settings = response.results.into_iter().map(|result| {
        let setting = |config: DescribeConfigsResourceResult| {
            Some((config.name.to_string(), config.value?.to_string()))
        };
        result.configs.into_iter().filter_map(setting).collect()
    });
    Ok(settings.collect())
}

fn brokers(cluster: &mut Cluster) -> Result<Vec<DescribeClusterBroker>, ClientError> {
    let request = DescribeClusterRequest {
        endpoint_type: BROKERS,
        include_fenced_brokers: true,
        ..DescribeClusterRequest::default()
    };
    let response = cluster.call_any(&request)?;
    let what = "describing the cluster";
    ClientError::check(response.error_code, response.error_message.as_ref(), what.to_owned())?;
    Ok(response.brokers)
}

/// Nobody, where no majority of group 0 is there: it has no leader then.
fn quorum(cluster: &mut Cluster) -> Result<QuorumView, ClientError> {
    let request = DescribeQuorumRequest {
        topics: vec![TopicData {
            topic_name: Str::from_static(CLUSTER_METADATA),
            partitions: vec![PartitionData { partition_index: 0 }],
        }],
    };
    let response = cluster.call_any(&request)?;
    if response.error_code == ErrorCode::NOT_LEADER_OR_FOLLOWER {
        return Ok(QuorumView::default());
    }
    let what = "describing group 0";
    ClientError::check(response.error_code, response.error_message.as_ref(), what.to_owned())?;
    let partition = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
    let nodes = |states: Vec<ReplicaState>| {
        let mut nodes: Vec<i32> = states.iter().map(|state| state.replica_id).collect();
        nodes.dedup();
        nodes
    };
    Ok(partition.map_or_else(QuorumView::default, |partition: ResponsePartitionData| QuorumView {
        leader: Some(partition.leader_id).filter(|id| *id >= 0),
        epoch: partition.leader_epoch,
        voters: nodes(partition.current_voters),
        learners: nodes(partition.observers),
    }))
}

/// Partitions whose replicas change, with how many of them leave.
fn leaving(cluster: &mut Cluster) -> Result<BTreeMap<String, usize>, ClientError> {
    let request = ListPartitionReassignmentsRequest { timeout_ms: TIMEOUT_MS, topics: None };
    let response = match cluster.call_any(&request) {
        Err(ClientError::Unsupported { .. }) => return Ok(BTreeMap::new()),
        response => response?,
    };
    let named = response.topics.into_iter().flat_map(|topic| {
        let name = topic.name;
        topic.partitions.into_iter().map(move |partition| {
            (format!("{name}-{}", partition.partition_index), partition.removing_replicas.len())
        })
    });
    Ok(named.collect())
}
