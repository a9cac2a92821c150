//! Nothing acknowledged is lost: a real process is killed at random moments, again and again, while
//! idempotent producers write, a group commits and topics are made. Afterwards every record is
//! there once, in order, at the offset it was acknowledged with; and what a consumer was served
//! meanwhile, acknowledged or not, is there as it was served.
//!
//! `VLTAVA_SIGKILL_ROUNDS` (100), `VLTAVA_SIGKILL_SECONDS` (300: no further round begins after
//! these), `VLTAVA_SIGKILL_SEED` (of the moments; printed).
#![allow(
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod support;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use support::wire::{self, PRODUCE_VERSION};
use support::{Broker, Options};
use vltava_client::blocking::Link;
use vltava_client::error::ClientError;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::init_producer_id::InitProducerIdRequest;
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use vltava_protocol::messages::produce::ProduceRequest;
use vltava_protocol::types::Str;

const TOPIC: &str = "killed";
const PARTITIONS: i32 = 6;
/// As many requests of a producer as Kafka remembers batches.
const IN_FLIGHT_MAX: usize = 5;
/// Nothing should take longer to succeed than this, whatever is killed meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);

/// Small, seeded, good enough to choose moments and sizes (xorshift).
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A batch that was sent, and is sent again until it is acknowledged.
struct Pending {
    bytes: Bytes,
    first: u64,
    count: u64,
}

/// What a producer knows about the one partition that it writes at a time.
struct Lane {
    partition: i32,
    next: u64,
    pending: VecDeque<Pending>,
    /// Offset of the first record, its number, and how many.
    acknowledged: Vec<(i64, u64, u64)>,
}

/// An idempotent producer, which knows every acknowledgement.
struct Producer {
    number: usize,
    acks: i16,
    id: i64,
    epoch: i16,
    random: Random,
    lanes: Vec<Lane>,
}

impl Producer {
    fn new(number: usize, acks: i16, seed: u64, link: &mut Link) -> Self {
        let answer = link.call(&InitProducerIdRequest::default()).expect("a producer id");
        assert!(answer.error_code.is_none(), "InitProducerId: {:?}", answer.error_code);
        // Each shares its partitions with other producers.
        let lane = |partition| Lane {
            partition,
            next: 0,
            pending: VecDeque::new(),
            acknowledged: Vec::new(),
        };
        let mine =
            (0..PARTITIONS).filter(|partition| (*partition as usize + number).is_multiple_of(2));
        Self {
            number,
            acks,
            id: answer.producer_id,
            epoch: answer.producer_epoch,
            random: Random(seed ^ (number as u64 + 1) << 32),
            lanes: mine.map(lane).collect(),
        }
    }

    /// Writes until it is told to stop and all is acknowledged.
    fn run(mut self, address: SocketAddr, stop: &AtomicBool, total: &AtomicU64) -> Self {
        let mut progress = Instant::now();
        loop {
            let done = stop.load(Ordering::Acquire)
                && self.lanes.iter().all(|lane| lane.pending.is_empty());
            if done {
                return self;
            }
            let before = total.load(Ordering::Relaxed);
            if let Err(error) = self.connection(address, stop, total) {
                assert!(
                    progress.elapsed() < PATIENCE,
                    "producer {} gets nothing acknowledged: {error}",
                    self.number
                );
                // The broker is away: it is not known when it will be back.
                thread::sleep(Duration::from_millis(5));
            }
            if total.load(Ordering::Relaxed) > before {
                progress = Instant::now();
            }
        }
    }

    /// One connection, to its end. What the last one left unanswered is sent first, in order.
    fn connection(
        &mut self,
        address: SocketAddr,
        stop: &AtomicBool,
        total: &AtomicU64,
    ) -> Result<(), ClientError> {
        let mut link = wire::connect(address)?;
        let mut sent: VecDeque<usize> = VecDeque::new();
        for (index, lane) in self.lanes.iter().enumerate() {
            for pending in &lane.pending {
                send(&mut link, lane.partition, self.acks, pending)?;
                sent.push_back(index);
            }
        }
        loop {
            let stopping = stop.load(Ordering::Acquire);
            if !stopping && sent.len() < IN_FLIGHT_MAX {
                let index = self.random.below(self.lanes.len() as u64) as usize;
                self.add_batch(index);
                let lane = &self.lanes[index];
                let pending = lane.pending.back().expect("just added");
                send(&mut link, lane.partition, self.acks, pending)?;
                sent.push_back(index);
                // Sometimes one at a time, sometimes as many as may be.
                if self.random.below(3) == 0 {
                    continue;
                }
            }
            let Some(index) = sent.pop_front() else {
                return Ok(());
            };
            if !self.receive(&mut link, index, total)? {
                return Ok(());
            }
        }
    }

    fn add_batch(&mut self, index: usize) {
        let count = 1 + self.random.below(8);
        let first = self.lanes[index].next;
        let mut builder = BatchBuilder::new().producer(self.id, self.epoch, first as i32);
        for number in first..first + count {
            let size = self.random.below(if number % 97 == 0 { 60_000 } else { 600 }) as usize;
            let value = format!("{} {number} {}", self.number, "x".repeat(size));
            builder.append(0, None, Some(value.as_bytes()), &[]).expect("a small record");
        }
        let lane = &mut self.lanes[index];
        lane.next += count;
        let bytes = Bytes::from(builder.build());
        lane.pending.push_back(Pending { bytes, first, count });
    }

    /// Takes an answer; `false` where the batch is to be sent again.
    fn receive(
        &mut self,
        link: &mut Link,
        index: usize,
        total: &AtomicU64,
    ) -> Result<bool, ClientError> {
        let mut answer = link.receive::<ProduceRequest>()?;
        let answer = answer.responses.remove(0).partition_responses.remove(0);
        let lane = &mut self.lanes[index];
        if !answer.error_code.is_none() {
            assert!(
                answer.error_code.is_retriable(),
                "producer {}, partition {}: {:?}",
                self.number,
                lane.partition,
                answer.error_code
            );
            return Ok(false);
        }
        let Pending { first, count, .. } = lane.pending.pop_front().expect("it was sent");
        lane.acknowledged.push((answer.base_offset, first, count));
        total.fetch_add(count, Ordering::Relaxed);
        Ok(true)
    }
}

fn send(link: &mut Link, partition: i32, acks: i16, batch: &Pending) -> Result<(), ClientError> {
    let request = wire::produce_request(TOPIC, partition, acks, batch.bytes.clone());
    link.send_at(&request, PRODUCE_VERSION)
}

/// Commits offsets of a group that grow, and looks after each lost connection what is left of them.
struct Committer {
    acknowledged: AtomicI64,
}

impl Committer {
    const GROUP: &str = "committed";

    fn run(&self, address: SocketAddr, stop: &AtomicBool) {
        let mut attempted = 0;
        while !stop.load(Ordering::Acquire) {
            // An error is a lost connection.
            drop(self.connection(address, stop, &mut attempted));
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn connection(
        &self,
        address: SocketAddr,
        stop: &AtomicBool,
        attempted: &mut i64,
    ) -> Result<(), ClientError> {
        let mut link = wire::connect(address)?;
        // The first who asks for a coordinator has the topic of offsets made.
        let find = FindCoordinatorRequest { key: Str::from(Self::GROUP), ..Default::default() };
        link.send_at(&find, 2)?;
        link.receive::<FindCoordinatorRequest>()?;
        if self.acknowledged.load(Ordering::Relaxed) > 0 {
            self.check(&mut link, *attempted)?;
        }
        while !stop.load(Ordering::Acquire) {
            *attempted += 1;
            let partition = OffsetCommitRequestPartition {
                committed_offset: *attempted,
                ..OffsetCommitRequestPartition::default()
            };
            let topic = OffsetCommitRequestTopic {
                name: Str::from(TOPIC),
                partitions: vec![partition],
                ..OffsetCommitRequestTopic::default()
            };
            let request = OffsetCommitRequest {
                group_id: Str::from(Self::GROUP),
                topics: vec![topic],
                ..OffsetCommitRequest::default()
            };
            link.send_at(&request, 8)?;
            let answer = link.receive::<OffsetCommitRequest>()?;
            let error = answer.topics[0].partitions[0].error_code;
            if error.is_none() {
                self.acknowledged.store(*attempted, Ordering::Relaxed);
            } else {
                assert!(error.is_retriable(), "OffsetCommit: {error:?}");
            }
        }
        Ok(())
    }

    /// What is committed is the last that was acknowledged, or one that was not answered.
    fn check(&self, link: &mut Link, attempted: i64) -> Result<(), ClientError> {
        let topic = OffsetFetchRequestTopic { name: Str::from(TOPIC), partition_indexes: vec![0] };
        let request = OffsetFetchRequest {
            group_id: Str::from(Self::GROUP),
            topics: Some(vec![topic]),
            ..OffsetFetchRequest::default()
        };
        let begin = Instant::now();
        loop {
            link.send_at(&request, 7)?;
            let answer = link.receive::<OffsetFetchRequest>()?;
            if answer.error_code.is_retriable() && begin.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            assert!(answer.error_code.is_none(), "OffsetFetch: {:?}", answer.error_code);
            let found = answer.topics[0].partitions[0].committed_offset;
            let acknowledged = self.acknowledged.load(Ordering::Relaxed);
            assert!(
                (acknowledged..=attempted).contains(&found),
                "committed is {found}; acknowledged was {acknowledged}, attempted {attempted}"
            );
            return Ok(());
        }
    }
}

/// Reads all partitions as they grow, over all lives of the broker: what each of them served.
fn read_along(address: SocketAddr, stop: &AtomicBool) -> Vec<Vec<(i64, Vec<u8>)>> {
    let mut served = vec![Vec::new(); PARTITIONS as usize];
    while !stop.load(Ordering::Acquire) {
        if let Ok(mut link) = wire::connect(address) {
            while !stop.load(Ordering::Acquire) {
                let read = (0..PARTITIONS).zip(&mut served).try_for_each(|(partition, records)| {
                    wire::read_on(&mut link, TOPIC, partition, records)
                });
                if read.is_err() {
                    break;
                }
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    served
}

#[test]
fn nothing_acknowledged_is_lost() {
    let rounds = variable("VLTAVA_SIGKILL_ROUNDS", 100);
    let time_max = Duration::from_secs(variable("VLTAVA_SIGKILL_SECONDS", 300));
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let seed = variable("VLTAVA_SIGKILL_SEED", clock.as_nanos() as u64 | 1);
    println!("VLTAVA_SIGKILL_SEED={seed}");
    let mut random = Random(seed);

    let mut broker = Broker::start(Options::default());
    let address = broker.address;
    let mut link = wire::connect(address).expect("a connection");
    let configs = [("segment.bytes", "1048576")];
    let error = wire::create_topic(&mut link, TOPIC, PARTITIONS, &configs).expect("an answer");
    assert!(error.is_none(), "{error:?}");

    let stop = Arc::new(AtomicBool::new(false));
    let total = Arc::new(AtomicU64::new(0));
    let committer = Arc::new(Committer { acknowledged: AtomicI64::new(0) });
    let done = Arc::new(Mutex::new(Vec::new()));
    let mut threads = Vec::new();
    for (number, acks) in [-1, 1, -1, 1].into_iter().enumerate() {
        let producer = Producer::new(number, acks, seed, &mut link);
        let (stop, total, done) = (Arc::clone(&stop), Arc::clone(&total), Arc::clone(&done));
        threads.push(thread::spawn(move || {
            let producer = producer.run(address, &stop, &total);
            done.lock().expect("no panic while locked").push(producer);
        }));
    }
    let (commits, stopped) = (Arc::clone(&committer), Arc::clone(&stop));
    threads.push(thread::spawn(move || commits.run(address, &stopped)));
    let stopped = Arc::clone(&stop);
    let reading = thread::spawn(move || read_along(address, &stopped));

    let begin = Instant::now();
    let mut kills = 0;
    let mut topics = Vec::new();
    while kills < rounds && begin.elapsed() < time_max {
        // Some live long enough for what runs once a second: notes, checkpoints, retention.
        let life_ms = if random.below(10) == 0 { 2500 } else { 250 };
        thread::sleep(Duration::from_millis(random.below(life_ms)));
        if random.below(5) == 0 {
            let name = format!("made-{kills}");
            if let Ok(ErrorCode::NONE) = create(address, &name) {
                topics.push(name);
            }
        }
        assert!(broker.is_running(), "it ended by itself:\n{}", broker.said());
        broker.kill();
        kills += 1;
        broker.options.shards = [1, 2, 5][random.below(3) as usize];
        broker.run();
    }
    stop.store(true, Ordering::Release);
    for thread in threads {
        thread.join().expect("a producer's own panic");
    }
    let served = reading.join().expect("the reader's own panic");
    let producers = std::mem::take(&mut *done.lock().expect("no panic while locked"));
    // What one incarnation serves, the next one serves, too.
    broker.restart();
    check(address, &producers, &topics, &served);
    let records = total.load(Ordering::Relaxed);
    let commits = committer.acknowledged.load(Ordering::Relaxed);
    println!(
        "sigkill: {kills} kills in {} s; {records} records, {commits} commits and {} topics are \
         where they were acknowledged",
        begin.elapsed().as_secs(),
        topics.len()
    );
    assert_eq!(kills, rounds, "the time was too short for all rounds");
    assert!(records > kills * 10, "only {records} records in {kills} rounds show nothing");
    assert!(commits > 0, "no commit was acknowledged");
    assert!(broker.stop().success());
}

fn create(address: SocketAddr, name: &str) -> Result<ErrorCode, ClientError> {
    wire::create_topic(&mut wire::connect(address)?, name, 1, &[])
}

/// Each record of each producer is there once, in order, and where it was acknowledged.
fn check(
    address: SocketAddr,
    producers: &[Producer],
    topics: &[String],
    served: &[Vec<(i64, Vec<u8>)>],
) {
    let mut link = wire::connect(address).expect("a connection");
    for (partition, served) in (0..PARTITIONS).zip(served) {
        let records = wire::read_all(&mut link, TOPIC, partition).expect("the records");
        assert!(!served.is_empty(), "nothing of partition {partition} was served meanwhile");
        let parts = served.iter().zip(&records).position(|(then, now)| then != now);
        assert_eq!((parts, served.len() <= records.len()), (None, true), "what was served is gone");
        let mut found = vec![Vec::new(); producers.len()];
        for (index, (offset, value)) in records.iter().enumerate() {
            assert_eq!(*offset, index as i64, "a gap in the offsets of partition {partition}");
            let text = String::from_utf8_lossy(value);
            let mut words = text.split(' ');
            let mut word = || words.next().and_then(|word| word.parse::<u64>().ok());
            let producer = word().expect("the producer's number") as usize;
            found[producer].push((*offset, word().expect("the record's number")));
        }
        for producer in producers {
            let Some(lane) = producer.lanes.iter().find(|lane| lane.partition == partition) else {
                continue;
            };
            let found = &found[producer.number];
            let numbers: Vec<u64> = found.iter().map(|(_, number)| *number).collect();
            let expected: Vec<u64> = (0..lane.next).collect();
            assert_eq!(
                numbers.len(),
                expected.len(),
                "records of producer {} in partition {partition}; first difference at {:?}",
                producer.number,
                numbers.iter().zip(&expected).position(|(a, b)| a != b)
            );
            assert_eq!(numbers, expected, "producer {}", producer.number);
            for (offset, first, count) in &lane.acknowledged {
                let at = found[*first as usize].0;
                assert_eq!(at, *offset, "record {first} of {count} acknowledged elsewhere");
            }
        }
    }
    for topic in topics {
        let data = wire::fetch(&mut link, topic, 0, 0).expect("an answer");
        assert!(data.error_code.is_none(), "topic {topic} is gone: {:?}", data.error_code);
    }
}
