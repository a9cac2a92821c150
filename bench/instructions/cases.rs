//! The cases: each sets itself up, then does one thing as often as it is told.

use std::error::Error;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use vltava::partition::validate::{AppendRules, DECOMPRESSED_BYTES_MAX, validate};
use vltava_protocol::batch::TimestampType;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::compression::Decompressor;
use vltava_protocol::decode::Reader;
use vltava_protocol::encode::{Part, Records, Writer};
use vltava_protocol::message::Message;
use vltava_protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopicResponse, PartitionData,
};
use vltava_protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData, TopicProduceResponse,
};
use vltava_protocol::types::Uuid;
use vltava_storage::{
    AppendBatch, AppendClass, EnvironmentOptions, LoadedNotes, Log, LogEnvironment, LogOptions,
};

use crate::disk::MemoryDisk;

type Outcome = Result<(), Box<dyn Error>>;
/// Does its thing so many times.
type Case = fn(u32) -> Outcome;

/// Names and what they do. A name keeps its meaning: figures of different commits are compared by
/// it.
pub const CASES: &[(&str, Case)] = &[
    ("decode-produce", decode_produce),
    ("decode-fetch-100-partitions", decode_fetch),
    ("encode-produce-answer", encode_produce_answer),
    ("encode-fetch-answer-100-partitions", encode_fetch_answer),
    ("validate-16-records-of-1-KiB", |times| validated(16, 1024, times)),
    ("validate-1000-records-of-100-B", |times| validated(1000, 100, times)),
    ("append-one-batch-of-16-KiB", |times| appended(1, 16, 1024, times)),
    ("append-50-batches-of-1-record", |times| appended(50, 1, 100, times)),
    ("plan-fetch-from-memory", |times| planned(64 << 20, times)),
    ("fetch-past-the-caches", |times| planned(0, times)),
];

const PRODUCE_VERSION: i16 = 13;
const FETCH_VERSION: i16 = 17;
const NOW_MS: i64 = 1_800_000_000_000;
const TOPIC: Uuid = Uuid(0x1234_5678);
/// Batches in a log that is read: 8 MiB.
const LOG_BATCHES: u32 = 512;
/// What is kept of it when it is read from its file: so little that each read is the disk's.
const READ_BYTES_MAX: usize = 2 << 20;

/// A batch of random-looking values.
fn batch(records: u32, record_bytes: usize) -> Result<Bytes, Box<dyn Error>> {
    let mut builder = BatchBuilder::new();
    let value: Vec<u8> = (0u8..=255).cycle().take(record_bytes).collect();
    for record in 0..records {
        builder.append(NOW_MS + i64::from(record), None, Some(&value), &[])?;
    }
    Ok(Bytes::from(builder.build()))
}

fn records(batch: Bytes) -> Option<Records> {
    Some(Records { parts: vec![Part::Memory(batch)] })
}

fn encoded(message: &impl Message, version: i16) -> Result<Bytes, Box<dyn Error>> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version)?;
    Ok(writer.into_bytes().ok_or("a message that is not all in memory")?)
}

fn decode<M: Message>(message: &M, version: i16, times: u32) -> Outcome {
    let bytes = encoded(message, version)?;
    for _ in 0..times {
        black_box(M::decode(&mut Reader::new(black_box(bytes.clone())), version)?);
    }
    Ok(())
}

fn encode<M: Message>(message: &M, version: i16, times: u32) -> Outcome {
    for _ in 0..times {
        let mut writer = Writer::frame();
        black_box(message).encode(&mut writer, version)?;
        black_box(writer.finish_frame()?);
    }
    Ok(())
}

fn decode_produce(times: u32) -> Outcome {
    let partition = PartitionProduceData { index: 3, records: records(batch(16, 1024)?) };
    let topic = TopicProduceData {
        topic_id: TOPIC,
        partition_data: vec![partition],
        ..TopicProduceData::default()
    };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![topic],
        ..ProduceRequest::default()
    };
    decode(&request, PRODUCE_VERSION, times)
}

fn decode_fetch(times: u32) -> Outcome {
    let partition = |partition| FetchPartition {
        partition,
        current_leader_epoch: 4,
        fetch_offset: 1_000_000,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    let topic = FetchTopic {
        topic_id: TOPIC,
        partitions: (0..100).map(partition).collect(),
        ..FetchTopic::default()
    };
    let request = FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        topics: vec![topic],
        ..FetchRequest::default()
    };
    decode(&request, FETCH_VERSION, times)
}

fn encode_produce_answer(times: u32) -> Outcome {
    let partition =
        PartitionProduceResponse { index: 3, base_offset: 1_000_000, ..Default::default() };
    let topic = TopicProduceResponse {
        topic_id: TOPIC,
        partition_responses: vec![partition],
        ..TopicProduceResponse::default()
    };
    let answer = ProduceResponse { responses: vec![topic], ..ProduceResponse::default() };
    encode(&answer, PRODUCE_VERSION, times)
}

fn encode_fetch_answer(times: u32) -> Outcome {
    let batch = batch(16, 1024)?;
    let partition = |partition_index| PartitionData {
        partition_index,
        high_watermark: 1_000_000,
        records: records(batch.clone()),
        ..PartitionData::default()
    };
    let topic = FetchableTopicResponse {
        topic_id: TOPIC,
        partitions: (0..100).map(partition).collect(),
        ..FetchableTopicResponse::default()
    };
    let answer = FetchResponse { responses: vec![topic], ..FetchResponse::default() };
    encode(&answer, FETCH_VERSION, times)
}

/// What a produce request's batch goes through before a log takes it.
fn validated(records: u32, record_bytes: usize, times: u32) -> Outcome {
    let rules = AppendRules {
        message_bytes_max: 1 << 20,
        segment_bytes: 1 << 30,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        codec: None,
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        is_compacted: false,
    };
    let batch = batch(records, record_bytes)?;
    let mut decompressor = Decompressor::new();
    for _ in 0..times {
        let batch = black_box(&batch);
        black_box(validate(batch, &rules, PRODUCE_VERSION, NOW_MS, &mut decompressor)?);
    }
    Ok(())
}

/// Batches appended one by one and written as one group.
fn appended(batches: u32, records: u32, record_bytes: usize, times: u32) -> Outcome {
    let batch = AppendBatch::new(batch(records, record_bytes)?)?;
    run(async {
        let log = log(64 << 20).await?;
        for _ in 0..times {
            for _ in 0..batches {
                log.append(vec![batch.clone()], 1, AppendClass::Client, NOW_MS)?;
            }
            write(&log).await?;
        }
        Ok(())
    })
}

/// What a fetch sends, found for one offset after the other, as a client that reads all would;
/// without a batch cache, read from ranges of the file.
fn planned(cache_bytes_max: usize, times: u32) -> Outcome {
    let batch = AppendBatch::new(batch(16, 1024)?)?;
    run(async {
        let (log, disk) = log_on_disk(cache_bytes_max).await?;
        for _ in 0..LOG_BATCHES {
            log.append(vec![batch.clone()], 1, AppendClass::Client, NOW_MS)?;
            write(&log).await?;
        }
        let mut offset = log.log_start();
        let read_before = disk.read_bytes();
        let mut bytes = 0;
        for _ in 0..times {
            let found = log.read(black_box(offset), log.flushed_end(), 256 << 10, true).await?;
            if found.bytes == 0 {
                return Err("a read that found nothing".into());
            }
            let next = offset + 16 * 16;
            offset = if next < log.flushed_end() { next } else { log.log_start() };
            bytes += found.bytes;
            black_box(found);
        }
        // All of it, or nothing.
        let read = disk.read_bytes() - read_before;
        let least = if cache_bytes_max > 0 { 0 } else { bytes as u64 / 2 };
        if read < least || (least == 0 && read > 0) {
            let what =
                format!("{read} of {bytes} bytes came from the disk: not what this case says");
            return Err(what.into());
        }
        Ok(())
    })
}

async fn log(cache_bytes_max: usize) -> Result<Log<MemoryDisk>, Box<dyn Error>> {
    Ok(log_on_disk(cache_bytes_max).await?.0)
}

async fn log_on_disk(
    cache_bytes_max: usize,
) -> Result<(Log<MemoryDisk>, MemoryDisk), Box<dyn Error>> {
    let read_bytes_max = READ_BYTES_MAX;
    let options =
        EnvironmentOptions { cache_bytes_max, read_bytes_max, ..EnvironmentOptions::default() };
    let disk = MemoryDisk::default();
    let environment = LogEnvironment::new(disk.clone(), options, 0, LoadedNotes::default());
    let log = Log::create(&environment, "topic-0", TOPIC, LogOptions::default()).await?;
    Ok((log, disk))
}

async fn write(log: &Log<MemoryDisk>) -> Outcome {
    while log.has_pending() {
        black_box(log.write_pending().await?);
    }
    Ok(())
}

/// Runs a future that waits for nothing but [`MemoryDisk`], which never lets it wait.
fn run(future: impl Future<Output = Outcome>) -> Outcome {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err("it waits for something".into()),
    }
}
