//! What operators want of a node, as settings of it: Kafka's own requests carry them, so that its
//! tools can say it, too (docs/decisions has why).

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::Str;

use super::alter_settings::{Change, SET};
use super::refusal::Refusal;
use crate::metadata::features::Levels;
use crate::metadata::image::{Image, Node, NodeState, PeerEndpoint};
use crate::metadata::records::Record;

/// What these settings begin with.
pub const PREFIX: &str = "vltava.node.";
/// What is to become of a node: see [`state_name`].
pub const STATE: &str = "vltava.node.state";
/// Where the other nodes reach it. Set for a number that no node has, it lets such a node join.
pub const ADDRESS: &str = "vltava.node.address";

/// Asks for the state `removing`, also where partitions will have fewer replicas then.
const REMOVING_WITH_FEWER: &str = "removing-with-fewer-replicas";
/// Longest host name, as in DNS.
const HOST_BYTES_MAX: usize = 255;

/// A state as settings say it.
pub fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::There => "there",
        NodeState::Draining => "draining",
        NodeState::Removing => "removing",
        NodeState::Expected => "expected",
    }
}

/// A node's address as settings say it.
pub fn address_text(endpoint: &PeerEndpoint) -> String {
    let PeerEndpoint { host, port } = endpoint;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Whether these are changes of what is wanted of a node, and nothing else.
pub(super) fn is_all(changes: &[Change]) -> bool {
    !changes.is_empty() && changes.iter().all(|change| change.name.starts_with(PREFIX))
}

/// What the changes make of the node of this number; `None` where it is as they want it.
pub(super) fn alter(
    image: &Image,
    id: &str,
    changes: &[Change],
) -> Result<Option<Record>, Refusal> {
    let Some(id) = id.parse::<i32>().ok().filter(|id| *id >= 0) else {
        let message = format!("Node id must be an integer, but it is: {id}");
        return Err(Refusal::invalid_request(message));
    };
    let before = image.node(id);
    let mut after = before.cloned();
    for change in changes {
        if change.operation != SET {
            let message = format!("{} can only be set.", change.name);
            return Err(Refusal::invalid_request(message));
        }
        let value = change.value.as_ref().map(Str::as_str).unwrap_or_default();
        match change.name.as_str() {
            ADDRESS => add(id, &mut after, value)?,
            STATE => set_state(image, id, &mut after, value)?,
            other => {
                let message = format!("Unknown or read-only setting of a node: {other}");
                return Err(Refusal::new(ErrorCode::INVALID_CONFIG, message));
            }
        }
    }
    let is_changed = after.as_ref() != before;
    Ok(after.filter(|_| is_changed).map(|node| Record::Node(id, Some(node))))
}

/// A node may join, and is found at this address.
fn add(id: i32, node: &mut Option<Node>, address: &str) -> Result<(), Refusal> {
    let endpoint = parse_address(address).ok_or_else(|| {
        let message = format!("{address} is no address: write HOST:PORT");
        Refusal::new(ErrorCode::INVALID_CONFIG, message)
    })?;
    match node {
        Some(known) if known.state != NodeState::Expected => {
            if known.peer_endpoint.as_ref() == Some(&endpoint) {
                return Ok(());
            }
            let message = format!(
                "node {id} is in the cluster already; its address is what its own settings say"
            );
            Err(Refusal::invalid_request(message))
        }
        _ => {
            *node = Some(Node {
                id,
                epoch: -1,
                rack: None,
                endpoints: Vec::new(),
                disks: Vec::new(),
                peer_endpoint: Some(endpoint),
                state: NodeState::Expected,
                levels: Levels::default(),
            });
            Ok(())
        }
    }
}

fn parse_address(text: &str) -> Option<PeerEndpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let is_host = !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.is_ascii();
    let port = port.parse().ok().filter(|port| *port > 0)?;
    is_host.then(|| PeerEndpoint { host: Str::from(host), port })
}

fn set_state(image: &Image, id: i32, node: &mut Option<Node>, value: &str) -> Result<(), Refusal> {
    let Some(node) = node else {
        let message = format!("there is no node {id}");
        return Err(Refusal::new(ErrorCode::BROKER_ID_NOT_REGISTERED, message));
    };
    if node.state == NodeState::Expected {
        let message = format!("node {id} was added and has never been there");
        return Err(Refusal::invalid_request(message));
    }
    node.state = match value {
        "there" => NodeState::There,
        "draining" => NodeState::Draining,
        "removing" => {
            check_room(image, id)?;
            NodeState::Removing
        }
        REMOVING_WITH_FEWER => {
            others(image, id)?;
            NodeState::Removing
        }
        other => {
            let message = format!("{other} is no state of a node: there, draining or removing");
            return Err(Refusal::new(ErrorCode::INVALID_CONFIG, message));
        }
    };
    Ok(())
}

/// How many nodes would be left.
fn others(image: &Image, id: i32) -> Result<usize, Refusal> {
    let stays = |node: &&Node| {
        node.id != id && matches!(node.state, NodeState::There | NodeState::Draining)
    };
    match image.nodes().filter(stays).count() {
        0 => Err(Refusal::invalid_request(format!("node {id} is the last one"))),
        count => Ok(count),
    }
}

/// Whether the replicas of a node find room on the others.
fn check_room(image: &Image, id: i32) -> Result<(), Refusal> {
    let left = others(image, id)?;
    for topic in image.topics() {
        for partition in &topic.partitions {
            let mut nodes: Vec<i32> = partition.target().map(|replica| replica.node_id).collect();
            nodes.dedup();
            if nodes.contains(&id) && nodes.len() > left {
                let (name, replicas) = (&topic.name, nodes.len());
                let message = format!(
                    "topic {name} has {replicas} replicas, and {left} nodes would be left: lower \
                     its replication factor, or say that fewer replicas are enough"
                );
                return Err(Refusal::new(ErrorCode::INVALID_REPLICATION_FACTOR, message));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use vltava_protocol::types::Uuid;

    use super::*;
    use crate::metadata::image::{Cluster, Partition, PartitionId, Replica};
    use crate::metadata::records::FORMAT_VERSION;

    /// Nodes 1 to 3, a topic on these nodes.
    fn image(replicas: &[i32]) -> Image {
        let mut image = Image::default();
        let (id, format_version) = (Uuid(9), FORMAT_VERSION);
        let cluster = Cluster { id, format_version, features: Arc::default() };
        image.apply(Record::Cluster(cluster)).unwrap();
        for id in 1..=3 {
            let node = Node {
                id,
                epoch: 0,
                rack: None,
                endpoints: Vec::new(),
                disks: vec![Uuid(7)],
                peer_endpoint: None,
                state: NodeState::There,
                levels: Levels::default(),
            };
            image.apply(Record::Node(id, Some(node))).unwrap();
        }
        image.apply(Record::Topic(Uuid(5), Some(Str::from("t")))).unwrap();
        let replica = |node_id: &i32| Replica { node_id: *node_id, disk_id: Uuid(7) };
        let partition = Partition::new(replicas.iter().map(replica).collect());
        let id = PartitionId { topic_id: Uuid(5), index: 0 };
        image.apply(Record::Partition(id, partition)).unwrap();
        image
    }

    fn altered(image: &mut Image, id: &str, name: &str, value: &str) -> Result<bool, String> {
        let value = Some(Str::from(value));
        let changes = [Change { name: Str::from(name), operation: SET, value }];
        let record = alter(image, id, &changes).map_err(|refusal| refusal.message.to_string())?;
        let is_changed = record.is_some();
        record.into_iter().for_each(|record| image.apply(record).unwrap());
        Ok(is_changed)
    }

    #[test]
    fn a_node_is_added_before_it_is_there() {
        let mut image = image(&[1]);
        assert_eq!(altered(&mut image, "4", ADDRESS, "10.0.0.4:7644"), Ok(true));
        assert_eq!(altered(&mut image, "4", ADDRESS, "10.0.0.4:7644"), Ok(false), "again");
        assert_eq!(altered(&mut image, "4", ADDRESS, "[::1]:7644"), Ok(true), "another place");
        let node = image.node(4).unwrap();
        assert_eq!(node.state, NodeState::Expected);
        assert_eq!(address_text(node.peer_endpoint.as_ref().unwrap()), "[::1]:7644");
        assert!(altered(&mut image, "4", STATE, "draining").is_err());
        for address in ["", "x", "x:", ":1", "x:0", "x:70000", "::1:7644"] {
            assert!(altered(&mut image, "5", ADDRESS, address).is_err(), "{address}");
        }
        let error = altered(&mut image, "3", ADDRESS, "x:1").unwrap_err();
        assert!(error.contains("node 3 is in the cluster already"), "{error}");
        for id in ["", "x", "-1"] {
            assert!(altered(&mut image, id, ADDRESS, "x:1").is_err(), "{id}");
        }
    }

    #[test]
    fn a_node_is_drained_and_taken_back() {
        let mut image = image(&[1, 2, 3]);
        assert_eq!(altered(&mut image, "3", STATE, "draining"), Ok(true));
        assert_eq!(altered(&mut image, "3", STATE, "draining"), Ok(false));
        assert!(image.node(3).unwrap().state.is_drained());
        assert_eq!(altered(&mut image, "3", STATE, "there"), Ok(true));
        assert_eq!(image.node(3).unwrap().state, NodeState::There);
        assert!(altered(&mut image, "9", STATE, "draining").unwrap_err().contains("no node 9"));
        assert!(altered(&mut image, "3", STATE, "expected").is_err());
        assert!(altered(&mut image, "3", "vltava.node.disks", "x").is_err());
    }

    #[test]
    fn a_node_is_removed_where_its_replicas_find_room() {
        let mut full = image(&[1, 2, 3]);
        let error = altered(&mut full, "3", STATE, "removing").unwrap_err();
        assert!(error.contains("topic t has 3 replicas, and 2 nodes would be left"), "{error}");
        assert_eq!(altered(&mut full, "3", STATE, REMOVING_WITH_FEWER), Ok(true));
        assert_eq!(full.node(3).unwrap().state, NodeState::Removing);
        let mut roomy = image(&[3, 1]);
        assert_eq!(altered(&mut roomy, "3", STATE, "removing"), Ok(true));
        assert_eq!(altered(&mut roomy, "2", STATE, REMOVING_WITH_FEWER), Ok(true));
        let error = altered(&mut roomy, "1", STATE, REMOVING_WITH_FEWER).unwrap_err();
        assert!(error.contains("node 1 is the last one"), "{error}");
    }
}
