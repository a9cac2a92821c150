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

/// Batches as a leader sent them, each proved by its CRC, with offsets one behind the other and
/// epochs that do not go back.
#[derive(Clone, Debug, Default)]
pub struct ReplicatedBatches(AppendBatches);

impl ReplicatedBatches {
    /// Checks whole batches, one behind the other, as they came from a peer: their lengths, magic,
    /// CRC, offsets and epochs. To be called where they enter the broker, once. They are kept by
    /// reference.
    ///
    /// # Errors
    /// What is wrong with the first that is not as a leader writes them; none of them counts.
    pub fn check(mut bytes: Bytes) -> Result<Self, InvalidBatch> {
        let mut batches: AppendBatches = Vec::new();
        while !bytes.is_empty() {
            let Ok((batch, rest)) = Batch::parse(&bytes) else {
                return Err(InvalidBatch("its length or magic is wrong"));
            };
            if batch.check_crc().is_err() {
                return Err(InvalidBatch("its CRC does not match"));
            }
            let rest = bytes.len() - rest.len();
            let batch = AppendBatch::new(bytes.split_to(rest))?;
            if batch.leader_epoch() < 0 || batch.facts.last_offset() == i64::MAX {
                return Err(InvalidBatch("its epoch or offset is none"));
            }
            if let Some(before) = batches.last() {
                if batch.base_offset() != before.facts.next_offset() {
                    return Err(InvalidBatch("its offset does not continue the one before"));
                }
                if batch.leader_epoch() < before.leader_epoch() {
                    return Err(InvalidBatch("its epoch goes back"));
                }
            }
            batches.push(batch);
        }
        Ok(Self(batches))
    }

    /// The first batch's first offset; `None` where there is no batch.
    pub fn base_offset(&self) -> Option<i64> {
        self.0.first().map(AppendBatch::base_offset)
    }

    /// The offset behind the last batch; `None` where there is none.
    pub fn next_offset(&self) -> Option<i64> {
        self.0.last().map(|batch| batch.facts.next_offset())
    }

    /// The epoch of the last batch; `None` where there is none.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.0.last().map(AppendBatch::leader_epoch)
    }

    /// The batches.
    pub(crate) fn batches(&self) -> &[AppendBatch] {
        &self.0
    }

    /// Takes those out that begin below this offset.
    #[must_use]
    pub fn split_before(&mut self, offset: i64) -> Self {
        let behind = self.0.partition_point(|batch| batch.base_offset() < offset);
        let rest = self.0.split_off(behind);
        Self(std::mem::replace(&mut self.0, rest))
    }

    /// Length of all of them.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(AppendBatch::batch_bytes).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_batches(self) -> AppendBatches {
        self.0
    }
}

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

    /// Batches of one record each: (base offset, epoch).
    fn run_of(places: &[(i64, i32)]) -> Vec<u8> {
        let batches = places.iter().map(|(offset, epoch)| {
            let mut builder = BatchBuilder::new().position(*offset, *epoch);
            builder.append(1, None, Some(b"value"), &[]).unwrap();
            builder.build()
        });
        batches.flatten().collect()
    }

    #[test]
    fn what_a_leader_sent_is_checked_as_a_whole() {
        let check = |bytes: Vec<u8>| ReplicatedBatches::check(Bytes::from(bytes));
        let good = run_of(&[(5, 1), (6, 1), (7, 3)]);
        let batches = check(good.clone()).unwrap();
        assert_eq!((batches.base_offset(), batches.next_offset()), (Some(5), Some(8)));
        assert_eq!((batches.latest_epoch(), batches.bytes()), (Some(3), good.len()));
        let pieces = batches.0.iter().flat_map(|batch| [batch.pieces().0, batch.pieces().1]);
        assert_eq!(pieces.collect::<Vec<_>>().concat(), good);
        let none = check(Vec::new()).unwrap();
        assert!(none.is_empty() && none.base_offset().is_none() && none.next_offset().is_none());
        for wrong in [[(5, 1), (7, 1)], [(5, 1), (5, 1)], [(5, 2), (6, 1)], [(5, -1), (6, 1)]] {
            assert!(check(run_of(&wrong)).is_err(), "{wrong:?}");
        }
        assert!(check(run_of(&[(i64::MAX, 1)])).is_err());
        for len in 1..good.len() {
            let is_whole = len.is_multiple_of(good.len() / 3);
            assert_eq!(check(good[..len].to_vec()).is_ok(), is_whole, "{len}");
        }
        for bit in 0..8 * good.len() {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(batches) = check(bytes) {
                // Epochs stand outside the CRC: another may fit, too.
                assert!((12..16).contains(&(bit / 8 % (good.len() / 3))), "{bit}");
                assert_eq!(batches.0.len(), 3);
            }
        }
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
