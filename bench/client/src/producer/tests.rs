use vltava_protocol::batch::{Batch, walk};
use vltava_protocol::compression::Codec;
use vltava_protocol::messages::produce::TopicProduceResponse;
use vltava_protocol::types::Uuid;

use super::*;
use crate::metadata::{Partition, Topic};

const TOPIC: Str = Str::from_static("topic");
const TOPIC_ID: Uuid = Uuid(77);

fn at(partition: i32) -> TopicPartition {
    TopicPartition { topic: TOPIC, partition }
}

/// Partition 0 and 2 led by node 1, partition 1 by node 2, partition 3 by nobody.
fn metadata() -> Metadata {
    let leaders = [Some(1), Some(2), Some(1), None];
    let partition = |leader| Partition {
        error: ErrorCode::NONE,
        leader,
        leader_epoch: 5,
        replicas: vec![1, 2],
        in_sync: vec![1, 2],
        offline: vec![],
    };
    let topic = Topic {
        error: ErrorCode::NONE,
        id: TOPIC_ID,
        is_internal: false,
        partitions: (0..).zip(leaders.map(partition)).collect(),
    };
    Metadata { topics: [(TOPIC, topic)].into(), ..Metadata::default() }
}

fn producer(options: ProducerOptions) -> Producer {
    Producer::new(options, Compressor::new(Codec::None, None).unwrap())
}

fn idempotent() -> Producer {
    producer(ProducerOptions { identity: Some((9, 3)), ..ProducerOptions::default() })
}

fn append(producer: &mut Producer, now_ms: u64, partition: i32, value: &[u8]) -> bool {
    producer.append(now_ms, &at(partition), 1, None, Some(value), &[]).unwrap()
}

/// The batches of a request: partition, first sequence, count of records.
fn batches(request: &ProduceRequest) -> Vec<(i32, i32, i32)> {
    let mut found = Vec::new();
    for topic in &request.topic_data {
        assert_eq!((&topic.name, topic.topic_id), (&TOPIC, TOPIC_ID));
        for data in &topic.partition_data {
            let bytes = data.records.as_ref().unwrap().to_bytes().unwrap();
            let all: Vec<Batch<'_>> = walk(&bytes).collect::<Result<_, _>>().unwrap();
            assert_eq!(all.len(), 1, "Kafka takes one batch for each partition");
            assert_eq!(all[0].check_producer_rules(), Ok(()));
            found.push((data.index, all[0].base_sequence(), all[0].record_count()));
        }
    }
    found
}

fn answer(partition: i32, code: ErrorCode, base_offset: i64) -> ProduceResponse {
    ProduceResponse {
        // By id, as from version 13 on.
        responses: vec![TopicProduceResponse {
            topic_id: TOPIC_ID,
            partition_responses: vec![PartitionProduceResponse {
                index: partition,
                error_code: code,
                base_offset,
                ..PartitionProduceResponse::default()
            }],
            ..TopicProduceResponse::default()
        }],
        ..ProduceResponse::default()
    }
}

#[test]
fn batches_linger_and_go_to_their_leaders() {
    let metadata = metadata();
    let mut producer = producer(ProducerOptions::default());
    assert!(append(&mut producer, 100, 0, b"a"));
    assert!(!append(&mut producer, 101, 0, b"b"));
    append(&mut producer, 102, 1, b"c");
    append(&mut producer, 102, 2, b"d");
    assert!(producer.take_requests(104, false, &metadata).unwrap().is_empty());
    assert_eq!(producer.next_deadline_ms(), Some(105));
    let requests = producer.take_requests(105, false, &metadata).unwrap();
    assert_eq!(requests.keys().copied().collect::<Vec<_>>(), [1]);
    assert_eq!(batches(&requests[&1]), [(0, -1, 2)]);
    let requests = producer.take_requests(105, true, &metadata).unwrap();
    assert_eq!(batches(&requests[&1]), [(2, -1, 1)]);
    assert_eq!(batches(&requests[&2]), [(1, -1, 1)]);
    assert!(!producer.is_idle());
    for (partition, offset) in [(0, 7), (1, 8), (2, 9)] {
        producer.on_response(110, answer(partition, ErrorCode::NONE, offset), &metadata);
    }
    assert!(producer.is_idle() && producer.buffered_bytes() == 0);
    let deliveries = producer.take_deliveries();
    assert_eq!(deliveries[0], Delivery { partition: at(0), record_count: 2, result: Ok(7) });
    assert_eq!(deliveries.len(), 3);
}

#[test]
fn what_is_sent_again_is_the_same_batch_and_keeps_its_place() {
    let metadata = metadata();
    let mut producer = idempotent();
    append(&mut producer, 0, 0, b"a");
    let first = producer.take_requests(0, true, &metadata).unwrap();
    assert_eq!(batches(&first[&1]), [(0, 0, 1)]);
    append(&mut producer, 1, 0, b"b");
    append(&mut producer, 1, 0, b"c");
    assert!(producer.take_requests(1, true, &metadata).unwrap().is_empty(), "one at a time");
    producer.on_response(10, answer(0, ErrorCode::NOT_LEADER_OR_FOLLOWER, -1), &metadata);
    assert!(producer.take_wants_metadata() && !producer.take_wants_metadata());
    assert_eq!(producer.next_deadline_ms(), Some(110));
    assert!(producer.take_requests(109, true, &metadata).unwrap().is_empty(), "not at once");
    assert_eq!(producer.take_requests(110, true, &metadata).unwrap(), first);
    producer.on_disconnect(120, 1);
    assert_eq!(producer.take_requests(320, true, &metadata).unwrap(), first);
    // It was stored the first time.
    producer.on_response(330, answer(0, ErrorCode::DUPLICATE_SEQUENCE_NUMBER, 4), &metadata);
    assert_eq!(producer.take_deliveries()[0].result, Ok(4));
    let second = producer.take_requests(330, true, &metadata).unwrap();
    assert_eq!(batches(&second[&1]), [(0, 1, 2)]);
}

#[test]
fn a_final_error_ends_the_partition_and_no_other() {
    let metadata = metadata();
    let mut producer = idempotent();
    append(&mut producer, 0, 0, b"a");
    append(&mut producer, 0, 1, b"b");
    producer.take_requests(0, true, &metadata).unwrap();
    producer.on_response(1, answer(0, ErrorCode::MESSAGE_TOO_LARGE, -1), &metadata);
    let error = producer.take_deliveries().remove(0).result.unwrap_err();
    assert_eq!(error.code, ErrorCode::MESSAGE_TOO_LARGE);
    assert!(producer.append(2, &at(0), 1, None, None, &[]).is_err());
    append(&mut producer, 2, 1, b"c");
    producer.on_response(3, answer(1, ErrorCode::NONE, 0), &metadata);
    let next = producer.take_requests(3, true, &metadata).unwrap();
    assert_eq!(batches(&next[&2]), [(1, 1, 1)]);
}

#[test]
fn a_batch_without_a_leader_waits_and_then_fails() {
    let metadata = metadata();
    let mut producer = idempotent();
    append(&mut producer, 0, 3, b"a");
    assert!(producer.take_requests(0, true, &metadata).unwrap().is_empty());
    assert!(producer.take_wants_metadata());
    assert!(producer.take_requests(119_999, true, &metadata).unwrap().is_empty());
    assert!(producer.take_deliveries().is_empty());
    producer.take_requests(120_999, true, &metadata).unwrap();
    let error = producer.take_deliveries().remove(0).result.unwrap_err();
    assert_eq!(error.code, ErrorCode::REQUEST_TIMED_OUT);
    assert!(producer.is_idle());
}

#[test]
fn batches_are_closed_when_they_are_full() {
    let metadata = metadata();
    let mut producer =
        producer(ProducerOptions { batch_bytes_max: 1000, acks: 0, ..ProducerOptions::default() });
    let began: Vec<bool> = (0..6).map(|_| append(&mut producer, 0, 0, &[1; 400])).collect();
    assert_eq!(began, [true, false, true, false, true, false]);
    let buffered = producer.buffered_bytes();
    assert!(buffered > 1600 && buffered < 2000);
    let mut counts = Vec::new();
    while !producer.is_idle() {
        let requests = producer.take_requests(1, true, &metadata).unwrap();
        counts.extend(batches(&requests[&1]));
    }
    assert_eq!(counts, [(0, -1, 2); 3]);
    // Nothing is answered with acks=0.
    assert_eq!(producer.take_deliveries().len(), 3);
}

#[test]
fn answers_to_nothing_are_ignored() {
    let metadata = metadata();
    let mut producer = producer(ProducerOptions::default());
    producer.on_response(0, answer(0, ErrorCode::NONE, 0), &metadata);
    append(&mut producer, 0, 0, b"a");
    producer.on_response(0, answer(0, ErrorCode::NONE, 0), &metadata);
    producer.on_response(0, answer(99, ErrorCode::NONE, 0), &metadata);
    assert!(producer.take_deliveries().is_empty() && !producer.is_idle());
}
