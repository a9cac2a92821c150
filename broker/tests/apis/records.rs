//! Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, DeleteRecords, InitProducerId,
//! DescribeProducers.

use std::collections::BTreeMap;

use bytes::Bytes;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::encode::Records;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use vltava_protocol::messages::describe_producers::{self, DescribeProducersRequest};
use vltava_protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchTopic, FetchableTopicResponse, ForgottenTopic, PartitionData,
};
use vltava_protocol::messages::init_producer_id::InitProducerIdRequest;
use vltava_protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use vltava_protocol::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use vltava_protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use vltava_protocol::types::{Str, Uuid};

use crate::cluster::{UNKNOWN_ID, create};
use crate::support::wire::batch;
use crate::talk::Talk;

/// The time of the records that are written here, in ms; see `wire::batch`.
const TIME_MS: i64 = 1_600_000_000_000;

/// Sends all of this file's.
pub fn ask(talk: &mut Talk) {
    let id = create(talk, "records", 2);
    talk.mask(id, "id of records");
    let producer_id = init_producer_id(talk);
    produce(talk, id);
    list_offsets(talk);
    offset_for_leader_epoch(talk);
    fetch(talk, id);
    fetch_sessions(talk, id);
    delete_records(talk);
    describe_producers(talk, producer_id);
}

fn init_producer_id(talk: &mut Talk) -> i64 {
    let mut last = -1;
    for version in talk.versions::<InitProducerIdRequest>() {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        // A Kafka may have to ask for a block of ids first.
        let mut answer = talk.ask(version, &request);
        while answer.error_code == ErrorCode::COORDINATOR_LOAD_IN_PROGRESS {
            answer = talk.ask(version, &request);
        }
        assert_eq!(answer.error_code, ErrorCode::NONE);
        assert!(answer.producer_id > last, "each gets another");
        last = answer.producer_id;
        answer.producer_id = 0;
        talk.note("an idempotent producer", version, &answer);
    }
    last
}

fn topic_data(name: Str, id: Uuid, batches: &[(i32, Bytes)]) -> TopicProduceData {
    let data = batches.iter().map(|(index, batch)| PartitionProduceData {
        index: *index,
        records: Some(Records::from(batch.clone())),
    });
    TopicProduceData { name, topic_id: id, partition_data: data.collect() }
}

fn produce(talk: &mut Talk, id: Uuid) {
    let records = talk.str("records");
    let good = batch(&[b"one", b"two"]);
    let mut corrupt = good.to_vec();
    *corrupt.last_mut().unwrap() ^= 1;
    for version in talk.versions::<ProduceRequest>() {
        for acks in [-1, 1, 2] {
            let mut to_records = topic_data(records.clone(), id, &[(0, good.clone())]);
            if version < 13 {
                to_records.partition_data.push(PartitionProduceData {
                    index: 9,
                    records: Some(Records::from(good.clone())),
                });
            }
            let to_missing = topic_data(talk.str("missing"), UNKNOWN_ID, &[(0, good.clone())]);
            let request = ProduceRequest {
                acks,
                timeout_ms: 30_000,
                topic_data: vec![to_records, to_missing],
                ..ProduceRequest::default()
            };
            let mut answer = talk.ask(version, &request);
            answer.responses.sort_by_key(|topic| topic.name.clone());
            talk.note(&format!("acks {acks}"), version, &answer);
        }
        let cases = [
            ("a wrong CRC", Bytes::from(corrupt.clone())),
            ("a partition that is not", good.clone()),
            ("nothing", Bytes::new()),
            ("two batches", [&good[..], &good[..]].concat().into()),
        ];
        for (what, batch) in cases {
            let index = if what == "a partition that is not" { 9 } else { 0 };
            let request = ProduceRequest {
                acks: -1,
                timeout_ms: 30_000,
                topic_data: vec![topic_data(records.clone(), id, &[(index, batch)])],
                ..ProduceRequest::default()
            };
            let answer = talk.exchange(what, version, &request);
            assert!(!answer.responses[0].partition_responses[0].error_code.is_none(), "{what}");
        }
    }
}

fn list_offsets(talk: &mut Talk) {
    let times = [
        ("next", -1),
        ("first", -2),
        ("highest time", -3),
        ("first here", -4),
        ("last elsewhere", -5),
        ("first to upload", -6),
        ("what is not", -7),
        ("a time", TIME_MS),
        ("a later time", TIME_MS + 1),
    ];
    for version in talk.versions::<ListOffsetsRequest>() {
        for (what, timestamp) in times {
            let partition = |partition_index, current_leader_epoch| ListOffsetsPartition {
                partition_index,
                current_leader_epoch,
                timestamp,
            };
            let topic = |name, partitions| ListOffsetsTopic { name: talk.str(name), partitions };
            let request = ListOffsetsRequest {
                replica_id: -1,
                isolation_level: i8::from(version >= 2),
                topics: vec![
                    topic("records", vec![partition(0, -1), partition(1, -1), partition(9, -1)]),
                    topic("missing", vec![partition(0, -1)]),
                ],
                timeout_ms: 1_000,
            };
            let topics = vec![topic("records", vec![partition(0, 99)])];
            let of_unknown_epoch = ListOffsetsRequest { topics, ..request.clone() };
            let mut answer = talk.ask(version, &request);
            answer.topics.sort_by_key(|topic| topic.name.clone());
            for topic in &mut answer.topics {
                topic.partitions.sort_by_key(|partition| partition.partition_index);
            }
            talk.note(what, version, &answer);
            talk.exchange(&format!("{what}, of an unknown epoch"), version, &of_unknown_epoch);
        }
    }
}

fn offset_for_leader_epoch(talk: &mut Talk) {
    for version in talk.versions::<OffsetForLeaderEpochRequest>() {
        for (what, current_leader_epoch, leader_epoch) in [
            ("epoch 0", -1, 0),
            ("a later epoch", -1, 5),
            ("an unknown epoch", 99, 0),
            ("none", -1, -1),
        ] {
            let partition = |partition| OffsetForLeaderPartition {
                partition,
                current_leader_epoch,
                leader_epoch,
            };
            let topic =
                |name, partitions| OffsetForLeaderTopic { topic: talk.str(name), partitions };
            let request = OffsetForLeaderEpochRequest {
                replica_id: -1,
                topics: vec![
                    topic("records", vec![partition(0), partition(1), partition(9)]),
                    topic("missing", vec![partition(0)]),
                ],
            };
            let mut answer = talk.ask(version, &request);
            answer.topics.sort_by_key(|topic| topic.topic.clone());
            for topic in &mut answer.topics {
                topic.partitions.sort_by_key(|partition| partition.partition);
            }
            talk.note(what, version, &answer);
        }
    }
}

fn fetched(version: i16, partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition {
        partition,
        fetch_offset,
        last_fetched_epoch: if version >= 12 { 0 } else { -1 },
        // One batch: a Kafka cuts the second one short, we leave it out.
        partition_max_bytes: 81,
        ..FetchPartition::default()
    }
}

fn fetch_request(topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest { max_wait_ms: 0, min_bytes: 0, topics, ..FetchRequest::default() }
}

fn fetch(talk: &mut Talk, id: Uuid) {
    for version in talk.versions::<FetchRequest>() {
        let topic = |name: &str, topic_id, partitions| FetchTopic {
            topic: talk.str(name),
            topic_id,
            partitions,
        };
        let whole = vec![
            topic(
                "records",
                id,
                vec![fetched(version, 0, 0), fetched(version, 1, 0), fetched(version, 9, 0)],
            ),
            topic("missing", UNKNOWN_ID, vec![fetched(version, 0, 0)]),
        ];
        let beyond = fetched(version, 0, 1_000_000);
        let middle = fetched(version, 0, 3);
        let fenced = FetchPartition { current_leader_epoch: 99, ..fetched(version, 0, 0) };
        let mut cases = vec![
            ("several", whole),
            ("the middle of a batch", vec![topic("records", id, vec![middle])]),
            ("beyond the end", vec![topic("records", id, vec![beyond])]),
            ("before the begin", vec![topic("records", id, vec![fetched(version, 0, -5)])]),
        ];
        if version >= 9 {
            cases.push(("of an unknown epoch", vec![topic("records", id, vec![fenced])]));
        }
        let cases = cases.into_iter().flat_map(|case| [(0, case.clone()), (1, case)]);
        for (isolation_level, (what, topics)) in cases {
            let request = FetchRequest { isolation_level, ..fetch_request(topics) };
            let mut answer = talk.ask(version, &request);
            assert_eq!(answer.error_code, ErrorCode::NONE);
            assert_eq!(answer.session_id, 0);
            // A Kafka may name a topic twice, and orders topics by a hash; ids are other ones on
            // each broker.
            let mut topics: BTreeMap<_, Vec<PartitionData>> = BTreeMap::new();
            for topic in answer.responses {
                let is_unknown = topic.topic_id == UNKNOWN_ID;
                let key = (is_unknown, topic.topic, topic.topic_id);
                let partitions = topics.entry(key).or_default();
                partitions.extend(topic.partitions);
                partitions.sort_by_key(|partition| partition.partition_index);
            }
            let topics = topics.into_iter().map(|((_, topic, topic_id), partitions)| {
                FetchableTopicResponse { topic, topic_id, partitions }
            });
            answer.responses = topics.collect();
            talk.note(&format!("{what}, isolation {isolation_level}"), version, &answer);
        }
    }
}

fn fetch_sessions(talk: &mut Talk, id: Uuid) {
    for version in talk.versions::<FetchRequest>().filter(|version| *version >= 7) {
        let topic = talk.str("records");
        let both = FetchTopic {
            topic: topic.clone(),
            topic_id: id,
            partitions: vec![fetched(version, 0, 0), fetched(version, 1, 0)],
        };
        let begin = FetchRequest { session_epoch: 0, ..fetch_request(vec![both]) };
        let mut first = talk.ask(version, &begin);
        let session_id = first.session_id;
        assert!(session_id > 0, "a session");
        first.session_id = 1;
        talk.note("a session begins", version, &first);
        let forgotten = ForgottenTopic { topic, topic_id: id, partitions: vec![1] };
        let steps = [
            ("goes on", session_id, 1, Vec::new()),
            ("forgets a partition", session_id, 2, vec![forgotten]),
            ("skips an epoch", session_id, 9, Vec::new()),
            ("ends", session_id, -1, Vec::new()),
            ("is unknown", session_id, 4, Vec::new()),
        ];
        for (what, session_id, session_epoch, forgotten_topics_data) in steps {
            let request = FetchRequest {
                session_id,
                session_epoch,
                forgotten_topics_data,
                ..fetch_request(Vec::new())
            };
            let mut answer = talk.ask(version, &request);
            answer.session_id = answer.session_id.min(1);
            talk.note(&format!("a session {what}"), version, &answer);
        }
    }
}

fn delete_records(talk: &mut Talk) {
    for version in talk.versions::<DeleteRecordsRequest>() {
        for (what, offset) in
            [("some", 2 + i64::from(version)), ("fewer", 1), ("too many", 1_000_000), ("badly", -2)]
        {
            let partition = |partition_index| DeleteRecordsPartition { partition_index, offset };
            let topic = |name, partitions| DeleteRecordsTopic { name: talk.str(name), partitions };
            let request = DeleteRecordsRequest {
                topics: vec![
                    topic("records", vec![partition(0), partition(9)]),
                    topic("missing", vec![partition(0)]),
                ],
                timeout_ms: 30_000,
            };
            let mut answer = talk.ask(version, &request);
            answer.topics.sort_by_key(|topic| topic.name.clone());
            for topic in &mut answer.topics {
                topic.partitions.sort_by_key(|partition| partition.partition_index);
            }
            talk.note(what, version, &answer);
        }
    }
}

fn describe_producers(talk: &mut Talk, producer_id: i64) {
    let mut builder = BatchBuilder::new().producer(producer_id, 0, 0);
    builder.append(TIME_MS, None, Some(b"once"), &[]).expect("a small record");
    let written = topic_data(talk.str("records"), Uuid::ZERO, &[(1, builder.build().into())]);
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![written],
        ..ProduceRequest::default()
    };
    talk.exchange("an idempotent batch", 12, &request);
    let mut again = talk.ask(12, &request);
    let answered = &mut again.responses[0].partition_responses[0];
    assert_eq!((answered.error_code, answered.base_offset), (ErrorCode::NONE, 0));
    // A Kafka shows the time of the batch here, whoever's clock that was.
    answered.log_append_time_ms = -1;
    talk.note("an idempotent batch again", 12, &again);
    let topic = |name, indexes: &[i32]| describe_producers::TopicRequest {
        name: talk.str(name),
        partition_indexes: indexes.to_vec(),
    };
    let topics = vec![topic("records", &[1, 9]), topic("missing", &[0])];
    for version in talk.versions::<DescribeProducersRequest>() {
        let mut answer = talk.ask(version, &DescribeProducersRequest { topics: topics.clone() });
        answer.topics.sort_by_key(|topic| topic.name.clone());
        for topic in &mut answer.topics {
            topic.partitions.sort_by_key(|partition| partition.partition_index);
            for producer in topic.partitions.iter_mut().flat_map(|one| &mut one.active_producers) {
                assert_eq!(producer.producer_id, producer_id);
                producer.producer_id = 0;
            }
        }
        talk.note("one producer", version, &answer);
    }
}
