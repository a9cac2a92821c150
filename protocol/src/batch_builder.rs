//! Builds batches: the broker's own records (coordinators, control records, recompression), and
//! those of our client.

use thiserror::Error;
use zerocopy::IntoBytes;
use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};

use crate::batch::{
    HEADER_BYTES, Header, LENGTH_OVERHEAD_BYTES, MAGIC, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    NO_SEQUENCE, NO_TIMESTAMP, TimestampType, attribute, crc_of,
};
use crate::compression::{Codec, CompressionError, Compressor};

/// Most that a varint of a record's field takes.
const VARINT_BYTES_MAX: usize = 5;
const VARLONG_BYTES_MAX: usize = 10;
/// A batch must stay below what its length field, an i32, can say; with some room for a codec that
/// makes it longer.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// Why a batch cannot be built.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BuildError {
    /// The batch would pass 1 GiB.
    #[error("a batch holds at most 1 GiB")]
    TooLarge,
    /// The timestamp stands too far from the batch's first.
    #[error("timestamps too far apart for one batch")]
    Timestamp,
    /// The codec failed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// A header of a record: its key, and its value if any.
pub type HeaderRef<'a> = (&'a [u8], Option<&'a [u8]>);

/// A batch that grows. Records get offset deltas 0, 1, 2 ... as they are appended.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    /// Room for the header, then the records, uncompressed.
    bytes: Vec<u8>,
    /// One record without its length, kept for its memory.
    scratch: Vec<u8>,
    base_offset: i64,
    leader_epoch: i32,
    attributes: i16,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    append_timestamp: Option<i64>,
    record_count: i32,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch at offset 0, of no producer, with leader epoch -1.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; HEADER_BYTES],
            scratch: Vec::new(),
            base_offset: 0,
            leader_epoch: -1,
            attributes: 0,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            append_timestamp: None,
            record_count: 0,
        }
    }

    /// Where the batch stands in a log.
    pub fn position(mut self, base_offset: i64, leader_epoch: i32) -> Self {
        self.base_offset = base_offset;
        self.leader_epoch = leader_epoch;
        self
    }

    /// Who writes it, and the sequence number of its first record ([`NO_SEQUENCE`] in control
    /// batches).
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Part of its producer's transaction.
    pub fn transactional(mut self) -> Self {
        self.attributes |= attribute::TRANSACTIONAL;
        self
    }

    /// Holds control records.
    pub fn control(mut self) -> Self {
        self.attributes |= attribute::CONTROL;
        self
    }

    /// Every record gets this timestamp (milliseconds since 1970), the broker's, when it is read.
    pub fn log_append_time(mut self, timestamp: i64) -> Self {
        self.append_timestamp = Some(timestamp);
        self
    }

    /// Appends a record with its timestamp in milliseconds since 1970. On an error the batch is as
    /// it was.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderRef<'_>],
    ) -> Result<(), BuildError> {
        let headers_bytes: usize = headers
            .iter()
            .map(|(key, value)| 2 * VARINT_BYTES_MAX + key.len() + value.map_or(0, <[u8]>::len))
            .sum();
        let record_bytes = record_bytes_max(key, value).saturating_add(headers_bytes);
        if self.bytes.len().saturating_add(record_bytes) > BATCH_BYTES_MAX {
            return Err(BuildError::TooLarge);
        }
        let base_timestamp = if self.record_count == 0 { timestamp } else { self.base_timestamp };
        let delta = timestamp.checked_sub(base_timestamp).ok_or(BuildError::Timestamp)?;
        let record = &mut self.scratch;
        record.clear();
        record.push(0);
        put_varlong(record, delta);
        put_varlong(record, i64::from(self.record_count));
        put_field(record, key);
        put_field(record, value);
        put_length(record, headers.len());
        for (key, value) in headers {
            put_field(record, Some(key));
            put_field(record, *value);
        }
        put_length(&mut self.bytes, record.len());
        self.bytes.extend_from_slice(record);
        self.max_timestamp =
            if self.record_count == 0 { timestamp } else { self.max_timestamp.max(timestamp) };
        self.base_timestamp = base_timestamp;
        self.record_count += 1;
        Ok(())
    }

    /// How many records it has.
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Its length, were it built now without compression; in bytes.
    pub fn uncompressed_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The most that one more record without headers can add to [`Self::uncompressed_bytes`].
    pub fn record_bytes_max(key: Option<&[u8]>, value: Option<&[u8]>) -> usize {
        record_bytes_max(key, value)
    }

    /// The batch, records as they are.
    pub fn build(mut self) -> Vec<u8> {
        let header = self.header(Codec::None, &self.bytes[HEADER_BYTES..]);
        self.bytes[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        self.bytes
    }

    /// The batch, records compressed.
    pub fn build_compressed(self, compressor: &mut Compressor) -> Result<Vec<u8>, BuildError> {
        if compressor.codec() == Codec::None {
            return Ok(self.build());
        }
        let mut bytes = vec![0; HEADER_BYTES];
        compressor.compress(&self.bytes[HEADER_BYTES..], &mut bytes)?;
        if i32::try_from(bytes.len()).is_err() {
            return Err(BuildError::TooLarge);
        }
        let header = self.header(compressor.codec(), &bytes[HEADER_BYTES..]);
        bytes[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        Ok(bytes)
    }

    fn header(&self, codec: Codec, payload: &[u8]) -> Header {
        let batch_length = HEADER_BYTES - LENGTH_OVERHEAD_BYTES + payload.len();
        let (timestamp_type, max_timestamp) = match self.append_timestamp {
            Some(timestamp) => (TimestampType::LogAppendTime, timestamp),
            None => (TimestampType::CreateTime, self.max_timestamp),
        };
        let mut attributes = self.attributes | i16::from(codec.id());
        if timestamp_type == TimestampType::LogAppendTime {
            attributes |= attribute::LOG_APPEND_TIME;
        }
        let mut header = Header {
            base_offset: I64::new(self.base_offset),
            // Below `BATCH_BYTES_MAX`, or checked after compression.
            batch_length: I32::new(i32::try_from(batch_length).unwrap_or(i32::MAX)),
            leader_epoch: I32::new(self.leader_epoch),
            magic: MAGIC,
            crc: U32::ZERO,
            attributes: I16::new(attributes),
            // -1 in a batch without records, which Kafka does not write either.
            last_offset_delta: I32::new(self.record_count - 1),
            base_timestamp: I64::new(self.base_timestamp),
            max_timestamp: I64::new(max_timestamp),
            producer_id: I64::new(self.producer_id),
            producer_epoch: I16::new(self.producer_epoch),
            base_sequence: I32::new(self.base_sequence),
            record_count: I32::new(self.record_count),
        };
        header.crc.set(crc_of(&header, payload));
        header
    }
}

/// The most that a record without headers takes.
fn record_bytes_max(key: Option<&[u8]>, value: Option<&[u8]>) -> usize {
    // Its length, the attributes, the timestamp, then offset, key, value and header count.
    let fixed = VARINT_BYTES_MAX + 1 + VARLONG_BYTES_MAX + 4 * VARINT_BYTES_MAX;
    fixed.saturating_add(key.map_or(0, <[u8]>::len)).saturating_add(value.map_or(0, <[u8]>::len))
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        Some(bytes) => {
            put_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        None => put_varlong(out, -1),
    }
}

/// A length below `BATCH_BYTES_MAX`, which `append` has checked.
fn put_length(out: &mut Vec<u8>, length: usize) {
    put_varlong(out, i64::try_from(length).unwrap_or(i64::MAX));
}

/// Zigzag. An int and a long of the same value have the same bytes.
fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        // The low seven bits.
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests;
