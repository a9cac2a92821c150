//! What the tests of this crate share: an executor, batches, a log read back as records, and a
//! workload with its model.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "each test target uses a part; a test may panic"
)]

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::noop_waker;
use vltava_protocol::batch::{Batch, walk};
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::encode::Part;
use vltava_protocol::record::records;
use vltava_protocol::types::Uuid;
use vltava_storage::io::fault_disk::{FaultDisk, FaultSource};
use vltava_storage::{
    AppendBatch, EnvironmentOptions, Log, LogEnvironment, LogOptions, Opened, StorageError,
    load_notes,
};

pub mod workload;

pub const TOPIC_ID: Uuid = Uuid(0x1234_5678);
pub const DIRECTORY: &str = "topic-0";

/// One of those that take turns.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Runs a future that waits for nothing but the disk.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = noop_waker();
    let mut context = Context::from_waker(&waker);
    for _ in 0..10_000_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("the future never ends");
}

/// Runs tasks to their ends, each time the one that chance picks.
pub fn run_all(chance: &Chance, mut tasks: Vec<Task>) {
    let waker = noop_waker();
    let mut context = Context::from_waker(&waker);
    for _ in 0..10_000_000 {
        if tasks.is_empty() {
            return;
        }
        let at = chance.below(tasks.len() as u64) as usize;
        if tasks[at].as_mut().poll(&mut context).is_ready() {
            drop(tasks.swap_remove(at));
        }
    }
    panic!("the tasks never end");
}

/// Comes back this many polls later.
pub async fn pause(mut polls: u64) {
    std::future::poll_fn(move |_| {
        if polls == 0 {
            return Poll::Ready(());
        }
        polls -= 1;
        Poll::Pending
    })
    .await;
}

/// Every disk operation takes a while, by chance.
pub fn slow_down(disk: &FaultDisk, chance: &Rc<Chance>) {
    let chance = Rc::clone(chance);
    disk.set_latency(Some(Rc::new(move |_| Box::pin(pause(chance.below(4))) as Task)));
}

/// A small generator: everything in a test follows from its seed.
pub struct Chance(Cell<u64>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1))
    }

    pub fn next(&self) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    pub fn below(&self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// True once in so many times.
    pub fn one_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// A record as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    pub timestamp: i64,
    pub epoch: i32,
    pub value: Vec<u8>,
}

/// A batch of these values; `producer` is (id, epoch, base sequence).
pub fn batch(timestamp: i64, values: &[Vec<u8>], producer: Option<(i64, i16, i32)>) -> AppendBatch {
    let mut builder = BatchBuilder::new();
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(id, epoch, sequence);
    }
    for value in values {
        builder.append(timestamp, None, Some(value), &[]).unwrap();
    }
    AppendBatch::new(Bytes::from(builder.build())).unwrap()
}

/// Options under which everything happens often.
pub fn small_options() -> LogOptions {
    LogOptions {
        segment_bytes: 24_000,
        index_interval_bytes: 600,
        index_bytes_max: 4096,
        retention_ms: None,
        ..LogOptions::default()
    }
}

pub fn small_environment() -> EnvironmentOptions {
    EnvironmentOptions {
        write_bytes_max: 8192,
        buffer_bytes_min: 4096,
        buffer_bytes_max: 16_384,
        zero_bytes_max: 65_536,
        cache_bytes_max: 32_768,
        read_bytes_max: 32_768,
        read_chunk_bytes: 4096,
        open_files_max: 2,
        ..EnvironmentOptions::default()
    }
}

pub async fn environment(disk: &FaultDisk) -> Result<Rc<LogEnvironment<FaultDisk>>, StorageError> {
    let loaded = load_notes(disk).await.map_err(StorageError::Unreadable)?;
    let options = small_environment();
    Ok(LogEnvironment::new(disk.clone(), options, 0, loaded))
}

pub fn ready(opened: Opened<FaultDisk>) -> Log<FaultDisk> {
    match opened {
        Opened::Ready(log) => log,
        Opened::Corrupt(corrupt) => panic!("corrupt: {}", corrupt.corruption()),
    }
}

/// All bytes of an answer; `None` where a file is shorter than the range.
pub fn bytes_of(parts: &[Part]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Part::Memory(memory) => bytes.extend_from_slice(memory),
            Part::External(range) => {
                let source = range.source.downcast_ref::<FaultSource>().unwrap();
                bytes.extend_from_slice(&source.read(range.position, range.len)?);
            }
        }
    }
    Some(bytes)
}

/// The records of whole batches; `None` where a batch is not as it was written.
pub fn records_of(bytes: &[u8]) -> Option<Vec<Record>> {
    let mut found = Vec::new();
    let mut batches = walk(bytes);
    for batch in &mut batches {
        let batch: Batch<'_> = batch.ok()?;
        batch.check_crc().ok()?;
        for record in records(batch.payload(), batch.record_count()) {
            let record = record.ok()?;
            found.push(Record {
                offset: batch.base_offset() + i64::from(record.offset_delta),
                timestamp: batch.base_timestamp() + record.timestamp_delta,
                epoch: batch.leader_epoch(),
                value: record.value.unwrap_or_default().to_vec(),
            });
        }
    }
    batches.rest().is_empty().then_some(found)
}

/// Reads a log from its start to its end, as a consumer would. `Err` where damage shows.
pub async fn read_all(log: &Log<FaultDisk>, bytes_max: usize) -> Result<Vec<Record>, String> {
    let mut found: Vec<Record> = Vec::new();
    let mut next = log.log_start();
    let end = log.flushed_end();
    while next < end {
        let result = log.read(next, end, bytes_max, true).await;
        let result = result.map_err(|error| error.to_string())?;
        let bytes = bytes_of(&result.parts).ok_or("a file shorter than its range")?;
        assert_eq!(bytes.len(), result.bytes);
        let records = records_of(&bytes).ok_or("a damaged batch")?;
        let first = records.first().ok_or_else(|| format!("nothing at {next} of {end}"))?;
        assert_eq!(Some(first.offset), result.first_offset);
        if first.offset > next {
            return Err(format!("{} for {next}", first.offset));
        }
        let last = records.last().unwrap().offset;
        let sent = log.read_to_send(next, end, bytes_max).await;
        let sent = sent.map_err(|error| error.to_string())?;
        if !sent.is_some_and(|(parts, next)| parts == result.parts && next == last + 1) {
            return Err(format!("what is sent from {next} on ends elsewhere"));
        }
        found.extend(records.into_iter().filter(|record| record.offset >= next));
        next = last + 1;
    }
    Ok(found)
}
