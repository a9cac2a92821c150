//! Walks over the headers of a segment's batches.

use std::rc::Rc;

use bytes::Bytes;
use vltava_protocol::batch::HEADER_BYTES;

use crate::error::{Corruption, StorageError, StorageResult};
use crate::header::BatchHeader;
use crate::index::OffsetEntry;
use crate::io::{Disk, File};
use crate::segment::Segment;
use crate::state::LogInner;

/// Read at once while walking over headers in a file without chunks.
const HEADERS_BYTES: usize = 16 << 10;

/// Batches that one read steps over where the index has no entries.
const STEPS_MAX: usize = 256;

/// Walks over the headers of a segment, in memory where they are, else in chunks of its file.
pub(crate) struct HeaderWalk<'a, D: Disk> {
    log: &'a LogInner<D>,
    segment: &'a Rc<Segment<D>>,
    /// Batches end here.
    end: u64,
    chunk: Bytes,
    chunk_at: u64,
    /// What it reads may be kept for others.
    shares: bool,
}

impl<'a, D: Disk> HeaderWalk<'a, D> {
    pub(crate) fn new(log: &'a LogInner<D>, segment: &'a Rc<Segment<D>>) -> Self {
        let end = segment.flushed.get().position;
        Self { log, segment, end, chunk: Bytes::new(), chunk_at: 0, shares: true }
    }

    /// One over the whole segment: it does not take the place of chunks that readers want.
    pub(crate) fn over_all(log: &'a LogInner<D>, segment: &'a Rc<Segment<D>>) -> Self {
        Self { shares: false, ..Self::new(log, segment) }
    }

    /// The header at a position where a batch begins.
    pub(crate) async fn header(&mut self, position: u64) -> StorageResult<BatchHeader> {
        let bytes = self.bytes(position, HEADER_BYTES).await?;
        let header = BatchHeader::parse(&bytes);
        let fits = |header: &BatchHeader| {
            header.bytes <= self.end - position && header.base_offset >= self.segment.base_offset
        };
        match header {
            Ok(header) if fits(&header) => Ok(header),
            Ok(_) => Err(self.corrupt(position, "a batch that ends behind the log")),
            Err(what) => Err(self.corrupt(position, what)),
        }
    }

    /// Where the batches end that begin at `position` and go up to `wanted` at most, and the offset
    /// behind them: the first, and some of those that follow it.
    ///
    /// # Errors
    /// Of the first batch. What is wrong with another is found by who begins to read there.
    pub(crate) async fn until(&mut self, position: u64, wanted: u64) -> StorageResult<(u64, i64)> {
        let first = self.header(position).await?;
        let (mut end, mut next) = (position + first.bytes, first.next_offset());
        for _ in 0..STEPS_MAX {
            if end >= self.end.min(wanted) {
                break;
            }
            let Ok(header) = self.header(end).await else { break };
            if end + header.bytes > wanted || header.base_offset < next {
                break;
            }
            (end, next) = (end + header.bytes, header.next_offset());
        }
        Ok((end, next))
    }

    /// Exactly `len` bytes.
    pub(crate) async fn bytes(&mut self, position: u64, len: usize) -> StorageResult<Bytes> {
        if let Some(bytes) = self.log.joined_in_memory(self.segment, position, len) {
            return Ok(bytes);
        }
        let in_chunk = |chunk: &Bytes, chunk_at: u64| {
            let skip = usize::try_from(position.checked_sub(chunk_at)?).ok()?;
            let end = skip.checked_add(len)?;
            (end <= chunk.len()).then(|| chunk.slice(skip..end))
        };
        if let Some(bytes) = in_chunk(&self.chunk, self.chunk_at) {
            return Ok(bytes);
        }
        if self.shares
            && let Some((chunk_at, chunk)) = self.log.chunk_at(self.segment, position, len).await?
        {
            (self.chunk_at, self.chunk) = (chunk_at, chunk);
            if let Some(bytes) = in_chunk(&self.chunk, self.chunk_at) {
                return Ok(bytes);
            }
        }
        let left = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
        let file = self.log.reader_file(self.segment).await?;
        let chunk = file.read_at(position, len.max(HEADERS_BYTES).min(left)).await;
        self.chunk = chunk.map_err(StorageError::from_read)?;
        self.chunk_at = position;
        let bytes = in_chunk(&self.chunk, self.chunk_at);
        bytes.ok_or_else(|| self.corrupt(position, "the file ends inside a batch"))
    }

    /// Whether the batch that an index entry names stands where it says.
    pub(crate) async fn leads_to(&mut self, entry: &OffsetEntry) -> StorageResult<bool> {
        let position = u64::from(entry.position);
        if position >= self.end {
            return Ok(false);
        }
        let named = self.segment.base_offset + i64::from(entry.relative_offset);
        match self.header(position).await {
            Ok(header) => Ok(header.last_offset() == named),
            Err(StorageError::Corrupt(_)) => Ok(false),
            // That says nothing of the index.
            Err(error) => Err(error),
        }
    }

    pub(crate) fn corrupt(&self, position: u64, what: &str) -> StorageError {
        StorageError::Corrupt(Corruption {
            path: self.segment.log_path(),
            position,
            offset: self.segment.base_offset,
            what: what.to_owned(),
        })
    }
}
