//! Small files that are replaced as a whole, and how ours are checksummed.
//!
//! A file of ours is one frame (big-endian), padded with zeros to whole blocks:
//!
//! | at | field | bytes |
//! |---|---|---|
//! | 0 | magic | 4 |
//! | 4 | format version | 4 |
//! | 8 | length of the payload | 4 |
//! | 12 | CRC-32C of magic, version, length and payload | 4 |
//! | 16 | payload | |

use bytes::Bytes;

use crate::error::{Corruption, StorageError, StorageResult};
use crate::io::{AlignedBuffer, Disk, Durability, File, IoError, IoErrorKind, IoResult, OpenMode};
use crate::layout::TEMPORARY;

/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 16;
/// A frame of ours is never larger: what says so is damaged.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Which file a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameKind {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// A whole frame, of another version.
    Version(u32),
    /// Not what was written.
    Damaged,
}

/// A frame around a payload.
pub(crate) fn frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    let mut fields = FieldWriter::default();
    fields.bytes(&kind.magic);
    fields.u32(kind.version);
    fields.u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    let crc = crc32c::crc32c_append(crc32c::crc32c(&fields.0), payload);
    fields.u32(crc);
    fields.bytes(payload);
    fields.0
}

/// The payload of the frame at the start of `bytes`. The checksum is looked at before the version
/// is believed.
pub(crate) fn unframe(kind: FrameKind, bytes: &[u8]) -> Result<&[u8], FrameError> {
    let mut fields = FieldReader(bytes);
    let mut header = || -> Option<(u32, usize, u32)> {
        let magic = fields.take(4)?;
        let header = (fields.u32()?, fields.u32()?, fields.u32()?);
        (magic == kind.magic).then_some((header.0, usize::try_from(header.1).ok()?, header.2))
    };
    let (version, len, stored) = header().ok_or(FrameError::Damaged)?;
    let payload = bytes.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + len.min(PAYLOAD_BYTES_MAX));
    let payload = payload.filter(|p| p.len() == len).ok_or(FrameError::Damaged)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..FRAME_HEADER_BYTES - 4]), payload);
    match (crc == stored, version == kind.version) {
        (false, _) => Err(FrameError::Damaged),
        (true, false) => Err(FrameError::Version(version)),
        (true, true) => Ok(payload),
    }
}

/// Reads a framed file; `None` where there is none.
pub(crate) async fn read_frame<D: Disk>(
    disk: &D,
    path: &str,
    kind: FrameKind,
) -> StorageResult<Option<Vec<u8>>> {
    let Some(bytes) = read_file(disk, path).await.map_err(StorageError::from_read)? else {
        return Ok(None);
    };
    match unframe(kind, &bytes) {
        Ok(payload) => Ok(Some(payload.to_vec())),
        Err(FrameError::Version(found)) => {
            Err(StorageError::Format { path: path.to_owned(), found, known: kind.version })
        }
        Err(FrameError::Damaged) => Err(StorageError::Corrupt(Corruption {
            path: path.to_owned(),
            position: 0,
            offset: -1,
            what: "its checksum does not match".to_owned(),
        })),
    }
}

/// All of a small file; `None` where there is none.
pub(crate) async fn read_file<D: Disk>(disk: &D, path: &str) -> IoResult<Option<Bytes>> {
    let file = match disk.open(path, OpenMode::Read).await {
        Ok(file) => file,
        Err(error) if error.kind == IoErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.len().await?;
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    file.read_at(0, len.min(PAYLOAD_BYTES_MAX + FRAME_HEADER_BYTES)).await.map(Some)
}

/// How long a frame is that begins with `bytes`, as its header says; `None` where that is no header
/// of this kind.
pub(crate) fn frame_bytes(kind: FrameKind, bytes: &[u8]) -> Option<usize> {
    let mut fields = FieldReader(bytes);
    let magic = fields.take(4)?;
    let (_version, len) = (fields.u32()?, usize::try_from(fields.u32()?).ok()?);
    (magic == kind.magic && len <= PAYLOAD_BYTES_MAX).then_some(FRAME_HEADER_BYTES + len)
}

/// How long a file that is written as a whole may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Zeros up to the next whole block: the reader does not care.
    Padded,
    /// Ends with its last byte: Kafka's own formats.
    Exact,
    /// Zeros up to this length, where there is so much space: what is appended takes none.
    Ahead(u64),
}

/// Writes a file of this name that does not exist yet, durably but for its name.
pub(crate) async fn write_new<D: Disk>(
    disk: &D,
    path: &str,
    bytes: &[u8],
    tail: Tail,
) -> IoResult<()> {
    let file = match disk.open(path, OpenMode::Create).await {
        Err(error) if error.kind == IoErrorKind::AlreadyExists => {
            // Left by a call that failed, or by a crash: never part of anything.
            disk.remove_file(path).await?;
            disk.open(path, OpenMode::Create).await?
        }
        opened => opened?,
    };
    if let Tail::Ahead(len) = tail {
        match file.allocate(0, len).await {
            Err(error) if error.kind == IoErrorKind::Full => {}
            allocated => allocated?,
        }
    }
    if !bytes.is_empty() {
        let mut buffer = AlignedBuffer::new(bytes.len());
        buffer.append(bytes);
        let blocks = buffer.blocks(0..bytes.len());
        file.write_at(blocks, 0, Durability::Flushed).await?;
    }
    if tail == Tail::Exact {
        file.set_len(bytes.len() as u64).await?;
        file.sync().await.map_err(IoError::of_sync)?;
    }
    Ok(())
}

/// Replaces a file atomically: after a crash the old content or the new one stands; the new one for
/// certain once this returns.
pub(crate) async fn replace<D: Disk>(
    disk: &D,
    directory: &str,
    name: &str,
    bytes: &[u8],
    tail: Tail,
) -> IoResult<()> {
    let path = join(directory, name);
    let temporary = format!("{path}{TEMPORARY}");
    write_new(disk, &temporary, bytes, tail).await?;
    disk.rename_durably(&temporary, &path, directory).await
}

/// Removes a file that nothing names any more. Where it is gone already, or cannot be removed for
/// want of space, that is no failure of what was done before: it is removed at the next open.
pub(crate) async fn remove_unneeded<D: Disk>(disk: &D, path: &str) -> StorageResult<()> {
    match disk.remove_file(path).await {
        Err(error) if !matches!(error.kind, IoErrorKind::NotFound | IoErrorKind::Full) => {
            Err(StorageError::from_write(error))
        }
        _ => Ok(()),
    }
}

/// A path below a directory; the empty directory is the root.
pub(crate) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Big-endian fields, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct FieldWriter(pub(crate) Vec<u8>);

impl FieldWriter {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u128(&mut self, value: u128) {
        self.bytes(&value.to_be_bytes());
    }

    /// How many elements follow.
    pub(crate) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

/// Big-endian fields, read with their bounds; `None` where the bytes end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldReader<'a>(pub(crate) &'a [u8]);

impl<'a> FieldReader<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_be_bytes)
    }

    /// A list: its count, then its elements. Takes no memory before the bytes for it are there.
    pub(crate) fn list<T>(&mut self, element: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(element(self)?);
        }
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: FrameKind = FrameKind { magic: *b"TEST", version: 3 };

    #[test]
    fn each_flipped_bit_is_seen() {
        let mut bytes = frame(KIND, b"payload");
        bytes.resize(4096, 0);
        assert_eq!(unframe(KIND, &bytes), Ok(&b"payload"[..]));
        for bit in 0..8 * (FRAME_HEADER_BYTES + 7) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unframe(KIND, &bytes), Err(FrameError::Damaged), "{bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..FRAME_HEADER_BYTES + 7 {
            assert_eq!(unframe(KIND, &bytes[..len]), Err(FrameError::Damaged));
        }
    }

    #[test]
    fn another_version_is_named() {
        let other = FrameKind { version: 4, ..KIND };
        let bytes = frame(other, b"payload");
        assert_eq!(unframe(KIND, &bytes), Err(FrameError::Version(4)));
    }

    #[test]
    fn a_list_takes_no_more_than_it_has() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1];
        assert_eq!(FieldReader(&bytes).list(FieldReader::u32), None);
    }
}
