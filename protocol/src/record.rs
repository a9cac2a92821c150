//! The records of a batch, read in place from its (decompressed) payload.
//!
//! A record: length varint (of what follows), attributes i8, timestamp delta varlong, offset delta
//! varint, key, value, headers. A key, a value and a header's value is a varint length, -1 for
//! null, and its bytes; headers are a varint count, and for each a key that cannot be null and a
//! value. All varints are zigzag.
//!
//! Nothing here allocates, and nothing that a payload holds can panic or loop for longer than the
//! payload is.

use thiserror::Error;

use crate::batch::NO_TIMESTAMP;

/// A record, or a payload as a whole, that is not as it must be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("record {index}: {fault}")]
pub struct RecordError {
    /// Which record of the batch, from 0; for faults of the whole payload, where reading stopped.
    pub index: i32,
    /// What is wrong with it.
    pub fault: RecordFault,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RecordFault {
    /// A varint that is cut off, or longer than its type can be.
    #[error("a broken varint")]
    Varint,
    /// The record's length is negative.
    #[error("a length of {0}")]
    Length(i32),
    /// The record, a field of it, or a header, goes on behind the end of what holds it.
    #[error("{needed} bytes announced and {available} left")]
    Beyond {
        /// What was announced.
        needed: usize,
        /// What is left of the payload or of the record.
        available: usize,
    },
    /// A length below -1.
    #[error("a field of length {0}")]
    FieldLength(i32),
    /// A header count that is negative, or more than the bytes left could hold.
    #[error("{0} headers")]
    HeaderCount(i32),
    /// A header without a key.
    #[error("a header without a key")]
    HeaderKey,
    /// Bytes are left in the record behind its last header.
    #[error("{0} bytes too many in the record")]
    Surplus(usize),
    /// The payload ends before the batch's record count is reached.
    #[error("the payload ends here and the batch says {record_count} records")]
    Missing {
        /// What the batch says.
        record_count: i32,
    },
    /// Bytes are left behind the last record.
    #[error("{0} bytes behind the last record")]
    Trailing(usize),
    /// Offset deltas do not count 0, 1, 2 ...
    #[error("an offset delta of {0}")]
    OffsetDelta(i32),
    /// The batch's record count or last offset delta cannot be right.
    #[error("a record count of {record_count} with a last offset delta of {last_offset_delta}")]
    Count {
        /// What the batch says.
        record_count: i32,
        /// What the batch says.
        last_offset_delta: i32,
    },
    /// Base timestamp and delta do not add up to a number.
    #[error("a timestamp out of range")]
    Timestamp,
}

/// One record, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Unused so far by Kafka.
    pub attributes: i8,
    /// To be added to the batch's base timestamp; milliseconds.
    pub timestamp_delta: i64,
    /// To be added to the batch's base offset.
    pub offset_delta: i32,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value, or `None`: a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
}

/// The headers of one record; checked when the record was read, so that iterating cannot fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Headers<'a> {
    /// How many there are (left).
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none (left).
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Iterator for Headers<'a> {
    /// Key (UTF-8 by custom, not by force) and value.
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let mut cursor = Cursor { bytes: self.bytes };
        let header = cursor.header().ok()?;
        self.bytes = cursor.bytes;
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

/// The records of a payload: as many as the batch says.
pub fn records(payload: &[u8], record_count: i32) -> Records<'_> {
    Records { cursor: Cursor { bytes: payload }, index: 0, record_count }
}

/// Iterates over records. Ends behind the batch's record count, with an error if bytes are left;
/// and after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    cursor: Cursor<'a>,
    index: i32,
    record_count: i32,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let index = self.index;
        let fault = if index >= self.record_count {
            if self.cursor.bytes.is_empty() {
                return None;
            }
            RecordFault::Trailing(self.cursor.bytes.len())
        } else if self.cursor.bytes.is_empty() {
            RecordFault::Missing { record_count: self.record_count }
        } else {
            match self.cursor.record() {
                Ok(record) => {
                    self.index += 1;
                    return Some(Ok(record));
                }
                Err(fault) => fault,
            }
        };
        // Nothing is left to be said after an error.
        self.cursor.bytes = &[];
        self.record_count = 0;
        Some(Err(RecordError { index, fault }))
    }
}

impl std::iter::FusedIterator for Records<'_> {}

/// What a broker wants to know of the records of a batch, found on one walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The highest timestamp; [`NO_TIMESTAMP`] where no record has one. Milliseconds since 1970.
    pub max_timestamp: i64,
    /// The offset delta of the first record that has it.
    pub max_timestamp_offset_delta: i32,
    /// The lowest timestamp of those that have one.
    pub min_timestamp: Option<i64>,
    /// The first record without a key, which a compacted topic refuses.
    pub first_without_key: Option<i32>,
}

/// Checks every record of a producer's batch: `record_count` of them, offset deltas 0, 1, 2 ... up
/// to `last_offset_delta`, every length exact, nothing left over. Copies nothing.
pub fn validate_records(
    payload: &[u8],
    base_timestamp: i64,
    record_count: i32,
    last_offset_delta: i32,
) -> Result<Facts, RecordError> {
    if record_count <= 0 || last_offset_delta != record_count - 1 {
        let fault = RecordFault::Count { record_count, last_offset_delta };
        return Err(RecordError { index: 0, fault });
    }
    let mut facts = Facts {
        max_timestamp: NO_TIMESTAMP,
        max_timestamp_offset_delta: 0,
        min_timestamp: None,
        first_without_key: None,
    };
    for (index, record) in (0..).zip(records(payload, record_count)) {
        let record = record?;
        if record.offset_delta != index {
            let fault = RecordFault::OffsetDelta(record.offset_delta);
            return Err(RecordError { index, fault });
        }
        let Some(timestamp) = base_timestamp.checked_add(record.timestamp_delta) else {
            return Err(RecordError { index, fault: RecordFault::Timestamp });
        };
        if timestamp > facts.max_timestamp {
            facts.max_timestamp = timestamp;
            facts.max_timestamp_offset_delta = index;
        }
        if timestamp != NO_TIMESTAMP {
            facts.min_timestamp =
                Some(facts.min_timestamp.map_or(timestamp, |low| low.min(timestamp)));
        }
        if record.key.is_none() && facts.first_without_key.is_none() {
            facts.first_without_key = Some(index);
        }
    }
    Ok(facts)
}

/// Takes from the front of what is left.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a> {
    bytes: &'a [u8],
}

// Producers' batches are walked record by record: what is small here is inlined, which halves the
// time for a record.
impl<'a> Cursor<'a> {
    #[inline]
    fn record(&mut self) -> Result<Record<'a>, RecordFault> {
        let length = self.varint()?;
        let length = usize::try_from(length).map_err(|_| RecordFault::Length(length))?;
        let mut body = Cursor { bytes: self.take(length)? };
        let attributes = i8::from_be_bytes([body.take(1)?[0]]);
        let timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        let key = body.field()?;
        let value = body.field()?;
        let headers = body.headers()?;
        match body.bytes.len() {
            0 => Ok(Record { attributes, timestamp_delta, offset_delta, key, value, headers }),
            surplus => Err(RecordFault::Surplus(surplus)),
        }
    }

    #[inline]
    fn headers(&mut self) -> Result<Headers<'a>, RecordFault> {
        let announced = self.varint()?;
        // Each takes two bytes at least.
        let count = match usize::try_from(announced) {
            Ok(count) if count <= self.bytes.len() / 2 => count,
            _ => return Err(RecordFault::HeaderCount(announced)),
        };
        let headers = Headers { bytes: self.bytes, count };
        for _ in 0..count {
            self.header()?;
        }
        let bytes = &headers.bytes[..headers.bytes.len() - self.bytes.len()];
        Ok(Headers { bytes, count })
    }

    fn header(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), RecordFault> {
        let key = self.field()?.ok_or(RecordFault::HeaderKey)?;
        Ok((key, self.field()?))
    }

    /// A length and as many bytes; `None` for -1.
    #[inline(always)]
    fn field(&mut self) -> Result<Option<&'a [u8]>, RecordFault> {
        match self.varint()? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => self.take(length).map(Some),
                Err(_) => Err(RecordFault::FieldLength(length)),
            },
        }
    }

    #[inline(always)]
    fn take(&mut self, needed: usize) -> Result<&'a [u8], RecordFault> {
        let available = self.bytes.len();
        let (taken, rest) =
            self.bytes.split_at_checked(needed).ok_or(RecordFault::Beyond { needed, available })?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<i32, RecordFault> {
        let value = match self.short() {
            Some(value) => value,
            None => u32::try_from(self.unsigned::<5>()?).map_err(|_| RecordFault::Varint)?,
        };
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    #[inline(always)]
    fn varlong(&mut self) -> Result<i64, RecordFault> {
        let value = match self.short() {
            Some(value) => u64::from(value),
            None => self.unsigned::<10>()?,
        };
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A number of one or two bytes, as most are; else nothing is taken.
    #[inline(always)]
    fn short(&mut self) -> Option<u32> {
        match self.bytes {
            [only @ 0..=0x7f, rest @ ..] => {
                self.bytes = rest;
                Some(u32::from(*only))
            }
            [low, high @ 0..=0x7f, rest @ ..] => {
                self.bytes = rest;
                Some(u32::from(low & 0x7f) | u32::from(*high) << 7)
            }
            _ => None,
        }
    }

    #[cold]
    fn unsigned<const BYTES_MAX: usize>(&mut self) -> Result<u64, RecordFault> {
        const { assert!(BYTES_MAX <= 10, "more than 64 bits") };
        let mut value = 0_u64;
        for (index, byte) in self.bytes.iter().take(BYTES_MAX).enumerate() {
            // The tenth byte holds the one bit that is left.
            if index == 9 && *byte > 1 {
                return Err(RecordFault::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.bytes = &self.bytes[index + 1..];
                return Ok(value);
            }
        }
        Err(RecordFault::Varint)
    }
}

#[cfg(test)]
mod tests;
