//! The records of group 0: what one says, and what it does to an image.
//!
//! A record has a key that names a piece of state; its newest value counts. The formats are in
//! `protocol/schema/record/metadata`; all are flexible, so that a later release adds tagged fields
//! that this one skips.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::decode::DecodeError;
use vltava_protocol::encode::EncodeError;
use vltava_protocol::records::metadata;
use vltava_protocol::records::metadata::{
    ClusterKey, ClusterValue, ConfigEntry, ConfigKey, ConfigValue, Feature, Key, NodeKey,
    NodeValue, PartitionKey, PartitionValue, ProducerIdsKey, ProducerIdsValue, TopicKey,
    TopicValue,
};
use vltava_protocol::types::{Str, Uuid};

use super::features::Levels;
use super::image::{
    Cluster, Image, NamedLeader, Node, NodeEndpoint, NodeState, Partition, PartitionId,
    PeerEndpoint, Replica, ResourceId, Settings, Topic,
};

/// The format that this release writes, and the newest that it reads.
pub const FORMAT_VERSION: i16 = 1;

/// A topic as a resource with settings, in requests and in records.
pub const TOPIC_RESOURCE: i8 = 2;

/// Of values; each has one version so far.
const VALUE_VERSION: i16 = 0;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The cluster has formed, or its features changed.
    Cluster(Cluster),
    /// A node is registered, or (`None`) gone.
    Node(i32, Option<Node>),
    /// The first producer id not given away.
    ProducerIds(i64),
    /// A topic exists under this name, or (`None`) is gone with all it has.
    Topic(Uuid, Option<Str>),
    /// A partition exists, or moves. Partitions go with their topic.
    Partition(PartitionId, Partition),
    /// All own settings of a resource: an empty map removes them.
    Settings(ResourceId, Settings),
}

/// A record that cannot be read, or that does not fit what stands before it: of a newer release, or
/// damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not one of these records.
    #[error("a metadata record cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    /// A tombstone for what cannot be removed.
    #[error("a metadata record of type {0} has no value")]
    NoValue(&'static str),
    /// The cluster asks for more than this release knows.
    #[error("the cluster's format is version {0}; this release reads up to {FORMAT_VERSION}")]
    Format(i16),
    /// It contradicts the records before it.
    #[error("a metadata record does not fit: {0}")]
    Inconsistent(String),
}

fn inconsistent(what: impl Into<String>) -> RecordError {
    RecordError::Inconsistent(what.into())
}

impl Record {
    /// Reads a record. Texts are copied out of it, so that an image does not pin the buffers of a
    /// log.
    pub fn decode(key: &Bytes, value: Option<&Bytes>) -> Result<Self, RecordError> {
        let record = match (Key::decode(key)?, value) {
            (Key::Cluster(_), Some(value)) => {
                Self::Cluster(ClusterValue::from_value_bytes(value)?.into())
            }
            (Key::Cluster(_), None) => return Err(RecordError::NoValue("Cluster")),
            (Key::Node(key), value) => {
                let value = value.map(NodeValue::from_value_bytes).transpose()?;
                let node = value.map(|value| node(key.node_id, value)).transpose()?;
                Self::Node(key.node_id, node)
            }
            (Key::ProducerIds(_), Some(value)) => {
                Self::ProducerIds(ProducerIdsValue::from_value_bytes(value)?.next_block)
            }
            (Key::ProducerIds(_), None) => return Err(RecordError::NoValue("ProducerIds")),
            (Key::Topic(key), value) => {
                let value = value.map(TopicValue::from_value_bytes).transpose()?;
                Self::Topic(key.topic_id, value.map(|value| value.name.detached()))
            }
            (Key::Partition(key), Some(value)) => {
                let id = PartitionId { topic_id: key.topic_id, index: key.partition };
                Self::Partition(id, PartitionValue::from_value_bytes(value)?.into())
            }
            (Key::Partition(_), None) => return Err(RecordError::NoValue("Partition")),
            (Key::Config(key), value) => {
                let value = value.map(ConfigValue::from_value_bytes).transpose()?;
                let entries = value.into_iter().flat_map(|value| value.entries);
                let settings = entries.map(|entry| (entry.name.detached(), entry.value.detached()));
                let resource = (key.resource_type, key.resource_name.detached());
                Self::Settings(resource, Arc::new(settings.collect()))
            }
        };
        Ok(record)
    }

    /// As it stands in the log: key, and value or tombstone.
    ///
    /// # Errors
    /// A text longer than 32,767 bytes, or more elements than a message can have.
    pub fn encode(&self) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        let encoded = match self {
            Self::Cluster(cluster) => {
                let value = ClusterValue::from(cluster).to_value_bytes(VALUE_VERSION)?;
                (ClusterKey {}.to_key_bytes()?, Some(value))
            }
            Self::Node(node_id, node) => {
                let value =
                    node.as_ref().map(|node| NodeValue::from(node).to_value_bytes(VALUE_VERSION));
                (NodeKey { node_id: *node_id }.to_key_bytes()?, value.transpose()?)
            }
            Self::ProducerIds(next_block) => {
                let value = ProducerIdsValue { next_block: *next_block };
                (ProducerIdsKey {}.to_key_bytes()?, Some(value.to_value_bytes(VALUE_VERSION)?))
            }
            Self::Topic(topic_id, name) => {
                let value = name
                    .as_ref()
                    .map(|name| TopicValue { name: name.clone() }.to_value_bytes(VALUE_VERSION));
                (TopicKey { topic_id: *topic_id }.to_key_bytes()?, value.transpose()?)
            }
            Self::Partition(PartitionId { topic_id, index }, partition) => {
                let key = PartitionKey { topic_id: *topic_id, partition: *index };
                let value = PartitionValue::from(partition).to_value_bytes(VALUE_VERSION)?;
                (key.to_key_bytes()?, Some(value))
            }
            Self::Settings((resource_type, name), settings) => {
                let key = ConfigKey { resource_type: *resource_type, resource_name: name.clone() };
                let entry = |(name, value): (&Str, &Str)| ConfigEntry {
                    name: name.clone(),
                    value: value.clone(),
                };
                let value = ConfigValue { entries: settings.iter().map(entry).collect() };
                let value = (!settings.is_empty()).then(|| value.to_value_bytes(VALUE_VERSION));
                (key.to_key_bytes()?, value.transpose()?)
            }
        };
        Ok(encoded)
    }
}

impl Image {
    /// Applies one record. After an error the image is as it was.
    pub fn apply(&mut self, record: Record) -> Result<(), RecordError> {
        if self.cluster.is_none() && !matches!(record, Record::Cluster(_)) {
            return Err(inconsistent("the first record must be the cluster's"));
        }
        match record {
            Record::Cluster(cluster) => self.apply_cluster(cluster),
            Record::Node(id, node) => {
                let nodes = Arc::make_mut(&mut self.nodes);
                match node {
                    Some(node) => nodes.insert(id, Arc::new(node)),
                    None => nodes.remove(&id),
                };
                Ok(())
            }
            Record::ProducerIds(next) => {
                if next < self.next_producer_id {
                    return Err(inconsistent("producer ids were given away twice"));
                }
                self.next_producer_id = next;
                Ok(())
            }
            Record::Topic(id, Some(name)) => self.apply_topic(id, name),
            Record::Topic(id, None) => {
                self.remove_topic(id);
                Ok(())
            }
            Record::Partition(id, partition) => self.apply_partition(id, partition),
            Record::Settings(resource, settings) => self.apply_settings(resource, settings),
        }
    }

    fn apply_cluster(&mut self, cluster: Cluster) -> Result<(), RecordError> {
        if !(1..=FORMAT_VERSION).contains(&cluster.format_version) {
            return Err(RecordError::Format(cluster.format_version));
        }
        if self.cluster.as_ref().is_some_and(|known| known.id != cluster.id) {
            return Err(inconsistent("the cluster's id changed"));
        }
        self.cluster = Some(cluster);
        Ok(())
    }

    fn apply_topic(&mut self, id: Uuid, name: Str) -> Result<(), RecordError> {
        match (self.topic_names.get(&id), self.topic(&name)) {
            // The same record again, as of a log that was written anew.
            (Some(known), Some(_)) if *known == name => return Ok(()),
            (None, None) => {}
            _ => {
                return Err(inconsistent(format!(
                    "topic {name} is there under another id or name"
                )));
            }
        }
        let topic =
            Topic { name: name.clone(), id, partitions: Vec::new(), settings: Settings::default() };
        self.topics.insert(name.clone(), Arc::new(topic));
        self.topic_names.insert(id, name);
        Ok(())
    }

    fn remove_topic(&mut self, id: Uuid) {
        let removed = self.topic_names.remove(&id).and_then(|name| self.topics.remove(&name));
        self.partition_count -= removed.map_or(0, |topic| topic.partitions.len());
    }

    fn apply_partition(
        &mut self,
        id: PartitionId,
        partition: Partition,
    ) -> Result<(), RecordError> {
        if let Some(fault) = partition.fault() {
            return Err(inconsistent(fault));
        }
        let name = self.topic_names.get(&id.topic_id).cloned();
        let Some(topic) = name.and_then(|name| self.topics.get_mut(&name)) else {
            return Err(inconsistent(format!("partition {} of an unknown topic", id.index)));
        };
        let Ok(index) = usize::try_from(id.index) else {
            return Err(inconsistent(format!("a partition numbered {}", id.index)));
        };
        if index > topic.partitions.len() {
            return Err(inconsistent(format!("partition {index} before those below it")));
        }
        let partitions = &mut Arc::make_mut(topic).partitions;
        match partitions.get_mut(index) {
            Some(known) => *known = Arc::new(partition),
            None => {
                partitions.push(Arc::new(partition));
                self.partition_count += 1;
            }
        }
        Ok(())
    }

    fn apply_settings(
        &mut self,
        resource: ResourceId,
        settings: Settings,
    ) -> Result<(), RecordError> {
        if resource.0 == TOPIC_RESOURCE {
            return match self.topics.get_mut(&resource.1) {
                Some(topic) => {
                    Arc::make_mut(topic).settings = settings;
                    Ok(())
                }
                None => Err(inconsistent(format!("settings of unknown topic {}", resource.1))),
            };
        }
        let all = Arc::make_mut(&mut self.settings);
        if settings.is_empty() {
            all.remove(&resource);
        } else {
            all.insert(resource, settings);
        }
        Ok(())
    }
}

impl From<ClusterValue> for Cluster {
    fn from(value: ClusterValue) -> Self {
        let features: BTreeMap<Str, i16> = value
            .features
            .into_iter()
            .map(|feature| (feature.name.detached(), feature.level))
            .collect();
        Self {
            id: value.cluster_id,
            format_version: value.format_version,
            features: Arc::new(features),
        }
    }
}

impl From<&Cluster> for ClusterValue {
    fn from(cluster: &Cluster) -> Self {
        let feature = |(name, level): (&Str, &i16)| Feature { name: name.clone(), level: *level };
        Self {
            cluster_id: cluster.id,
            format_version: cluster.format_version,
            features: cluster.features.iter().map(feature).collect(),
        }
    }
}

fn node(id: i32, value: NodeValue) -> Result<Node, RecordError> {
    let state = NodeState::from_number(value.state).ok_or_else(|| {
        inconsistent(format!("node {id} is in the unknown state {}", value.state))
    })?;
    let endpoint = |endpoint: metadata::NodeEndpoint| NodeEndpoint {
        listener: endpoint.listener.detached(),
        host: endpoint.host.detached(),
        port: endpoint.port,
    };
    let peer_endpoint = |endpoint: metadata::PeerEndpoint| PeerEndpoint {
        host: endpoint.host.detached(),
        port: endpoint.port,
    };
    Ok(Node {
        id,
        epoch: value.epoch,
        rack: value.rack.map(|rack| rack.detached()),
        endpoints: value.endpoints.into_iter().map(endpoint).collect(),
        disks: value.disks,
        peer_endpoint: value.peer_endpoint.map(peer_endpoint),
        state,
        levels: Levels { min: value.level_min, max: value.level_max },
    })
}

impl From<&Node> for NodeValue {
    fn from(node: &Node) -> Self {
        let endpoint = |endpoint: &NodeEndpoint| metadata::NodeEndpoint {
            listener: endpoint.listener.clone(),
            host: endpoint.host.clone(),
            port: endpoint.port,
        };
        Self {
            epoch: node.epoch,
            rack: node.rack.clone(),
            endpoints: node.endpoints.iter().map(endpoint).collect(),
            disks: node.disks.clone(),
            peer_endpoint: node.peer_endpoint.as_ref().map(|endpoint| metadata::PeerEndpoint {
                host: endpoint.host.clone(),
                port: endpoint.port,
            }),
            state: node.state.number(),
            level_min: node.levels.min,
            level_max: node.levels.max,
        }
    }
}

impl From<metadata::Replica> for Replica {
    fn from(replica: metadata::Replica) -> Self {
        Self { node_id: replica.node_id, disk_id: replica.disk_id }
    }
}

impl From<&Replica> for metadata::Replica {
    fn from(replica: &Replica) -> Self {
        Self { node_id: replica.node_id, disk_id: replica.disk_id }
    }
}

impl From<PartitionValue> for Partition {
    fn from(value: PartitionValue) -> Self {
        let read = |replicas: Vec<metadata::Replica>| -> Vec<Replica> {
            replicas.into_iter().map(Replica::from).collect()
        };
        Self {
            replicas: read(value.replicas),
            adding: read(value.adding),
            removing: read(value.removing),
            founders: value.founders.map(read),
            before: value.before.map(read),
            changes: value.changes,
            leader_epoch: value.leader_epoch,
            named: value.named.map(|named| NamedLeader {
                epoch: named.epoch,
                replica: Replica { node_id: named.node_id, disk_id: named.disk_id },
            }),
        }
    }
}

impl From<&Partition> for PartitionValue {
    fn from(partition: &Partition) -> Self {
        let written = |replicas: &Vec<Replica>| -> Vec<metadata::Replica> {
            replicas.iter().map(metadata::Replica::from).collect()
        };
        Self {
            replicas: written(&partition.replicas),
            adding: written(&partition.adding),
            removing: written(&partition.removing),
            founders: partition.founders.as_ref().map(written),
            before: partition.before.as_ref().map(written),
            changes: partition.changes,
            leader_epoch: partition.leader_epoch,
            named: partition.named.map(|named| metadata::NamedLeader {
                epoch: named.epoch,
                node_id: named.replica.node_id,
                disk_id: named.replica.disk_id,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
