//! Bounded reader: bytes in, values out.
//!
//! Everything here may have been sent by an enemy. No call panics, and none allocates more than the
//! bytes that remain justify: a length is compared with what remains before anything is reserved
//! for it. Strings and byte fields are slices of the buffer, by reference count.
//!
//! Where a field has two encodings, `flexible` chooses: `true` is the compact form of KIP-482
//! (unsigned varint, length plus one, zero for null), `false` the classic one (fixed width, -1 for
//! null).

use bytes::Bytes;

use crate::encode::{Part, Records};
use crate::types::{Str, Uuid};

/// Elements of one array, at most. Kafka 4.4 refuses more.
pub const ARRAY_ELEMENTS_MAX: usize = 1_000_000;
/// Bytes of one string, at most, in either encoding.
pub const STRING_BYTES_MAX: usize = 32_767;
/// Tagged fields in one structure, at most. Kafka 4.4 refuses more.
pub const TAGGED_FIELDS_MAX: usize = 10_000;

/// What is wrong with the bytes. Always the sender's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field reaches beyond the end.
    #[error("{needed} bytes needed where {remaining} remain")]
    UnexpectedEnd {
        /// What the field needs, in bytes; for an array, the least that its elements can take.
        needed: usize,
        /// What is left.
        remaining: usize,
    },
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    InvalidUtf8,
    /// A varint goes on for longer than its type.
    #[error("a varint is longer than its type")]
    VarintTooLong,
    /// A length below -1.
    #[error("negative length {0}")]
    NegativeLength(i32),
    /// Null where this version has no null.
    #[error("null where null is not allowed")]
    UnexpectedNull,
    /// An array above [`ARRAY_ELEMENTS_MAX`].
    #[error("an array of {0} elements")]
    ArrayTooLong(usize),
    /// More tagged fields than [`TAGGED_FIELDS_MAX`].
    #[error("{0} tagged fields")]
    TooManyTaggedFields(u32),
    /// A tagged field's body is shorter than its size says.
    #[error("tagged field {tag} ends {unread} bytes before its size")]
    TaggedFieldSize {
        /// Which field.
        tag: u32,
        /// Bytes that its body left over.
        unread: usize,
    },
    /// A string longer than 32,767 bytes.
    #[error("a string of {0} bytes")]
    StringTooLong(usize),
    /// A version of a message that does not exist here.
    #[error("{message} has no version {version}")]
    UnsupportedVersion {
        /// Which message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// No API of this protocol has this key.
    #[error("unknown API key {0}")]
    UnknownApi(i16),
    /// No record of this topic has this type.
    #[error("unknown record type {0}")]
    UnknownRecordType(i16),
}

/// Reads a buffer from its front to its end. After an error it is of no use.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
    position: usize,
    /// Where reading ends for now: what lies beyond is owed to the later elements of the arrays
    /// around. So a lie about a count cannot be repeated at each level of nesting.
    end: usize,
}

impl Reader {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        let end = bytes.len();
        Self { bytes, position: 0, end }
    }

    /// Bytes that have not been read; within an array, those that its later elements can spare.
    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// Bytes that have been read.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Takes the next `len` bytes, shared with the buffer.
    pub fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        let start = self.advance(len)?;
        Ok(self.bytes.slice(start..self.position))
    }

    /// A reader of the next `len` bytes alone.
    fn sub_reader(&mut self, len: usize) -> Result<Self, DecodeError> {
        self.take(len).map(Self::new)
    }

    /// Moves over `len` bytes; returns where they begin.
    fn advance(&mut self, len: usize) -> Result<usize, DecodeError> {
        let remaining = self.remaining();
        if len > remaining {
            return Err(DecodeError::UnexpectedEnd { needed: len, remaining });
        }
        let start = self.position;
        self.position += len;
        Ok(start)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let start = self.advance(N)?;
        let mut value = [0; N];
        value.copy_from_slice(&self.bytes[start..self.position]);
        Ok(value)
    }

    /// `bool`: any byte but zero is true.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    /// `int8`.
    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        self.fixed().map(i8::from_be_bytes)
    }

    /// `int16`.
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.fixed().map(i16::from_be_bytes)
    }

    /// `int32`.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.fixed().map(i32::from_be_bytes)
    }

    /// `int64`.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.fixed().map(i64::from_be_bytes)
    }

    /// `uint16`.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.fixed().map(u16::from_be_bytes)
    }

    /// `uint32`.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.fixed().map(u32::from_be_bytes)
    }

    /// `float64`.
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        self.fixed().map(f64::from_be_bytes)
    }

    /// `uuid`.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.fixed().map(|bytes| Uuid(u128::from_be_bytes(bytes)))
    }

    /// Unsigned varint of 32 bits: lengths and tags. Longer forms of a number are accepted, as
    /// Kafka does.
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0_u32;
        for shift in (0..35).step_by(7) {
            let byte = self.fixed::<1>()?[0];
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                return Err(DecodeError::VarintTooLong);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong)
    }

    /// Zigzag varint of 32 bits, as in records.
    pub fn varint(&mut self) -> Result<i32, DecodeError> {
        let value = self.unsigned_varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Zigzag varint of 64 bits, as in records.
    pub fn varlong(&mut self) -> Result<i64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.fixed::<1>()?[0];
            if shift == 63 && byte > 0x01 {
                return Err(DecodeError::VarintTooLong);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(DecodeError::VarintTooLong)
    }

    /// A length as classic `i32` or compact varint; `None` is null.
    fn length32(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return self.compact_length();
        }
        let length = self.i32()?;
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(DecodeError::NegativeLength(length)),
        }
    }

    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        let length = self.unsigned_varint()? as usize;
        Ok(length.checked_sub(1))
    }

    /// Nullable string.
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<Str>, DecodeError> {
        let length = if flexible {
            self.compact_length()?
        } else {
            let length = self.i16()?;
            match usize::try_from(length) {
                Ok(length) => Some(length),
                Err(_) if length == -1 => None,
                Err(_) => return Err(DecodeError::NegativeLength(length.into())),
            }
        };
        let Some(length) = length else {
            return Ok(None);
        };
        if length > STRING_BYTES_MAX {
            return Err(DecodeError::StringTooLong(length));
        }
        let text = Str::from_utf8(self.take(length)?).map_err(|_| DecodeError::InvalidUtf8)?;
        Ok(Some(text))
    }

    /// String.
    pub fn string(&mut self, flexible: bool) -> Result<Str, DecodeError> {
        self.nullable_string(flexible)?.ok_or(DecodeError::UnexpectedNull)
    }

    /// Nullable bytes.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, DecodeError> {
        match self.length32(flexible)? {
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    /// Bytes.
    pub fn bytes(&mut self, flexible: bool) -> Result<Bytes, DecodeError> {
        self.nullable_bytes(flexible)?.ok_or(DecodeError::UnexpectedNull)
    }

    /// Nullable record data, as one part in memory; its content is not looked at.
    pub fn nullable_records(&mut self, flexible: bool) -> Result<Option<Records>, DecodeError> {
        let bytes = self.nullable_bytes(flexible)?;
        Ok(bytes.map(|bytes| Records { parts: vec![Part::Memory(bytes)] }))
    }

    /// Record data.
    pub fn records(&mut self, flexible: bool) -> Result<Records, DecodeError> {
        self.nullable_records(flexible)?.ok_or(DecodeError::UnexpectedNull)
    }

    /// Nullable array. `element_bytes_min` is the least that one element takes on the wire: a count
    /// that what remains cannot hold is an error before anything is allocated.
    pub fn nullable_array<T>(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.array_length(flexible, element_bytes_min)? else {
            return Ok(None);
        };
        let end = self.end;
        let mut elements = Vec::with_capacity(count);
        for later in (0..count).rev() {
            self.end = end - later * element_bytes_min;
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    /// Array; see [`Self::nullable_array`].
    pub fn array<T>(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
        element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.nullable_array(flexible, element_bytes_min, element)?
            .ok_or(DecodeError::UnexpectedNull)
    }

    fn array_length(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
    ) -> Result<Option<usize>, DecodeError> {
        assert!(element_bytes_min > 0, "an element of no bytes has no bound");
        let Some(count) = self.length32(flexible)? else {
            return Ok(None);
        };
        if count > ARRAY_ELEMENTS_MAX {
            return Err(DecodeError::ArrayTooLong(count));
        }
        let needed = count.saturating_mul(element_bytes_min);
        let remaining = self.remaining();
        if needed > remaining {
            return Err(DecodeError::UnexpectedEnd { needed, remaining });
        }
        Ok(Some(count))
    }

    /// The marker before a nullable structure: whether one follows. As in Kafka, any negative
    /// number is null.
    pub fn is_present(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? >= 0)
    }

    /// The marker before a nullable structure that is a tagged field: another one than elsewhere.
    pub fn is_tagged_present(&mut self) -> Result<bool, DecodeError> {
        Ok(self.unsigned_varint()? > 0)
    }

    /// How many tagged fields follow.
    pub fn tagged_field_count(&mut self) -> Result<u32, DecodeError> {
        let count = self.unsigned_varint()?;
        if count as usize > TAGGED_FIELDS_MAX {
            return Err(DecodeError::TooManyTaggedFields(count));
        }
        Ok(count)
    }

    /// One tagged field: its tag, and a reader of its body.
    pub fn tagged_field(&mut self) -> Result<(u32, Self), DecodeError> {
        let tag = self.unsigned_varint()?;
        let size = self.unsigned_varint()? as usize;
        Ok((tag, self.sub_reader(size)?))
    }

    /// Passes over all tagged fields of a structure that knows none.
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        for _ in 0..self.tagged_field_count()? {
            self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            self.advance(size)?;
        }
        Ok(())
    }

    /// Checks that the body of tagged field `tag` was read to its end.
    pub fn finish_tagged_field(&self, tag: u32) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            unread => Err(DecodeError::TaggedFieldSize { tag, unread }),
        }
    }
}

#[cfg(test)]
mod tests;
