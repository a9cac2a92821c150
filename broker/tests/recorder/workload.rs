//! What the clients do: everything whose answer is a promise.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use vltava_protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use vltava_protocol::messages::init_producer_id::InitProducerIdRequest;
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::produce::ProduceRequest;
use vltava_protocol::types::{Str, Uuid};

use crate::check::{AnswerId, Promise};
use crate::client::{Client, Promises};
use crate::support::wire::{PRODUCE_VERSION, create_topic_request, produce_request};

/// A topic of small batches, and how many partitions it has.
pub const MANY: (&str, i32) = ("many", 6);
/// A topic whose segments are full soon.
pub const ROLLING: (&str, i32) = ("rolling", 2);
/// The smallest that a segment may be.
const SEGMENT_BYTES: usize = 1 << 20;
/// What one batch of the second topic has.
const LARGE_BYTES: usize = 150_000;
/// Batches of it that fill more than two segments.
const LARGE_BATCHES: i32 = 16;
/// Requests that a producer has under way.
const IN_FLIGHT_MAX: usize = 5;
/// So many that zeros go ahead of the logs they trickle into.
const BATCHES_PER_PRODUCER: i32 = 150;
/// OffsetCommit in the last version that names topics by name.
const OFFSET_COMMIT_VERSION: i16 = 9;
/// Two segments are closed by then.
const DELETED_TO: i64 = 14;

/// Everybody at once, to the end. `round` tells what is written from what another round wrote.
pub fn run(address: SocketAddr, round: i32, promises: &Promises) {
    thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || small_batches(address, round, number, promises));
        }
        for partition in 0..ROLLING.1 {
            scope.spawn(move || large_batches(address, round, partition, promises));
        }
        scope.spawn(move || commits(address, round, promises));
        scope.spawn(move || administration(address, round, promises));
    });
    for partition in 0..ROLLING.1 {
        delete_records(address, partition, i64::from(round) * DELETED_TO + DELETED_TO, promises);
    }
}

/// Makes the topics that all rounds write to.
pub fn set_up(address: SocketAddr, promises: &Promises) {
    let mut client = Client::connect(address, promises);
    create(&mut client, MANY.0, MANY.1, &[], promises);
    let segment_bytes = SEGMENT_BYTES.to_string();
    let segments = [("segment.bytes", segment_bytes.as_str())];
    create(&mut client, ROLLING.0, ROLLING.1, &segments, promises);
}

fn create(
    client: &mut Client,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
    promises: &Promises,
) -> Uuid {
    let request = create_topic_request(name, partitions, configs);
    let (answer, mut response) = client.call(&request);
    let created = response.topics.remove(0);
    assert_eq!(created.error_code, ErrorCode::NONE);
    promises.add(answer, noted("__cluster_metadata-0", name.as_bytes().to_vec(), 1));
    created.topic_id
}

fn noted(prefix: &'static str, bytes: Vec<u8>, batches: usize) -> Promise {
    Promise::Noted { prefix, bytes, batches }
}

/// A producer with requests under way, and what it will be promised.
struct Producer<'a> {
    client: Client,
    promises: &'a Promises,
    sent: VecDeque<(AnswerId, String, Vec<u8>)>,
}

impl Producer<'_> {
    fn send(&mut self, topic: &str, partition: i32, acks: i16, batch: &Bytes, mark: &[u8]) {
        if self.sent.len() == IN_FLIGHT_MAX {
            self.receive();
        }
        let request = produce_request(topic, partition, acks, batch.clone());
        let answer = self.client.send_at(&request, PRODUCE_VERSION);
        self.sent.push_back((answer, format!("{topic}-{partition}"), mark.to_vec()));
    }

    fn receive(&mut self) {
        let mut response = self.client.receive::<ProduceRequest>();
        let written = response.responses.remove(0).partition_responses.remove(0);
        let (answer, directory, bytes) = self.sent.pop_front().unwrap();
        assert_eq!(written.error_code, ErrorCode::NONE, "{directory}");
        let base_offset = written.base_offset;
        self.promises.add(answer, Promise::Batch { directory, base_offset, bytes });
    }
}

impl Drop for Producer<'_> {
    fn drop(&mut self) {
        while !thread::panicking() && !self.sent.is_empty() {
            self.receive();
        }
    }
}

fn producer(address: SocketAddr, promises: &Promises) -> Producer<'_> {
    Producer { client: Client::connect(address, promises), promises, sent: VecDeque::new() }
}

/// Batches of all sizes to all partitions, with acks=all and acks=1; every second producer is an
/// idempotent one, and sends some of them twice.
fn small_batches(address: SocketAddr, round: i32, number: i32, promises: &Promises) {
    let mut producer = producer(address, promises);
    let id = (number % 2 == 0).then(|| {
        let (_, response) = producer.client.call(&InitProducerIdRequest::default());
        assert_eq!(response.error_code, ErrorCode::NONE);
        (response.producer_id, response.producer_epoch)
    });
    let mut sequences = BTreeMap::new();
    for batch in 0..BATCHES_PER_PRODUCER {
        let partition = (batch * 5 + number) % MANY.1;
        let records = 1 + batch % 3;
        let mark = format!("mark {round} {number} {batch} .");
        let mut builder = BatchBuilder::new();
        if let Some((id, epoch)) = id {
            let sequence = sequences.entry(partition).or_insert(0);
            builder = builder.producer(id, epoch, *sequence);
            *sequence += records;
        }
        for record in 0..records {
            let filler = usize::try_from(batch * 97 * (record + 1) % 3000).unwrap();
            let value = format!("{mark}{}", "x".repeat(filler));
            builder.append(0, None, Some(value.as_bytes()), &[]).unwrap();
        }
        let bytes = Bytes::from(builder.build());
        let acks = if batch % 2 == 0 { -1 } else { 1 };
        producer.send(MANY.0, partition, acks, &bytes, mark.as_bytes());
        if id.is_some() && batch % 7 == 0 {
            producer.send(MANY.0, partition, acks, &bytes, mark.as_bytes());
        }
    }
}

/// Batches that fill segments.
fn large_batches(address: SocketAddr, round: i32, partition: i32, promises: &Promises) {
    let mut producer = producer(address, promises);
    for batch in 0..LARGE_BATCHES {
        let mark = format!("large {round} {partition} {batch} .");
        let value = format!("{mark}{}", "y".repeat(LARGE_BYTES));
        let mut builder = BatchBuilder::new();
        builder.append(0, None, Some(value.as_bytes()), &[]).unwrap();
        let acks = if batch % 2 == 0 { 1 } else { -1 };
        let bytes = Bytes::from(builder.build());
        producer.send(ROLLING.0, partition, acks, &bytes, mark.as_bytes());
    }
}

/// Offsets of a group without members.
fn commits(address: SocketAddr, round: i32, promises: &Promises) {
    let mut client = Client::connect(address, promises);
    let group = Str::from("recorded");
    let find = FindCoordinatorRequest {
        coordinator_keys: vec![group.clone()],
        ..FindCoordinatorRequest::default()
    };
    while !client.call(&find).1.coordinators[0].error_code.is_none() {
        thread::sleep(Duration::from_millis(10)); // Its topic is being made, as for any client.
    }
    for number in 0..20 {
        let mark = format!("commit {round} {number} .");
        let partition = OffsetCommitRequestPartition {
            partition_index: number % MANY.1,
            committed_offset: i64::from(number),
            committed_metadata: Some(Str::from(mark.as_str())),
            ..OffsetCommitRequestPartition::default()
        };
        let topic = OffsetCommitRequestTopic {
            name: Str::from(MANY.0),
            partitions: vec![partition],
            ..OffsetCommitRequestTopic::default()
        };
        let commit = OffsetCommitRequest {
            group_id: group.clone(),
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        loop {
            let (answer, mut response) = client.call_at(&commit, OFFSET_COMMIT_VERSION);
            let code = response.topics.remove(0).partitions.remove(0).error_code;
            if code.is_none() {
                promises.add(answer, noted("__consumer_offsets-", mark.into_bytes(), 1));
                break;
            }
            assert!(code.is_retriable(), "{code:?}");
            thread::sleep(Duration::from_millis(10)); // Its log is being read.
        }
    }
}

/// Topics made, changed and deleted.
fn administration(address: SocketAddr, round: i32, promises: &Promises) {
    let mut client = Client::connect(address, promises);
    for number in 0..3 {
        let name = format!("short-lived-{round}-{number}");
        let id = create(&mut client, &name, 2, &[], promises);
        let value = format!("6048{round:02}{number:02}00");
        let config = AlterableConfig {
            name: Str::from("retention.ms"),
            value: Some(Str::from(value.as_str())),
            ..AlterableConfig::default()
        };
        let resource = AlterConfigsResource {
            resource_type: 2, // A topic.
            resource_name: Str::from(name.as_str()),
            configs: vec![config],
        };
        let change = IncrementalAlterConfigsRequest {
            resources: vec![resource],
            ..IncrementalAlterConfigsRequest::default()
        };
        let (answer, response) = client.call(&change);
        assert_eq!(response.responses[0].error_code, ErrorCode::NONE);
        promises.add(answer, noted("__cluster_metadata-0", value.into_bytes(), 1));
        let state = DeleteTopicState { topic_id: id, ..DeleteTopicState::default() };
        let delete = DeleteTopicsRequest {
            topics: vec![state],
            timeout_ms: 30_000,
            ..DeleteTopicsRequest::default()
        };
        let (answer, response) = client.call(&delete);
        assert_eq!(response.responses[0].error_code, ErrorCode::NONE);
        // One made it, one took it away.
        let id = id.0.to_be_bytes().to_vec();
        promises.add(answer, noted("__cluster_metadata-0", id, 2));
    }
}

fn delete_records(address: SocketAddr, partition: i32, offset: i64, promises: &Promises) {
    let mut client = Client::connect(address, promises);
    let deleted = DeleteRecordsPartition { partition_index: partition, offset };
    let topic = DeleteRecordsTopic { name: Str::from(ROLLING.0), partitions: vec![deleted] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000 };
    let (answer, response) = client.call(&request);
    let result = &response.topics[0].partitions[0];
    assert_eq!((result.error_code, result.low_watermark), (ErrorCode::NONE, offset));
    let directory = format!("{}-{partition}", ROLLING.0);
    promises.add(answer, Promise::LogStart { directory, offset });
}
