//! Forming the cluster, registering its nodes, giving away producer ids.

use std::sync::Arc;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::{Str, Uuid};

use super::controller::{Decision, Reply, refused};
use crate::metadata::image::{Cluster, Image, Node, NodeEndpoint};
use crate::metadata::records::{FORMAT_VERSION, Record};

/// Producer ids of one block, as in Kafka.
pub const PRODUCER_IDS_PER_BLOCK: i64 = 1000;

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
}

/// Forms the cluster once; says under which id it has formed.
pub(super) fn form(image: &Image, cluster_id: Uuid) -> Decision {
    if let Some(cluster) = image.cluster() {
        return (Vec::new(), Reply::Formed { cluster_id: cluster.id });
    }
    let cluster =
        Cluster { id: cluster_id, format_version: FORMAT_VERSION, features: Arc::default() };
    (vec![Record::Cluster(cluster)], Reply::Formed { cluster_id })
}

/// Registers a node that has started, also where nothing about it has changed: the epoch counts its
/// starts.
pub(super) fn register(image: &Image, registration: Registration) -> Decision {
    let Registration { node_id, rack, endpoints, disks } = registration;
    let texts =
        endpoints.iter().flat_map(|endpoint| [&endpoint.listener, &endpoint.host]).chain(&rack);
    let is_long = texts.into_iter().any(|text| text.len() > TEXT_BYTES_MAX);
    if node_id < 0 || is_long || endpoints.len() > PARTS_MAX || disks.len() > PARTS_MAX {
        let error = ErrorCode::INVALID_REGISTRATION;
        return refused(error, "a node's number, listeners, rack or disks are out of bounds");
    }
    let epoch = image.node(node_id).map_or(0, |node| node.epoch + 1);
    let node =
        Node { id: node_id, epoch, rack: rack.map(|rack| rack.detached()), endpoints, disks };
    (vec![Record::Node(node_id, Some(node))], Reply::Registered { epoch })
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
