use proptest::prelude::*;
use vltava_protocol::records::metadata::Key;

use super::*;

fn cluster() -> Record {
    Record::Cluster(Cluster {
        id: Uuid(5),
        format_version: FORMAT_VERSION,
        features: Arc::default(),
    })
}

fn topic(id: u128, name: &str) -> Record {
    Record::Topic(Uuid(id), Some(Str::from(name)))
}

fn partition(id: u128, index: i32, node_id: i32) -> Record {
    let replica = Replica { node_id, disk_id: Uuid(9) };
    Record::Partition(PartitionId { topic_id: Uuid(id), index }, Partition::new(vec![replica]))
}

/// Moves from the disks 1 and 2 to 2 and 3.
fn moving() -> Partition {
    let replica = |id: u8| Replica { node_id: id.into(), disk_id: Uuid(id.into()) };
    Partition {
        replicas: vec![replica(2), replica(3), replica(1)],
        adding: vec![replica(3)],
        removing: vec![replica(1)],
        founders: Some(vec![replica(1), replica(2)]),
        before: Some(vec![replica(1), replica(2)]),
        changes: 3,
        leader_epoch: 7,
        named: None,
    }
}

fn settings(entries: &[(&str, &str)]) -> Settings {
    Arc::new(entries.iter().map(|(name, value)| (Str::from(*name), Str::from(*value))).collect())
}

fn topic_settings(name: &str, entries: &[(&str, &str)]) -> Record {
    Record::Settings((TOPIC_RESOURCE, Str::from(name)), settings(entries))
}

fn image(records: impl IntoIterator<Item = Record>) -> Image {
    let mut image = Image::default();
    for record in records {
        image.apply(record).unwrap();
    }
    image
}

fn two_topics() -> Image {
    image([
        cluster(),
        topic(1, "a"),
        partition(1, 0, 1),
        partition(1, 1, 1),
        topic(2, "b"),
        partition(2, 0, 1),
        topic_settings("b", &[("retention.ms", "5")]),
        Record::ProducerIds(1000),
    ])
}

#[test]
fn records_build_an_image() {
    let image = two_topics();
    assert_eq!(image.cluster().unwrap().id, Uuid(5));
    let a = image.topic("a").unwrap();
    assert_eq!((a.id, a.partition_count()), (Uuid(1), 2));
    assert!(a.has_partition(1) && !a.has_partition(2) && !a.has_partition(-1));
    let b = image.topic_by_id(Uuid(2)).unwrap();
    assert_eq!(b.own_settings().collect::<Vec<_>>(), [("retention.ms", "5")]);
    assert_eq!((image.topic_count(), image.partition_count()), (2, 3));
    assert_eq!(image.next_producer_id(), 1000);
    let names: Vec<&str> = image.topics_from("aa").map(|topic| topic.name.as_str()).collect();
    assert_eq!(names, ["b"]);
}

#[test]
fn a_removed_topic_takes_everything_with_it() {
    let mut image = two_topics();
    let before = image.clone();
    image.apply(Record::Topic(Uuid(1), None)).unwrap();
    assert!(image.topic("a").is_none() && image.topic_by_id(Uuid(1)).is_none());
    assert_eq!((image.topic_count(), image.partition_count()), (1, 1));
    assert!(before.topic("a").is_some(), "an image is not changed by those after it");
    image.apply(topic(3, "a")).unwrap();
    assert_eq!(image.topic("a").unwrap().partition_count(), 0);
}

#[test]
fn what_contradicts_is_refused_and_changes_nothing() {
    let of_partition = |it| Record::Partition(PartitionId { topic_id: Uuid(1), index: 0 }, it);
    let replica = Replica { node_id: 1, disk_id: Uuid(9) };
    let mut image = two_topics();
    let before = image.clone();
    for record in [
        Record::Cluster(Cluster { id: Uuid(6), format_version: 1, features: Arc::default() }),
        Record::Cluster(Cluster {
            id: Uuid(5),
            format_version: FORMAT_VERSION + 1,
            features: Arc::default(),
        }),
        Record::Cluster(Cluster { id: Uuid(5), format_version: 0, features: Arc::default() }),
        topic(1, "b"),
        topic(3, "a"),
        topic(1, "c"),
        partition(3, 0, 1),
        partition(1, 3, 1),
        partition(1, -1, 1),
        of_partition(Partition::new(vec![])),
        of_partition(Partition::new(vec![replica, replica])),
        of_partition(Partition { adding: vec![Replica { node_id: 4, ..replica }], ..moving() }),
        of_partition(Partition { removing: vec![Replica { node_id: 4, ..replica }], ..moving() }),
        of_partition(Partition { removing: moving().replicas, adding: vec![], ..moving() }),
        of_partition(Partition { removing: moving().adding, ..moving() }),
        of_partition(Partition { founders: Some(vec![]), ..moving() }),
        of_partition(Partition { before: Some(vec![]), ..moving() }),
        topic_settings("c", &[("retention.ms", "5")]),
        Record::ProducerIds(999),
    ] {
        assert!(image.apply(record.clone()).is_err(), "{record:?}");
        assert!(image == before, "{record:?}");
    }
    assert!(Image::default().apply(topic(1, "a")).is_err(), "the cluster's record comes first");
}

#[test]
fn a_log_written_anew_may_say_things_twice() {
    let mut image = two_topics();
    let before = image.clone();
    for record in before.to_records(None, usize::MAX) {
        image.apply(record).unwrap();
    }
    assert!(image == before);
}

#[test]
fn a_delta_names_what_changed() {
    let before = two_topics();
    let mut after = before.clone();
    for record in [
        Record::Topic(Uuid(1), None),
        topic(4, "a"),
        partition(4, 0, 1),
        partition(2, 0, 7),
        partition(2, 1, 1),
        topic_settings("b", &[]),
        topic(5, "c"),
        Record::Node(1, Some(some_node(1, 2))),
    ] {
        after.apply(record).unwrap();
    }
    let delta = after.changes_since(&before);
    let ids = |topics: &[&Arc<Topic>]| topics.iter().map(|topic| topic.id.0).collect::<Vec<_>>();
    assert_eq!(ids(&delta.added_topics), [4, 5]);
    assert_eq!(ids(&delta.removed_topics), [1]);
    assert_eq!(delta.changed_topics.len(), 1);
    let change = delta.changed_topics[0];
    assert!(change.has_other_settings());
    let counts = (change.before.partition_count(), change.after.partition_count());
    assert_eq!(counts, (1, 2));
    assert_eq!(delta.changed_nodes.len(), 1);
    let back = before.changes_since(&after);
    assert_eq!(back.removed_nodes, [1]);
    assert_eq!(after.changes_since(&after.clone()), crate::metadata::delta::Delta::default());
}

fn some_node(id: i32, epoch: i64) -> Node {
    let endpoint = NodeEndpoint {
        listener: Str::from_static("PLAINTEXT"),
        host: Str::from_static("localhost"),
        port: 9092,
    };
    let rack = Some(Str::from_static("r"));
    Node {
        id,
        epoch,
        rack,
        endpoints: vec![endpoint],
        disks: vec![Uuid(8)],
        peer_endpoint: None,
        state: NodeState::There,
        levels: Levels::default(),
    }
}

fn text() -> impl Strategy<Value = Str> {
    "[a-d]{1,2}".prop_map(Str::from)
}

fn some_settings() -> impl Strategy<Value = Settings> {
    prop::collection::btree_map(text(), text(), 0..3).prop_map(Arc::new)
}

/// Records as they may come, most of them fitting something.
fn record() -> impl Strategy<Value = Record> {
    let id = || (1..6_u128).prop_map(Uuid);
    let replicas = prop::collection::vec((0..3, 0..2_u128), 0..3);
    prop_oneof![
        1 => Just(cluster()),
        1 => (0..4, any::<bool>(), 0..3_i64).prop_map(|(id, there, epoch): (i32, bool, i64)| {
            let peer_endpoint = PeerEndpoint { host: Str::from_static("h"), port: 9 };
            let peer_endpoint = (epoch > 0).then_some(peer_endpoint);
            let state = NodeState::from_number(id.try_into().unwrap()).unwrap();
            let levels = Levels { min: 1, max: 1 + i16::try_from(epoch).unwrap() };
            let node = Node { peer_endpoint, state, levels, ..some_node(id, epoch) };
            Record::Node(id, there.then_some(node))
        }),
        1 => (0..5_i64).prop_map(Record::ProducerIds),
        3 => (id(), text()).prop_map(|(id, name)| Record::Topic(id, Some(name))),
        1 => id().prop_map(|id| Record::Topic(id, None)),
        6 => (id(), -1..4, replicas).prop_map(|(topic_id, index, replicas)| {
            let replica = |(node_id, disk)| Replica { node_id, disk_id: Uuid(disk) };
            let replicas: Vec<_> = replicas.into_iter().map(replica).collect();
            let mut partition = Partition::new(replicas.clone());
            // Changes under way, some of which cannot be.
            match &replicas[..] {
                [first, second] if index == 1 => {
                    partition.removing.push(*first);
                    partition.adding.push(*second);
                }
                [first, ..] if index == 2 => partition.founders = Some(vec![*first]),
                [first] if index == 3 => partition.adding.push(*first),
                _ => {}
            }
            Record::Partition(PartitionId { topic_id, index }, partition)
        }),
        3 => (prop_oneof![Just(TOPIC_RESOURCE), Just(4), Just(-1)], text(), some_settings())
            .prop_map(|(kind, name, settings)| Record::Settings((kind, name), settings)),
    ]
}

/// What must hold of every image.
fn check(image: &Image) {
    assert_eq!(image.topics.len(), image.topic_names.len());
    let mut partitions = 0;
    for topic in image.topics() {
        assert_eq!(image.topic_names.get(&topic.id), Some(&topic.name));
        partitions += topic.partitions.len();
    }
    assert_eq!(partitions, image.partition_count);
}

proptest! {
    /// Any records: no panic, and the image stays one.
    #[test]
    fn invariants_hold_and_every_image_can_be_written_and_read(
        records in prop::collection::vec(record(), 0..120),
        piece in 1..7_usize,
    ) {
        let mut image = image([cluster()]);
        for record in records {
            let before = image.clone();
            if image.apply(record).is_err() {
                assert!(image == before);
            }
        }
        check(&image);
        let mut again = Image::default();
        let mut after: Option<Key> = None;
        for pieces in 0.. {
            assert!(pieces < 1000, "a snapshot without an end");
            let records = image.to_records(after.as_ref(), piece);
            assert!(records.len() <= piece);
            let Some(last) = records.last() else { break };
            after = Some(Key::decode(&last.encode().unwrap().0).unwrap());
            for record in records {
                let (key, value) = record.encode().unwrap();
                let decoded = Record::decode(&key, value.as_ref()).unwrap();
                assert_eq!(decoded, record);
                again.apply(decoded).unwrap();
            }
        }
        assert!(again == image);
    }

    /// What is no record is refused; what is one can be written again, and applied or refused.
    #[test]
    fn garbage_is_an_error_or_a_record(
        mut key in prop::collection::vec(any::<u8>(), 2..40),
        mut value in prop::collection::vec(0_u8..8, 2..60),
        (kind, version) in (0_u8..8, 0_u8..2),
    ) {
        key[..2].copy_from_slice(&[0, kind]);
        value[..2].copy_from_slice(&[0, version]);
        let (key, value) = (Bytes::from(key), Bytes::from(value));
        let mut image = image([cluster()]);
        for value in [Some(&value), None] {
            if let Ok(record) = Record::decode(&key, value) {
                let (key, value) = record.encode().unwrap();
                prop_assert_eq!(Record::decode(&key, value.as_ref()), Ok(record.clone()));
                let _ = image.apply(record);
            }
        }
    }
}

#[test]
fn tombstones_only_where_something_can_be_removed() {
    let (key, _) = cluster().encode().unwrap();
    assert_eq!(Record::decode(&key, None), Err(RecordError::NoValue("Cluster")));
    let (key, value) = Record::Node(1, None).encode().unwrap();
    assert_eq!(value, None);
    assert_eq!(Record::decode(&key, None), Ok(Record::Node(1, None)));
}

/// The bytes of this format: a log of today is read for ever.
#[test]
fn the_format_stays() {
    let hex = |record: Record| {
        let (key, value) = record.encode().unwrap();
        let hex =
            |bytes: &Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        (hex(&key), value.as_ref().map(hex))
    };
    let golden = [
        hex(cluster()),
        hex(Record::Node(1, Some(some_node(1, 2)))),
        hex(Record::ProducerIds(1000)),
        hex(topic(1, "a")),
        hex(partition(1, 0, 1)),
        hex(topic_settings("a", &[("b", "c")])),
        hex(Record::Partition(PartitionId { topic_id: Uuid(1), index: 0 }, moving())),
        hex(Record::Node(1, Some(leaving_node()))),
    ];
    assert_eq!(golden.len(), GOLDEN.len());
    for (found, (key, value)) in golden.iter().zip(GOLDEN) {
        assert_eq!((found.0.as_str(), found.1.as_deref()), (*key, Some(*value)));
    }
}

fn leaving_node() -> Node {
    let peer_endpoint = PeerEndpoint { host: Str::from_static("h"), port: 9 };
    let peer_endpoint = Some(peer_endpoint);
    Node { peer_endpoint, state: NodeState::Removing, ..some_node(1, 2) }
}

/// Records of before replicas could change say that nothing does.
#[test]
fn what_was_written_first_is_read() {
    let bytes = |hex: &str| -> Bytes {
        let digits = |nth: usize| u8::from_str_radix(&hex[nth..nth + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digits).collect()
    };
    let read = |nth: usize| {
        let (key, value) = GOLDEN[nth];
        Record::decode(&bytes(key), Some(&bytes(value))).unwrap()
    };
    let Record::Partition(_, partition) = read(4) else { panic!() };
    let replicas = vec![Replica { node_id: 1, disk_id: Uuid(9) }];
    assert!(!partition.is_changing() && partition.founders() == replicas);
    assert_eq!(partition, Partition::new(replicas));
    let Record::Node(1, Some(node)) = read(1) else { panic!() };
    assert_eq!(node, some_node(1, 2));
    let Record::Partition(_, partition) = read(6) else { panic!() };
    assert_eq!(partition, moving());
    assert_eq!(partition.target().map(|it| it.node_id).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(read(7), Record::Node(1, Some(leaving_node())));
}

#[test]
fn a_node_in_a_state_that_nobody_knows_is_refused() {
    let (key, value) = Record::Node(1, Some(leaving_node())).encode().unwrap();
    let mut value = value.unwrap().to_vec();
    *value.last_mut().unwrap() = 9;
    let read = Record::decode(&key, Some(&Bytes::from(value)));
    assert!(matches!(read, Err(RecordError::Inconsistent(_))), "{read:?}");
}

const GOLDEN: &[(&str, &str)] = &[
    ("0000", "00000000000000000000000000000000000500010100"),
    (
        "000100000001",
        "000000000000000000020272020a504c41494e544558540a6c6f63616c686f7374238400020000000000000000\
         000000000000000800",
    ),
    ("0002", "000000000000000003e800"),
    ("000300000000000000000000000000000001", "0000026100"),
    (
        "00040000000000000000000000000000000100000000",
        "00000200000001000000000000000000000000000000090000",
    ),
    ("000502000161", "000002026202630000"),
    (
        "00040000000000000000000000000000000100000000",
        "000004000000020000000000000000000000000000000200000000030000000000000000000000000000\
         000300000000010000000000000000000000000000000100060016020000000300000000000000000000\
         00000000000300011602000000010000000000000000000000000000000100022b030000000100000000\
         00000000000000000000000100000000020000000000000000000000000000000200032b030000000100\
         000000000000000000000000000001000000000200000000000000000000000000000002000404000000\
         03050400000007",
    ),
    (
        "000100000001",
        "000000000000000000020272020a504c41494e544558540a6c6f63616c686f7374238400020000000000\
         0000000000000000000008020006010268000900010102",
    ),
];
