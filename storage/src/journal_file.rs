//! Files that are rows of frames (see `checkpoint`), each at the start of a block, behind each
//! other. What is new is appended; when such a file has grown, a new one takes its place.

use bytes::Bytes;

use crate::checkpoint::{
    FRAME_HEADER_BYTES, FrameError, FrameKind, Tail, frame_bytes, replace, unframe,
};
use crate::io::{AlignedBuffer, BLOCK_BYTES, Disk, Durability, File, IoErrorKind, IoResult};
use crate::io::{IoError, OpenMode};

/// A file is written anew when it is larger than this and than twice what it would be.
pub(crate) const FILE_BYTES_MIN: u64 = 256 << 10;
/// Read at once, where a frame is not longer.
const WINDOW_BYTES: usize = 256 << 10;

/// A file of frames that one shard writes.
pub(crate) struct JournalFile<D: Disk> {
    name: String,
    /// `None`: what the file holds now is not known, or not of this run: it is to be replaced.
    file: Option<D::File>,
    /// Where the next frame goes.
    end: u64,
    /// How long the file is; 0: no space is taken ahead.
    allocated: u64,
    /// What the file began with, in bytes.
    base_bytes: u64,
}

impl<D: Disk> JournalFile<D> {
    pub(crate) fn new(name: String) -> Self {
        Self { name, file: None, end: 0, allocated: 0, base_bytes: 0 }
    }

    /// Whether frames can be appended; else it is to be replaced first.
    pub(crate) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Where the next frame goes, in bytes.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// What it began with, in bytes.
    pub(crate) fn base_bytes(&self) -> u64 {
        self.base_bytes
    }

    /// Whether it is much larger than what it would begin with, were it written anew.
    pub(crate) fn has_outgrown(&self, base_bytes: u64) -> bool {
        self.end > FILE_BYTES_MIN.max(2 * base_bytes)
    }

    /// Appends a frame, durably. After [`IoErrorKind::Full`] the same place is written again by the
    /// next call; after anything else, and where this is given up halfway, the file is not open any
    /// more.
    pub(crate) async fn append(&mut self, frame: &[u8]) -> IoResult<()> {
        let file = self.file.take().ok_or_else(|| self.not_open())?;
        let mut buffer = AlignedBuffer::new(frame.len());
        buffer.append(frame);
        let blocks = buffer.blocks(0..frame.len());
        let end = self.end + blocks.len() as u64;
        let mut written = self.make_space(&file, end).await;
        if written.is_ok() {
            written = file.write_at(blocks, self.end, Durability::Flushed).await;
        }
        match &written {
            Ok(()) => self.end = end,
            Err(error) if error.kind == IoErrorKind::Full => {}
            Err(_) => return written,
        }
        self.file = Some(file);
        written
    }

    /// The frames behind `end` do not count: their place is written again.
    pub(crate) fn rewind(&mut self, end: u64) {
        self.end = self.end.min(end);
    }

    /// Replaces the file with one of these frames, atomically, and takes space behind them up to
    /// `space` bytes, where there is so much; 0: none. After [`IoErrorKind::Full`] and
    /// [`IoErrorKind::NoDescriptor`] the file is as before, or is the new one, but not open.
    pub(crate) async fn replace(&mut self, disk: &D, frames: &[u8], space: u64) -> IoResult<()> {
        let before = self.file.take();
        let tail = if space == 0 { Tail::Padded } else { Tail::Ahead(space) };
        if let Err(error) = replace(disk, "", &self.name, frames, tail).await {
            // Only its last step, the sync of the name, leaves anything unknown.
            if matches!(error.kind, IoErrorKind::Full | IoErrorKind::NoDescriptor) {
                self.file = before;
            }
            return Err(error);
        }
        let file = disk.open(&self.name, OpenMode::Write).await?;
        self.end = frames.len().next_multiple_of(BLOCK_BYTES) as u64;
        self.base_bytes = self.end;
        self.allocated = if space == 0 { 0 } else { file.len().await? };
        self.file = Some(file);
        Ok(())
    }

    async fn make_space(&mut self, file: &D::File, end: u64) -> IoResult<()> {
        if self.allocated == 0 || end <= self.allocated {
            return Ok(());
        }
        file.allocate(self.allocated, end - self.allocated).await?;
        self.allocated = end;
        Ok(())
    }

    fn not_open(&self) -> IoError {
        IoError {
            kind: IoErrorKind::Failed,
            operation: "append",
            path: self.name.clone(),
            message: "it is not open".to_owned(),
        }
    }
}

/// What stands in a file of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A frame's payload.
    Frame(Bytes),
    /// A whole frame of another version.
    Version(u32),
    /// A block in which no frame begins that can be proved: damage, or what a stop tore.
    Damaged {
        /// Where it begins in the file.
        position: u64,
    },
}

/// Reads a file of frames from its start to its end, in bounded pieces.
pub(crate) struct FrameScan<D: Disk> {
    kind: FrameKind,
    file: D::File,
    len: u64,
    position: u64,
    window: Bytes,
    window_at: u64,
}

impl<D: Disk> FrameScan<D> {
    /// The frames of this file; `None` where there is no such file.
    pub(crate) async fn open(disk: &D, kind: FrameKind, path: &str) -> IoResult<Option<Self>> {
        let file = match disk.open(path, OpenMode::Read).await {
            Err(error) if error.kind == IoErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let len = file.len().await?;
        let window = Bytes::new();
        Ok(Some(Self { kind, file, len, position: 0, window, window_at: 0 }))
    }

    /// What stands next; `None`: nothing but zeros up to the end.
    pub(crate) async fn next(&mut self) -> IoResult<Option<Found>> {
        while self.position < self.len {
            let position = self.position;
            let block = self.bytes(position, BLOCK_BYTES).await?;
            if block.iter().all(|byte| *byte == 0) {
                self.position += BLOCK_BYTES as u64;
                continue;
            }
            let len = frame_bytes(self.kind, &block).unwrap_or(BLOCK_BYTES);
            let bytes = self.bytes(position, len.max(BLOCK_BYTES)).await?;
            let (blocks, found) = match unframe(self.kind, &bytes) {
                Ok(payload) => (len.div_ceil(BLOCK_BYTES), Found::Frame(bytes.slice_ref(payload))),
                Err(FrameError::Version(version)) => {
                    (len.div_ceil(BLOCK_BYTES), Found::Version(version))
                }
                Err(FrameError::Damaged) => (1, Found::Damaged { position }),
            };
            self.position += (blocks * BLOCK_BYTES) as u64;
            return Ok(Some(found));
        }
        Ok(None)
    }

    /// What would be the payload of a frame at `position`, whatever its header says: at most `len`
    /// bytes.
    pub(crate) async fn payload_at(&mut self, position: u64, len: usize) -> IoResult<Bytes> {
        let bytes = self.bytes(position, FRAME_HEADER_BYTES + len).await?;
        Ok(bytes.slice(FRAME_HEADER_BYTES.min(bytes.len())..))
    }

    /// So many bytes, or those up to the end of the file.
    async fn bytes(&mut self, position: u64, len: usize) -> IoResult<Bytes> {
        let left = usize::try_from(self.len - position).unwrap_or(usize::MAX);
        let len = len.min(left);
        let skip = position.checked_sub(self.window_at);
        let skip = skip.and_then(|skip| usize::try_from(skip).ok());
        let held =
            skip.filter(|skip| skip.checked_add(len).is_some_and(|end| end <= self.window.len()));
        if let Some(skip) = held {
            return Ok(self.window.slice(skip..skip + len));
        }
        self.window = self.file.read_at(position, len.max(WINDOW_BYTES).min(left)).await?;
        self.window_at = position;
        Ok(self.window.slice(..len.min(self.window.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::frame;
    use crate::io::fault_disk::{Fault, FaultDisk};
    use crate::testing::run;

    const KIND: FrameKind = FrameKind { magic: *b"TEST", version: 1 };

    async fn found(disk: &FaultDisk) -> Vec<Found> {
        let mut scan = FrameScan::open(disk, KIND, "f").await.unwrap().unwrap();
        let mut found = Vec::new();
        while let Some(next) = scan.next().await.unwrap() {
            found.push(next);
        }
        found
    }

    fn payload(byte: u8, len: usize) -> Vec<u8> {
        vec![byte; len]
    }

    #[test]
    fn frames_of_any_size_come_back() {
        run(async {
            let disk = FaultDisk::new(1);
            let mut file = JournalFile::new("f".to_owned());
            assert!(!file.is_open());
            file.replace(&disk, &frame(KIND, &payload(1, 10)), 65_536).await.unwrap();
            let lengths = [0, 4080, 4081, 300_000, 1_000_000, 5];
            for (byte, len) in (2..).zip(lengths) {
                file.append(&frame(KIND, &payload(byte, len))).await.unwrap();
            }
            let expected = (2..).zip(lengths).map(|(byte, len)| payload(byte, len));
            let expected = [payload(1, 10)].into_iter().chain(expected);
            let expected: Vec<Found> = expected.map(|p| Found::Frame(Bytes::from(p))).collect();
            assert_eq!(found(&disk.restart()).await, expected);
        });
    }

    #[test]
    fn damage_is_passed_over_block_by_block() {
        run(async {
            let disk = FaultDisk::new(1);
            let mut file = JournalFile::new("f".to_owned());
            file.replace(&disk, &frame(KIND, &payload(1, 10)), 0).await.unwrap();
            file.append(&frame(KIND, &payload(2, 5000))).await.unwrap();
            file.append(&frame(KIND, &payload(3, 10))).await.unwrap();
            disk.damage("f", |content| content[BLOCK_BYTES + 5000] ^= 1);
            let damaged = [1, 2].map(|block| Found::Damaged { position: block * 4096 });
            let whole = [1, 3].map(|byte| Found::Frame(Bytes::from(payload(byte, 10))));
            let [first, last] = whole;
            let [header, rest] = damaged;
            assert_eq!(found(&disk).await, [first, header, rest, last]);
        });
    }

    #[test]
    fn without_space_the_place_is_written_again() {
        run(async {
            let disk = FaultDisk::new(1);
            let mut file = JournalFile::new("f".to_owned());
            file.replace(&disk, &frame(KIND, &payload(1, 10)), 8192).await.unwrap();
            let (at, kind) = (disk.operations(), IoErrorKind::Full);
            disk.inject(Fault::Fail { at, kind });
            file.append(&frame(KIND, &payload(2, 10))).await.unwrap_err();
            assert!(file.is_open());
            disk.set_capacity(0);
            file.append(&frame(KIND, &payload(3, 10))).await.unwrap();
            let refused = file.append(&frame(KIND, &payload(4, 10))).await;
            assert_eq!(refused.unwrap_err().kind, IoErrorKind::Full, "what was ahead is used");
            let refused = file.replace(&disk, &frame(KIND, &payload(5, 10)), 8192).await;
            assert_eq!(refused.unwrap_err().kind, IoErrorKind::Full);
            disk.set_capacity(1 << 20);
            file.append(&frame(KIND, &payload(6, 10))).await.unwrap();
            let expected = [1, 3, 6].map(|byte| Found::Frame(Bytes::from(payload(byte, 10))));
            assert_eq!(found(&disk.restart()).await, expected);
        });
    }

    #[test]
    fn after_an_error_it_is_not_open() {
        run(async {
            let disk = FaultDisk::new(1);
            let mut file = JournalFile::new("f".to_owned());
            file.replace(&disk, &frame(KIND, &payload(1, 10)), 8192).await.unwrap();
            let at = disk.operations();
            disk.inject(Fault::Fail { at, kind: IoErrorKind::Failed });
            file.append(&frame(KIND, &payload(2, 10))).await.unwrap_err();
            assert!(!file.is_open());
            file.append(&frame(KIND, &payload(2, 10))).await.unwrap_err();
        });
    }
}
