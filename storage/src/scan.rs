//! Reads a segment's file front to back, in bounded pieces, and checks what it reads.

use bytes::Bytes;
use vltava_protocol::batch::HEADER_BYTES;

use crate::error::{StorageError, StorageResult};
use crate::header::{BatchHeader, CRC_START};
use crate::io::{AlignedBuffer, BLOCK_BYTES, Disk, File, OpenMode, block_start};

/// The most that is read at once.
const CHUNK_BYTES: usize = 1 << 20;
/// What is read first, and then twice as much each time: behind the end of most logs there is
/// nothing but space that was allocated, and reading that takes memory and time for zeros.
const CHUNK_BYTES_FIRST: usize = 16 << 10;

/// A file, and the piece of it that was read last.
pub(crate) struct FileScan<D: Disk> {
    file: D::File,
    len: u64,
    chunk: Bytes,
    chunk_at: u64,
    next_chunk: usize,
    /// It is read from the disk, whatever the system's cache holds.
    past_cache: bool,
}

impl<D: Disk> FileScan<D> {
    pub(crate) async fn open(disk: &D, path: &str) -> StorageResult<Self> {
        let file = disk.open(path, OpenMode::Read).await;
        let file = file.map_err(StorageError::from_read)?;
        let len = file.len().await.map_err(StorageError::from_read)?;
        let chunk = Bytes::new();
        let next_chunk = CHUNK_BYTES_FIRST;
        Ok(Self { file, len, chunk, chunk_at: 0, next_chunk, past_cache: false })
    }

    /// The same, of what is on the disk: what the system holds in its cache may be what was there.
    pub(crate) async fn open_past_cache(disk: &D, path: &str) -> StorageResult<Self> {
        let file = disk.open(path, OpenMode::ReadBlocks).await;
        let file = file.map_err(StorageError::from_read)?;
        let len = file.len().await.map_err(StorageError::from_read)?;
        let (chunk, next_chunk) = (Bytes::new(), CHUNK_BYTES_FIRST);
        Ok(Self { file, len, chunk, chunk_at: 0, next_chunk, past_cache: true })
    }

    /// Length of the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes at `position`: at least `wanted` (at most a chunk), or up to the end of the file.
    pub(crate) async fn bytes(&mut self, position: u64, wanted: usize) -> StorageResult<Bytes> {
        let held = position
            .checked_sub(self.chunk_at)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|skip| *skip <= self.chunk.len())
            .map_or(Bytes::new(), |skip| self.chunk.slice(skip..));
        let left = self.len.saturating_sub(position);
        if held.len() >= wanted || held.len() as u64 >= left {
            return Ok(held);
        }
        let len = self.next_chunk.max(wanted.min(CHUNK_BYTES));
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(len);
        self.next_chunk = (2 * self.next_chunk).min(CHUNK_BYTES);
        if self.past_cache {
            let start = block_start(position);
            let skip = usize::try_from(position - start).unwrap_or(usize::MAX);
            let len = skip.saturating_add(len);
            let buffer = AlignedBuffer::new(len.next_multiple_of(BLOCK_BYTES));
            let read = self.file.begin_read(start, len, buffer).await;
            let read = read.map_err(StorageError::from_read)?;
            self.chunk = read.slice(0..read.filled().min(len));
            self.chunk_at = start;
            return Ok(self.chunk.slice(skip.min(self.chunk.len())..));
        }
        let chunk = self.file.read_at(position, len).await;
        self.chunk = chunk.map_err(StorageError::from_read)?;
        self.chunk_at = position;
        Ok(self.chunk.clone())
    }

    /// The header at `position`, or why there is none.
    pub(crate) async fn header(
        &mut self,
        position: u64,
    ) -> StorageResult<Result<BatchHeader, &'static str>> {
        let bytes = self.bytes(position, HEADER_BYTES).await?;
        Ok(BatchHeader::parse(&bytes))
    }

    /// Whether the batch's bytes are those that were written. Reads it in chunks, however long its
    /// header says it is.
    pub(crate) async fn check_crc(
        &mut self,
        position: u64,
        header: &BatchHeader,
    ) -> StorageResult<bool> {
        let end = position.saturating_add(header.bytes);
        if end > self.len {
            return Ok(false);
        }
        let mut at = position + CRC_START;
        let mut crc = 0;
        while at < end {
            let bytes = self.bytes(at, 1).await?;
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let bytes = &bytes[..bytes.len().min(left)];
            if bytes.is_empty() {
                return Ok(false);
            }
            crc = crc32c::crc32c_append(crc, bytes);
            at += bytes.len() as u64;
        }
        Ok(crc == header.crc)
    }

    /// Where in `[from, to)` the first valid batch starts whose base offset is above `offset`, at
    /// any byte.
    pub(crate) async fn find_batch(
        &mut self,
        from: u64,
        to: u64,
        offset: i64,
    ) -> StorageResult<Option<u64>> {
        let mut position = from;
        while position < to.min(self.len) {
            // Space that was allocated and never written is not read: there can be much of it.
            let data = self.file.next_data(position).await.map_err(StorageError::from_read)?;
            let Some(data) = data.filter(|data| *data < to) else {
                return Ok(None);
            };
            // A block: what stands in it may begin with zeros.
            position = position.max(data);
            let bytes = self.bytes(position, HEADER_BYTES).await?;
            if bytes.len() < HEADER_BYTES {
                return Ok(None);
            }
            if bytes.iter().all(|byte| *byte == 0) {
                position += (bytes.len() - HEADER_BYTES + 1) as u64;
                continue;
            }
            for skip in 0..=bytes.len() - HEADER_BYTES {
                let at = position + skip as u64;
                let Ok(header) = BatchHeader::parse(&bytes[skip..]) else {
                    continue;
                };
                let is_candidate = at < to && header.base_offset > offset;
                if is_candidate && self.check_crc(at, &header).await? {
                    return Ok(Some(at));
                }
            }
            position += (bytes.len() - HEADER_BYTES + 1) as u64;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use vltava_protocol::batch_builder::BatchBuilder;

    use super::*;
    use crate::checkpoint::{Tail, write_new};
    use crate::io::block_start;
    use crate::io::fault_disk::FaultDisk;
    use crate::testing::run;

    #[test]
    fn large_batches_are_checked_and_batches_are_found_anywhere() {
        run(async {
            let disk = FaultDisk::new(1);
            let mut builder = BatchBuilder::new().position(500, 1);
            builder.append(1, None, Some(&vec![3; 3 << 20]), &[]).unwrap();
            let batch = builder.build();
            let start = 1_500_001;
            let mut content = vec![0; start];
            content.extend_from_slice(&batch);
            write_new(&disk, "f", &content, Tail::Exact).await.unwrap();
            let mut scan = FileScan::open(&disk, "f").await.unwrap();
            // An offset begins with zeros: what is told is the block.
            for from in [0, start as u64, start as u64 + 6] {
                let data = scan.file.next_data(from).await.unwrap();
                assert_eq!(data, Some(block_start(start as u64)));
            }
            let header = scan.header(start as u64).await.unwrap().unwrap();
            assert!(scan.check_crc(start as u64, &header).await.unwrap());
            let find = async |scan: &mut FileScan<FaultDisk>, from, offset| {
                scan.find_batch(from, u64::MAX, offset).await.unwrap()
            };
            assert_eq!(find(&mut scan, 0, 499).await, Some(start as u64));
            assert_eq!(find(&mut scan, 0, 500).await, None);
            assert_eq!(find(&mut scan, start as u64 + 1, 0).await, None);
            disk.damage("f", |content| content[start + (2 << 20)] ^= 1);
            let mut scan = FileScan::open(&disk, "f").await.unwrap();
            assert!(!scan.check_crc(start as u64, &header).await.unwrap());
            assert_eq!(find(&mut scan, 0, 0).await, None);
        });
    }
}
