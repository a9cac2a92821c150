//! Reads the records that a fetch has brought, and checks each.

use thiserror::Error;
use vltava_protocol::batch::{Batch, BatchError, TimestampType, walk};
use vltava_protocol::compression::CompressionError;
use vltava_protocol::record::{RecordError, records};

use crate::engine::context::Context;
use crate::engine::payload::{Seen, inspect};
use crate::engine::verify::Verifier;

/// What the records of one batch may decompress to.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// A batch that cannot be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// It is none, or its CRC is wrong.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A codec of a number that is not known.
    #[error("codec {0} is not known")]
    Codec(u8),
    /// It cannot be decompressed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// Its records are malformed.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Whoever reads everything, or a part of it that nobody shares: a consumer, or a member of a
/// group.
#[derive(Debug)]
pub struct Reader {
    /// What it has received so far.
    pub verifier: Verifier,
}

impl Reader {
    /// Reads batches of a partition, of which the records before `from_offset` have been read. The
    /// offset behind the last one; what is wrong with the one at this offset, if anything.
    pub fn read(
        &mut self,
        partition: u32,
        from_offset: i64,
        bytes: &[u8],
        context: &mut Context,
    ) -> (i64, Option<ReadError>) {
        let mut next_offset = from_offset;
        for batch in walk(bytes) {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return (next_offset, Some(error.into())),
            };
            if batch.last_offset() < from_offset {
                continue;
            }
            if let Err(error) = self.read_batch(partition, from_offset, &batch, context) {
                return (next_offset, Some(error));
            }
            next_offset = batch.next_offset();
        }
        (next_offset, None)
    }

    fn read_batch(
        &mut self,
        partition: u32,
        from_offset: i64,
        batch: &Batch<'_>,
        context: &mut Context,
    ) -> Result<(), ReadError> {
        let Context { decompressor, stats, clock, now_ns, .. } = context;
        let codec = batch.codec().map_err(ReadError::Codec)?;
        // Also where records carry checksums of their own: other clients rely on this one.
        batch.check_crc()?;
        let payload = decompressor.decompress(codec, batch.payload(), BATCH_BYTES_MAX)?;
        let is_producers_time = batch.timestamp_type() == TimestampType::CreateTime;
        let (mut count, mut bytes) = (0, 0);
        for record in records(payload, batch.record_count()) {
            let record = record?;
            if batch.base_offset() + i64::from(record.offset_delta) < from_offset {
                continue;
            }
            let value = record.value.unwrap_or_default();
            let seen = inspect(record.key, value);
            if let Seen::Whole { intended_ns, .. } = seen {
                stats.received_after(intended_ns, *now_ns);
                let timestamp = batch.base_timestamp().wrapping_add(record.timestamp_delta);
                if is_producers_time && timestamp != clock.wall_ms(intended_ns) {
                    self.verifier.on_restamped();
                }
            }
            self.verifier.on_record(partition, seen);
            count += 1;
            bytes += (record.key.map_or(0, <[u8]>::len) + value.len()) as u64;
        }
        stats.on_received(*now_ns, count, bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
