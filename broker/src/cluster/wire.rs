//! What the controller is asked and answers, as bytes: for nodes that ask that of another.
//!
//! A kind of two bytes, then the message behind its version. Messages of clients travel as they
//! are, in the newest version that this release has. Golden files keep these bytes: a newer version
//! of a message, or a further kind, is for a feature level that all nodes serve.

use bytes::{Bytes, BytesMut};
use vltava_protocol::decode::DecodeError;
use vltava_protocol::encode::EncodeError;
use vltava_protocol::message::{Message, from_versioned_bytes, to_versioned_bytes};
use vltava_protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use vltava_protocol::records::node as wire;
use vltava_protocol::types::Uuid;

use super::alter_settings::{Alteration, Altered, Change, Resource};
use super::controller::{Input, Reply};
use super::name_leader::Nomination;
use super::nodes::Registration;
use super::reassign::Report;
use crate::metadata::features::Levels;
use crate::metadata::image::{NodeEndpoint, PartitionId, PeerEndpoint, Replica};

const FORM: i16 = 1;
const REGISTER_NODE: i16 = 2;
const CREATE_TOPICS: i16 = 3;
const DELETE_TOPICS: i16 = 4;
const CREATE_PARTITIONS: i16 = 5;
const ALTER_SETTINGS: i16 = 6;
const PRODUCER_IDS: i16 = 7;
/// Of answers only.
const REFUSED: i16 = 8;
const UNREGISTER_NODE: i16 = 9;
const ALTER_REASSIGNMENTS: i16 = 20;
const LEAD_CHANGE: i16 = 21;
const MEMBERS_CHANGED: i16 = 22;
/// Of answers only.
const NOTED: i16 = 23;
const NAME_LEADER: i16 = 24;
const UPDATE_FEATURES: i16 = 30;

const KIND_BYTES: usize = 2;
const RANDOM_BYTES: usize = 16;

/// Why bytes are no message to or from a controller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Of a kind that this release does not know.
    #[error("a message of the unknown kind {0} to or from the controller")]
    Kind(i16),
    /// It ends too early, or is another message than its kind says.
    #[error("a message to or from the controller cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    /// Too short for a kind.
    #[error("a message to or from the controller of {0} bytes")]
    Short(usize),
}

impl Input {
    /// As bytes.
    ///
    /// # Errors
    /// A text or a list that is longer than a message can have.
    pub fn to_bytes(&self) -> Result<Bytes, EncodeError> {
        match self {
            Self::Form { cluster_id, level } => {
                let message = wire::FormCluster { cluster_id: *cluster_id, level: *level };
                framed(FORM, &[], &message)
            }
            Self::RegisterNode(registration) => {
                framed(REGISTER_NODE, &[], &wire::RegisterNode::from(registration))
            }
            Self::CreateTopics { request, random } => {
                framed(CREATE_TOPICS, &random.to_be_bytes(), request)
            }
            Self::DeleteTopics(request) => framed(DELETE_TOPICS, &[], &newest(request)),
            Self::CreatePartitions(request) => framed(CREATE_PARTITIONS, &[], request),
            Self::AlterSettings(alteration) => {
                framed(ALTER_SETTINGS, &[], &wire::AlterSettings::from(alteration))
            }
            Self::UnregisterNode { node_id } | Self::ForgetNode { node_id } => {
                framed(UNREGISTER_NODE, &[], &wire::UnregisterNode { node_id: *node_id })
            }
            Self::AllocateProducerIds => {
                framed(PRODUCER_IDS, &[], &wire::ProducerIdBlock::default())
            }
            Self::AlterReassignments(request) => framed(ALTER_REASSIGNMENTS, &[], request),
            Self::LeadChange(report) => framed(LEAD_CHANGE, &[], &wire::LeadChange::from(report)),
            Self::NameLeader(nomination) => {
                framed(NAME_LEADER, &[], &wire::NameLeader::from(nomination))
            }
            Self::MembersChanged { report, voters } => {
                framed(MEMBERS_CHANGED, &[], &members_changed(report, voters))
            }
            Self::UpdateFeatures(request) => framed(UPDATE_FEATURES, &[], request),
            Self::Seeing { input, .. } => input.to_bytes(),
        }
    }

    /// What [`Input::to_bytes`] wrote.
    ///
    /// # Errors
    /// Other bytes.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, WireError> {
        let (kind, body) = unframed(bytes)?;
        Ok(match kind {
            FORM => {
                let wire::FormCluster { cluster_id, level } = from_versioned_bytes(&body)?;
                Self::Form { cluster_id, level }
            }
            REGISTER_NODE => {
                Self::RegisterNode(from_versioned_bytes::<wire::RegisterNode>(&body)?.into())
            }
            CREATE_TOPICS => {
                let (random, request) = body
                    .split_first_chunk::<RANDOM_BYTES>()
                    .ok_or(WireError::Short(bytes.len()))?;
                let request = from_versioned_bytes(&body.slice_ref(request))?;
                Self::CreateTopics { request, random: u128::from_be_bytes(*random) }
            }
            DELETE_TOPICS => Self::DeleteTopics(from_versioned_bytes(&body)?),
            CREATE_PARTITIONS => Self::CreatePartitions(from_versioned_bytes(&body)?),
            ALTER_SETTINGS => {
                Self::AlterSettings(from_versioned_bytes::<wire::AlterSettings>(&body)?.into())
            }
            UNREGISTER_NODE => {
                let wire::UnregisterNode { node_id } = from_versioned_bytes(&body)?;
                Self::UnregisterNode { node_id }
            }
            PRODUCER_IDS => Self::AllocateProducerIds,
            ALTER_REASSIGNMENTS => Self::AlterReassignments(from_versioned_bytes(&body)?),
            LEAD_CHANGE => {
                Self::LeadChange(from_versioned_bytes::<wire::LeadChange>(&body)?.into())
            }
            NAME_LEADER => {
                Self::NameLeader(from_versioned_bytes::<wire::NameLeader>(&body)?.into())
            }
            MEMBERS_CHANGED => {
                let message: wire::MembersChanged = from_versioned_bytes(&body)?;
                let (topic_id, index) = (message.topic_id, message.partition);
                let partition = PartitionId { topic_id, index };
                let wire::MembersChanged { changes, leader_epoch, voters, .. } = message;
                let report = Report { partition, changes, leader_epoch };
                let voter = |it: wire::Voter| Replica { node_id: it.node_id, disk_id: it.disk_id };
                Self::MembersChanged { report, voters: voters.into_iter().map(voter).collect() }
            }
            UPDATE_FEATURES => Self::UpdateFeatures(from_versioned_bytes(&body)?),
            kind => return Err(WireError::Kind(kind)),
        })
    }
}

impl Reply {
    /// As bytes.
    ///
    /// # Errors
    /// A text or a list that is longer than a message can have.
    pub fn to_bytes(&self) -> Result<Bytes, EncodeError> {
        match self {
            Self::Formed { cluster_id } => {
                let message = wire::FormCluster { cluster_id: *cluster_id, ..<_>::default() };
                framed(FORM, &[], &message)
            }
            Self::Registered { epoch } => {
                framed(REGISTER_NODE, &[], &wire::NodeRegistered { epoch: *epoch })
            }
            Self::NodeUnregistered => {
                framed(UNREGISTER_NODE, &[], &wire::UnregisterNode::default())
            }
            Self::CreateTopics(response) => framed(CREATE_TOPICS, &[], response),
            Self::DeleteTopics(response) => framed(DELETE_TOPICS, &[], response),
            Self::CreatePartitions(response) => framed(CREATE_PARTITIONS, &[], response),
            Self::AlterSettings(altered) => {
                let resources = altered.iter().map(wire::AlteredResource::from).collect();
                framed(ALTER_SETTINGS, &[], &wire::SettingsAltered { resources })
            }
            Self::ProducerIds { first, count } => {
                framed(PRODUCER_IDS, &[], &wire::ProducerIdBlock { first: *first, count: *count })
            }
            Self::AlterReassignments(response) => framed(ALTER_REASSIGNMENTS, &[], response),
            Self::Noted { is_taken } => framed(NOTED, &[], &wire::Noted { is_taken: *is_taken }),
            Self::UpdateFeatures(response) => framed(UPDATE_FEATURES, &[], response),
            Self::Refused { error, message } => {
                let refused = wire::Refused { error_code: *error, message: message.clone() };
                framed(REFUSED, &[], &refused)
            }
        }
    }

    /// What [`Reply::to_bytes`] wrote.
    ///
    /// # Errors
    /// Other bytes.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, WireError> {
        let (kind, body) = unframed(bytes)?;
        Ok(match kind {
            FORM => {
                let wire::FormCluster { cluster_id, .. } = from_versioned_bytes(&body)?;
                Self::Formed { cluster_id }
            }
            REGISTER_NODE => {
                let wire::NodeRegistered { epoch } = from_versioned_bytes(&body)?;
                Self::Registered { epoch }
            }
            UNREGISTER_NODE => {
                let wire::UnregisterNode { .. } = from_versioned_bytes(&body)?;
                Self::NodeUnregistered
            }
            CREATE_TOPICS => Self::CreateTopics(from_versioned_bytes(&body)?),
            DELETE_TOPICS => Self::DeleteTopics(from_versioned_bytes(&body)?),
            CREATE_PARTITIONS => Self::CreatePartitions(from_versioned_bytes(&body)?),
            ALTER_SETTINGS => {
                let wire::SettingsAltered { resources } = from_versioned_bytes(&body)?;
                Self::AlterSettings(resources.into_iter().map(Altered::from).collect())
            }
            PRODUCER_IDS => {
                let wire::ProducerIdBlock { first, count } = from_versioned_bytes(&body)?;
                Self::ProducerIds { first, count }
            }
            ALTER_REASSIGNMENTS => Self::AlterReassignments(from_versioned_bytes(&body)?),
            NOTED => {
                let wire::Noted { is_taken } = from_versioned_bytes(&body)?;
                Self::Noted { is_taken }
            }
            UPDATE_FEATURES => Self::UpdateFeatures(from_versioned_bytes(&body)?),
            REFUSED => {
                let wire::Refused { error_code, message } = from_versioned_bytes(&body)?;
                Self::Refused { error: error_code, message }
            }
            kind => return Err(WireError::Kind(kind)),
        })
    }
}

/// As a client of the newest version says it, which has no list of names.
fn newest(request: &DeleteTopicsRequest) -> DeleteTopicsRequest {
    let mut newest = request.clone();
    let names = std::mem::take(&mut newest.topic_names);
    let by_name = |name| DeleteTopicState { name: Some(name), topic_id: Uuid::ZERO };
    newest.topics.extend(names.into_iter().map(by_name));
    newest
}

fn framed<M: Message>(kind: i16, before: &[u8], message: &M) -> Result<Bytes, EncodeError> {
    let message = to_versioned_bytes(message, M::VERSION_MAX)?;
    let mut bytes = BytesMut::with_capacity(KIND_BYTES + before.len() + message.len());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(before);
    bytes.extend_from_slice(&message);
    Ok(bytes.freeze())
}

fn unframed(bytes: &Bytes) -> Result<(i16, Bytes), WireError> {
    let (kind, body) =
        bytes.split_first_chunk::<KIND_BYTES>().ok_or(WireError::Short(bytes.len()))?;
    Ok((i16::from_be_bytes(*kind), bytes.slice_ref(body)))
}

impl From<&Report> for wire::LeadChange {
    fn from(report: &Report) -> Self {
        Self {
            topic_id: report.partition.topic_id,
            partition: report.partition.index,
            changes: report.changes,
            leader_epoch: report.leader_epoch,
        }
    }
}

impl From<&Nomination> for wire::NameLeader {
    fn from(nomination: &Nomination) -> Self {
        Self {
            topic_id: nomination.partition.topic_id,
            partition: nomination.partition.index,
            changes: nomination.changes,
            newest_epoch: nomination.newest_epoch,
            node_id: nomination.leader.node_id,
            disk_id: nomination.leader.disk_id,
        }
    }
}

impl From<wire::NameLeader> for Nomination {
    fn from(message: wire::NameLeader) -> Self {
        let partition = PartitionId { topic_id: message.topic_id, index: message.partition };
        let wire::NameLeader { changes, newest_epoch, node_id, disk_id, .. } = message;
        Self { partition, changes, newest_epoch, leader: Replica { node_id, disk_id } }
    }
}

impl From<wire::LeadChange> for Report {
    fn from(message: wire::LeadChange) -> Self {
        let partition = PartitionId { topic_id: message.topic_id, index: message.partition };
        Self { partition, changes: message.changes, leader_epoch: message.leader_epoch }
    }
}

fn members_changed(report: &Report, voters: &[Replica]) -> wire::MembersChanged {
    let voter = |it: &Replica| wire::Voter { node_id: it.node_id, disk_id: it.disk_id };
    wire::MembersChanged {
        topic_id: report.partition.topic_id,
        partition: report.partition.index,
        changes: report.changes,
        leader_epoch: report.leader_epoch,
        voters: voters.iter().map(voter).collect(),
    }
}

impl From<&Registration> for wire::RegisterNode {
    fn from(registration: &Registration) -> Self {
        let endpoint = |endpoint: &NodeEndpoint| wire::NodeEndpoint {
            listener: endpoint.listener.clone(),
            host: endpoint.host.clone(),
            port: endpoint.port,
        };
        let peer_endpoint = registration.peer_endpoint.as_ref();
        Self {
            node_id: registration.node_id,
            rack: registration.rack.clone(),
            endpoints: registration.endpoints.iter().map(endpoint).collect(),
            disks: registration.disks.clone(),
            peer_endpoint: peer_endpoint
                .map(|at| wire::PeerEndpoint { host: at.host.clone(), port: at.port }),
            level_min: registration.levels.min,
            level_max: registration.levels.max,
        }
    }
}

impl From<wire::RegisterNode> for Registration {
    fn from(message: wire::RegisterNode) -> Self {
        let endpoint = |endpoint: wire::NodeEndpoint| NodeEndpoint {
            listener: endpoint.listener.detached(),
            host: endpoint.host.detached(),
            port: endpoint.port,
        };
        Self {
            node_id: message.node_id,
            rack: message.rack.map(|rack| rack.detached()),
            endpoints: message.endpoints.into_iter().map(endpoint).collect(),
            disks: message.disks,
            peer_endpoint: message
                .peer_endpoint
                .map(|at| PeerEndpoint { host: at.host.detached(), port: at.port }),
            levels: Levels { min: message.level_min, max: message.level_max },
        }
    }
}

impl From<&Alteration> for wire::AlterSettings {
    fn from(alteration: &Alteration) -> Self {
        let change = |change: &Change| wire::Change {
            name: change.name.clone(),
            operation: change.operation,
            value: change.value.clone(),
        };
        let resource = |resource: &Resource| wire::Resource {
            kind: resource.kind,
            name: resource.name.clone(),
            changes: resource.changes.iter().map(change).collect(),
        };
        Self {
            node_id: alteration.node_id,
            is_incremental: alteration.is_incremental,
            validate_only: alteration.validate_only,
            resources: alteration.resources.iter().map(resource).collect(),
        }
    }
}

impl From<wire::AlterSettings> for Alteration {
    fn from(message: wire::AlterSettings) -> Self {
        let change = |change: wire::Change| Change {
            name: change.name,
            operation: change.operation,
            value: change.value,
        };
        let resource = |resource: wire::Resource| Resource {
            kind: resource.kind,
            name: resource.name,
            changes: resource.changes.into_iter().map(change).collect(),
        };
        Self {
            node_id: message.node_id,
            is_incremental: message.is_incremental,
            validate_only: message.validate_only,
            resources: message.resources.into_iter().map(resource).collect(),
        }
    }
}

impl From<&Altered> for wire::AlteredResource {
    fn from(altered: &Altered) -> Self {
        Self {
            kind: altered.kind,
            name: altered.name.clone(),
            error_code: altered.error_code,
            error_message: altered.error_message.clone(),
        }
    }
}

impl From<wire::AlteredResource> for Altered {
    fn from(message: wire::AlteredResource) -> Self {
        Self {
            kind: message.kind,
            name: message.name,
            error_code: message.error_code,
            error_message: message.error_message,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use vltava_protocol::error_code::ErrorCode;
    use vltava_protocol::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
    use vltava_protocol::messages::delete_topics::DeleteTopicsResponse;
    use vltava_protocol::types::Str;

    use super::*;

    fn inputs() -> Vec<Input> {
        let topic = CreatableTopic { name: Str::from("t"), ..CreatableTopic::default() };
        let change = Change { name: Str::from("retention.ms"), operation: 0, value: None };
        let resource = Resource { kind: 2, name: Str::from("t"), changes: vec![change] };
        let endpoint =
            NodeEndpoint { listener: Str::from("PLAINTEXT"), host: Str::from("a"), port: 9092 };
        vec![
            Input::Form { cluster_id: Uuid(7), level: 3 },
            Input::RegisterNode(Registration {
                node_id: 3,
                rack: Some(Str::from("r")),
                endpoints: vec![endpoint],
                disks: vec![Uuid(9)],
                peer_endpoint: Some(PeerEndpoint { host: Str::from("b"), port: 7644 }),
                levels: Levels { min: 2, max: 5 },
            }),
            Input::UnregisterNode { node_id: 3 },
            Input::CreateTopics {
                request: CreateTopicsRequest {
                    topics: vec![topic],
                    ..CreateTopicsRequest::default()
                },
                random: u128::MAX - 5,
            },
            Input::DeleteTopics(<_>::default()),
            Input::CreatePartitions(<_>::default()),
            Input::AlterSettings(Alteration {
                resources: vec![resource],
                is_incremental: true,
                validate_only: false,
                node_id: 3,
            }),
            Input::AllocateProducerIds,
            Input::AlterReassignments(<_>::default()),
            Input::LeadChange(report()),
            Input::MembersChanged {
                report: report(),
                voters: vec![Replica { node_id: 2, disk_id: Uuid(3) }],
            },
            Input::UpdateFeatures(<_>::default()),
        ]
    }

    fn report() -> Report {
        let partition = PartitionId { topic_id: Uuid(9), index: 4 };
        Report { partition, changes: 5, leader_epoch: 6 }
    }

    fn replies() -> Vec<Reply> {
        let altered = Altered {
            kind: 2,
            name: Str::from("t"),
            error_code: ErrorCode::INVALID_CONFIG,
            error_message: Some(Str::from("no")),
        };
        let refused = ErrorCode::POLICY_VIOLATION;
        vec![
            Reply::Formed { cluster_id: Uuid(7) },
            Reply::Registered { epoch: 4 },
            Reply::NodeUnregistered,
            Reply::CreateTopics(<_>::default()),
            Reply::DeleteTopics(DeleteTopicsResponse::default()),
            Reply::CreatePartitions(<_>::default()),
            Reply::AlterSettings(vec![altered]),
            Reply::ProducerIds { first: 1000, count: 1000 },
            Reply::AlterReassignments(<_>::default()),
            Reply::Noted { is_taken: true },
            Reply::UpdateFeatures(<_>::default()),
            Reply::Refused { error: refused, message: Str::from("no") },
        ]
    }

    #[test]
    fn what_is_asked_is_what_arrives() {
        for input in inputs() {
            let read = Input::from_bytes(&input.to_bytes().unwrap()).unwrap();
            assert_eq!(format!("{read:?}"), format!("{input:?}"));
        }
        for reply in replies() {
            assert_eq!(Reply::from_bytes(&reply.to_bytes().unwrap()), Ok(reply));
        }
    }

    #[test]
    fn topics_that_an_older_client_names_arrive() {
        let topic_names = vec![Str::from("a"), Str::from("b")];
        let older = DeleteTopicsRequest { topic_names, ..DeleteTopicsRequest::default() };
        let read = Input::from_bytes(&Input::DeleteTopics(older).to_bytes().unwrap()).unwrap();
        let Input::DeleteTopics(read) = read else { panic!("{read:?}") };
        let names: Vec<_> = read.topics.iter().filter_map(|topic| topic.name.as_deref()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn bytes_that_are_cut_or_of_another_kind_are_refused() {
        for whole in inputs().iter().map(|input| input.to_bytes().unwrap()) {
            for len in 0..whole.len() {
                let cut = Input::from_bytes(&whole.slice(..len));
                // A kind alone says all where nothing follows it that counts.
                assert!(cut.is_err() || matches!(cut, Ok(Input::AllocateProducerIds)), "{len}");
            }
        }
        let unknown = Bytes::from_static(&[0x7f, 0xff, 0, 0]);
        assert_eq!(Input::from_bytes(&unknown).unwrap_err(), WireError::Kind(0x7fff));
        assert_eq!(Reply::from_bytes(&unknown), Err(WireError::Kind(0x7fff)));
        assert_eq!(Reply::from_bytes(&Bytes::new()), Err(WireError::Short(0)));
    }
}
