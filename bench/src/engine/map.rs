//! The partitions of a run by dense numbers, and who leads them.

use std::collections::BTreeMap;

use vltava_client::blocking::Address;
use vltava_client::error::ClientError;
use vltava_client::metadata::{Metadata, NodeId};
use vltava_protocol::types::{Str, Uuid};

/// A topic of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Str,
    /// Its id; zero where the broker has none.
    pub id: Uuid,
    /// The dense number of its first partition.
    pub first: u32,
    /// How many partitions it has.
    pub partitions: u32,
}

/// A partition of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the topics.
    pub topic: u32,
    /// Its number there.
    pub partition: i32,
    /// Which of the nodes leads it.
    pub node: u32,
    /// In which epoch.
    pub leader_epoch: i32,
}

/// A broker of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What the cluster calls it.
    pub id: NodeId,
    /// Where it listens.
    pub address: Address,
}

/// Topics, partitions and brokers. Brokers are those of the begin; leaders may move among them
/// ([`crate::engine::leaders`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    /// In order of their names' making.
    pub topics: Vec<Topic>,
    /// By dense number: topic by topic.
    pub partitions: Vec<Place>,
    /// All of the cluster's.
    pub nodes: Vec<Node>,
    by_id: BTreeMap<Uuid, u32>,
    by_name: BTreeMap<Str, u32>,
}

impl Map {
    /// Of topics that the metadata knows.
    ///
    /// # Errors
    /// One that it does not know, or a partition without a leader.
    pub fn new(metadata: &Metadata, names: &[Str]) -> Result<Self, ClientError> {
        let mut map = Self::default();
        let known = metadata.brokers.keys().map(|id| Node::of(metadata, *id));
        map.nodes = known.collect::<Result<_, _>>()?;
        let nodes: BTreeMap<NodeId, u32> =
            (0..).zip(metadata.brokers.keys()).map(|(number, id)| (*id, number)).collect();
        for (number, name) in (0..).zip(names) {
            let missing = || ClientError::Missing(format!("topic {name}"));
            let topic = metadata.topics.get(name).ok_or_else(missing)?;
            let first = dense(map.partitions.len());
            for (partition, found) in &topic.partitions {
                let leaderless =
                    || ClientError::Missing(format!("a leader of {name}[{partition}]"));
                let leader = found.leader.ok_or_else(leaderless)?;
                let unknown = || ClientError::Missing(format!("broker {leader}"));
                let node = *nodes.get(&leader).ok_or_else(unknown)?;
                let leader_epoch = found.leader_epoch;
                map.partitions.push(Place {
                    topic: number,
                    partition: *partition,
                    node,
                    leader_epoch,
                });
            }
            let partitions = dense(topic.partitions.len());
            map.topics.push(Topic { name: name.clone(), id: topic.id, first, partitions });
            map.by_id.insert(topic.id, number);
            map.by_name.insert(name.clone(), number);
        }
        Ok(map)
    }

    /// A partition's place.
    pub fn place(&self, partition: u32) -> Option<&Place> {
        self.partitions.get(index(partition))
    }

    /// Its topic.
    pub fn topic_of(&self, partition: u32) -> Option<&Topic> {
        self.topics.get(index(self.place(partition)?.topic))
    }

    /// The dense number of a partition that an answer names, by id where it has one.
    pub fn find(&self, name: &Str, id: Uuid, partition: i32) -> Option<u32> {
        let topic = if id.is_zero() { self.by_name.get(name) } else { self.by_id.get(&id) };
        let topic = self.topics.get(index(*topic?))?;
        let partition = u32::try_from(partition).ok()?;
        (partition < topic.partitions).then(|| topic.first + partition)
    }
}

/// A dense number as an index.
pub fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// An index as a dense number.
pub fn dense(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl Node {
    /// A broker that the metadata knows.
    ///
    /// # Errors
    /// It does not know it.
    pub fn of(metadata: &Metadata, id: NodeId) -> Result<Self, ClientError> {
        let missing = || ClientError::Missing(format!("broker {id}"));
        let broker = metadata.brokers.get(&id).ok_or_else(missing)?;
        let port = u16::try_from(broker.port);
        let port = port.map_err(|_| ClientError::Address(format!("port {}", broker.port)))?;
        Ok(Self { id, address: Address { host: broker.host.to_string(), port } })
    }
}
