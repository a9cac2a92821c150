//! A record batch of magic 2, read in place.
//!
//! The layout (KIP-98), big-endian, 61 bytes before the records:
//!
//! | at | field | bytes | under the CRC |
//! |---|---|---|---|
//! | 0 | base offset | 8 | no: the broker stamps it |
//! | 8 | batch length: bytes after this field | 4 | no |
//! | 12 | partition leader epoch | 4 | no: the broker stamps it |
//! | 16 | magic | 1 | no |
//! | 17 | CRC-32C of all that follows | 4 | |
//! | 21 | attributes | 2 | yes |
//! | 23 | last offset delta | 4 | yes |
//! | 27 | base timestamp | 8 | yes |
//! | 35 | max timestamp | 8 | yes |
//! | 43 | producer id, epoch, base sequence | 8, 2, 4 | yes |
//! | 57 | record count | 4 | yes |
//! | 61 | records, compressed as one piece | | yes |
//!
//! [`Batch::parse`] proves the length and the magic, nothing else: call [`Batch::check_crc`] where
//! the bytes come from outside, and [`Batch::check_producer_rules`] where they come from a
//! producer. All arithmetic on fields is total, whatever they hold.

use thiserror::Error;
use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::compression::Codec;

/// Length of a batch's header: everything before its records.
pub const HEADER_BYTES: usize = 61;
/// Length of the part that stands before what the batch length counts.
pub const LENGTH_OVERHEAD_BYTES: usize = 12;
/// Length of the part that an appender rewrites: base offset, batch length, leader epoch.
pub const STAMP_BYTES: usize = 16;
/// The only format that is stored.
pub const MAGIC: i8 = 2;
/// No timestamp.
pub const NO_TIMESTAMP: i64 = -1;
/// No producer id: the batch is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// No producer epoch.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// No sequence number.
pub const NO_SEQUENCE: i32 = -1;

const MAGIC_AT: usize = 16;
const CRC_START: usize = 21;
/// What a batch of magic 2 counts at least in its length field.
const LENGTH_MIN: usize = HEADER_BYTES - LENGTH_OVERHEAD_BYTES;
/// The smallest message of the formats before magic 2.
const OLD_LENGTH_MIN: usize = 14;

/// Bits of the attributes.
pub(crate) mod attribute {
    pub(crate) const CODEC: i16 = 0b111;
    pub(crate) const LOG_APPEND_TIME: i16 = 1 << 3;
    pub(crate) const TRANSACTIONAL: i16 = 1 << 4;
    pub(crate) const CONTROL: i16 = 1 << 5;
    pub(crate) const DELETE_HORIZON: i16 = 1 << 6;
}

/// The header as it stands in memory.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) base_offset: I64,
    pub(crate) batch_length: I32,
    pub(crate) leader_epoch: I32,
    pub(crate) magic: i8,
    pub(crate) crc: U32,
    pub(crate) attributes: I16,
    pub(crate) last_offset_delta: I32,
    pub(crate) base_timestamp: I64,
    pub(crate) max_timestamp: I64,
    pub(crate) producer_id: I64,
    pub(crate) producer_epoch: I16,
    pub(crate) base_sequence: I32,
    pub(crate) record_count: I32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BatchError {
    /// The bytes end inside the batch. At the end of a fetched range or of a log that is written
    /// to, this is no fault.
    #[error("the batch needs {needed} bytes and {available} are here")]
    Incomplete {
        /// What the batch takes; where the length field itself is cut off, the least it can take.
        needed: usize,
        /// What is there.
        available: usize,
    },
    /// The length field says less than any batch has.
    #[error("a batch length of {0} is less than any batch has")]
    Length(i32),
    /// A message set of magic 0 or 1.
    #[error("messages of magic {0}, the format before Kafka 0.11, are not supported")]
    OldMagic(i8),
    /// No format that was ever defined.
    #[error("{0} is no known magic")]
    UnknownMagic(i8),
    /// The bytes are not those that were written.
    #[error("the batch says CRC-32C {stored:#010x} and has {computed:#010x}")]
    Crc {
        /// As the batch has it.
        stored: u32,
        /// Of the bytes.
        computed: u32,
    },
}

/// Which rule for batches of producers a batch breaks. Kafka answers INVALID_RECORD to each.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProducerRuleError {
    /// A batch without records.
    #[error("a record count of {0}")]
    RecordCount(i32),
    /// Offsets and count disagree.
    #[error("a last offset delta of {last_offset_delta} for {record_count} records")]
    OffsetRange {
        /// As the batch has it.
        last_offset_delta: i32,
        /// As the batch has it.
        record_count: i32,
    },
    /// Only brokers write control batches.
    #[error("a control batch")]
    Control,
    /// A producer id without a sequence number.
    #[error("base sequence {base_sequence} with producer id {producer_id}")]
    Sequence {
        /// As the batch has it.
        producer_id: i64,
        /// As the batch has it.
        base_sequence: i32,
    },
    /// Bits 0 to 2 of the attributes name no codec.
    #[error("codec {0} is not known")]
    Codec(u8),
    /// Log-append time is the broker's to set. Kafka answers INVALID_TIMESTAMP.
    #[error("timestamp type LogAppendTime")]
    LogAppendTime,
}

/// Who gave a batch its timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer, one for each record.
    CreateTime,
    /// The broker, one for all: the batch's max timestamp.
    LogAppendTime,
}

/// One batch, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    header: &'a Header,
    bytes: &'a [u8],
}

impl<'a> Batch<'a> {
    /// The batch at the start of `bytes`, and what stands behind it. Checks length and magic only.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BatchError> {
        let incomplete = |needed| BatchError::Incomplete { needed, available: bytes.len() };
        let Some(start) = bytes.first_chunk::<{ MAGIC_AT + 1 }>() else {
            // Even so, a length that is there is known to be wrong as soon as it can be seen.
            let Some(length) = bytes.get(8..12) else {
                return Err(incomplete(HEADER_BYTES));
            };
            let length = length_of([length[0], length[1], length[2], length[3]])?;
            return Err(incomplete((LENGTH_OVERHEAD_BYTES + length).max(MAGIC_AT + 1)));
        };
        let length = length_of([start[8], start[9], start[10], start[11]])?;
        match i8::from_be_bytes([start[MAGIC_AT]]) {
            MAGIC => {}
            old @ 0..MAGIC => return Err(BatchError::OldMagic(old)),
            unknown => return Err(BatchError::UnknownMagic(unknown)),
        }
        if length < LENGTH_MIN {
            return Err(BatchError::Length(i32::from_be_bytes([
                start[8], start[9], start[10], start[11],
            ])));
        }
        let batch_bytes = LENGTH_OVERHEAD_BYTES + length;
        let Some((batch, rest)) = bytes.split_at_checked(batch_bytes) else {
            return Err(incomplete(batch_bytes));
        };
        let Ok((header, _)) = Header::ref_from_prefix(batch) else {
            return Err(incomplete(batch_bytes));
        };
        Ok((Self { header, bytes: batch }, rest))
    }

    /// The whole batch, header included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records, as they travel: compressed where [`Self::codec`] says so.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Length of the whole batch, in bytes.
    pub fn batch_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The value of the length field: the batch without its first 12 bytes.
    pub fn batch_length(&self) -> i32 {
        self.header.batch_length.get()
    }

    /// Offset of the first record; from a producer, whatever it likes.
    pub fn base_offset(&self) -> i64 {
        self.header.base_offset.get()
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset().saturating_add(i64::from(self.last_offset_delta()))
    }

    /// The offset behind the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// How far the last record's offset stands behind the first's.
    pub fn last_offset_delta(&self) -> i32 {
        self.header.last_offset_delta.get()
    }

    /// Epoch of the leader that appended it.
    pub fn leader_epoch(&self) -> i32 {
        self.header.leader_epoch.get()
    }

    /// Always [`MAGIC`].
    pub fn magic(&self) -> i8 {
        self.header.magic
    }

    /// The CRC-32C that the batch says it has.
    pub fn crc(&self) -> u32 {
        self.header.crc.get()
    }

    /// All attribute bits.
    pub fn attributes(&self) -> i16 {
        self.header.attributes.get()
    }

    /// How the records are compressed; the number where it names no codec.
    pub fn codec(&self) -> Result<Codec, u8> {
        // Three bits: always fits.
        let id = u8::try_from(self.attributes() & attribute::CODEC).unwrap_or(u8::MAX);
        Codec::from_id(id).ok_or(id)
    }

    /// Who gave it its timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.has(attribute::LOG_APPEND_TIME) {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        }
    }

    /// Whether it belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.has(attribute::TRANSACTIONAL)
    }

    /// Whether its records are the broker's own (see [`crate::control`]).
    pub fn is_control(&self) -> bool {
        self.has(attribute::CONTROL)
    }

    /// When its tombstones may go, where compaction has said so: milliseconds since 1970. Its
    /// records' timestamps count from there.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.has(attribute::DELETE_HORIZON).then(|| self.base_timestamp())
    }

    /// What the records' timestamp deltas count from; milliseconds since 1970.
    pub fn base_timestamp(&self) -> i64 {
        self.header.base_timestamp.get()
    }

    /// The highest timestamp of its records, as the batch has it; milliseconds since 1970.
    pub fn max_timestamp(&self) -> i64 {
        self.header.max_timestamp.get()
    }

    /// Who wrote it, or [`NO_PRODUCER_ID`].
    pub fn producer_id(&self) -> i64 {
        self.header.producer_id.get()
    }

    /// Whether an idempotent producer wrote it.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id() > NO_PRODUCER_ID
    }

    /// The producer's epoch, or [`NO_PRODUCER_EPOCH`].
    pub fn producer_epoch(&self) -> i16 {
        self.header.producer_epoch.get()
    }

    /// Sequence number of the first record, or [`NO_SEQUENCE`].
    pub fn base_sequence(&self) -> i32 {
        self.header.base_sequence.get()
    }

    /// Sequence number of the last record, or [`NO_SEQUENCE`]. Sequences wrap from `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence() == NO_SEQUENCE {
            NO_SEQUENCE
        } else {
            add_to_sequence(self.base_sequence(), self.last_offset_delta())
        }
    }

    /// How many records the batch says it has.
    pub fn record_count(&self) -> i32 {
        self.header.record_count.get()
    }

    /// Whether the bytes are those that were written. Reads the whole batch.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(&self.bytes[CRC_START..]);
        let stored = self.crc();
        if computed == stored { Ok(()) } else { Err(BatchError::Crc { stored, computed }) }
    }

    /// What Kafka's `LogValidator` asks of a producer's batch before it looks at the records. Where
    /// it holds, the record count is at least 1, is one more than the last offset delta, and the
    /// codec is known.
    pub fn check_producer_rules(&self) -> Result<(), ProducerRuleError> {
        let record_count = self.record_count();
        let last_offset_delta = self.last_offset_delta();
        if record_count <= 0 {
            return Err(ProducerRuleError::RecordCount(record_count));
        }
        if last_offset_delta != record_count - 1 {
            return Err(ProducerRuleError::OffsetRange { last_offset_delta, record_count });
        }
        if self.is_control() {
            return Err(ProducerRuleError::Control);
        }
        let (producer_id, base_sequence) = (self.producer_id(), self.base_sequence());
        if self.has_producer_id() && base_sequence < 0 {
            return Err(ProducerRuleError::Sequence { producer_id, base_sequence });
        }
        self.codec().map_err(ProducerRuleError::Codec)?;
        match self.timestamp_type() {
            TimestampType::CreateTime => Ok(()),
            TimestampType::LogAppendTime => Err(ProducerRuleError::LogAppendTime),
        }
    }

    /// The first 16 bytes with another base offset and leader epoch: an appender writes this, then
    /// `bytes()[STAMP_BYTES..]`. The CRC does not cover them (the magic, just behind, stays).
    pub fn stamp(&self, base_offset: i64, leader_epoch: i32) -> [u8; STAMP_BYTES] {
        stamp(base_offset, self.batch_length(), leader_epoch)
    }

    /// The header with another timestamp type and max timestamp, and the CRC that this needs; reads
    /// the whole batch. For log-append time, and for a producer that got its max timestamp wrong.
    /// Write it, stamped, then [`Self::payload`].
    pub fn header_with_timestamps(
        &self,
        timestamp_type: TimestampType,
        max_timestamp: i64,
    ) -> [u8; HEADER_BYTES] {
        let mut header = *self.header;
        let attributes = header.attributes.get();
        header.attributes.set(match timestamp_type {
            TimestampType::CreateTime => attributes & !attribute::LOG_APPEND_TIME,
            TimestampType::LogAppendTime => attributes | attribute::LOG_APPEND_TIME,
        });
        header.max_timestamp.set(max_timestamp);
        header.crc.set(crc_of(&header, self.payload()));
        zerocopy::transmute!(header)
    }

    /// The same batch with its records in another codec's form: for a topic whose
    /// `compression.type` is not the producer's.
    pub fn with_payload(
        &self,
        codec: Codec,
        timestamp_type: TimestampType,
        max_timestamp: i64,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut header = *self.header;
        let kept = header.attributes.get() & !attribute::CODEC & !attribute::LOG_APPEND_TIME;
        let time = match timestamp_type {
            TimestampType::CreateTime => 0,
            TimestampType::LogAppendTime => attribute::LOG_APPEND_TIME,
        };
        header.attributes.set(kept | i16::from(codec.id()) | time);
        header.max_timestamp.set(max_timestamp);
        let length = HEADER_BYTES - LENGTH_OVERHEAD_BYTES + payload.len();
        // A payload that does not fit is larger than any `max.message.bytes`, and so refused.
        header.batch_length.set(i32::try_from(length).unwrap_or(i32::MAX));
        header.crc.set(crc_of(&header, payload));
        let mut batch = Vec::with_capacity(HEADER_BYTES + payload.len());
        batch.extend_from_slice(header.as_bytes());
        batch.extend_from_slice(payload);
        batch
    }

    fn has(&self, bit: i16) -> bool {
        self.attributes() & bit != 0
    }
}

/// The first 16 bytes of a batch: base offset, the length field, leader epoch.
pub fn stamp(base_offset: i64, batch_length: i32, leader_epoch: i32) -> [u8; STAMP_BYTES] {
    let mut stamp = [0; STAMP_BYTES];
    stamp[..8].copy_from_slice(&base_offset.to_be_bytes());
    stamp[8..12].copy_from_slice(&batch_length.to_be_bytes());
    stamp[12..].copy_from_slice(&leader_epoch.to_be_bytes());
    stamp
}

/// `sequence` moved on by `count`, wrapping from `i32::MAX` to 0 as Kafka's sequences do. Total for
/// whatever a client sends.
pub fn add_to_sequence(sequence: i32, count: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(count);
    // `rem_euclid` by 2^31 is in 0..=i32::MAX: the default is never taken.
    i32::try_from(sum.rem_euclid(1 << 31)).unwrap_or_default()
}

/// The CRC-32C of a batch with this header and these records.
pub(crate) fn crc_of(header: &Header, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header.as_bytes()[CRC_START..]), payload)
}

fn length_of(field: [u8; 4]) -> Result<usize, BatchError> {
    let length = i32::from_be_bytes(field);
    match usize::try_from(length) {
        Ok(length) if length >= OLD_LENGTH_MIN => Ok(length),
        _ => Err(BatchError::Length(length)),
    }
}

/// The batches of a run of bytes, one after the other.
pub fn walk(bytes: &[u8]) -> Walk<'_> {
    Walk { bytes, position: 0, ended: false }
}

/// Iterates over batches; ends at the first that is incomplete, without an error, and after the
/// first that is wrong, with one.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    bytes: &'a [u8],
    position: usize,
    ended: bool,
}

impl<'a> Walk<'a> {
    /// Where the next batch starts; when the walk has ended, where the last complete one ended.
    pub fn position(&self) -> usize {
        self.position
    }

    /// What has not been walked.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..]
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<Batch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match Batch::parse(self.rest()) {
            Ok((batch, _)) => {
                self.position += batch.batch_bytes();
                Some(Ok(batch))
            }
            Err(BatchError::Incomplete { .. }) => {
                self.ended = true;
                None
            }
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}

impl std::iter::FusedIterator for Walk<'_> {}

#[cfg(test)]
mod tests;
