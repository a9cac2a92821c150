//! Forming the cluster, registering and forgetting its nodes, giving away producer ids.

use std::collections::BTreeSet;
use std::sync::Arc;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::{Str, Uuid};

use super::controller::{Decision, Reply, refused};
use super::dynamic_settings;
use crate::metadata::features::{FIRST, Levels};
use crate::metadata::image::{Cluster, Image, Node, NodeEndpoint, NodeState, PeerEndpoint};
use crate::metadata::records::{FORMAT_VERSION, Record};

/// Producer ids of one block, as in Kafka.
const PRODUCER_IDS_PER_BLOCK: i64 = 1000;

/// Longest text that a node may say about itself.
const TEXT_BYTES_MAX: usize = 255;
/// Most listeners, and most disks, of a node.
const PARTS_MAX: usize = 64;

/// What a node says about itself when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its number.
    pub node_id: i32,
    /// Where it stands.
    pub rack: Option<Str>,
    /// How it is reached.
    pub endpoints: Vec<NodeEndpoint>,
    /// The ids of its disks.
    pub disks: Vec<Uuid>,
    /// How the other nodes reach it.
    pub peer_endpoint: Option<PeerEndpoint>,
    /// The feature levels that its release serves.
    pub levels: Levels,
}

/// Forms the cluster once; says under which id it has formed.
pub(super) fn form(image: &Image, cluster_id: Uuid, level: i16) -> Decision {
    if let Some(cluster) = image.cluster() {
        return (Vec::new(), Reply::Formed { cluster_id: cluster.id });
    }
    let cluster =
        Cluster { id: cluster_id, format_version: FORMAT_VERSION, features: Arc::default() };
    (vec![Record::Cluster(cluster.at_level(level.max(FIRST)))], Reply::Formed { cluster_id })
}

/// Registers a node that has started, also where nothing about it has changed: the epoch counts its
/// starts. One that was drained takes part again; one that is being removed does not; one that was
/// removed, or never added, is refused: who is new must be expected, or a founder.
pub(super) fn register(
    image: &Image,
    voters: Option<&BTreeSet<i32>>,
    registration: Registration,
) -> Decision {
    let Registration { node_id, rack, endpoints, disks, peer_endpoint, levels } = registration;
    let texts =
        endpoints.iter().flat_map(|endpoint| [&endpoint.listener, &endpoint.host]).chain(&rack);
    let texts = texts.chain(peer_endpoint.as_ref().map(|endpoint| &endpoint.host));
    let is_long = texts.into_iter().any(|text| text.len() > TEXT_BYTES_MAX);
    if node_id < 0 || is_long || endpoints.len() > PARTS_MAX || disks.len() > PARTS_MAX {
        let error = ErrorCode::INVALID_REGISTRATION;
        return refused(error, "a node's number, listeners, rack or disks are out of bounds");
    }
    if !levels.are_possible() {
        return refused(ErrorCode::INVALID_REGISTRATION, "no feature levels are like that");
    }
    if let Err(why) = levels.check(image.level()) {
        return refused(ErrorCode::UNSUPPORTED_VERSION, &why);
    }
    let known = image.node(node_id);
    if known.is_none() && voters.is_some_and(|voters| !voters.contains(&node_id)) {
        let cluster_id = image.cluster().map_or(Uuid::ZERO, |cluster| cluster.id);
        return refused(ErrorCode::BROKER_ID_NOT_REGISTERED, &is_no_member(node_id, cluster_id));
    }
    let epoch = known.map_or(0, |node| node.epoch + 1);
    let is_removed = known.is_some_and(|node| node.state == NodeState::Removing);
    let node = Node {
        id: node_id,
        epoch,
        rack: rack.map(|rack| rack.detached()),
        endpoints,
        disks,
        peer_endpoint: peer_endpoint.or_else(|| known?.peer_endpoint.clone()),
        state: if is_removed { NodeState::Removing } else { NodeState::There },
        levels,
    };
    (vec![Record::Node(node_id, Some(node))], Reply::Registered { epoch })
}

/// What a node is told that is not one of the cluster.
pub fn is_no_member(node_id: i32, cluster_id: Uuid) -> String {
    format!(
        "node {node_id} is not one of cluster {cluster_id}: to add it, run: vltava cluster add \
         {node_id}@HOST:PORT"
    )
}

/// A node that keeps nothing any more is being removed. It may still run, or have a vote in group
/// 0, and a vote of a node that nobody knows would be missing for ever: whoever leads the group
/// takes it away first, and then has the node forgotten. One that has never been there has none.
pub(super) fn unregister(image: &Image, node_id: i32) -> Decision {
    let node = match without_replicas(image, node_id) {
        Ok(node) => node,
        Err(refused) => return refused,
    };
    match node.state {
        NodeState::Expected => forgotten(image, node_id),
        NodeState::Removing => (Vec::new(), Reply::NodeUnregistered),
        NodeState::There | NodeState::Draining => {
            let node = Node { state: NodeState::Removing, ..node.clone() };
            (vec![Record::Node(node_id, Some(node))], Reply::NodeUnregistered)
        }
    }
}

/// Forgets a node that is being removed.
pub(super) fn forget(image: &Image, node_id: i32) -> Decision {
    match without_replicas(image, node_id) {
        Ok(node) if node.state == NodeState::Removing => forgotten(image, node_id),
        Ok(_) => {
            let message = format!("node {node_id} was taken back");
            refused(ErrorCode::INVALID_REQUEST, &message)
        }
        Err(refused) => refused,
    }
}

fn forgotten(image: &Image, node_id: i32) -> Decision {
    let records = dynamic_settings::forget(image, node_id).into_iter();
    (records.chain([Record::Node(node_id, None)]).collect(), Reply::NodeUnregistered)
}

/// A node that keeps nothing, and is not the last one; or why it cannot go.
fn without_replicas(image: &Image, node_id: i32) -> Result<&Node, Decision> {
    let Some(node) = image.node(node_id) else {
        let message = format!("there is no node {node_id}");
        return Err(refused(ErrorCode::BROKER_ID_NOT_REGISTERED, &message));
    };
    let all = image.topics().flat_map(|topic| &topic.partitions);
    let kept = all.filter(|partition| partition.is_on(node_id)).count();
    if kept > 0 {
        let message = format!(
            "node {node_id} keeps {kept} replicas: move them away first, with: vltava cluster \
             remove {node_id}"
        );
        return Err(refused(ErrorCode::INVALID_REQUEST, &message));
    }
    let is_other = |other: &&Node| other.id != node.id && other.state != NodeState::Expected;
    if image.nodes().find(is_other).is_none() {
        let message = format!("node {node_id} is the last one");
        return Err(refused(ErrorCode::INVALID_REQUEST, &message));
    }
    Ok(node)
}

/// The next block of producer ids. Nobody gets it again: its record is replayed before the next
/// input.
pub(super) fn allocate_producer_ids(image: &Image) -> Decision {
    let first = image.next_producer_id();
    match first.checked_add(PRODUCER_IDS_PER_BLOCK) {
        Some(next) => {
            let reply = Reply::ProducerIds { first, count: PRODUCER_IDS_PER_BLOCK };
            (vec![Record::ProducerIds(next)], reply)
        }
        None => refused(ErrorCode::UNKNOWN_SERVER_ERROR, "all producer ids were given away"),
    }
}
