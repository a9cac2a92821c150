use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::encode::Records;
use vltava_protocol::messages::fetch::FetchableTopicResponse;
use vltava_protocol::types::{Str, Uuid};

use super::*;
use crate::metadata::{Partition, Topic};

fn at(partition: i32) -> TopicPartition {
    TopicPartition { topic: Str::from_static("topic"), partition }
}

/// Partitions 0 and 1 led by node 1, partition 2 by node 2, partition 3 by nobody.
fn metadata() -> Metadata {
    let partition = |leader| Partition {
        error: ErrorCode::NONE,
        leader,
        leader_epoch: 5,
        replicas: vec![],
        in_sync: vec![],
        offline: vec![],
    };
    let leaders = [Some(1), Some(1), Some(2), None].map(partition);
    let topic = Topic {
        error: ErrorCode::NONE,
        id: Uuid(7),
        is_internal: false,
        partitions: (0..).zip(leaders).collect(),
    };
    Metadata { topics: [(Str::from_static("topic"), topic)].into(), ..Metadata::default() }
}

fn batch(base_offset: i64, record_count: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new().position(base_offset, 0);
    for _ in 0..record_count {
        builder.append(0, None, None, &[]).unwrap();
    }
    builder.build()
}

fn answer(partition: i32, code: ErrorCode, records: Vec<u8>) -> FetchResponse {
    FetchResponse {
        responses: vec![FetchableTopicResponse {
            topic_id: Uuid(7),
            partitions: vec![PartitionData {
                partition_index: partition,
                error_code: code,
                high_watermark: 99,
                records: Some(Records::from(Bytes::from(records))),
                ..PartitionData::default()
            }],
            ..FetchableTopicResponse::default()
        }],
        ..FetchResponse::default()
    }
}

fn asked(request: &FetchRequest) -> Vec<(i32, i64)> {
    let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|fetch| (fetch.partition, fetch.fetch_offset)).collect()
}

#[test]
fn each_leader_has_one_request_at_a_time() {
    let metadata = metadata();
    let mut fetcher = Fetcher::new(FetchOptions::default());
    for partition in 0..4 {
        fetcher.set_position(at(partition), 10);
    }
    let requests = fetcher.take_requests(0, &metadata);
    assert_eq!(asked(&requests[&1]), [(0, 10), (1, 10)]);
    assert_eq!(asked(&requests[&2]), [(2, 10)]);
    let topic = &requests[&1].topics[0];
    assert_eq!((topic.topic_id, topic.topic.as_str()), (Uuid(7), "topic"));
    assert_eq!((requests[&1].session_id, requests[&1].session_epoch), (0, -1));
    assert!(fetcher.take_wants_metadata(), "partition 3 has no leader");
    assert!(fetcher.take_requests(0, &metadata).is_empty());
    // A batch that was cut off does not count.
    let mut records = batch(8, 5);
    records.extend(&batch(13, 2)[..70]);
    let fetched = fetcher.on_response(1, 1, answer(0, ErrorCode::NONE, records.clone()), &metadata);
    let expected = Fetched::Batches {
        partition: at(0),
        from_offset: 10,
        high_watermark: 99,
        bytes: Bytes::from(records),
    };
    assert_eq!(fetched, [expected]);
    assert_eq!(asked(&fetcher.take_requests(1, &metadata)[&1]), [(0, 13), (1, 10)]);
}

#[test]
fn a_position_never_goes_back() {
    let metadata = metadata();
    let mut fetcher = Fetcher::new(FetchOptions::default());
    fetcher.set_position(at(0), 100);
    fetcher.take_requests(0, &metadata);
    fetcher.on_response(0, 1, answer(0, ErrorCode::NONE, batch(3, 1)), &metadata);
    assert_eq!(fetcher.position(&at(0)), Some(100));
}

#[test]
fn errors_wait_or_are_told() {
    let metadata = metadata();
    let mut fetcher = Fetcher::new(FetchOptions::default());
    fetcher.set_position(at(0), 0);
    fetcher.take_requests(0, &metadata);
    let fetched =
        fetcher.on_response(0, 1, answer(0, ErrorCode::NOT_LEADER_OR_FOLLOWER, vec![]), &metadata);
    assert!(fetched.is_empty() && fetcher.take_wants_metadata());
    assert!(fetcher.take_requests(99, &metadata).is_empty());
    assert_eq!(fetcher.next_deadline_ms(), Some(100));
    assert_eq!(fetcher.take_requests(100, &metadata).len(), 1);
    fetcher.on_disconnect(100, 1, &metadata);
    assert!(fetcher.take_wants_metadata() && fetcher.take_requests(299, &metadata).is_empty());
    assert_eq!(fetcher.take_requests(300, &metadata).len(), 1);
    let refused = answer(0, ErrorCode::TOPIC_AUTHORIZATION_FAILED, vec![]);
    let code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    let partition = at(0);
    assert_eq!(
        fetcher.on_response(300, 1, refused, &metadata),
        [Fetched::Refused { partition, code }]
    );
}

#[test]
fn a_lost_position_is_fetched_when_it_is_set_again() {
    let metadata = metadata();
    let mut fetcher = Fetcher::new(FetchOptions::default());
    fetcher.set_position(at(0), 5);
    fetcher.take_requests(0, &metadata);
    let lost = answer(0, ErrorCode::OFFSET_OUT_OF_RANGE, vec![]);
    let expected = Fetched::OutOfRange { partition: at(0), offset: 5 };
    assert_eq!(fetcher.on_response(0, 1, lost, &metadata), [expected]);
    assert!(fetcher.take_requests(1 << 40, &metadata).is_empty());
    fetcher.set_position(at(0), 6);
    assert_eq!(asked(&fetcher.take_requests(0, &metadata)[&1]), [(0, 6)]);
}
