//! What a producer's batch must be before a log takes it. Pure.
//!
//! The rules, and which comes first, are those of Kafka's log and its validator: size, format and
//! CRC, the batch's fields, then each record. Runs on the shard of the connection, so that the
//! shard that owns the partition only deduplicates and enqueues.

use bytes::{Bytes, BytesMut};
use vltava_protocol::batch::{
    Batch, BatchError, HEADER_BYTES, NO_TIMESTAMP, ProducerRuleError, TimestampType,
};
use vltava_protocol::compression::{self, Codec, CompressionError, Decompressor};
use vltava_protocol::record::{self, Facts, RecordError};

/// The largest payload that a compressed batch may unfold to, in bytes: validation holds it in
/// memory, and in one task.
pub const DECOMPRESSED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The settings of a topic that decide what its partitions take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendRules {
    /// `max.message.bytes`: the largest batch, as it is stored.
    pub message_bytes_max: usize,
    /// `segment.bytes`: a batch stands in one segment.
    pub segment_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `compression.type` with its level; `None` keeps what the producer chose.
    pub codec: Option<(Codec, Option<i32>)>,
    /// `max.decompressed.message.bytes`, and never more than [`DECOMPRESSED_BYTES_MAX`].
    pub decompressed_bytes_max: usize,
    /// Whether `cleanup.policy` has `compact`: each record needs a key.
    pub is_compacted: bool,
}

/// What breaks the rules. Says which, for the client's log as much as for ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No batch, or more than one.
    #[error("a produce request holds exactly one batch for each partition")]
    NotOneBatch,
    /// Base offsets are the broker's to give.
    #[error("the base offset of a producer's batch is 0, not {0}")]
    BaseOffset(i64),
    /// Above `max.message.bytes`.
    #[error("the batch has {bytes} bytes, and max.message.bytes is {allowed}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        allowed: usize,
    },
    /// Above `segment.bytes`.
    #[error("the batch has {bytes} bytes, and segment.bytes is {allowed}")]
    LargerThanSegment {
        /// Its size.
        bytes: usize,
        /// The limit.
        allowed: usize,
    },
    /// It belongs to a transaction, and its request to none.
    #[error("a batch of a transaction in a request without a transactional id")]
    Transactional,
    /// Cannot be read, or its CRC is wrong.
    #[error("{0}")]
    Batch(BatchError),
    /// A field of its header breaks a rule.
    #[error("{0}")]
    Header(ProducerRuleError),
    /// zstd, in a version of Produce from before it (KIP-110).
    #[error("zstd needs Produce version 7 or newer")]
    CodecTooNew,
    /// Its payload cannot be unfolded.
    #[error("the payload cannot be decompressed: {0}")]
    Compression(String),
    /// Its payload unfolds to more than is taken.
    #[error("the payload unfolds to more than {allowed} bytes")]
    Unfolded {
        /// The limit.
        allowed: usize,
    },
    /// A record is not as it must be.
    #[error("{0}")]
    Record(RecordError),
    /// A compacted topic needs keys.
    #[error("a compacted topic takes no record without a key")]
    NoKey {
        /// Which records of the batch have none.
        indexes: Vec<i32>,
    },
    /// A timestamp too far from now.
    #[error("timestamp {timestamp} is outside of {earliest} to {latest}")]
    Timestamp {
        /// Which records of the batch.
        indexes: Vec<i32>,
        /// That of the first of them, in milliseconds since 1970.
        timestamp: i64,
        /// The earliest that is taken.
        earliest: i64,
        /// The latest that is taken.
        latest: i64,
    },
}

impl AppendRules {
    /// Whether the broker gives records their timestamp.
    pub fn is_log_append_time(&self) -> bool {
        self.timestamp_type == TimestampType::LogAppendTime
    }
}

impl Rejection {
    /// The records of the batch that are to blame, where it is not the batch.
    pub fn record_indexes(&self) -> &[i32] {
        match self {
            Self::NoKey { indexes } | Self::Timestamp { indexes, .. } => indexes,
            Self::Record(error) => std::slice::from_ref(&error.index),
            _ => &[],
        }
    }
}

/// Checks what a produce request holds for one partition, and gives the batch as it is to be stored
/// (but for base offset and leader epoch). `produce_version` is that of the request; `now_ms` is
/// wall-clock time.
pub fn validate(
    records: &Bytes,
    rules: &AppendRules,
    produce_version: i16,
    now_ms: i64,
    decompressor: &mut Decompressor,
) -> Result<Bytes, Rejection> {
    let (batch, rest) = match Batch::parse(records) {
        Err(BatchError::Incomplete { .. }) if records.is_empty() => {
            return Err(Rejection::NotOneBatch);
        }
        parsed => parsed.map_err(Rejection::Batch)?,
    };
    if !rest.is_empty() {
        return Err(Rejection::NotOneBatch);
    }
    let (bytes, allowed) = (batch.batch_bytes(), rules.message_bytes_max);
    if bytes > allowed {
        return Err(Rejection::TooLarge { bytes, allowed });
    }
    if bytes > rules.segment_bytes {
        return Err(Rejection::LargerThanSegment { bytes, allowed: rules.segment_bytes });
    }
    batch.check_crc().map_err(Rejection::Batch)?;
    if batch.base_offset() != 0 {
        return Err(Rejection::BaseOffset(batch.base_offset()));
    }
    batch.check_producer_rules().map_err(Rejection::Header)?;
    if batch.is_transactional() {
        return Err(Rejection::Transactional);
    }
    let codec =
        batch.codec().map_err(|codec| Rejection::Header(ProducerRuleError::Codec(codec)))?;
    if codec == Codec::Zstd && produce_version < 7 {
        return Err(Rejection::CodecTooNew);
    }
    let bytes_max = rules.decompressed_bytes_max.min(DECOMPRESSED_BYTES_MAX);
    let payload = match codec {
        Codec::None => batch.payload(),
        codec => decompressor
            .decompress(codec, batch.payload(), bytes_max)
            .map_err(|error| unfolding_failed(&error, bytes_max))?,
    };
    let facts = check_records(&batch, payload, rules, now_ms)?;
    store_as(records, &batch, codec, payload, &facts, rules, now_ms)
}

fn unfolding_failed(error: &CompressionError, allowed: usize) -> Rejection {
    match error {
        CompressionError::TooLarge { .. } => Rejection::Unfolded { allowed },
        other => Rejection::Compression(other.to_string()),
    }
}

fn check_records(
    batch: &Batch<'_>,
    payload: &[u8],
    rules: &AppendRules,
    now_ms: i64,
) -> Result<Facts, Rejection> {
    let (count, last_delta) = (batch.record_count(), batch.last_offset_delta());
    let facts = record::validate_records(payload, batch.base_timestamp(), count, last_delta)
        .map_err(Rejection::Record)?;
    if facts.first_without_key.is_some() && rules.is_compacted {
        let records = (0..).zip(record::records(payload, count).flatten());
        let without = records.filter(|(_, record)| record.key.is_none());
        return Err(Rejection::NoKey { indexes: without.map(|(index, _)| index).collect() });
    }
    if rules.timestamp_type == TimestampType::CreateTime {
        check_timestamps(batch, payload, &facts, rules, now_ms)?;
    }
    Ok(facts)
}

fn check_timestamps(
    batch: &Batch<'_>,
    payload: &[u8],
    facts: &Facts,
    rules: &AppendRules,
    now_ms: i64,
) -> Result<(), Rejection> {
    let Some(lowest) = facts.min_timestamp else {
        return Ok(());
    };
    let earliest = now_ms.saturating_sub(rules.timestamp_before_max_ms);
    let latest = now_ms.saturating_add(rules.timestamp_after_max_ms);
    if earliest <= lowest && facts.max_timestamp <= latest {
        return Ok(());
    }
    // Which records they are is looked up only now that there are some.
    let timestamps = record::records(payload, batch.record_count())
        .flatten()
        .map(|record| batch.base_timestamp().saturating_add(record.timestamp_delta));
    let is_outside =
        |timestamp: &i64| *timestamp != NO_TIMESTAMP && !(earliest..=latest).contains(timestamp);
    let outside: Vec<(i32, i64)> =
        (0..).zip(timestamps).filter(|(_, timestamp)| is_outside(timestamp)).collect();
    let Some((_, timestamp)) = outside.first().copied() else {
        return Ok(());
    };
    let indexes = outside.into_iter().map(|(index, _)| index).collect();
    Err(Rejection::Timestamp { indexes, timestamp, earliest, latest })
}

/// The batch as the log is to hold it: as it came, wherever the topic's settings allow.
fn store_as(
    records: &Bytes,
    batch: &Batch<'_>,
    codec: Codec,
    payload: &[u8],
    facts: &Facts,
    rules: &AppendRules,
    now_ms: i64,
) -> Result<Bytes, Rejection> {
    let max_timestamp = match rules.timestamp_type {
        TimestampType::CreateTime => facts.max_timestamp,
        TimestampType::LogAppendTime => now_ms,
    };
    match rules.codec {
        Some((wanted, level)) if wanted != codec => {
            let mut compressed = Vec::new();
            compression::compress(wanted, level, payload, &mut compressed)
                .map_err(|error| Rejection::Compression(error.to_string()))?;
            let stored =
                batch.with_payload(wanted, rules.timestamp_type, max_timestamp, &compressed);
            let (bytes, allowed) = (stored.len(), rules.message_bytes_max);
            if bytes > allowed {
                return Err(Rejection::TooLarge { bytes, allowed });
            }
            Ok(Bytes::from(stored))
        }
        _ if rules.timestamp_type == batch.timestamp_type()
            && max_timestamp == batch.max_timestamp() =>
        {
            Ok(records.clone())
        }
        _ => {
            let header = batch.header_with_timestamps(rules.timestamp_type, max_timestamp);
            let mut stored = BytesMut::with_capacity(batch.batch_bytes());
            stored.extend_from_slice(&header);
            stored.extend_from_slice(&records[HEADER_BYTES..]);
            Ok(stored.freeze())
        }
    }
}
