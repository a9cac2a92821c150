//! What a client knows of a cluster: brokers, topics, and who leads which partition.

use std::collections::BTreeMap;
use std::fmt;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponseTopic,
};
use vltava_protocol::types::{Str, Uuid};

/// Number of a broker.
pub type NodeId = i32;

/// A partition by its topic's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Str,
    /// The partition's number.
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// A broker, as it wants to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Name or address.
    pub host: Str,
    /// TCP port.
    pub port: i32,
    /// Where it stands, if it says so.
    pub rack: Option<Str>,
}

/// A partition's replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Why it cannot be used, or NONE.
    pub error: ErrorCode,
    /// Who leads it; `None` during an election.
    pub leader: Option<NodeId>,
    /// The leader's epoch; -1 where the broker does not say.
    pub leader_epoch: i32,
    /// All that hold it.
    pub replicas: Vec<NodeId>,
    /// Those that are caught up.
    pub in_sync: Vec<NodeId>,
    /// Those that are down.
    pub offline: Vec<NodeId>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Why it cannot be used, or NONE.
    pub error: ErrorCode,
    /// Its id; zero where the broker is too old to have ids.
    pub id: Uuid,
    /// Whether it is the brokers' own.
    pub is_internal: bool,
    /// By number.
    pub partitions: BTreeMap<i32, Partition>,
}

/// The cluster, as of the last answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Its id, if it has one.
    pub cluster_id: Option<Str>,
    /// Who takes requests that change it; -1 where unknown.
    pub controller_id: NodeId,
    /// By number.
    pub brokers: BTreeMap<NodeId, Broker>,
    /// By name: those that were asked for.
    pub topics: BTreeMap<Str, Topic>,
}

impl Metadata {
    /// The request for some topics, or (`None`) for all.
    pub fn request(topics: Option<&[Str]>, allow_auto_topic_creation: bool) -> MetadataRequest {
        let by_name = |name: &Str| MetadataRequestTopic {
            name: Some(name.clone()),
            ..MetadataRequestTopic::default()
        };
        MetadataRequest {
            topics: topics.map(|topics| topics.iter().map(by_name).collect()),
            allow_auto_topic_creation,
            ..MetadataRequest::default()
        }
    }

    /// Takes in an answer: brokers are replaced, and so are the topics it names.
    pub fn update(&mut self, response: MetadataResponse) {
        self.cluster_id = response.cluster_id;
        self.controller_id = response.controller_id;
        let brokers = response.brokers.into_iter().map(|broker| {
            let MetadataResponseBroker { node_id, host, port, rack } = broker;
            (node_id, Broker { host, port, rack })
        });
        self.brokers = brokers.collect();
        for topic in response.topics {
            if let Some(name) = topic.name.clone() {
                self.topics.insert(name, Topic::from(topic));
            }
        }
    }

    /// Who leads a partition, and in which epoch.
    pub fn leader(&self, partition: &TopicPartition) -> Option<(NodeId, i32)> {
        let found = self.topics.get(&partition.topic)?.partitions.get(&partition.partition)?;
        Some((found.leader?, found.leader_epoch))
    }

    /// All partitions of a topic; none where it is not known.
    pub fn partitions_of(&self, topic: &Str) -> Vec<TopicPartition> {
        let found = self.topics.get(topic);
        let numbers = found.into_iter().flat_map(|found| found.partitions.keys());
        let partitions =
            numbers.map(|partition| TopicPartition { topic: topic.clone(), partition: *partition });
        partitions.collect()
    }

    /// The id of a topic; zero where it is not known or has none.
    pub fn topic_id(&self, topic: &Str) -> Uuid {
        self.topics.get(topic).map_or(Uuid::ZERO, |topic| topic.id)
    }

    /// The name that an answer means, which has either a name or an id.
    pub fn name_of(&self, name: &Str, id: Uuid) -> Option<Str> {
        if id.is_zero() {
            return Some(name.clone());
        }
        let mut topics = self.topics.iter();
        topics.find_map(|(name, topic)| (topic.id == id).then(|| name.clone()))
    }
}

impl From<MetadataResponseTopic> for Topic {
    fn from(topic: MetadataResponseTopic) -> Self {
        let partitions = topic.partitions.into_iter().map(|partition| {
            // A node that is cut off names one that may lead, for clients that ask it for ever.
            let is_led = partition.error_code != ErrorCode::LEADER_NOT_AVAILABLE;
            let found = Partition {
                error: partition.error_code,
                leader: (is_led && partition.leader_id >= 0).then_some(partition.leader_id),
                leader_epoch: partition.leader_epoch,
                replicas: partition.replica_nodes,
                in_sync: partition.isr_nodes,
                offline: partition.offline_replicas,
            };
            (partition.partition_index, found)
        });
        Self {
            error: topic.error_code,
            id: topic.topic_id,
            is_internal: topic.is_internal,
            partitions: partitions.collect(),
        }
    }
}
