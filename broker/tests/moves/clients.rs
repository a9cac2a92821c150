//! Clients that take no error: each answer is what it would be if nothing moved.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vltava_client::records::{for_each_record, next_offset};
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::compression::Decompressor;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::heartbeat::HeartbeatRequest;
use vltava_protocol::messages::init_producer_id::InitProducerIdRequest;
use vltava_protocol::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::produce::ProduceRequest;
use vltava_protocol::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use vltava_protocol::types::Str;

use crate::support::wire::{self, FETCH_VERSION, PRODUCE_VERSION};
use crate::{PARTITIONS, TOPIC};

/// Requests that a producer has under way.
const IN_FLIGHT: usize = 5;
const GROUP: Str = Str::from_static("movers");

/// What clients are told, and tell.
#[derive(Default)]
pub struct Orders {
    /// To come to an end.
    pub stop: AtomicBool,
    /// The highest offset that the group has committed.
    pub committed: AtomicI64,
    /// How many records each partition has.
    written: [AtomicI64; PARTITIONS as usize],
}

impl Orders {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn written(&self, partition: i32) -> &AtomicI64 {
        &self.written[usize::try_from(partition).expect("a partition")]
    }
}

/// Writes to one partition, several batches at a time, and returns how long an answer took at most.
/// Nobody else writes there, so each offset is known before.
pub fn produce(
    address: SocketAddr,
    orders: &Orders,
    partition: i32,
    is_idempotent: bool,
) -> Duration {
    let mut link = wire::connect(address).expect("a connection");
    let given = link.call(&InitProducerIdRequest::default()).expect("an id");
    assert!(given.error_code.is_none(), "{:?}", given.error_code);
    let (mut next, mut answered) = (0i64, 0i64);
    let (mut sent, mut longest) = (VecDeque::new(), Duration::ZERO);
    while !orders.is_over() || !sent.is_empty() {
        while !orders.is_over() && sent.len() < IN_FLIGHT {
            let mut builder = BatchBuilder::new();
            if is_idempotent {
                let sequence = i32::try_from(next).expect("few");
                builder = builder.producer(given.producer_id, given.producer_epoch, sequence);
            }
            let value = next.to_string();
            builder.append(1, None, Some(value.as_bytes()), &[]).expect("a small record");
            let batch = Bytes::from(builder.build());
            let request = wire::produce_request(TOPIC, partition, -1, batch);
            link.send_at(&request, PRODUCE_VERSION).expect("a request sent");
            sent.push_back(Instant::now());
            next += 1;
        }
        let answer = link.receive::<ProduceRequest>().expect("an answer");
        let answer = &answer.responses[0].partition_responses[0];
        assert!(answer.error_code.is_none(), "{TOPIC}-{partition}: {:?}", answer.error_code);
        assert_eq!(answer.base_offset, answered, "{TOPIC}-{partition}");
        answered += 1;
        longest = longest.max(sent.pop_front().expect("it was sent").elapsed());
    }
    orders.written(partition).store(answered, Ordering::Release);
    longest
}

/// Reads all partitions in one fetch session, waiting for more at their ends; each record is the
/// next one.
pub fn consume(address: SocketAddr, orders: &Orders) -> Duration {
    let mut link = wire::connect(address).expect("a connection");
    let mut decompressor = Decompressor::new();
    let (mut session_id, mut epoch, mut longest) = (0, 0, Duration::ZERO);
    let mut positions = [0i64; PARTITIONS as usize];
    while !orders.is_over() {
        let partitions = (0..PARTITIONS).zip(positions).map(|(partition, fetch_offset)| {
            let partition_max_bytes = 1 << 20;
            FetchPartition {
                partition,
                fetch_offset,
                partition_max_bytes,
                current_leader_epoch: -1,
                ..FetchPartition::default()
            }
        });
        let topic = FetchTopic {
            topic: Str::from_static(TOPIC),
            partitions: partitions.collect(),
            ..FetchTopic::default()
        };
        let request = FetchRequest {
            max_wait_ms: 200,
            min_bytes: 200,
            session_id,
            session_epoch: epoch,
            topics: vec![topic],
            ..FetchRequest::default()
        };
        let asked = Instant::now();
        link.send_at(&request, FETCH_VERSION).expect("a request sent");
        let answer = link.receive::<FetchRequest>().expect("an answer");
        assert!(answer.error_code.is_none(), "{:?}", answer.error_code);
        assert!(epoch == 0 || answer.session_id == session_id, "another session");
        (session_id, epoch) = (answer.session_id, epoch + 1);
        longest = longest.max(asked.elapsed());
        for data in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            let partition = data.partition_index;
            assert!(data.error_code.is_none(), "{TOPIC}-{partition}: {:?}", data.error_code);
            let position = &mut positions[usize::try_from(partition).expect("a partition")];
            let bytes = data.records.and_then(|records| records.to_bytes()).unwrap_or_default();
            if next_offset(&bytes).is_none() {
                continue;
            }
            let read = for_each_record(&bytes, *position, &mut decompressor, |record| {
                assert_eq!(record.offset, *position, "{TOPIC}-{partition}");
                let value = record.value.unwrap_or_default();
                assert_eq!(value, position.to_string().as_bytes(), "{TOPIC}-{partition}");
                *position += 1;
                ControlFlow::Continue(())
            });
            let _to_the_end = read.expect("records that can be read");
        }
    }
    assert!(positions.iter().all(|position| *position > 0), "{positions:?}");
    longest
}

/// The only member of a group: heartbeats and commits, and is never sent away.
pub fn belong(address: SocketAddr, orders: &Orders) -> Duration {
    let mut link = wire::connect(address).expect("a connection");
    let mut join = JoinGroupRequest {
        group_id: GROUP,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: Str::from_static("consumer"),
        protocols: vec![JoinGroupRequestProtocol {
            name: Str::from_static("range"),
            metadata: Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        }],
        ..JoinGroupRequest::default()
    };
    let began = Instant::now();
    // The topic of offsets is made for the first that asks.
    let find = FindCoordinatorRequest { key: GROUP, ..FindCoordinatorRequest::default() };
    link.send_at(&find, 3).expect("a request sent");
    link.receive::<FindCoordinatorRequest>().expect("an answer");
    let joined = loop {
        link.send_at(&join, 5).expect("a request sent");
        let answer = link.receive::<JoinGroupRequest>().expect("an answer");
        match answer.error_code {
            ErrorCode::NONE => break answer,
            ErrorCode::MEMBER_ID_REQUIRED => join.member_id = answer.member_id,
            // Its coordinator begins.
            error => assert!(error.is_retriable() && began.elapsed().as_secs() < 30, "{error:?}"),
        }
    };
    let (member_id, generation_id) = (joined.member_id, joined.generation_id);
    let sync = SyncGroupRequest {
        group_id: GROUP,
        generation_id,
        member_id: member_id.clone(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: member_id.clone(),
            assignment: Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        }],
        ..SyncGroupRequest::default()
    };
    link.send_at(&sync, 3).expect("a request sent");
    let synced = link.receive::<SyncGroupRequest>().expect("an answer");
    assert!(synced.error_code.is_none(), "{:?}", synced.error_code);
    let mut longest = Duration::ZERO;
    for committed_offset in 1.. {
        let partition = OffsetCommitRequestPartition {
            committed_offset,
            committed_metadata: Some(Str::EMPTY),
            ..OffsetCommitRequestPartition::default()
        };
        let topic = OffsetCommitRequestTopic {
            name: Str::from_static(TOPIC),
            partitions: vec![partition],
            ..OffsetCommitRequestTopic::default()
        };
        let commit = OffsetCommitRequest {
            group_id: GROUP,
            generation_id_or_member_epoch: generation_id,
            member_id: member_id.clone(),
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        let heartbeat = HeartbeatRequest {
            group_id: GROUP,
            generation_id,
            member_id: member_id.clone(),
            ..HeartbeatRequest::default()
        };
        let asked = Instant::now();
        link.send_at(&commit, 7).expect("a request sent");
        link.send_at(&heartbeat, 3).expect("a request sent");
        let answer = link.receive::<OffsetCommitRequest>().expect("an answer");
        let error = answer.topics[0].partitions[0].error_code;
        assert!(error.is_none(), "commit {committed_offset}: {error:?}");
        let answer = link.receive::<HeartbeatRequest>().expect("an answer");
        assert!(answer.error_code.is_none(), "heartbeat: {:?}", answer.error_code);
        longest = longest.max(asked.elapsed());
        orders.committed.store(committed_offset, Ordering::Release);
        if orders.is_over() {
            break;
        }
    }
    longest
}

/// All that was written is there, once, in its order.
pub fn check(address: SocketAddr, orders: &Orders) {
    let mut link = wire::connect(address).expect("a connection");
    for partition in 0..PARTITIONS {
        let written = orders.written(partition).load(Ordering::Acquire);
        assert!(written > 0);
        let found = wire::read_all(&mut link, TOPIC, partition).expect("the records");
        let expected = (0..written).map(|at| (at, at.to_string().into_bytes()));
        assert!(found.into_iter().eq(expected), "{TOPIC}-{partition}, of {written}");
    }
}
