//! Records as a consumer sees them, out of the batches of a fetch.

use std::ops::ControlFlow;

use thiserror::Error;
use vltava_protocol::batch::{Batch, BatchError, TimestampType, walk};
use vltava_protocol::compression::{CompressionError, Decompressor};
use vltava_protocol::record::{Headers, RecordError, records};

/// What the records of one batch may decompress to.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// A batch that cannot be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the batch at offset {base_offset} cannot be read: {fault}")]
pub struct ReadError {
    /// Where it says it stands.
    pub base_offset: i64,
    /// What is wrong with it.
    pub fault: ReadFault,
}

/// What is wrong with a batch.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReadFault {
    /// It is none, or its CRC is wrong.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A codec of a number that is not known.
    #[error("its codec, number {0}, is not known")]
    Codec(u8),
    /// It cannot be decompressed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// Its records are malformed.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A record, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumedRecord<'a> {
    /// Where it stands.
    pub offset: i64,
    /// Milliseconds since 1970; -1 for none.
    pub timestamp: i64,
    /// Who set it.
    pub timestamp_type: TimestampType,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value, or `None`: a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
}

/// The offset behind the last complete batch; `None` where there is none.
pub fn next_offset(bytes: &[u8]) -> Option<i64> {
    let batches = walk(bytes).map_while(Result::ok);
    batches.last().map(|batch| batch.next_offset())
}

/// Shows `visit` each record at or behind `from_offset`, control records left out, until it breaks.
/// Checks CRCs.
pub fn for_each_record(
    bytes: &[u8],
    from_offset: i64,
    decompressor: &mut Decompressor,
    mut visit: impl FnMut(ConsumedRecord<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, ReadError> {
    let mut next_offset = from_offset;
    for batch in walk(bytes) {
        let batch =
            batch.map_err(|fault| ReadError { base_offset: next_offset, fault: fault.into() })?;
        next_offset = batch.next_offset();
        if batch.last_offset() < from_offset {
            continue;
        }
        let flow = visit_batch(&batch, from_offset, decompressor, &mut visit)
            .map_err(|fault| ReadError { base_offset: batch.base_offset(), fault })?;
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn visit_batch(
    batch: &Batch<'_>,
    from_offset: i64,
    decompressor: &mut Decompressor,
    visit: &mut impl FnMut(ConsumedRecord<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, ReadFault> {
    batch.check_crc()?;
    if batch.is_control() {
        return Ok(ControlFlow::Continue(()));
    }
    let codec = batch.codec().map_err(ReadFault::Codec)?;
    let payload = decompressor.decompress(codec, batch.payload(), BATCH_BYTES_MAX)?;
    let timestamp_type = batch.timestamp_type();
    for record in records(payload, batch.record_count()) {
        let record = record?;
        let offset = batch.base_offset().saturating_add(i64::from(record.offset_delta));
        if offset < from_offset {
            continue;
        }
        let timestamp = match timestamp_type {
            TimestampType::CreateTime => {
                batch.base_timestamp().saturating_add(record.timestamp_delta)
            }
            TimestampType::LogAppendTime => batch.max_timestamp(),
        };
        let flow = visit(ConsumedRecord {
            offset,
            timestamp,
            timestamp_type,
            key: record.key,
            value: record.value,
            headers: record.headers,
        });
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests {
    use vltava_protocol::batch_builder::BatchBuilder;
    use vltava_protocol::compression::{Codec, Compressor};

    use super::*;

    fn batch(base_offset: i64, values: &[&str], codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new().position(base_offset, 0);
        for value in values {
            builder.append(100, None, Some(value.as_bytes()), &[]).unwrap();
        }
        builder.build_compressed(&mut Compressor::new(codec, None).unwrap()).unwrap()
    }

    fn seen(bytes: &[u8], from_offset: i64, count: usize) -> Vec<(i64, String)> {
        let mut seen = Vec::new();
        let flow = for_each_record(bytes, from_offset, &mut Decompressor::new(), |record| {
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            seen.push((record.offset, value));
            if seen.len() == count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(flow.unwrap().is_break(), seen.len() == count);
        seen
    }

    #[test]
    fn records_before_the_offset_and_control_records_are_left_out() {
        let mut bytes = batch(10, &["a", "b", "c"], Codec::Lz4);
        let mut control = BatchBuilder::new().position(13, 0).control();
        control.append(1, Some(&[0; 4]), Some(&[0; 6]), &[]).unwrap();
        bytes.extend(control.build());
        bytes.extend(batch(14, &["d"], Codec::None));
        let expected = [(12, String::from("c")), (14, String::from("d"))];
        assert_eq!(seen(&bytes, 12, 9), expected);
        assert_eq!(seen(&bytes, 12, 1), expected[..1]);
        assert_eq!(next_offset(&bytes), Some(15));
        // A fetch may end inside a batch.
        assert_eq!(seen(&bytes[..bytes.len() - 1], 12, 9), expected[..1]);
        assert_eq!(next_offset(&bytes[..bytes.len() - 1]), Some(14));
        assert_eq!(next_offset(&bytes[..20]), None);
    }

    #[test]
    fn a_broken_batch_is_named() {
        let mut bytes = batch(10, &["a"], Codec::None);
        bytes.extend(batch(11, &["b"], Codec::None));
        *bytes.last_mut().unwrap() ^= 1;
        let error =
            for_each_record(&bytes, 0, &mut Decompressor::new(), |_| ControlFlow::Continue(()))
                .unwrap_err();
        assert_eq!(error.base_offset, 11);
        assert!(matches!(error.fault, ReadFault::Batch(BatchError::Crc { .. })));
    }
}
