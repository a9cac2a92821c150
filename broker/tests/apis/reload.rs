//! What a group coordinator does when its log is loaded again.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vltava_client::blocking::{Address, Link};
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::message::Message;
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};
use vltava_protocol::records::group::{OffsetCommitKey, OffsetCommitValue};
use vltava_protocol::types::{Str, Uuid};

use crate::support::{Broker, Options, PATIENCE, wire};

const GROUP: Str = Str::from_static("group");
/// Whoever calls itself so may write into internal topics.
const ADMIN_CLIENT: Str = Str::from_static("__admin_client");

/// The record of an offset, as a coordinator writes it.
fn offset(topic: &str, topic_id: Uuid) -> (Bytes, Bytes) {
    let key = OffsetCommitKey { group: GROUP, topic: Str::from(topic), partition: 0 };
    let value = OffsetCommitValue { offset: 7, topic_id, ..OffsetCommitValue::default() };
    let key = key.to_key_bytes().expect("a key");
    (key, value.to_value_bytes(OffsetCommitValue::VERSION_MAX).expect("a value"))
}

/// Topics that the group has offsets of; `None` while its coordinator loads.
fn topics(link: &mut Link) -> Option<Vec<Str>> {
    let group = OffsetFetchRequestGroup { group_id: GROUP, ..OffsetFetchRequestGroup::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
    link.send_at(&request, 9).expect("a question");
    let mut answer = link.receive::<OffsetFetchRequest>().expect("offsets");
    let group = answer.groups.remove(0);
    let is_loaded = group.error_code != ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
    is_loaded.then(|| group.topics.into_iter().map(|topic| topic.name).collect())
}

#[test]
fn offsets_of_topics_that_went_while_nobody_led_end() {
    let mut options = Options { shards: 2, ..Options::default() };
    options.settings.push(("offsets.topic.num.partitions", "1".to_owned()));
    let mut broker = Broker::start(options);
    let address = Address { host: broker.address.ip().to_string(), port: broker.address.port() };
    let mut link = Link::open(&address, &ADMIN_CLIENT).expect("a connection");
    wire::create_topic(&mut link, "there", 1, &[]).expect("a topic");
    let request = FindCoordinatorRequest { coordinator_keys: vec![GROUP], ..Default::default() };
    link.call(&request).expect("a coordinator");
    // As after a crash between the end of a topic and that of its offsets.
    let mut builder = BatchBuilder::new();
    let all = [("gone", Uuid(7)), ("there", Uuid::ZERO), ("nameless", Uuid::ZERO)];
    for (topic, id) in all {
        let (key, value) = offset(topic, id);
        builder.append(1_600_000_000_000, Some(&key), Some(&value), &[]).expect("a record");
    }
    let written = wire::produce(&mut link, "__consumer_offsets", 0, builder.build().into());
    assert_eq!(written.expect("an answer").error_code, ErrorCode::NONE);

    broker.restart();
    let mut link = wire::connect(broker.address).expect("a connection");
    let mut seen = None;
    for _ in 0..PATIENCE.as_millis() / 10 {
        seen = topics(&mut link);
        if seen.as_ref().is_some_and(|topics| topics.len() == 1) {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(seen, Some(vec![Str::from_static("there")]));
}

/// Commits an offset for all partitions of a topic.
fn commit(link: &mut Link, topic: &str, partitions: i32, offset: i64) {
    let partition = |index| OffsetCommitRequestPartition {
        partition_index: index,
        committed_offset: offset,
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: Str::from(topic),
        partitions: (0..partitions).map(partition).collect(),
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: GROUP,
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    link.send_at(&request, 8).expect("a commit");
    let answer = link.receive::<OffsetCommitRequest>().expect("an answer");
    let errors = answer.topics.iter().flat_map(|topic| &topic.partitions);
    assert!(errors.clone().all(|partition| partition.error_code.is_none()), "{answer:?}");
}

/// Bytes of the log of offsets, allocated space behind its end included.
fn log_bytes(broker: &Broker) -> u64 {
    let folder = broker.data.join("__consumer_offsets-0");
    let files = fs::read_dir(folder).expect("the log's directory").flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

#[test]
fn the_log_of_offsets_stays_short_however_much_is_committed() {
    const PARTITIONS: i32 = 50;
    const ROUNDS: i64 = 1200;
    let mut options = Options::default();
    options.settings.push(("offsets.topic.num.partitions", "1".to_owned()));
    options.settings.push(("offsets.topic.segment.bytes", "1048576".to_owned()));
    let mut broker = Broker::start(options);
    let mut link = wire::connect(broker.address).expect("a connection");
    wire::create_topic(&mut link, "read", PARTITIONS, &[]).expect("a topic");
    let request = FindCoordinatorRequest { coordinator_keys: vec![GROUP], ..Default::default() };
    link.call(&request).expect("a coordinator");
    let mut largest = 0;
    for round in 0..ROUNDS {
        commit(&mut link, "read", PARTITIONS, round);
        if round % 50 == 0 {
            largest = largest.max(log_bytes(&broker));
        }
    }
    // 60,000 offsets are six segments or more.
    assert!(largest < 4 << 20, "the log of offsets grew to {largest} bytes");
    broker.kill();
    broker.run();
    let mut link = wire::connect(broker.address).expect("a connection");
    let group = OffsetFetchRequestGroup { group_id: GROUP, ..OffsetFetchRequestGroup::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
    let deadline = Instant::now() + PATIENCE;
    let group = loop {
        link.send_at(&request, 9).expect("a question");
        let group = link.receive::<OffsetFetchRequest>().expect("offsets").groups.remove(0);
        if !group.error_code.is_retriable() || Instant::now() > deadline {
            break group;
        }
    };
    assert!(group.error_code.is_none(), "{:?}", group.error_code);
    let found: Vec<i64> = group.topics[0].partitions.iter().map(|p| p.committed_offset).collect();
    assert_eq!(found, vec![ROUNDS - 1; PARTITIONS as usize]);
}
