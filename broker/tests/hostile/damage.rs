//! Files that are damaged or gone: what can be made whole again is, what cannot stays as it is and
//! is named; nothing is deleted, and nobody is served something else in its place.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_fetch::OffsetFetchRequest;

use crate::refusals::refuses;
use crate::support::{Broker, Options, PATIENCE, get, wire};

/// A broker with records in `t-0` and `u-0`.
fn with_records() -> Broker {
    let broker = Broker::start(Options::default());
    let mut link = wire::connect(broker.address).unwrap();
    for topic in ["t", "u"] {
        assert!(wire::create_topic(&mut link, topic, 1, &[]).unwrap().is_none());
        for value in [b"one", b"two"] {
            let answer = wire::produce(&mut link, topic, 0, wire::batch(&[value])).unwrap();
            assert!(answer.error_code.is_none(), "{:?}", answer.error_code);
        }
    }
    broker
}

fn values(broker: &Broker, topic: &str) -> Vec<Vec<u8>> {
    let mut link = wire::connect(broker.address).unwrap();
    let read = wire::read_all(&mut link, topic, 0).unwrap();
    read.into_iter().map(|(_, value)| value).collect()
}

fn produced(broker: &Broker, topic: &str) -> ErrorCode {
    let mut link = wire::connect(broker.address).unwrap();
    wire::produce(&mut link, topic, 0, wire::batch(&[b"more"])).unwrap().error_code
}

/// Flips a bit of the last place in a file where these bytes stand.
fn flip(path: &Path, bytes: &[u8]) {
    let mut content = fs::read(path).unwrap();
    let at = content.windows(bytes.len()).rposition(|window| window == bytes);
    content[at.expect("what is to be damaged")] ^= 1;
    fs::write(path, content).unwrap();
}

#[test]
fn a_damaged_or_lost_copy_of_the_topic_id() {
    let mut broker = with_records();
    let path = broker.data.join("t-0/partition.metadata");
    let before = fs::read(&path).unwrap();
    let id = String::from_utf8_lossy(&before[before.len() - 22..]).into_owned();
    assert!(broker.stop().success());
    flip(&path, id.as_bytes());
    broker.run();
    assert_eq!(values(&broker, "t"), [b"one", b"two"]);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(broker.errors().contains("t-0/partition.metadata"), "{}", broker.said());
    assert!(broker.stop().success());
    fs::remove_file(&path).unwrap();
    broker.run();
    assert_eq!(values(&broker, "t"), [b"one", b"two"]);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(broker.stop().success());
}

#[test]
fn a_directory_without_its_group_0() {
    let mut broker = with_records();
    assert!(broker.stop().success());
    let (group, aside) = (broker.data.join("__cluster_metadata-0"), broker.data.join("aside"));
    fs::rename(&group, &aside).unwrap();
    refuses(&mut broker, &["__cluster_metadata-0", "missing", "meta.properties"]);
    let identity = broker.data.join("meta.properties");
    let kept = fs::read(&identity).unwrap();
    fs::remove_file(&identity).unwrap();
    refuses(&mut broker, &["__cluster_metadata-0", "missing"]);
    fs::rename(&aside, &group).unwrap();
    refuses(&mut broker, &["meta.properties is missing"]);
    fs::write(&identity, kept).unwrap();
    broker.run();
    assert_eq!(values(&broker, "t"), [b"one", b"two"]);
}

#[test]
fn a_partition_without_its_directory() {
    let mut broker = with_records();
    assert!(broker.stop().success());
    let (log, aside) = (broker.data.join("t-0"), broker.data.join("aside"));
    fs::rename(&log, &aside).unwrap();
    // It is still known at the second start.
    for _ in 0..2 {
        broker.run();
        assert_eq!(produced(&broker, "t"), ErrorCode::KAFKA_STORAGE_ERROR);
        assert_eq!(produced(&broker, "u"), ErrorCode::NONE);
        let (status, reasons) = get(broker.admin, "/ready").unwrap();
        assert_eq!(status, 503);
        assert!(reasons.contains("t-0 is missing"), "{reasons}");
        assert!(broker.errors().contains("t-0 is missing"), "{}", broker.said());
        assert!(broker.stop().success());
        assert!(!log.exists());
    }
    // Put back, it is as it was.
    fs::rename(&aside, &log).unwrap();
    broker.run();
    assert_eq!(values(&broker, "t"), [b"one", b"two"]);
    assert!(broker.stop().success());
    // Given up, its name can be used again.
    fs::remove_dir_all(&log).unwrap();
    broker.run();
    let mut link = wire::connect(broker.address).unwrap();
    assert!(wire::delete_topic(&mut link, "t").unwrap().is_none());
    assert!(wire::create_topic(&mut link, "t", 1, &[]).unwrap().is_none());
    assert_eq!(produced(&broker, "t"), ErrorCode::NONE);
    broker.restart();
    assert_eq!(values(&broker, "t"), [b"more"]);
}

#[test]
fn a_damaged_log_goes_with_its_topic_and_no_other_does() {
    let mut broker = with_records();
    assert!(broker.stop().success());
    let path = broker.data.join("t-0/vltava-checkpoint");
    let mut content = fs::read(&path).unwrap();
    content[20] ^= 1;
    fs::write(&path, content).unwrap();
    // Somebody else's log in the place of that of `u`.
    fs::rename(broker.data.join("u-0"), broker.data.join("aside")).unwrap();
    let (theirs, place) = (broker.data.join("__cluster_metadata-0"), broker.data.join("u-0"));
    let copied = Command::new("cp").arg("-r").args([theirs, place]).status();
    assert!(copied.unwrap().success());
    broker.run();
    let mut link = wire::connect(broker.address).unwrap();
    for topic in ["t", "u"] {
        assert_eq!(produced(&broker, topic), ErrorCode::KAFKA_STORAGE_ERROR);
        assert!(wire::delete_topic(&mut link, topic).unwrap().is_none());
    }
    assert!(!broker.data.join("t-0").exists());
    assert!(broker.data.join("u-0").exists());
    assert!(wire::create_topic(&mut link, "t", 1, &[]).unwrap().is_none());
    assert_eq!(produced(&broker, "t"), ErrorCode::NONE);
    assert_eq!(values(&broker, "t"), [b"more"]);
}

#[test]
fn a_partition_is_missed_that_was_made_just_before_a_kill() {
    let mut broker = Broker::start(Options::default());
    let mut link = wire::connect(broker.address).unwrap();
    assert!(wire::create_topic(&mut link, "t", 3, &[]).unwrap().is_none());
    broker.kill();
    fs::remove_dir_all(broker.data.join("t-0")).unwrap();
    broker.run();
    assert_eq!(produced(&broker, "t"), ErrorCode::KAFKA_STORAGE_ERROR);
}

#[test]
fn a_partition_in_the_place_of_another() {
    let mut broker = with_records();
    assert!(broker.stop().success());
    let (ours, other) = (broker.data.join("t-0"), broker.data.join("u-0"));
    fs::rename(&ours, broker.data.join("aside")).unwrap();
    fs::rename(&other, &ours).unwrap();
    broker.run();
    assert_eq!(produced(&broker, "t"), ErrorCode::KAFKA_STORAGE_ERROR);
    assert_eq!(produced(&broker, "u"), ErrorCode::KAFKA_STORAGE_ERROR);
    assert!(broker.stop().success());
    fs::rename(&ours, &other).unwrap();
    fs::rename(broker.data.join("aside"), &ours).unwrap();
    broker.run();
    assert_eq!(values(&broker, "u"), [b"one", b"two"]);
}

#[test]
fn a_flipped_bit_in_group_0() {
    let mut broker = Broker::start(Options::default());
    let mut link = wire::connect(broker.address).unwrap();
    assert!(wire::create_topic(&mut link, "a-name-of-its-own", 1, &[]).unwrap().is_none());
    assert!(broker.stop().success());
    let said = broker.errors();
    let log = broker.data.join("__cluster_metadata-0/00000000000000000000.log");
    flip(&log, b"a-name-of-its-own");
    assert!(broker.try_run().is_err(), "it started");
    let now = broker.errors();
    let line = now[said.len()..].lines().last().expect("a line");
    assert!(line.contains("__cluster_metadata-0") && line.contains("CRC"), "{line}");
}

#[test]
fn a_flipped_bit_in_committed_offsets() {
    let settings = vec![("offsets.topic.num.partitions", "1".to_owned())];
    let mut broker = Broker::start(Options { settings, ..Options::default() });
    let mut link = wire::connect(broker.address).unwrap();
    assert!(wire::create_topic(&mut link, "t", 1, &[]).unwrap().is_none());
    commit(&broker);
    assert!(broker.stop().success());
    let log = broker.data.join("__consumer_offsets-0/00000000000000000000.log");
    flip(&log, b"a note of its own");
    broker.run();
    let request = OffsetFetchRequest { group_id: "g".into(), ..OffsetFetchRequest::default() };
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        let mut link = wire::connect(broker.address).unwrap();
        link.send_at(&request, 5).unwrap();
        let error = link.receive::<OffsetFetchRequest>().unwrap().error_code;
        if error != ErrorCode::COORDINATOR_LOAD_IN_PROGRESS || Instant::now() > deadline {
            break error;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(error, ErrorCode::NOT_COORDINATOR);
    let (status, reasons) = get(broker.admin, "/ready").unwrap();
    assert_eq!(status, 503);
    assert!(reasons.contains("__consumer_offsets-0"), "{reasons}");
    // Everything else goes on.
    assert_eq!(produced(&broker, "t"), ErrorCode::NONE);
}

/// Commits an offset, as soon as the coordinator is there.
fn commit(broker: &Broker) {
    let partition = OffsetCommitRequestPartition {
        committed_offset: 7,
        committed_metadata: Some("a note of its own".into()),
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: "t".into(),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    let mut link = wire::connect(broker.address).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        // The first one makes the topic.
        let find = FindCoordinatorRequest { key: "g".into(), ..FindCoordinatorRequest::default() };
        link.send_at(&find, 3).unwrap();
        let _found_or_not = link.receive::<FindCoordinatorRequest>().unwrap();
        link.send_at(&request, 5).unwrap();
        let answer = link.receive::<OffsetCommitRequest>().unwrap();
        let error = answer.topics[0].partitions[0].error_code;
        if error.is_none() {
            return;
        }
        assert!(Instant::now() < deadline, "{error:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
