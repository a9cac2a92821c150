//! Records of group 0.

use std::sync::Arc;

use vltava::metadata::features::{LEVEL, Levels};
use vltava::metadata::image::{
    Cluster, NamedLeader, Node, NodeEndpoint, NodeState, Partition, PartitionId, PeerEndpoint,
    Replica,
};
use vltava::metadata::records::{FORMAT_VERSION, Record, TOPIC_RESOURCE};
use vltava_protocol::types::{Str, Uuid};

use crate::golden_lines;

fn replica(id: u8) -> Replica {
    Replica { node_id: id.into(), disk_id: Uuid(u128::from(id) << 64) }
}

fn node(id: i32) -> Node {
    let endpoint = |listener, port| NodeEndpoint {
        listener: Str::from_static(listener),
        host: Str::from_static("kafka.example"),
        port,
    };
    Node {
        id,
        epoch: 4,
        rack: Some(Str::from_static("b")),
        endpoints: vec![endpoint("PLAINTEXT", 9092), endpoint("INSIDE", 19_092)],
        disks: vec![replica(1).disk_id],
        peer_endpoint: None,
        state: NodeState::There,
        levels: Levels::default(),
    }
}

fn cluster(features: &[(&'static str, i16)]) -> Record {
    let feature = |(name, level): &(&'static str, i16)| (Str::from_static(name), *level);
    Record::Cluster(Cluster {
        id: Uuid(0x1234_5678_9abc_4def_8123_4567_89ab_cdef),
        format_version: FORMAT_VERSION,
        features: Arc::new(features.iter().map(feature).collect()),
    })
}

fn settings(kind: i8, entries: &[(&'static str, &'static str)]) -> Record {
    let entry = |(name, value): &(&'static str, &'static str)| {
        (Str::from_static(name), Str::from_static(value))
    };
    let resource = (kind, Str::from_static("orders"));
    Record::Settings(resource, Arc::new(entries.iter().map(entry).collect()))
}

/// One of each kind; those with fields that came later once without them, too.
fn examples() -> Vec<(&'static str, Record)> {
    let topic = Uuid(7 << 64 | 9);
    let partition = |index| PartitionId { topic_id: topic, index };
    let moving = Partition {
        replicas: [2, 3, 1].map(replica).to_vec(),
        adding: vec![replica(3)],
        removing: vec![replica(1)],
        founders: Some([1, 2].map(replica).to_vec()),
        before: Some([1, 2].map(replica).to_vec()),
        changes: 7,
        leader_epoch: 5,
        named: None,
    };
    let led = NamedLeader { epoch: 65_541, replica: replica(1) };
    let named = Partition { named: Some(led), ..moving.clone() };
    let leaving = Node {
        peer_endpoint: Some(PeerEndpoint { host: Str::from_static("10.0.0.1"), port: 7641 }),
        state: NodeState::Removing,
        levels: Levels { min: 2, max: 3 },
        ..node(2)
    };
    vec![
        ("cluster", cluster(&[])),
        ("cluster-at-level-2", cluster(&[(LEVEL, 2)])),
        ("node", Record::Node(1, Some(node(1)))),
        ("node-with-all-fields", Record::Node(2, Some(leaving))),
        ("node-gone", Record::Node(3, None)),
        ("producer-ids", Record::ProducerIds(12_000)),
        ("topic", Record::Topic(topic, Some(Str::from_static("orders")))),
        ("topic-gone", Record::Topic(topic, None)),
        (
            "partition",
            Record::Partition(partition(0), Partition::new([1, 2, 3].map(replica).to_vec())),
        ),
        ("partition-moving", Record::Partition(partition(1), moving)),
        ("topic-settings", settings(TOPIC_RESOURCE, &[("retention.ms", "5"), ("x", "")])),
        ("node-settings", settings(4, &[("log.retention.ms", "5")])),
        ("settings-gone", settings(TOPIC_RESOURCE, &[])),
        ("partition-with-a-named-leader", Record::Partition(partition(2), named)),
    ]
}

#[test]
fn records_of_group_0() {
    let encoded = |(name, record): &(&'static str, Record)| {
        let (key, value) = record.encode().unwrap();
        (*name, vec![Some(key), value])
    };
    let written: Vec<_> = examples().iter().map(encoded).collect();
    let golden = golden_lines("disk/v1/metadata-records", &written);
    for ((name, record), parts) in examples().into_iter().zip(golden) {
        let [Some(key), value] = &parts[..] else { panic!("{name}: a key, and a value or none") };
        assert_eq!(Record::decode(key, value.as_ref()), Ok(record), "{name}");
    }
}
