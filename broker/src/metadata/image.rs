//! The cluster as of one record of group 0: immutable, shared between shards, cheap to clone.
//!
//! Invariants: each topic has its own name and its own id; a topic's partitions are numbered from 0
//! without a gap; settings of topics belong to topics that exist. [`super::records`] keeps them,
//! and refuses a record that would break one.

use std::collections::BTreeMap;
use std::sync::Arc;

use vltava_protocol::types::{Str, Uuid};

use super::features::Levels;
use super::sorted_map::SortedMap;
use super::topic_name;

/// Settings of one resource's own, by name.
pub type Settings = Arc<BTreeMap<Str, Str>>;

/// A partition's name everywhere in a node: topics may be deleted and made again under the same
/// name, ids are never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The partition's number, from 0.
    pub index: i32,
}

impl PartitionId {
    /// Group 0: the only partition of `__cluster_metadata`, under Kafka's id for it.
    pub const CLUSTER_METADATA: Self = Self { topic_id: Uuid(1), index: 0 };
}

/// What the first record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Made when the cluster formed.
    pub id: Uuid,
    /// Which records and rules its nodes must know.
    pub format_version: i16,
    /// Features that are switched on, with their levels.
    pub features: Arc<BTreeMap<Str, i16>>,
}

/// How a node is reached through one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The listener's name, in upper case.
    pub listener: Str,
    /// Host name or address.
    pub host: Str,
    /// Port.
    pub port: u16,
}

/// Where the other nodes reach a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEndpoint {
    /// Host name or address.
    pub host: Str,
    /// Port.
    pub port: u16,
}

/// What is to become of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// It takes part.
    #[default]
    There,
    /// It leads nothing where another can, and is not preferred.
    Draining,
    /// As draining; its replicas are moved away, and it is unregistered when none is left.
    Removing,
    /// It was added, and was never seen.
    Expected,
}

impl NodeState {
    /// As records say it.
    pub fn number(self) -> i8 {
        match self {
            Self::There => 0,
            Self::Draining => 1,
            Self::Removing => 2,
            Self::Expected => 3,
        }
    }

    /// Whether the node is to lead nothing where another can.
    pub fn is_drained(self) -> bool {
        matches!(self, Self::Draining | Self::Removing)
    }

    /// What a record says; `None` for what this release does not know.
    pub fn from_number(number: i8) -> Option<Self> {
        let all = [Self::There, Self::Draining, Self::Removing, Self::Expected];
        all.into_iter().find(|state| state.number() == number)
    }
}

/// A registered node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: i32,
    /// Counts its registrations.
    pub epoch: i64,
    /// Where it stands.
    pub rack: Option<Str>,
    /// How it is reached.
    pub endpoints: Vec<NodeEndpoint>,
    /// The ids of its disks.
    pub disks: Vec<Uuid>,
    /// Where the other nodes reach it; `None`: where their own settings say.
    pub peer_endpoint: Option<PeerEndpoint>,
    /// What is to become of it.
    pub state: NodeState,
    /// The feature levels that its release serves.
    pub levels: Levels,
}

impl Node {
    /// How it is reached through a listener.
    pub fn endpoint(&self, listener: &str) -> Option<&NodeEndpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.listener == listener)
    }
}

/// Where one replica of a partition is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    /// The node.
    pub node_id: i32,
    /// Its disk; zero, in records of before there were clusters: the one that the node has.
    pub disk_id: Uuid,
}

/// A leader that was named when a majority of a partition's replicas was gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedLeader {
    /// From which epoch on: above all that anybody knew.
    pub epoch: i32,
    /// Who.
    pub replica: Replica,
}

impl NamedLeader {
    /// So far above all others, elections of who has not heard of it, one after the other, come
    /// nowhere near.
    const EPOCHS_APART: i32 = 1 << 16;

    /// The epoch of one who is named where this is the newest that anybody knows; `None` where
    /// there is none left.
    pub fn epoch_above(newest: i32) -> Option<i32> {
        let epoch = newest.max(0).checked_add(Self::EPOCHS_APART)?;
        // What it leads is to have elections, too.
        (epoch < i32::MAX - Self::EPOCHS_APART).then_some(epoch)
    }
}

/// A partition: where it is kept. Who leads it stands in [`super::leaders`].
///
/// While its replicas change, `replicas` are all of them, those that go last; `adding` and
/// `removing` say which come and which go. What is wanted ([`Partition::target`]) is then all but
/// those that go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// In order of preference; never empty, each once.
    pub replicas: Vec<Replica>,
    /// Those of them that come.
    pub adding: Vec<Replica>,
    /// Those of them that go; never all.
    pub removing: Vec<Replica>,
    /// With whom its group began, where that is not `replicas`. It never changes.
    pub founders: Option<Vec<Replica>>,
    /// What a change under way is cancelled to; `None` where it is itself a cancel.
    pub before: Option<Vec<Replica>>,
    /// Counts what was decided about it: who acts on one decision must not be taken for one who
    /// acts on another.
    pub changes: i32,
    /// The newest epoch whose leader works on the change under way; -1: none does.
    pub leader_epoch: i32,
    /// Who was named to lead it, the last time that this had to be.
    pub named: Option<NamedLeader>,
}

impl Partition {
    /// A new partition.
    pub fn new(replicas: Vec<Replica>) -> Self {
        let (adding, removing) = (Vec::new(), Vec::new());
        let (founders, before) = (None, None);
        Self {
            replicas,
            adding,
            removing,
            founders,
            before,
            changes: 0,
            leader_epoch: -1,
            named: None,
        }
    }

    /// The nodes that keep it, in order of preference.
    pub fn node_ids(&self) -> Vec<i32> {
        let mut nodes = Vec::with_capacity(self.replicas.len());
        for replica in &self.replicas {
            // Two disks of one node, while one takes the other's place.
            if !nodes.contains(&replica.node_id) {
                nodes.push(replica.node_id);
            }
        }
        nodes
    }

    /// Whether a node keeps it.
    pub fn is_on(&self, node_id: i32) -> bool {
        self.replicas.iter().any(|replica| replica.node_id == node_id)
    }

    /// The replicas that are to be, in order of preference.
    pub fn target(&self) -> impl Iterator<Item = &Replica> + Clone {
        self.replicas.iter().filter(|replica| !self.removing.contains(replica))
    }

    /// The node that is to lead it, where it can: the first of those that are to keep it.
    pub fn preferred(&self) -> i32 {
        self.target().next().map_or(-1, |replica| replica.node_id)
    }

    /// With whom its group began.
    pub fn founders(&self) -> &[Replica] {
        self.founders.as_deref().unwrap_or(&self.replicas)
    }

    /// Whether its replicas are being changed.
    pub fn is_changing(&self) -> bool {
        !(self.adding.is_empty() && self.removing.is_empty())
    }

    /// What is wrong with it, where anything is.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let has = |replica: &Replica| self.replicas.contains(replica);
        if self.replicas.is_empty() {
            Some("a partition without replicas")
        } else if is_repeating(&self.replicas) {
            Some("a partition with a replica twice")
        } else if !self.adding.iter().chain(&self.removing).all(has) {
            Some("a partition that changes replicas which it has not")
        } else if self.target().next().is_none() {
            Some("a partition that is to have no replicas")
        } else if self.adding.iter().any(|replica| self.removing.contains(replica)) {
            Some("a partition with a replica that both comes and goes")
        } else if self.founders.as_ref().is_some_and(Vec::is_empty) {
            Some("a partition that nobody founded")
        } else if self.before.as_ref().is_some_and(Vec::is_empty) {
            Some("a partition that had no replicas")
        } else {
            None
        }
    }
}

fn is_repeating(replicas: &[Replica]) -> bool {
    (1..replicas.len()).any(|nth| replicas[..nth].contains(&replicas[nth]))
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Str,
    /// Its id.
    pub id: Uuid,
    /// Its partitions, by number.
    pub partitions: Vec<Arc<Partition>>,
    /// Its own settings.
    pub settings: Settings,
}

impl Topic {
    /// A partition by its number.
    pub fn partition(&self, index: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index).ok()?).map(Arc::as_ref)
    }

    /// Whether it has a partition of this number.
    pub fn has_partition(&self, index: i32) -> bool {
        self.partition(index).is_some()
    }

    /// How many partitions it has.
    pub fn partition_count(&self) -> i32 {
        // Bounded by what the controller creates, far below.
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    /// The name of a partition of this number.
    pub fn partition_id(&self, index: i32) -> PartitionId {
        PartitionId { topic_id: self.id, index }
    }

    /// What the log of a partition of this number is called.
    pub fn log_name(&self, index: i32) -> String {
        format!("{}-{index}", self.name)
    }

    /// The names of its partitions.
    pub fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let topic_id = self.id;
        self.partition_indexes().map(move |index| PartitionId { topic_id, index })
    }

    /// The numbers of its partitions.
    pub fn partition_indexes(&self) -> impl Iterator<Item = i32> + use<> {
        0..self.partition_count()
    }

    /// Its partitions with their numbers.
    pub fn indexed_partitions(&self) -> impl Iterator<Item = (i32, &Partition)> {
        (0..).zip(self.partitions.iter().map(Arc::as_ref))
    }

    /// Whether it belongs to the brokers.
    pub fn is_internal(&self) -> bool {
        topic_name::is_internal(&self.name)
    }

    /// Its own settings as text.
    pub fn own_settings(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A resource with settings that is no topic: type and name, as in DescribeConfigs.
pub type ResourceId = (i8, Str);

/// The cluster. The default is empty and unformed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    pub(super) cluster: Option<Cluster>,
    pub(super) nodes: Arc<BTreeMap<i32, Arc<Node>>>,
    /// By name. Settings of topics stand in the topics.
    pub(super) topics: SortedMap<Str, Arc<Topic>>,
    /// Names by id.
    pub(super) topic_names: SortedMap<Uuid, Str>,
    pub(super) settings: Arc<BTreeMap<ResourceId, Settings>>,
    pub(super) next_producer_id: i64,
    pub(super) partition_count: usize,
}

impl Image {
    /// What the cluster is; `None` before it has formed.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Registered nodes, by number.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> + Clone {
        self.nodes.values().map(Arc::as_ref)
    }

    /// How many nodes are registered.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// A node by its number.
    pub fn node(&self, id: i32) -> Option<&Node> {
        self.nodes.get(&id).map(Arc::as_ref)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> + Clone {
        self.topics.iter().map(|(_, topic)| topic)
    }

    /// Topics whose names are not below this one, by name.
    pub fn topics_from<'a>(
        &'a self,
        name: &str,
    ) -> impl Iterator<Item = &'a Arc<Topic>> + Clone + use<'a> {
        self.topics.iter_from(name).map(|(_, topic)| topic)
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// How many partitions all topics have together.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// A topic by its name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// A topic by its id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.topic(self.topic_names.get(&id)?)
    }

    /// What was set for a resource that is no topic.
    pub fn settings(&self, resource_type: i8, name: &str) -> Option<&Settings> {
        self.settings.get(&(resource_type, Str::from(name)))
    }

    /// The first producer id that was not given away.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }
}
