//! Clients that remember what is no more, against a real process: fetch sessions asked out of turn,
//! a topic made again under its old name, segments that retention takes from under a reader.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use support::wire::{self, batch, connect, create_topic_request, produce_request, read_all};
use support::{Broker, Options, PATIENCE};
use vltava_client::blocking::Link;
use vltava_client::connection::Connection;
use vltava_client::records::{for_each_record, next_offset};
use vltava_protocol::compression::Decompressor;
use vltava_protocol::encode::Part;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use vltava_protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};
use vltava_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use vltava_protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use vltava_protocol::messages::produce::{
    PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use vltava_protocol::types::{Str, Uuid};

const TOPIC: &str = "read";
/// Fetch and Produce in versions that name topics by name, and by id.
const FETCH_BY_NAME: i16 = 12;
const FETCH_BY_ID: i16 = 17;
const PRODUCE_BY_ID: i16 = 13;
const SHARDS: [usize; 3] = [1, 2, 5];

fn broker(shards: usize, settings: &[(&'static str, &str)]) -> Broker {
    let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
    Broker::start(Options { shards, settings: settings.collect(), ..Options::default() })
}

fn create(link: &mut Link, partitions: i32, configs: &[(&str, &str)]) -> Uuid {
    let request = create_topic_request(TOPIC, partitions, configs);
    let created = link.call(&request).unwrap().topics.remove(0);
    assert_eq!(created.error_code, ErrorCode::NONE);
    created.topic_id
}

fn delete(link: &mut Link, topic_id: Uuid) {
    let topic = DeleteTopicState { topic_id, ..DeleteTopicState::default() };
    let request = DeleteTopicsRequest {
        topics: vec![topic],
        timeout_ms: 30_000,
        ..DeleteTopicsRequest::default()
    };
    assert_eq!(link.call(&request).unwrap().responses[0].error_code, ErrorCode::NONE);
}

fn write(link: &mut Link, partition: i32, value: &[u8]) -> i64 {
    let written = wire::produce(link, TOPIC, partition, batch(&[value])).unwrap();
    assert_eq!(written.error_code, ErrorCode::NONE);
    written.base_offset
}

/// A fetch that does not wait, of all these partitions and positions.
fn fetch_request(topic_id: Uuid, positions: &[(i32, i64)]) -> FetchRequest {
    let partition = |(partition, fetch_offset): &(i32, i64)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        current_leader_epoch: -1,
        partition_max_bytes: 8 << 20,
        ..FetchPartition::default()
    };
    let topic = FetchTopic {
        topic: Str::from(TOPIC),
        topic_id,
        partitions: positions.iter().map(partition).collect(),
    };
    let topics = if positions.is_empty() { Vec::new() } else { vec![topic] };
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        session_epoch: -1,
        topics,
        ..FetchRequest::default()
    }
}

/// The same in a session: `positions` are what changed.
fn in_session(session: (i32, i32), positions: &[(i32, i64)]) -> FetchRequest {
    let (session_id, session_epoch) = session;
    FetchRequest { session_id, session_epoch, ..fetch_request(Uuid::default(), positions) }
}

/// The partitions that an answer names.
fn answered(response: &FetchResponse) -> BTreeMap<i32, &PartitionData> {
    let topics = response.responses.iter();
    topics.flat_map(|topic| &topic.partitions).map(|data| (data.partition_index, data)).collect()
}

/// The offsets and values of an answer, from this offset on.
fn records(data: &PartitionData, from: i64) -> Vec<(i64, Vec<u8>)> {
    let bytes = data.records.as_ref().and_then(|records| records.to_bytes()).unwrap_or_default();
    let mut found = Vec::new();
    let read = for_each_record(&bytes, from, &mut Decompressor::new(), |record| {
        found.push((record.offset, record.value.unwrap_or_default().to_vec()));
        ControlFlow::Continue(())
    });
    let _to_the_end = read.unwrap();
    found
}

/// Epochs that follow each other before any is answered; then epochs and ids that do not.
#[test]
fn a_session_is_asked_ahead_and_out_of_turn() {
    for shards in SHARDS {
        let broker = broker(shards, &[]);
        let mut link = connect(broker.address).unwrap();
        create(&mut link, 3, &[]);
        for partition in 0..3 {
            write(&mut link, partition, b"first");
        }
        let all = in_session((0, 0), &[(0, 0), (1, 0), (2, 0)]);
        link.send_at(&all, FETCH_BY_NAME).unwrap();
        let first = link.receive::<FetchRequest>().unwrap();
        let id = first.session_id;
        assert_eq!((first.error_code, id > 0), (ErrorCode::NONE, true));
        assert_eq!(answered(&first).len(), 3);
        let ahead: [&[(i32, i64)]; 4] = [&[(0, 1), (1, 1), (2, 1)], &[], &[(1, 0)], &[]];
        for (epoch, positions) in (1..).zip(ahead) {
            link.send_at(&in_session((id, epoch), positions), FETCH_BY_NAME).unwrap();
        }
        let expected: [&[i32]; 4] = [&[], &[], &[1], &[1]];
        for (epoch, expected) in expected.iter().enumerate() {
            let answer = link.receive::<FetchRequest>().unwrap();
            assert_eq!((answer.error_code, answer.session_id), (ErrorCode::NONE, id));
            let named: Vec<i32> = answered(&answer).into_keys().collect();
            assert_eq!(named, *expected, "epoch {}", epoch + 1);
        }
        // Asked again, asked too far ahead: refused, and the session goes on where it was.
        for (session, expected) in [
            ((id, 4), ErrorCode::INVALID_FETCH_SESSION_EPOCH),
            ((id, 9), ErrorCode::INVALID_FETCH_SESSION_EPOCH),
            ((id ^ 0x55_5555, 1), ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
            ((id, 5), ErrorCode::NONE),
        ] {
            link.send_at(&in_session(session, &[]), FETCH_BY_NAME).unwrap();
            let answer = link.receive::<FetchRequest>().unwrap();
            assert_eq!(answer.error_code, expected, "{session:?}");
        }
    }
}

/// More sessions than there is room for: nobody is turned away, and nobody gets another's.
#[test]
fn sessions_without_room_are_served_without() {
    for shards in SHARDS {
        let slots = [("max.incremental.fetch.session.cache.slots", "5")];
        let broker = broker(shards, &slots);
        let mut first = connect(broker.address).unwrap();
        create(&mut first, 1, &[]);
        write(&mut first, 0, b"first");
        let mut links: Vec<Link> = (0..20).map(|_| connect(broker.address).unwrap()).collect();
        let mut ids = Vec::new();
        for link in &mut links {
            link.send_at(&in_session((0, 0), &[(0, 0)]), FETCH_BY_NAME).unwrap();
            let answer = link.receive::<FetchRequest>().unwrap();
            assert_eq!(answer.error_code, ErrorCode::NONE);
            assert_eq!(records(answered(&answer)[&0], 0), [(0, b"first".to_vec())]);
            ids.push(answer.session_id);
        }
        let kept = ids.iter().filter(|id| **id != 0).count();
        assert!((1..=5).contains(&kept), "{ids:?}");
        for (link, id) in links.iter_mut().zip(&ids).filter(|(_, id)| **id != 0) {
            assert_eq!(ids.iter().filter(|other| *other == id).count(), 1, "{ids:?}");
            link.send_at(&in_session((*id, 1), &[]), FETCH_BY_NAME).unwrap();
            let answer = link.receive::<FetchRequest>().unwrap();
            assert_eq!((answer.error_code, answer.session_id), (ErrorCode::NONE, *id));
        }
    }
}

fn produce_by_id(link: &mut Link, topic_id: Uuid, value: &[u8]) -> PartitionProduceResponse {
    let mut request: ProduceRequest = produce_request(TOPIC, 0, -1, batch(&[value]));
    let partition_data = request.topic_data.remove(0).partition_data;
    let name = Str::default();
    request.topic_data = vec![TopicProduceData { name, topic_id, partition_data }];
    link.send_at(&request, PRODUCE_BY_ID).unwrap();
    let mut answer = link.receive::<ProduceRequest>().unwrap();
    answer.responses.remove(0).partition_responses.remove(0)
}

fn fetch_by_id(link: &mut Link, topic_id: Uuid, offset: i64) -> PartitionData {
    link.send_at(&fetch_request(topic_id, &[(0, offset)]), FETCH_BY_ID).unwrap();
    let mut answer = link.receive::<FetchRequest>().unwrap();
    answer.responses.remove(0).partitions.remove(0)
}

/// What clients of the first topic see of the second.
fn old_clients_are_told(link: &mut Link, old: Uuid) {
    let written = produce_by_id(link, old, b"late");
    assert_eq!(written.error_code, ErrorCode::UNKNOWN_TOPIC_ID);
    for offset in [0, 1, 5] {
        let read = fetch_by_id(link, old, offset);
        assert_eq!(read.error_code, ErrorCode::UNKNOWN_TOPIC_ID);
    }
    let read = wire::fetch(link, TOPIC, 0, 5).unwrap();
    assert_eq!(read.error_code, ErrorCode::OFFSET_OUT_OF_RANGE);
}

#[test]
fn a_topic_made_again_has_nothing_of_the_former() {
    for (shards, later) in [(1, 5), (2, 1), (5, 2)] {
        let mut broker = broker(shards, &[]);
        let mut link = connect(broker.address).unwrap();
        let old = create(&mut link, 1, &[]);
        for number in 0..5 {
            assert_eq!(write(&mut link, 0, format!("old {number}").as_bytes()), number);
        }
        // A client that fetches by id in a session, and one that waits for what comes next.
        let session = FetchRequest { session_epoch: 0, ..fetch_request(old, &[(0, 0)]) };
        link.send_at(&session, FETCH_BY_ID).unwrap();
        let session = link.receive::<FetchRequest>().unwrap();
        assert!(session.session_id > 0);
        let mut waiting = connect(broker.address).unwrap();
        let poll = FetchRequest { max_wait_ms: 20_000, ..fetch_request(old, &[(0, 5)]) };
        waiting.send_at(&poll, FETCH_BY_ID).unwrap();
        let begin = Instant::now();
        delete(&mut link, old);
        let read = waiting.receive::<FetchRequest>().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(15), "a poll outlives its topic");
        assert!(records(answered(&read)[&0], 5).is_empty());
        let new = create(&mut link, 1, &[]);
        assert_ne!(old, new);
        old_clients_are_told(&mut link, old);
        let request = in_session((session.session_id, 1), &[]);
        link.send_at(&request, FETCH_BY_ID).unwrap();
        let read = link.receive::<FetchRequest>().unwrap();
        let told = answered(&read).get(&0).map_or(read.error_code, |data| data.error_code);
        assert_eq!(told, ErrorCode::UNKNOWN_TOPIC_ID);
        assert_eq!(produce_by_id(&mut link, new, b"new 0").base_offset, 0);
        assert_eq!(write(&mut link, 0, b"new 1"), 1);
        let expected = [(0, b"new 0".to_vec()), (1, b"new 1".to_vec())];
        assert_eq!(read_all(&mut link, TOPIC, 0).unwrap(), expected);
        broker.kill();
        broker.options.shards = later;
        broker.run();
        let mut link = connect(broker.address).unwrap();
        assert_eq!(read_all(&mut link, TOPIC, 0).unwrap(), expected);
        old_clients_are_told(&mut link, old);
        assert_eq!(fetch_by_id(&mut link, new, 0).error_code, ErrorCode::NONE);
        assert!(broker.stop().success());
    }
}

const LARGE_BYTES: usize = 100_000;

fn large(number: i64) -> Vec<u8> {
    format!("{number} {}", "r".repeat(LARGE_BYTES)).into_bytes()
}

/// Reads on from wherever it is pushed; what it gets is what was written there.
fn follow(link: &mut Link, end: i64) -> (i64, i64) {
    let (mut offset, mut read, mut pushed) = (0, 0, 0);
    while offset < end {
        let data = wire::fetch(link, TOPIC, 0, offset).unwrap();
        if data.error_code == ErrorCode::OFFSET_OUT_OF_RANGE {
            assert!(data.log_start_offset > offset || data.log_start_offset == -1);
            // What a consumer does that is to begin at the earliest.
            offset = log_start(link);
            pushed += 1;
            continue;
        }
        assert_eq!(data.error_code, ErrorCode::NONE);
        for (at, value) in records(&data, offset) {
            assert_eq!((at, &value), (offset, &large(offset)), "reordered, lost or another's");
            offset += 1;
            read += 1;
        }
    }
    (read, pushed)
}

fn log_start(link: &mut Link) -> i64 {
    let partition =
        ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp: -2 };
    let topic = ListOffsetsTopic { name: Str::from(TOPIC), partitions: vec![partition] };
    let request =
        ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
    link.call(&request).unwrap().topics[0].partitions[0].offset
}

/// An answer that begins with offset 0, and is taken up when somebody wants it.
struct Slow {
    stream: TcpStream,
    connection: Connection,
}

impl Slow {
    /// Asks, and returns once the answer has begun to come.
    fn ask(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut connection = Connection::new(Str::from("slow"));
        let request = fetch_request(Uuid::default(), &[(0, 0)]);
        for part in connection.request(&request, FETCH_BY_NAME).unwrap() {
            if let Part::Memory(bytes) = part {
                stream.write_all(&bytes).unwrap();
            }
        }
        assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
        Self { stream, connection }
    }

    fn take(mut self) -> FetchResponse {
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(answer) = self.connection.next_answer().unwrap() {
                return answer.decode::<FetchRequest>().unwrap();
            }
            let len = self.stream.read(&mut buffer).unwrap();
            assert!(len > 0, "closed in the middle of an answer");
            self.connection.received().extend_from_slice(&buffer[..len]);
        }
    }
}

fn retain(link: &mut Link, bytes: &str) {
    let config = AlterableConfig {
        name: Str::from("retention.bytes"),
        value: Some(Str::from(bytes)),
        ..AlterableConfig::default()
    };
    let resource = AlterConfigsResource {
        resource_type: 2, // A topic.
        resource_name: Str::from(TOPIC),
        configs: vec![config],
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource],
        ..IncrementalAlterConfigsRequest::default()
    };
    assert_eq!(link.call(&request).unwrap().responses[0].error_code, ErrorCode::NONE);
}

/// Retention takes segments while some read them, and while an answer that is made of them stands
/// half sent.
#[test]
fn retention_takes_nothing_from_an_answer_under_way() {
    const BEFORE: i64 = 80;
    const BATCHES: i64 = 170;
    for shards in SHARDS {
        let mut broker = broker(shards, &[("log.retention.check.interval.ms", "20")]);
        let mut link = connect(broker.address).unwrap();
        // Its records are old.
        create(&mut link, 1, &[("segment.bytes", "4194304"), ("retention.ms", "-1")]);
        for number in 0..BEFORE {
            assert_eq!(write(&mut link, 0, &large(number)), number);
        }
        let address = broker.address;
        // More than the sockets hold.
        let slow: Vec<Slow> = (0..4).map(|_| Slow::ask(address)).collect();
        let reader = thread::spawn(move || follow(&mut connect(address).unwrap(), BATCHES));
        retain(&mut link, "4194304");
        for number in BEFORE..BATCHES {
            assert_eq!(write(&mut link, 0, &large(number)), number);
        }
        let deadline = Instant::now() + PATIENCE;
        while log_start(&mut link) < BEFORE {
            assert!(Instant::now() < deadline, "retention takes nothing");
            thread::sleep(Duration::from_millis(10));
        }
        for slow in slow {
            let answer = slow.take();
            let data = answered(&answer)[&0];
            let found = records(data, 0);
            assert_eq!(data.error_code, ErrorCode::NONE);
            assert!(found.len() > 30, "{} records", found.len());
            for (at, (offset, value)) in (0..).zip(&found) {
                assert_eq!((*offset, value), (at, &large(at)));
            }
        }
        let (read, pushed) = reader.join().unwrap();
        assert!(read > 0 && (pushed > 0 || read == BATCHES), "{read} read, {pushed} pushed");
        let early = wire::fetch(&mut link, TOPIC, 0, 0).unwrap();
        assert_eq!(early.error_code, ErrorCode::OFFSET_OUT_OF_RANGE);
        let bytes = early.records.and_then(|records| records.to_bytes()).unwrap_or_default();
        assert_eq!(next_offset(&bytes), None, "records of what is gone");
        assert!(broker.stop().success());
    }
}

/// A consumer that does not know yet of a deletion fetches it with all else: that must wait like
/// any fetch, or it asks without end.
#[test]
fn what_is_not_there_is_told_and_does_not_end_the_wait() {
    const WAIT: Duration = Duration::from_millis(400);
    let mut broker = broker(2, &[]);
    let mut link = connect(broker.address).unwrap();
    let id = create(&mut link, 2, &[]);
    let mut fetch = |topics: Vec<FetchTopic>| {
        let wait_ms = i32::try_from(WAIT.as_millis()).unwrap();
        let request = FetchRequest { max_wait_ms: wait_ms, topics, ..fetch_request(id, &[]) };
        let begin = Instant::now();
        link.send_at(&request, FETCH_BY_ID).unwrap();
        let answer = link.receive::<FetchRequest>().unwrap();
        let errors = answer.responses.iter().flat_map(|topic| &topic.partitions);
        (errors.map(|data| data.error_code).collect::<Vec<_>>(), begin.elapsed())
    };
    let live = || fetch_request(id, &[(0, 0), (1, 0)]).topics.remove(0);
    let gone = || fetch_request(Uuid(7), &[(0, 0)]).topics.remove(0);
    let beyond = || fetch_request(id, &[(0, 0), (9, 0)]).topics.remove(0);
    let (none, unknown) = (ErrorCode::NONE, ErrorCode::UNKNOWN_TOPIC_ID);
    let (errors, took) = fetch(vec![live(), gone()]);
    assert_eq!(errors, [none, none, unknown]);
    assert!(took >= WAIT, "answered after {took:?}");
    let (errors, took) = fetch(vec![beyond()]);
    assert_eq!(errors, [none, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION]);
    assert!(took >= WAIT, "answered after {took:?}");
    // Nothing to wait for.
    let (errors, took) = fetch(vec![gone()]);
    assert_eq!(errors, [unknown]);
    assert!(took < WAIT, "answered after {took:?}");
    assert!(broker.stop().success());
}
