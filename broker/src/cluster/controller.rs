//! What the controller is asked, what it answers, and how a decision becomes records.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
};
use vltava_protocol::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse,
};
use vltava_protocol::messages::create_topics::{CreateTopicsRequest, CreateTopicsResponse};
use vltava_protocol::messages::delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
use vltava_protocol::messages::update_features::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use vltava_protocol::types::{Str, Uuid};

use super::alter_settings::{Alteration, Altered};
use super::name_leader::{self, Nomination};
use super::new_partitions::Present;
use super::nodes::Registration;
use super::reassign::Report;
use super::state::State;
use super::{
    alter_settings, create_partitions, create_topics, delete_topics, features, node_settings,
    nodes, reassign,
};
use crate::machine::{KeyValue, Machine, Now, Outcome, ReplayError, Ticket};
use crate::metadata::image::{Image, Node, Partition, PartitionId, Replica, Settings};
use crate::metadata::records::{Record, TOPIC_RESOURCE};

/// Most partitions that one request may create, as in Kafka.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// Most partitions of a cluster: what all shards of a small node can still hold in their images.
pub const PARTITIONS_MAX: usize = 200_000;

/// Most bytes of records that one request may lead to: they are one batch.
const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What the controller must know of topic settings. The settings themselves are not its business.
pub trait TopicSettings {
    /// Whether a setting is a list, so that APPEND and SUBTRACT make sense; false for an unknown
    /// name.
    fn is_list(&self, name: &str) -> bool;

    /// What a topic has where it says nothing.
    fn default_value(&self, name: &str) -> Option<String>;

    /// Checks all own settings of a topic. The error is told to the client (INVALID_CONFIG).
    fn validate(&self, own: &Settings) -> Result<(), String>;
}

/// What a cluster has where requests say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Partitions of a topic.
    pub partitions_default: i32,
    /// Replicas of a partition.
    pub replication_factor_default: i16,
}

/// The machine of group 0.
pub struct Controller {
    pub(super) options: Options,
    pub(super) topic_settings: Rc<dyn TopicSettings>,
}

/// What the controller is asked.
#[derive(Clone, Debug)]
pub enum Input {
    /// Form the cluster: the first thing there is. Answered with [`Reply::Formed`], also where it
    /// has formed before.
    Form {
        /// The cluster's id, where it has none yet.
        cluster_id: Uuid,
        /// The feature level that it begins at.
        level: i16,
    },
    /// A node has started.
    RegisterNode(Registration),
    /// A node is gone for good. It is being removed from then on, and forgotten when it has no vote
    /// in group 0 any more.
    UnregisterNode {
        /// Its number.
        node_id: i32,
    },
    /// A node that is being removed has no vote any more, as the leader of group 0 sees. Said by
    /// that to its own controller; to another it is an [`Self::UnregisterNode`], and changes
    /// nothing.
    ForgetNode {
        /// Its number.
        node_id: i32,
    },
    /// Create topics. Settings in the answer are for the handler to fill in.
    CreateTopics {
        /// What the client asks.
        request: CreateTopicsRequest,
        /// Random bits, from which the ids of the topics are made.
        random: u128,
    },
    /// Delete topics.
    DeleteTopics(DeleteTopicsRequest),
    /// Add partitions to topics.
    CreatePartitions(CreatePartitionsRequest),
    /// Alter settings of resources.
    AlterSettings(Alteration),
    /// A block of producer ids for a node.
    AllocateProducerIds,
    /// Change replicas of partitions, or take such a change back.
    AlterReassignments(AlterPartitionReassignmentsRequest),
    /// A leader begins to work on such a change.
    LeadChange(Report),
    /// A majority of a partition's replicas is gone: one that is left is to lead.
    NameLeader(Nomination),
    /// The members of a partition's group are what was decided.
    MembersChanged {
        /// Who says so, and of which decision.
        report: Report,
        /// Who votes now; nobody else belongs to the group.
        voters: Vec<Replica>,
    },
    /// Raise the feature level.
    UpdateFeatures(UpdateFeaturesRequest),
    /// One of these, and what the controller's node sees. Not said to another node, which sees for
    /// itself.
    Seeing {
        /// What it sees.
        sight: Sight,
        /// What is asked.
        input: Box<Input>,
    },
}

impl Input {
    /// Whether what is decided depends on what the controller's node sees.
    pub fn is_about_sight(&self) -> bool {
        matches!(
            self,
            Self::CreateTopics { .. } | Self::CreatePartitions(_) | Self::RegisterNode(_)
        )
    }

    /// What this node's controller is asked where that sees this.
    pub fn seeing(self, sight: Sight) -> Self {
        Self::Seeing { sight, input: Box::new(self) }
    }
}

/// What the controller's node sees of the cluster, beside its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The nodes that are there: new partitions are placed on them.
    pub present: BTreeSet<i32>,
    /// The nodes with a vote in group 0: founders have one before they are registered.
    pub voters: BTreeSet<i32>,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The cluster has formed, under this id.
    Formed {
        /// Its id.
        cluster_id: Uuid,
    },
    /// The node is registered.
    Registered {
        /// How often it has been, with this time.
        epoch: i64,
    },
    /// The node is forgotten.
    NodeUnregistered,
    /// Of CreateTopics.
    CreateTopics(CreateTopicsResponse),
    /// Of DeleteTopics.
    DeleteTopics(DeleteTopicsResponse),
    /// Of CreatePartitions.
    CreatePartitions(CreatePartitionsResponse),
    /// What came of each resource whose settings were to be altered.
    AlterSettings(Vec<Altered>),
    /// A block that nobody else gets.
    ProducerIds {
        /// Its first id.
        first: i64,
        /// How many there are.
        count: i64,
    },
    /// Of AlterPartitionReassignments.
    AlterReassignments(AlterPartitionReassignmentsResponse),
    /// What a leader said was heard.
    Noted {
        /// Whether it counts.
        is_taken: bool,
    },
    /// Of UpdateFeatures.
    UpdateFeatures(UpdateFeaturesResponse),
    /// The request as a whole is refused.
    Refused {
        /// Kafka's code.
        error: ErrorCode,
        /// What a person reads.
        message: Str,
    },
}

/// What a request comes to: records to be appended, and the answer.
pub(super) type Decision = (Vec<Record>, Reply);

/// There are no timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoTimer {}

impl Controller {
    /// A controller with these defaults.
    pub fn new(options: Options, topic_settings: Rc<dyn TopicSettings>) -> Self {
        Self { options, topic_settings }
    }

    /// Without sight all nodes are there, and any may register.
    fn decide(&self, state: &State, input: Input, sight: Option<&Sight>) -> Decision {
        let image = state.image();
        let present: Present<'_> = sight.map(|sight| &sight.present);
        match input {
            Input::Seeing { sight, input } => self.decide(state, *input, Some(&sight)),
            Input::Form { cluster_id, level } => nodes::form(image, cluster_id, level),
            _ if image.cluster().is_none() => {
                refused(ErrorCode::COORDINATOR_NOT_AVAILABLE, "the cluster has not formed yet")
            }
            Input::RegisterNode(registration) => {
                nodes::register(image, sight.map(|sight| &sight.voters), registration)
            }
            Input::UnregisterNode { node_id } => nodes::unregister(image, node_id),
            Input::ForgetNode { node_id } => nodes::forget(image, node_id),
            Input::AllocateProducerIds => nodes::allocate_producer_ids(image),
            Input::UpdateFeatures(request) => features::update(image, &request),
            Input::CreateTopics { request, random } => {
                create_topics::decide(self, state, present, request, random)
            }
            Input::DeleteTopics(request) => delete_topics::decide(image, request),
            Input::CreatePartitions(request) => create_partitions::decide(image, present, request),
            Input::AlterSettings(alteration) => alter_settings::decide(self, image, alteration),
            Input::AlterReassignments(request) => reassign::decide(image, request),
            Input::NameLeader(nomination) => name_leader::decide(image, &nomination),
            Input::LeadChange(report) => reassign::decide_lead(image, &report),
            Input::MembersChanged { report, voters } => {
                reassign::decide_complete(image, &report, &voters)
            }
        }
    }
}

/// The whole request is refused.
pub(super) fn refused(error: ErrorCode, message: &str) -> Decision {
    (Vec::new(), Reply::Refused { error, message: Str::from(message) })
}

/// What a client is told where the answer is not the one asked for: the request as a whole is
/// refused, or nobody could be asked.
pub fn refusal(answer: Result<Reply, ErrorCode>) -> (ErrorCode, Str) {
    match answer {
        Ok(Reply::Refused { error, message }) => (error, message),
        Ok(_) => (ErrorCode::UNKNOWN_SERVER_ERROR, Str::EMPTY),
        Err(error) => (error, Str::from_static(error.message())),
    }
}

/// As they stand in the log; `None` where they are too many for one batch, or cannot be written.
fn encoded(records: &[Record]) -> Option<Vec<KeyValue>> {
    let mut bytes = 0;
    let mut encoded = Vec::with_capacity(records.len());
    for record in records {
        let (key, value) = record.encode().ok()?;
        bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        if bytes > RECORD_BYTES_MAX {
            return None;
        }
        encoded.push(KeyValue { key, value });
    }
    Some(encoded)
}

/// What was decided about a node, where it is more than that it has started again.
fn node_note(image: &Image, id: i32, after: Option<&Node>) -> Option<String> {
    let before = image.node(id);
    let Some(after) = after else {
        return Some(format!("node {id} is no longer one of the cluster"));
    };
    let state = node_settings::state_name(after.state);
    match before {
        None => Some(format!("node {id} is one of the cluster now: {state}")),
        Some(before) if before.state != after.state => {
            let was = node_settings::state_name(before.state);
            Some(format!("node {id} is {state}; it was {was}"))
        }
        Some(before) if before.disks != after.disks => {
            Some(format!("node {id} has another disk: what the old one kept is copied to it"))
        }
        Some(_) => None,
    }
}

/// What was decided about topics and nodes, for whoever reads the broker's log. `image` is before
/// it.
fn notes(image: &Image, decided: &[Record]) -> Vec<String> {
    let mut partitions: BTreeMap<Uuid, i32> = BTreeMap::new();
    for record in decided {
        if let Record::Partition(id, _) = record
            && known(image, *id).is_none()
        {
            *partitions.entry(id.topic_id).or_default() += 1;
        }
    }
    let mut notes = Vec::new();
    for record in decided {
        match record {
            Record::Partition(id, after) => {
                notes.extend(known(image, *id).and_then(|known| change_note(known, *id, after)));
            }
            Record::Topic(id, Some(name)) => {
                let count = partitions.remove(id).unwrap_or(0);
                notes.push(format!("topic {name} created, with {count} partitions, id {id}"));
            }
            Record::Topic(id, None) => {
                let name = image.topic_by_id(*id).map(|topic| topic.name.clone());
                notes.push(format!("topic {} deleted, id {id}", name.unwrap_or_default()));
            }
            Record::Settings((TOPIC_RESOURCE, name), own) if image.topic(name).is_some() => {
                let own = own.iter().map(|(setting, value)| format!("{setting}={value}"));
                let own: Vec<String> = own.collect();
                notes.push(format!("topic {name} has now these settings: {}", own.join(", ")));
            }
            Record::Node(id, after) => notes.extend(node_note(image, *id, after.as_ref())),
            _ => {}
        }
    }
    let more = partitions.iter().filter_map(|(id, count)| {
        let name = &image.topic_by_id(*id)?.name;
        Some(format!("topic {name} has {count} partitions more"))
    });
    notes.extend(more);
    notes
}

/// Topics that have two replicas now: that is more than one only for what is on disk, since both
/// are a majority. No client is told: what stands beside an error code is a reason for an error to
/// it.
fn warnings(image: &Image, decided: &[Record]) -> Vec<String> {
    let created = decided.iter().filter_map(|record| match record {
        Record::Topic(id, Some(name)) => Some((*id, name)),
        _ => None,
    });
    let created: BTreeMap<Uuid, &Str> = created.collect();
    let name = |id: Uuid| {
        let known = || image.topic_by_id(id).map(|topic| &topic.name);
        created.get(&id).copied().or_else(known)
    };
    let of_two = decided.iter().filter_map(|record| match record {
        Record::Partition(id, after) => {
            let before = known(image, *id).map(|(_, before)| before.target().count());
            let is_news = after.target().count() == 2 && before != Some(2);
            is_news.then(|| name(id.topic_id)).flatten()
        }
        _ => None,
    });
    let of_two: BTreeSet<&Str> = of_two.collect();
    let warned = of_two.into_iter().map(|name| {
        format!(
            "topic {name} has two replicas: it is unavailable while either of their nodes is \
             down. Three go on with any two"
        )
    });
    warned.collect()
}

fn known(image: &Image, id: PartitionId) -> Option<(&Str, &Partition)> {
    let topic = image.topic_by_id(id.topic_id)?;
    Some((&topic.name, topic.partition(id.index)?))
}

/// What was decided about a partition's replicas.
fn change_note(
    (topic, before): (&Str, &Partition),
    id: PartitionId,
    after: &Partition,
) -> Option<String> {
    let index = id.index;
    let nodes = |replicas: &mut dyn Iterator<Item = &Replica>| {
        replicas.map(|it| it.node_id.to_string()).collect::<Vec<_>>().join(",")
    };
    let (old, new) = (nodes(&mut before.target()), nodes(&mut after.target()));
    if before.named != after.named {
        return name_leader::note(topic, index, after);
    }
    match (before.is_changing(), after.is_changing()) {
        _ if before.changes == after.changes => None,
        (_, true) => Some(format!("partition {topic}-{index} moves from nodes {old} to {new}")),
        (true, false) => Some(format!("partition {topic}-{index} is on nodes {new} now")),
        (false, false) => Some(format!("partition {topic}-{index} prefers nodes {new} now")),
    }
}

impl Machine for Controller {
    type State = State;
    type Session = ();
    type Input = Input;
    type Reply = Reply;
    type Timer = NoTimer;

    fn handle(
        &self,
        state: &State,
        (): &mut (),
        ticket: Ticket,
        input: Input,
        _now: Now,
    ) -> Outcome<Self> {
        let (mut decided, mut reply) = self.decide(state, input, None);
        let records = encoded(&decided).unwrap_or_else(|| {
            decided.clear();
            let message = Str::from_static("The request would change too much at once.");
            reply = Reply::Refused { error: ErrorCode::POLICY_VIOLATION, message };
            Vec::new()
        });
        let mut notes = notes(state.image(), &decided);
        notes.extend(features::notes(state.image(), &decided));
        let warnings = warnings(state.image(), &decided);
        Outcome { records, replies: vec![(ticket, reply)], notes, warnings, ..Outcome::default() }
    }

    fn fire(&self, _state: &State, (): &mut (), timer: NoTimer, _now: Now) -> Outcome<Self> {
        match timer {}
    }

    fn lead(&self, _state: &State, (): &mut (), _now: Now) -> Outcome<Self> {
        Outcome::default()
    }

    fn replay(
        &self,
        state: &mut State,
        record: &KeyValue,
        _offset: i64,
        _timestamp_ms: i64,
    ) -> Result<(), ReplayError> {
        state.replay(record)
    }

    fn snapshot(&self, state: &State, after: Option<&Bytes>, records_max: usize) -> Vec<KeyValue> {
        state.snapshot(after, records_max)
    }
}

#[cfg(test)]
mod tests;
