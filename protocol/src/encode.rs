//! Segmented writer: what is small is copied, record data goes in by reference.
//!
//! `flexible` chooses between the two encodings of a field, as in [`crate::decode`].

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error_code::ErrorCode;
use crate::types::{Str, Uuid};

/// Byte fields and record data up to this length are copied; longer ones go in by reference.
const COPY_BYTES_MAX: usize = 256;
/// Room for a frame at first: most answers fit.
const FRAME_BYTES_RESERVED: usize = 256;
/// Bytes of a frame's length prefix.
const FRAME_PREFIX_BYTES: usize = 4;

/// Why a value cannot be written. Always our own fault: the value does not fit the version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A field that this version lacks has another value than its default, and may not be dropped
    /// silently.
    #[error("{field} is set, but version {version} has no such field")]
    FieldNotInVersion {
        /// Structure and field.
        field: &'static str,
        /// The version written.
        version: i16,
    },
    /// A field is null, and this version has no null for it.
    #[error("{field} is null, which version {version} cannot say")]
    NullNotInVersion {
        /// Structure and field.
        field: &'static str,
        /// The version written.
        version: i16,
    },
    /// A string, an array, a field or the whole is too long for the number that holds its length.
    #[error("a length of {0} does not fit its field")]
    TooLong(usize),
    /// A version of a message that does not exist here.
    #[error("{message} has no version {version}")]
    UnsupportedVersion {
        /// Which message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A header for an API that does not exist here.
    #[error("unknown API key {0}")]
    UnknownApi(i16),
}

/// Bytes that are not in memory: a range of a file that whoever sends the answer knows how to send.
#[derive(Clone)]
pub struct ExternalBytes {
    /// Names the file, to the runtime that opened it; keeps it open.
    pub source: Arc<dyn Any + Send + Sync>,
    /// Where the range starts, in bytes.
    pub position: u64,
    /// Its length, in bytes.
    pub len: usize,
}

impl fmt::Debug for ExternalBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExternalBytes({}..+{})", self.position, self.len)
    }
}

impl PartialEq for ExternalBytes {
    /// The same range of the same open file.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source)
            && self.position == other.position
            && self.len == other.len
    }
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// In memory.
    Memory(Bytes),
    /// Elsewhere.
    External(ExternalBytes),
}

impl Part {
    /// Its length, in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::External(external) => external.len,
        }
    }

    /// Whether it holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Record batches of a produce or fetch, in wire format, as pieces that may lie in memory or in
/// files.
///
/// Decoding gives one piece in memory. Equal when the pieces in memory hold the same bytes, however
/// cut.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// In order; together they are the field's content.
    pub parts: Vec<Part>,
}

impl Records {
    /// Bytes of all pieces together.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes as one, copied where there is more than one piece. `None` where a piece is not in
    /// memory.
    pub fn to_bytes(&self) -> Option<Bytes> {
        if let [Part::Memory(bytes)] = self.parts.as_slice() {
            return Some(bytes.clone());
        }
        let mut joined = BytesMut::new();
        for part in &self.parts {
            match part {
                Part::Memory(bytes) => joined.put_slice(bytes),
                Part::External(_) => return None,
            }
        }
        Some(joined.freeze())
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self { parts: vec![Part::Memory(bytes)] }
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        match (self.to_bytes(), other.to_bytes()) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.parts == other.parts,
        }
    }
}

/// Where a tagged field begins whose size is not known yet.
#[derive(Debug)]
#[must_use = "the size is written by end_tagged_field"]
pub struct TaggedFieldMark {
    copied_len: usize,
    inserts_len: usize,
    len: usize,
}

/// Collects the pieces of a message.
///
/// All that is copied stands in one buffer; what goes in by reference is noted with its place in
/// that buffer, and the pieces are cut when the message is complete.
#[derive(Debug, Default)]
pub struct Writer {
    copied: BytesMut,
    /// Pieces by reference, each with the number of copied bytes before it.
    inserts: Vec<(usize, Part)>,
    inserted_len: usize,
    is_frame: bool,
    first_error: ErrorCode,
}

impl Writer {
    /// Begins with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a frame: room for the length, which [`Self::finish_frame`] fills in.
    pub fn frame() -> Self {
        let mut writer = Self {
            copied: BytesMut::with_capacity(FRAME_BYTES_RESERVED),
            is_frame: true,
            ..Self::default()
        };
        writer.copied.put_i32(0);
        writer
    }

    /// Bytes written so far, a frame's length prefix included.
    pub fn len(&self) -> usize {
        self.copied.len() + self.inserted_len
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces, in order, none of them empty.
    pub fn finish(self) -> Vec<Part> {
        let copied = self.copied.freeze();
        let mut parts = Vec::with_capacity(2 * self.inserts.len() + 1);
        let mut start = 0;
        for (at, part) in self.inserts {
            if at > start {
                parts.push(Part::Memory(copied.slice(start..at)));
            }
            start = at;
            parts.push(part);
        }
        if copied.len() > start {
            parts.push(Part::Memory(copied.slice(start..)));
        }
        parts
    }

    /// The pieces of a frame begun with [`Self::frame`], its length filled in.
    pub fn finish_frame(mut self) -> Result<Vec<Part>, EncodeError> {
        assert!(self.is_frame, "only what began as a frame ends as one");
        let body_len = self.len() - FRAME_PREFIX_BYTES;
        let length = i32::try_from(body_len).map_err(|_| EncodeError::TooLong(body_len))?;
        self.copied[..FRAME_PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        Ok(self.finish())
    }

    /// All bytes as one piece, copied where there is more than one. `None` where a piece is not in
    /// memory.
    pub fn into_bytes(self) -> Option<Bytes> {
        Records { parts: self.finish() }.to_bytes()
    }

    /// Bytes as they are, copied.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.copied.put_slice(bytes);
    }

    /// `bool`.
    pub fn bool(&mut self, value: bool) {
        self.copied.put_u8(value.into());
    }

    /// `int8`.
    pub fn i8(&mut self, value: i8) {
        self.copied.put_i8(value);
    }

    /// `int16`.
    pub fn i16(&mut self, value: i16) {
        self.copied.put_i16(value);
    }

    /// An error code; the first that is one is kept for [`Self::first_error`].
    pub fn error_code(&mut self, code: ErrorCode) {
        if self.first_error == ErrorCode::NONE {
            self.first_error = code;
        }
        self.i16(code.0);
    }

    /// The first error code written, or NONE: what a count of failed requests wants to know of an
    /// answer.
    pub fn first_error(&self) -> ErrorCode {
        self.first_error
    }

    /// `int32`.
    pub fn i32(&mut self, value: i32) {
        self.copied.put_i32(value);
    }

    /// `int64`.
    pub fn i64(&mut self, value: i64) {
        self.copied.put_i64(value);
    }

    /// `uint16`.
    pub fn u16(&mut self, value: u16) {
        self.copied.put_u16(value);
    }

    /// `uint32`.
    pub fn u32(&mut self, value: u32) {
        self.copied.put_u32(value);
    }

    /// `float64`.
    pub fn f64(&mut self, value: f64) {
        self.copied.put_f64(value);
    }

    /// `uuid`.
    pub fn uuid(&mut self, value: Uuid) {
        self.copied.put_u128(value.0);
    }

    /// Unsigned varint of 32 bits.
    pub fn unsigned_varint(&mut self, value: u32) {
        let (bytes, len) = varint_bytes(value);
        self.copied.put_slice(&bytes[..len]);
    }

    /// Zigzag varint of 32 bits.
    pub fn varint(&mut self, value: i32) {
        self.unsigned_varint((value << 1 ^ value >> 31).cast_unsigned());
    }

    /// Zigzag varint of 64 bits.
    pub fn varlong(&mut self, value: i64) {
        let mut rest = (value << 1 ^ value >> 63).cast_unsigned();
        while rest >= 0x80 {
            self.copied.put_u8(low_bits(rest) | 0x80);
            rest >>= 7;
        }
        self.copied.put_u8(low_bits(rest));
    }

    /// A length, or null, as compact varint or as classic `i32`.
    fn length32(&mut self, length: Option<usize>, flexible: bool) -> Result<(), EncodeError> {
        let too_long = || EncodeError::TooLong(length.unwrap_or_default());
        let signed = match length {
            Some(length) => i32::try_from(length).map_err(|_| too_long())?,
            None => -1,
        };
        if flexible {
            self.unsigned_varint(signed.wrapping_add(1).cast_unsigned());
        } else {
            self.i32(signed);
        }
        Ok(())
    }

    /// String. At most 32,767 bytes, in either form, as Kafka has it.
    pub fn string(&mut self, value: &Str, flexible: bool) -> Result<(), EncodeError> {
        self.nullable_string(Some(value), flexible)
    }

    /// Nullable string.
    pub fn nullable_string(
        &mut self,
        value: Option<&Str>,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        let length = match value {
            Some(text) => {
                let len = text.as_bytes().len();
                i16::try_from(len).map_err(|_| EncodeError::TooLong(len))?
            }
            None => -1,
        };
        if flexible {
            self.unsigned_varint((i32::from(length) + 1).cast_unsigned());
        } else {
            self.i16(length);
        }
        if let Some(text) = value {
            self.raw(text.as_bytes());
        }
        Ok(())
    }

    /// Bytes; long ones by reference.
    pub fn bytes(&mut self, value: &Bytes, flexible: bool) -> Result<(), EncodeError> {
        self.nullable_bytes(Some(value), flexible)
    }

    /// Nullable bytes.
    pub fn nullable_bytes(
        &mut self,
        value: Option<&Bytes>,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        self.length32(value.map(Bytes::len), flexible)?;
        if let Some(bytes) = value {
            self.share(bytes);
        }
        Ok(())
    }

    /// Record data, by reference.
    pub fn records(&mut self, value: &Records, flexible: bool) -> Result<(), EncodeError> {
        self.nullable_records(Some(value), flexible)
    }

    /// Nullable record data.
    pub fn nullable_records(
        &mut self,
        value: Option<&Records>,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        self.length32(value.map(Records::len), flexible)?;
        for part in value.iter().flat_map(|records| &records.parts) {
            match part {
                Part::Memory(bytes) => self.share(bytes),
                Part::External(_) => self.insert(part.clone()),
            }
        }
        Ok(())
    }

    /// The length of an array; its elements follow.
    pub fn array_length(
        &mut self,
        length: Option<usize>,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        self.length32(length, flexible)
    }

    /// The marker before a nullable structure: whether one follows.
    pub fn presence(&mut self, is_present: bool) {
        self.i8(if is_present { 1 } else { -1 });
    }

    /// The marker before a nullable structure that is a tagged field: another one than elsewhere.
    pub fn tagged_presence(&mut self, is_present: bool) {
        self.unsigned_varint(is_present.into());
    }

    /// Begins a tagged field; its body follows, then [`Self::end_tagged_field`].
    pub fn begin_tagged_field(&mut self, tag: u32) -> TaggedFieldMark {
        self.unsigned_varint(tag);
        TaggedFieldMark {
            copied_len: self.copied.len(),
            inserts_len: self.inserts.len(),
            len: self.len(),
        }
    }

    /// Puts the size in front of the tagged field's body. The body moves: such fields are small.
    pub fn end_tagged_field(&mut self, mark: &TaggedFieldMark) -> Result<(), EncodeError> {
        let size = self.len() - mark.len;
        let size = u32::try_from(size).map_err(|_| EncodeError::TooLong(size))?;
        let (prefix, prefix_len) = varint_bytes(size);
        let body_end = self.copied.len();
        self.copied.put_slice(&prefix[..prefix_len]);
        self.copied.copy_within(mark.copied_len..body_end, mark.copied_len + prefix_len);
        self.copied[mark.copied_len..mark.copied_len + prefix_len]
            .copy_from_slice(&prefix[..prefix_len]);
        for (at, _) in &mut self.inserts[mark.inserts_len..] {
            *at += prefix_len;
        }
        Ok(())
    }

    fn share(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPY_BYTES_MAX {
            self.copied.put_slice(bytes);
        } else {
            self.insert(Part::Memory(bytes.clone()));
        }
    }

    fn insert(&mut self, part: Part) {
        if !part.is_empty() {
            self.inserted_len += part.len();
            self.inserts.push((self.copied.len(), part));
        }
    }
}

/// An unsigned varint and its length.
fn varint_bytes(value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut rest = value;
    let mut len = 0;
    while rest >= 0x80 {
        bytes[len] = low_bits(rest.into()) | 0x80;
        rest >>= 7;
        len += 1;
    }
    bytes[len] = low_bits(rest.into());
    (bytes, len + 1)
}

/// The lowest seven bits.
fn low_bits(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

#[cfg(test)]
mod tests;
