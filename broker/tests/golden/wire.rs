//! What nodes ask of each other and of a controller, and the answers: a node of another release
//! understands it, as long as it serves the same level.

use vltava::cluster::alter_settings::{Alteration, Altered, Change, Resource};
use vltava::cluster::controller::{Input, Reply};
use vltava::cluster::name_leader::Nomination;
use vltava::cluster::nodes::Registration;
use vltava::cluster::reassign::Report;
use vltava::metadata::features::Levels;
use vltava::metadata::image::{NodeEndpoint, PartitionId, PeerEndpoint, Replica};
use vltava::metadata::leaders::Leader;
use vltava::node::form::Standing;
use vltava::node::identity::{Founder, Founding};
use vltava::node::messages;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use vltava_protocol::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use vltava_protocol::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use vltava_protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use vltava_protocol::messages::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use vltava_protocol::types::{Str, Uuid};

use crate::golden_lines;

fn alteration() -> Alteration {
    let value = Some(Str::from_static("5"));
    let change = Change { name: Str::from_static("retention.ms"), operation: 0, value };
    let resource = Resource { kind: 2, name: Str::from_static("orders"), changes: vec![change] };
    Alteration { resources: vec![resource], is_incremental: true, validate_only: false, node_id: 3 }
}

fn registration(levels: Levels, peer_endpoint: Option<PeerEndpoint>) -> Registration {
    let endpoint = NodeEndpoint {
        listener: Str::from_static("PLAINTEXT"),
        host: Str::from_static("kafka.example"),
        port: 9092,
    };
    Registration {
        node_id: 3,
        rack: Some(Str::from_static("b")),
        endpoints: vec![endpoint],
        disks: vec![Uuid(9 << 64)],
        levels,
        peer_endpoint,
    }
}

fn report() -> Report {
    let partition = PartitionId { topic_id: Uuid(6 << 64), index: 2 };
    Report { partition, changes: 4, leader_epoch: 5 }
}

fn inputs() -> Vec<(&'static str, Input)> {
    let orders = || Str::from_static("orders");
    let topic = CreatableTopic {
        name: orders(),
        num_partitions: 3,
        replication_factor: 3,
        ..CreatableTopic::default()
    };
    let create = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    let topic = DeleteTopicState { name: Some(orders()), topic_id: Uuid::ZERO };
    let delete = DeleteTopicsRequest { topics: vec![topic], ..DeleteTopicsRequest::default() };
    let topic = CreatePartitionsTopic { name: orders(), count: 5, assignments: None };
    let grow =
        CreatePartitionsRequest { topics: vec![topic], ..CreatePartitionsRequest::default() };
    let update = FeatureUpdateKey {
        feature: Str::from_static("vltava.level"),
        max_version_level: 2,
        ..FeatureUpdateKey::default()
    };
    let raise =
        UpdateFeaturesRequest { feature_updates: vec![update], ..UpdateFeaturesRequest::default() };
    let partition = ReassignablePartition { replicas: Some(vec![2, 3]), ..Default::default() };
    let topic = ReassignableTopic { name: orders(), partitions: vec![partition] };
    let reassign = AlterPartitionReassignmentsRequest { topics: vec![topic], ..Default::default() };
    let endpoint = Some(PeerEndpoint { host: Str::from_static("10.0.0.3"), port: 7641 });
    let later = Levels { min: 1, max: 2 };
    let leader = Replica { node_id: 3, disk_id: Uuid(9 << 64) };
    let Report { partition, changes, .. } = report();
    let nomination = Nomination { partition, changes, newest_epoch: 6, leader };
    let voters = vec![Replica { node_id: 2, disk_id: Uuid(8 << 64) }];
    vec![
        ("form", Input::Form { cluster_id: Uuid(7 << 64), level: 1 }),
        ("form-at-level-2", Input::Form { cluster_id: Uuid(7 << 64), level: 2 }),
        ("register", Input::RegisterNode(registration(Levels::default(), None))),
        ("register-with-all-fields", Input::RegisterNode(registration(later, endpoint))),
        ("unregister", Input::UnregisterNode { node_id: 3 }),
        ("create-topics", Input::CreateTopics { request: create, random: 5 << 64 }),
        ("delete-topics", Input::DeleteTopics(delete)),
        ("create-partitions", Input::CreatePartitions(grow)),
        ("alter-settings", Input::AlterSettings(alteration())),
        ("producer-ids", Input::AllocateProducerIds),
        ("update-features", Input::UpdateFeatures(raise)),
        ("alter-reassignments", Input::AlterReassignments(reassign)),
        ("lead-change", Input::LeadChange(report())),
        ("name-leader", Input::NameLeader(nomination)),
        ("members-changed", Input::MembersChanged { report: report(), voters }),
    ]
}

fn replies() -> Vec<(&'static str, Reply)> {
    let altered = Altered {
        kind: 2,
        name: Str::from_static("orders"),
        error_code: ErrorCode::INVALID_CONFIG,
        error_message: Some(Str::from_static("no")),
    };
    let refused =
        Reply::Refused { error: ErrorCode::POLICY_VIOLATION, message: Str::from_static("no") };
    vec![
        ("formed", Reply::Formed { cluster_id: Uuid(7 << 64) }),
        ("registered", Reply::Registered { epoch: 4 }),
        ("unregistered", Reply::NodeUnregistered),
        ("topics-created", Reply::CreateTopics(<_>::default())),
        ("topics-deleted", Reply::DeleteTopics(<_>::default())),
        ("partitions-created", Reply::CreatePartitions(<_>::default())),
        ("settings-altered", Reply::AlterSettings(vec![altered])),
        ("producer-id-block", Reply::ProducerIds { first: 1000, count: 1000 }),
        ("reassignments-altered", Reply::AlterReassignments(<_>::default())),
        ("noted", Reply::Noted { is_taken: true }),
        ("features-updated", Reply::UpdateFeatures(<_>::default())),
        ("refused", refused),
    ]
}

#[test]
fn what_controllers_are_asked_and_answer() {
    let mut written: Vec<_> = inputs()
        .iter()
        .map(|(name, input)| (*name, vec![Some(input.to_bytes().unwrap())]))
        .collect();
    let answers = replies();
    written.extend(answers.iter().map(|(name, it)| (*name, vec![Some(it.to_bytes().unwrap())])));
    let mut golden = golden_lines("wire/v1/controller", &written).into_iter();
    let mut next = || golden.next().and_then(|mut parts| parts.remove(0)).expect("bytes");
    for (name, input) in inputs() {
        let read = Input::from_bytes(&next()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{input:?}"), "{name}");
    }
    for (name, reply) in replies() {
        assert_eq!(Reply::from_bytes(&next()), Ok(reply), "{name}");
    }
}

#[test]
fn what_nodes_say_of_themselves_and_of_leaders() {
    let founder = Founder { node_id: 2, disk_id: Uuid(8 << 64) };
    let founding = Founding { cluster_id: Uuid(5 << 64), founders: vec![founder] };
    let standing = |founding| Standing { disk_id: Uuid(8 << 64), founding };
    let (outside, inside) = (standing(None), standing(Some(founding)));
    let in_sync = [3, 1].into();
    let leader = Leader { node_id: 3, epoch: 4, in_sync_version: 9, in_sync };
    let leaders = vec![(PartitionId { topic_id: Uuid(6 << 64), index: 2 }, leader)];
    let bytes = [
        ("standing-outside", messages::standing_to_bytes(2, &outside)),
        ("standing-inside", messages::standing_to_bytes(2, &inside)),
        ("leaders", messages::leaders_to_bytes(&leaders)),
    ];
    let written = bytes.map(|(name, bytes)| (name, vec![Some(bytes.unwrap())]));
    let golden = golden_lines("wire/v1/nodes", &written).concat();
    let [Some(first), Some(second), Some(third)] = &golden[..] else { panic!("three messages") };
    assert_eq!(messages::standing_from_bytes(first), Ok((2, outside)));
    assert_eq!(messages::standing_from_bytes(second), Ok((2, inside)));
    assert_eq!(messages::leaders_from_bytes(third), Ok(leaders));
}
