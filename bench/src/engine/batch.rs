//! Writes record batches straight into the buffer that is sent: one copy of each value, one CRC.
//!
//! `vltava_protocol::batch_builder` does the same for any record; this one knows its records
//! beforehand, and allocates nothing for one.

use bytes::{BufMut, Bytes, BytesMut};
use vltava_protocol::batch::{HEADER_BYTES, LENGTH_OVERHEAD_BYTES, MAGIC};
use vltava_protocol::batch::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE};
use vltava_protocol::compression::{Codec, CompressionError, Compressor};

use crate::engine::buffers::Buffers;

/// Where the part begins that the CRC covers.
const CRC_START: usize = 21;
/// The most that a record has beside its key and its value.
pub const RECORD_OVERHEAD_BYTES: usize = 5 + 1 + 10 + 4 * 5;

/// Who writes a batch, and which number its first record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As InitProducerId gave it.
    pub producer_id: i64,
    /// Likewise.
    pub epoch: i16,
    /// Of the first record in its partition.
    pub base_sequence: i32,
}

impl Identity {
    /// Of a producer whose batches are not numbered.
    pub const NONE: Self =
        Self { producer_id: NO_PRODUCER_ID, epoch: NO_PRODUCER_EPOCH, base_sequence: NO_SEQUENCE };
}

/// A batch that takes records.
#[derive(Debug)]
pub struct BatchWriter {
    bytes: BytesMut,
    record_count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchWriter {
    /// The length of one that has no record.
    pub const EMPTY_BYTES: usize = HEADER_BYTES;

    /// An empty one, in a buffer that may have been used before.
    pub fn new(mut buffer: BytesMut) -> Self {
        buffer.clear();
        buffer.put_bytes(0, HEADER_BYTES);
        Self { bytes: buffer, record_count: 0, base_timestamp: 0, max_timestamp: 0 }
    }

    /// Its length, were it closed now without compression.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// How long it may become in its buffer.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Moves to a buffer for so many bytes.
    pub fn grow(&mut self, len: usize, buffers: &mut Buffers) {
        let mut larger = buffers.take(len);
        larger.put_slice(&self.bytes);
        buffers.keep(std::mem::replace(&mut self.bytes, larger));
    }

    /// Appends a record without headers. `put` writes its value, of `value_len` bytes exactly.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value_len: usize,
        put: impl FnOnce(&mut BytesMut),
    ) {
        if self.record_count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp.saturating_sub(self.base_timestamp);
        let offset_delta = i64::from(self.record_count);
        let key_len = key.map_or(-1, signed);
        let value_length = i64::try_from(value_len).unwrap_or(i64::MAX);
        let length = 1
            + varint_len(timestamp_delta)
            + varint_len(offset_delta)
            + varint_len(key_len)
            + key.map_or(0, <[u8]>::len)
            + varint_len(value_length)
            + value_len
            // The count of headers.
            + 1;
        self.bytes.reserve(length + 5);
        put_varint(&mut self.bytes, i64::try_from(length).unwrap_or(i64::MAX));
        self.bytes.put_u8(0);
        put_varint(&mut self.bytes, timestamp_delta);
        put_varint(&mut self.bytes, offset_delta);
        put_varint(&mut self.bytes, key_len);
        self.bytes.put_slice(key.unwrap_or_default());
        put_varint(&mut self.bytes, value_length);
        let before = self.bytes.len();
        put(&mut self.bytes);
        debug_assert_eq!(self.bytes.len() - before, value_len, "the value is as long as it says");
        self.bytes.put_u8(0);
        self.record_count += 1;
    }

    /// The batch as it travels; and its buffer, where compression has left it free.
    ///
    /// # Errors
    /// What the codec says.
    pub fn close(
        mut self,
        identity: Identity,
        compressor: &mut Compressor,
    ) -> Result<(Bytes, Option<BytesMut>), CompressionError> {
        let codec = compressor.codec();
        if codec == Codec::None {
            let (record_count, times) =
                (self.record_count, (self.base_timestamp, self.max_timestamp));
            write_header(&mut self.bytes, identity, codec, record_count, times);
            return Ok((self.bytes.freeze(), None));
        }
        let mut bytes = vec![0; HEADER_BYTES];
        compressor.compress(&self.bytes[HEADER_BYTES..], &mut bytes)?;
        let times = (self.base_timestamp, self.max_timestamp);
        write_header(&mut bytes, identity, codec, self.record_count, times);
        Ok((Bytes::from(bytes), Some(self.bytes)))
    }
}

/// `times`: the first record's, and the highest.
fn write_header(
    batch: &mut [u8],
    identity: Identity,
    codec: Codec,
    record_count: i32,
    times: (i64, i64),
) {
    let length = batch.len() - LENGTH_OVERHEAD_BYTES;
    let mut header = &mut batch[..HEADER_BYTES];
    header.put_i64(0);
    header.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
    header.put_i32(-1);
    header.put_i8(MAGIC);
    header.put_u32(0);
    header.put_i16(i16::from(codec.id()));
    header.put_i32(record_count - 1);
    header.put_i64(times.0);
    header.put_i64(times.1);
    header.put_i64(identity.producer_id);
    header.put_i16(identity.epoch);
    header.put_i32(identity.base_sequence);
    header.put_i32(record_count);
    debug_assert!(header.is_empty(), "all of it is written");
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
}

fn signed(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

fn zigzag(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

fn varint_len(value: i64) -> usize {
    let bits = u64::BITS - (zigzag(value) | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).unwrap_or(10)
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut left = zigzag(value);
    while left >= 0x80 {
        out.put_u8(u8::try_from(left & 0x7f).unwrap_or_default() | 0x80);
        left >>= 7;
    }
    out.put_u8(u8::try_from(left).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test should say where")]

    use vltava_protocol::batch::Batch;
    use vltava_protocol::batch_builder::BatchBuilder;
    use vltava_protocol::compression::Decompressor;
    use vltava_protocol::record::validate_records;

    use super::*;

    /// Timestamp, key, value.
    type Made<'a> = (i64, Option<&'a [u8]>, &'a [u8]);

    fn both(codec: Codec, values: &[Made<'_>]) -> (Bytes, Vec<u8>) {
        let mut compressor = Compressor::new(codec, None).unwrap();
        let mut theirs = BatchBuilder::new().producer(7, 2, 40);
        let mut ours = BatchWriter::new(BytesMut::new());
        for (timestamp, key, value) in values {
            theirs.append(*timestamp, *key, Some(value), &[]).unwrap();
            ours.append(*timestamp, *key, value.len(), |out| out.put_slice(value));
        }
        let identity = Identity { producer_id: 7, epoch: 2, base_sequence: 40 };
        let (bytes, _) = ours.close(identity, &mut compressor).unwrap();
        (bytes, theirs.build_compressed(&mut compressor).unwrap())
    }

    #[test]
    fn a_batch_is_what_the_other_builder_makes() {
        let long = vec![b'x'; 70_000];
        let values: [Made<'_>; 5] = [
            (1_700_000_000_000, None, b"a"),
            (1_700_000_000_063, Some(b"key"), b""),
            (1_699_999_999_000, Some(b""), &long),
            (1_700_000_000_064, None, &long[..63]),
            (1_700_000_009_000, None, &long[..64]),
        ];
        for codec in Codec::ALL {
            let (ours, theirs) = both(codec, &values);
            assert!(ours == theirs, "{codec:?}: {} and {} bytes", ours.len(), theirs.len());
        }
    }

    #[test]
    fn a_broker_would_take_a_batch_of_many_records() {
        let value = [1; 30];
        let values: Vec<Made<'_>> = (0..1000).map(|at| (at * 10, None, &value[..])).collect();
        let (bytes, _) = both(Codec::Zstd, &values);
        let (batch, rest) = Batch::parse(&bytes).unwrap();
        assert!(rest.is_empty());
        batch.check_crc().unwrap();
        batch.check_producer_rules().unwrap();
        let mut decompressor = Decompressor::new();
        let payload = decompressor.decompress(Codec::Zstd, batch.payload(), 1 << 20).unwrap();
        let facts = validate_records(payload, batch.base_timestamp(), 1000, 999).unwrap();
        assert_eq!(facts.max_timestamp, batch.max_timestamp());
    }
}
