//! A batch's header by itself, read from a log without the rest of the batch.
//!
//! `protocol::batch::Batch` borrows a whole batch; recovery and look-ups walk over headers of
//! batches that are larger than what they read.

use bytes::Bytes;
use thiserror::Error;
use vltava_protocol::batch::{
    self, Batch, HEADER_BYTES, LENGTH_OVERHEAD_BYTES, MAGIC, NO_PRODUCER_ID, STAMP_BYTES,
};

use crate::checkpoint::FieldReader;
use crate::producer_state::ProducerBatch;

/// Where in a batch the bytes under its CRC begin.
pub(crate) const CRC_START: u64 = 21;
/// Attribute bits.
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// What stands where nothing was written yet.
pub(crate) const ZEROS: &str = "zeros";

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: i64,
    /// Length of the whole batch.
    pub(crate) bytes: u64,
    pub(crate) leader_epoch: i32,
    pub(crate) crc: u32,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
}

impl BatchHeader {
    /// The header at the start of `bytes`; the error says what no batch of ours has.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let header = bytes.get(..HEADER_BYTES).ok_or("the file ends inside a header")?;
        if header[16..17] != MAGIC.to_be_bytes() {
            return Err(if header.iter().all(|byte| *byte == 0) {
                ZEROS
            } else {
                "no batch of magic 2"
            });
        }
        let header = Self::fields(header).ok_or("the file ends inside a header")?;
        if header.bytes < HEADER_BYTES as u64 {
            return Err("a batch length less than any batch has");
        }
        if header.base_offset < 0 || header.last_offset_delta < 0 {
            return Err("an offset that is negative");
        }
        Ok(header)
    }

    fn fields(header: &[u8]) -> Option<Self> {
        let mut fields = FieldReader(header);
        let base_offset = fields.i64()?;
        let length = u64::try_from(fields.i32()?).unwrap_or(0);
        let leader_epoch = fields.i32()?;
        fields.take(1)?;
        let (crc, attributes) = (fields.u32()?, fields.i16()?);
        let last_offset_delta = fields.i32()?;
        fields.take(8)?;
        Some(Self {
            base_offset,
            bytes: length + LENGTH_OVERHEAD_BYTES as u64,
            leader_epoch,
            crc,
            attributes,
            last_offset_delta,
            max_timestamp: fields.i64()?,
            producer_id: fields.i64()?,
            producer_epoch: fields.i16()?,
            base_sequence: fields.i32()?,
        })
    }

    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    pub(crate) fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// What producer state needs of it; `None` where it is not idempotent.
    pub(crate) fn producer(&self) -> Option<ProducerBatch> {
        (self.producer_id != NO_PRODUCER_ID).then_some(ProducerBatch {
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            last_offset_delta: self.last_offset_delta,
            timestamp: self.max_timestamp,
            is_transactional: self.attributes & TRANSACTIONAL != 0,
            is_control: self.attributes & CONTROL != 0,
        })
    }
}

/// Bytes that are no batch to append.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a batch to append: {0}")]
pub struct InvalidBatch(&'static str);

/// One whole, validated batch, by reference.
#[derive(Clone, Debug)]
pub struct AppendBatch {
    header: [u8; HEADER_BYTES],
    /// The whole batch as it was received; only what is behind the header is used.
    bytes: Bytes,
    facts: BatchHeader,
}

impl AppendBatch {
    /// A batch whose CRC, records and producer the caller has checked. `bytes` is exactly one
    /// batch. It is kept by reference until it is written.
    pub fn new(bytes: Bytes) -> Result<Self, InvalidBatch> {
        let header = bytes.first_chunk::<HEADER_BYTES>();
        let header = *header.ok_or(InvalidBatch("shorter than a header"))?;
        let facts = BatchHeader::parse(&header).map_err(InvalidBatch)?;
        match Batch::parse(&bytes) {
            Ok((_, [])) if facts.bytes == bytes.len() as u64 => Ok(Self { header, bytes, facts }),
            Ok(_) => Err(InvalidBatch("its length field is not its length")),
            Err(_) => Err(InvalidBatch("its length or magic is wrong")),
        }
    }

    /// Length of the whole batch.
    pub fn batch_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Its largest timestamp.
    pub fn max_timestamp(&self) -> i64 {
        self.facts.max_timestamp
    }

    /// What producer state needs of it; `None` where it is not idempotent.
    pub fn producer(&self) -> Option<ProducerBatch> {
        self.facts.producer()
    }

    /// The leader epoch it came with: of the leader that wrote it, where it was replicated.
    pub fn leader_epoch(&self) -> i32 {
        self.facts.leader_epoch
    }

    /// The base offset it came with.
    pub fn base_offset(&self) -> i64 {
        self.facts.base_offset
    }

    /// Gives the batch its place.
    pub(crate) fn stamp(&mut self, base_offset: i64, leader_epoch: i32) {
        let length =
            i32::from_be_bytes([self.header[8], self.header[9], self.header[10], self.header[11]]);
        let stamp = batch::stamp(base_offset, length, leader_epoch);
        self.header[..STAMP_BYTES].copy_from_slice(&stamp);
        self.facts.base_offset = base_offset;
        self.facts.leader_epoch = leader_epoch;
    }

    pub(crate) fn facts(&self) -> &BatchHeader {
        &self.facts
    }

    /// Header and rest, to be written one behind the other.
    pub(crate) fn pieces(&self) -> (&[u8], &[u8]) {
        (&self.header, &self.bytes[HEADER_BYTES..])
    }
}

/// Batches to append together: all or none, with offsets one behind the other.
pub type AppendBatches = Vec<AppendBatch>;

#[cfg(test)]
mod tests {
    use vltava_protocol::batch_builder::BatchBuilder;

    use super::*;

    #[test]
    fn a_header_says_what_the_batch_says() {
        let mut builder = BatchBuilder::new().position(7, 3).producer(11, 2, 40);
        builder.append(1000, None, Some(b"a"), &[]).unwrap();
        builder.append(900, None, Some(b"b"), &[]).unwrap();
        let bytes = builder.build();
        let (batch, _) = Batch::parse(&bytes).unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        assert_eq!(header.bytes, bytes.len() as u64);
        assert_eq!(header.crc, batch.crc());
        assert_eq!((header.base_offset, header.last_offset()), (7, 8));
        assert_eq!((header.max_timestamp, header.leader_epoch), (1000, 3));
        let producer = header.producer().unwrap();
        assert_eq!((producer.producer_id, producer.producer_epoch), (11, 2));
        assert_eq!((producer.base_sequence, producer.last_offset_delta), (40, 1));
        let mut append = AppendBatch::new(Bytes::from(bytes.clone())).unwrap();
        append.stamp(100, 9);
        let (header, rest) = append.pieces();
        let stamped = [header, rest].concat();
        let (batch, _) = Batch::parse(&stamped).unwrap();
        assert_eq!((batch.base_offset(), batch.leader_epoch()), (100, 9));
        batch.check_crc().unwrap();
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        let mut builder = BatchBuilder::new();
        builder.append(1, None, None, &[]).unwrap();
        let good = builder.build();
        assert!(AppendBatch::new(Bytes::from(good.clone())).is_ok());
        for len in 0..good.len() {
            assert!(AppendBatch::new(Bytes::copy_from_slice(&good[..len])).is_err());
        }
        let mut long = good.clone();
        long.push(0);
        assert!(AppendBatch::new(Bytes::from(long)).is_err());
        let mut negative = good;
        negative[23] = 0x80;
        assert!(AppendBatch::new(Bytes::from(negative)).is_err());
        assert_eq!(BatchHeader::parse(&[0; 61]), Err("zeros"));
    }
}
