//! From offsets to bytes: the tail from memory, older ranges by chunks of their files.
//!
//! Where there is no memory for a chunk, a range of the file itself is given out. Both reach only
//! to the last whole block on disk, which is not written again; what stands in that last block
//! comes from memory, or is read into memory. Answers end at whole batches. A sequential reader
//! does not search the index twice: where a read ended is remembered.

use std::ops::Range;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use vltava_protocol::encode::{ExternalBytes, Part};

use crate::chunks::{ChunkKey, Purpose, Reading};
use crate::error::{StorageError, StorageResult};
use crate::header_walk::HeaderWalk;
use crate::index::OffsetEntry;
use crate::io::{Disk, File};
use crate::locate::Found;
use crate::segment::Segment;
use crate::state::{LogInner, Place};

/// What a read gives.
#[derive(Clone, Debug, Default)]
pub struct ReadResult {
    /// Whole batches, in order. The first may begin below the offset asked for.
    pub parts: Vec<Part>,
    /// Length of all parts.
    pub bytes: usize,
    /// Base offset of the first batch; `None` where nothing is there to read yet.
    pub first_offset: Option<i64>,
}

/// A run of whole batches of one segment.
struct Run<D: Disk> {
    segment: Rc<Segment<D>>,
    first: Found,
    /// Where the run ends in the segment.
    end: u64,
    /// The offset behind it, where it is known without a look at what stands there.
    next_offset: Option<i64>,
}

/// A part of an answer, before what is to be read for it is here.
enum Piece {
    Here(Part),
    /// A range of the file, in a chunk of it that begins at `at`.
    Chunk {
        key: ChunkKey,
        reading: Reading,
        at: u64,
        range: Range<u64>,
    },
    /// A range of the active file that is written again as it fills.
    LastBlock(Range<u64>),
}

impl Piece {
    /// Where a piece ends that begins at `position`.
    fn end(&self, position: u64) -> u64 {
        match self {
            Self::Here(part) => position + part.len() as u64,
            Self::Chunk { range, .. } | Self::LastBlock(range) => range.end,
        }
    }
}

impl<D: Disk> LogInner<D> {
    /// Batches from the one that holds `from` up to `limit`, of one segment, at most `bytes_max`
    /// bytes, or, where `at_least_one`, the first batch whatever its size. Empty where nothing is
    /// there yet.
    pub(crate) async fn read(
        &self,
        from: i64,
        limit: i64,
        bytes_max: usize,
        at_least_one: bool,
    ) -> StorageResult<ReadResult> {
        let first_batch = self.state.borrow().first_batch;
        let run = self.run(first_batch, from, limit, bytes_max, at_least_one).await?;
        let Some(Run { segment, first, end, .. }) = run else {
            return Ok(ReadResult::default());
        };
        let parts = self.parts(&segment, first.position, end).await?;
        Ok(ReadResult {
            bytes: parts.iter().map(Part::len).sum(),
            parts,
            first_offset: Some(first.base_offset),
        })
    }

    /// The same batches, with the offset at which the next one begins; the first whatever its size.
    pub(crate) async fn read_to_send(
        &self,
        from: i64,
        limit: i64,
        bytes_max: usize,
    ) -> StorageResult<Option<(Vec<Part>, i64)>> {
        let first_batch = self.state.borrow().first_batch;
        let run = self.run(first_batch, from, limit, bytes_max, true).await?;
        let Some(Run { segment, first, end, next_offset }) = run else { return Ok(None) };
        let parts = self.parts(&segment, first.position, end).await?;
        let next = match next_offset {
            Some(next) => next,
            // What was read may be a range of the file, and need not be looked through.
            None => HeaderWalk::new(self, &segment).header(end).await?.base_offset,
        };
        Ok(Some((parts, next)))
    }

    /// The same batches as bytes in memory, for who reads them itself.
    pub(crate) async fn read_in_memory(
        &self,
        from: i64,
        limit: i64,
        bytes_max: usize,
    ) -> StorageResult<Bytes> {
        let first_batch = self.state.borrow().first_batch;
        self.run_in_memory(self.run(first_batch, from, limit, bytes_max, true).await?).await
    }

    /// The same, also in front of the log's first batch, as far as its segment has them.
    pub(crate) async fn read_to_mend(
        &self,
        from: i64,
        limit: i64,
        bytes_max: usize,
    ) -> StorageResult<Bytes> {
        let oldest = self.state.borrow().segments.keys().next().copied().unwrap_or(from);
        self.run_in_memory(self.run(oldest, from, limit, bytes_max, true).await?).await
    }

    async fn run_in_memory(&self, run: Option<Run<D>>) -> StorageResult<Bytes> {
        let Some(run) = run else {
            return Ok(Bytes::new());
        };
        let len = usize::try_from(run.end - run.first.position).unwrap_or(usize::MAX);
        HeaderWalk::new(self, &run.segment).bytes(run.first.position, len).await
    }

    async fn run(
        &self,
        start: i64,
        from: i64,
        limit: i64,
        bytes_max: usize,
        at_least_one: bool,
    ) -> StorageResult<Option<Run<D>>> {
        let flushed_end = self.state.borrow().flushed_end();
        if from < start || from > flushed_end {
            return Err(StorageError::OutOfRange { offset: from, start, end: flushed_end });
        }
        let limit = limit.min(flushed_end);
        let mut segment = self.state.borrow().segment_of(from);
        while let Some(current) = segment.filter(|_| from < limit) {
            let range = self.range(&current, from, limit, bytes_max, at_least_one).await?;
            if let Some((first, end, next_offset)) = range {
                return Ok(Some(Run { segment: current, first, end, next_offset }));
            }
            if current.flushed.get().next_offset > from {
                break;
            }
            // A gap at the end of the segment: the next one goes on.
            let behind = current.base_offset + 1;
            let state = self.state.borrow();
            let next = state.segments.range(behind..).next();
            segment = next.map(|(_, segment)| Rc::clone(segment));
        }
        Ok(None)
    }

    /// Which bytes of a segment answer a read: the first batch, where they end, and the offset
    /// behind, where it is known.
    async fn range(
        &self,
        segment: &Rc<Segment<D>>,
        from: i64,
        limit: i64,
        bytes_max: usize,
        at_least_one: bool,
    ) -> StorageResult<Option<(Found, u64, Option<i64>)>> {
        let cursor = segment.flushed.get();
        let places_forgotten = self.state.borrow().places_forgotten;
        let mut walk = HeaderWalk::new(self, segment);
        let Some(first) = self.locate(segment, from, &mut walk).await? else {
            return Ok(None);
        };
        let (end, next_offset) = if limit >= cursor.next_offset {
            (cursor.position, cursor.next_offset)
        } else {
            let behind = self.locate(segment, limit, &mut walk).await?;
            behind.map_or((cursor.position, cursor.next_offset), |found| {
                (found.position, found.base_offset)
            })
        };
        let allowed = first.position + bytes_max as u64;
        let at_once = self.bytes_at_once(segment, first.position);
        let wanted = allowed.min(first.position.saturating_add(at_once));
        if end <= first.position {
            return Ok(None);
        }
        if end <= wanted {
            return Ok(Some((first, end, Some(next_offset))));
        }
        let header = walk.header(first.position).await?;
        let first_end = first.position + header.bytes;
        if first_end > wanted {
            let next = Some(header.next_offset());
            let fits = at_least_one || first_end <= allowed;
            return Ok(fits.then_some((first, first_end, next)));
        }
        // End where the index knows that a batch begins, and remember that place for the next read.
        let holds = |e: &OffsetEntry| u64::from(e.position) <= wanted;
        let entry = self.offset_entry(segment, holds, &mut walk).await?;
        let (place, next_offset) = match entry.filter(|e| u64::from(e.position) > first_end) {
            Some(entry) => {
                let until = segment.base_offset + i64::from(entry.relative_offset);
                let (position, after) = (u64::from(entry.position), header.last_offset());
                (Place { segment: segment.base_offset, position, after, until }, None)
            }
            // Too few bytes for the index, whose interval may be large.
            None => {
                let (position, next) = walk.until(first.position, wanted).await?;
                let (after, until) = (next - 1, next);
                (Place { segment: segment.base_offset, position, after, until }, Some(next))
            }
        };
        let mut state = self.state.borrow_mut();
        if state.places_forgotten == places_forgotten {
            state.read_ends.remember(place);
        }
        Ok(Some((first, place.position, next_offset)))
    }

    /// The bytes at `position` of a segment, as many as lie together in memory; or where the next
    /// in memory begin.
    fn in_memory(
        &self,
        segment: &Segment<D>,
        position: u64,
        len: usize,
    ) -> Result<Bytes, Option<u64>> {
        let cached = self.environment.cache.find(self.number, segment.base_offset, position, len);
        let cached_next = match cached {
            Ok(bytes) => return Ok(bytes),
            Err(next) => next,
        };
        let state = self.state.borrow();
        let is_active = state.active.base_offset == segment.base_offset;
        let Some(buffer) = state.queue.buffer.as_ref().filter(|_| is_active) else {
            return Err(cached_next);
        };
        if let Some(bytes) = buffer.find(position, len) {
            return Ok(bytes);
        }
        let start = Some(buffer.start()).filter(|start| *start > position);
        Err(match (cached_next, start) {
            (Some(cached), Some(start)) => Some(cached.min(start)),
            (next, None) | (None, next) => next,
        })
    }

    /// Exactly `len` bytes, where all of them are in memory: copied together where they lie over
    /// several buffers.
    pub(crate) fn joined_in_memory(
        &self,
        segment: &Segment<D>,
        position: u64,
        len: usize,
    ) -> Option<Bytes> {
        let first = self.in_memory(segment, position, len).ok()?;
        if first.len() == len {
            return Some(first);
        }
        let mut joined = BytesMut::with_capacity(len);
        joined.extend_from_slice(&first);
        while joined.len() < len {
            let behind = position + joined.len() as u64;
            let next = self.in_memory(segment, behind, len - joined.len()).ok()?;
            joined.extend_from_slice(&next);
        }
        Some(joined.freeze())
    }

    /// How much an answer that begins here takes at once: what is to be read from the disk takes
    /// memory.
    fn bytes_at_once(&self, segment: &Segment<D>, position: u64) -> u64 {
        let environment = &self.environment;
        let is_read = environment.disk.reads_past_cache()
            && position < segment.stable_end()
            && self.in_memory(segment, position, 1).is_err();
        if is_read { environment.chunks.answer_bytes_max() as u64 } else { u64::MAX }
    }

    /// Bytes `[from, end)` of a segment as parts of an answer. All that is to be read is asked for
    /// before any of it is awaited.
    async fn parts(
        &self,
        segment: &Rc<Segment<D>>,
        from: u64,
        end: u64,
    ) -> StorageResult<Vec<Part>> {
        let mut pieces = Vec::new();
        let mut position = from;
        let mut is_older = false;
        while position < end {
            let left = usize::try_from(end - position).unwrap_or(usize::MAX);
            let next = match self.in_memory(segment, position, left) {
                Ok(bytes) => {
                    position += bytes.len() as u64;
                    pieces.push(Piece::Here(Part::Memory(bytes)));
                    continue;
                }
                Err(next) => next.map_or(end, |next| next.min(end)),
            };
            let file = self.reader_file(segment).await?;
            // Of the active file, the last block is written again: only what is below is given out
            // as a range, and kept as a chunk.
            let file_end = next.min(segment.stable_end());
            let piece = if position < file_end {
                is_older = true;
                self.older(segment, &file, position..file_end)
            } else {
                Piece::LastBlock(position..next)
            };
            position = piece.end(position);
            pieces.push(piece);
        }
        if is_older {
            self.read_ahead(segment, from..end);
        }
        let mut parts = Vec::with_capacity(pieces.len());
        for piece in pieces {
            parts.push(self.part(segment, piece).await?);
        }
        Ok(parts)
    }

    /// The first piece of what is not in memory, nor written again: of a chunk, or, where there is
    /// no memory for one, a range of the file.
    fn older(&self, segment: &Segment<D>, file: &D::File, range: Range<u64>) -> Piece {
        if self.environment.disk.reads_past_cache() {
            let chunk_bytes = self.environment.chunks.chunk_bytes();
            let number = range.start / chunk_bytes;
            if let Some((key, reading)) = self.chunk(segment, file, number, Purpose::Answer) {
                let at = number * chunk_bytes;
                let end = range.end.min(at + chunk_bytes);
                return Piece::Chunk { key, reading, at, range: range.start..end };
            }
        }
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let source = file.source();
        Piece::Here(Part::External(ExternalBytes { source, position: range.start, len }))
    }

    /// A chunk, as much of it as is not written again.
    fn chunk(
        &self,
        segment: &Segment<D>,
        file: &D::File,
        number: u64,
        purpose: Purpose,
    ) -> Option<(ChunkKey, Reading)> {
        let chunks = &self.environment.chunks;
        let left = segment.stable_end().checked_sub(number * chunks.chunk_bytes())?;
        let bytes = usize::try_from(left.min(chunks.chunk_bytes())).unwrap_or(usize::MAX);
        let key = (segment.number(chunks), number);
        let reading = (bytes > 0).then(|| chunks.chunk(key, bytes, purpose, file)).flatten()?;
        Some((key, reading))
    }

    /// The chunk that holds these bytes, and where it begins; `None` where no one chunk does, or
    /// can be had.
    pub(crate) async fn chunk_at(
        &self,
        segment: &Rc<Segment<D>>,
        position: u64,
        len: usize,
    ) -> StorageResult<Option<(u64, Bytes)>> {
        let chunk_bytes = self.environment.chunks.chunk_bytes();
        let (number, at) = (position / chunk_bytes, position - position % chunk_bytes);
        let end = position + len as u64;
        let is_in_one = end <= segment.stable_end().min(at + chunk_bytes);
        if !is_in_one || !self.environment.disk.reads_past_cache() {
            return Ok(None);
        }
        let file = self.reader_file(segment).await?;
        match self.chunk(segment, &file, number, Purpose::Answer) {
            Some((key, reading)) => Ok(Some((at, self.read_chunk(key, reading).await?))),
            None => Ok(None),
        }
    }

    async fn read_chunk(&self, key: ChunkKey, reading: Reading) -> StorageResult<Bytes> {
        let read = reading.await;
        if read.is_err() {
            self.environment.chunks.forget(key);
        }
        read.map_err(StorageError::from_read)
    }

    /// Begins to read what follows, for who reads on.
    fn read_ahead(&self, segment: &Segment<D>, range: Range<u64>) {
        let chunks = &self.environment.chunks;
        let end = range.end;
        let ahead = chunks.ahead_bytes(segment.number(chunks), range) as u64;
        let Some(file) = segment.open_file().filter(|_| ahead > 0) else {
            return;
        };
        if !self.environment.disk.reads_past_cache() {
            return;
        }
        let in_memory_from =
            self.in_memory(segment, end, 1).map_or_else(|next| next, |_| Some(end));
        let until = (end + ahead).min(in_memory_from.unwrap_or(u64::MAX));
        let first = end / chunks.chunk_bytes();
        for number in first..until.div_ceil(chunks.chunk_bytes()) {
            if self.chunk(segment, &file, number, Purpose::Ahead).is_none() {
                return;
            }
        }
    }

    async fn part(&self, segment: &Rc<Segment<D>>, piece: Piece) -> StorageResult<Part> {
        let (bytes, range) = match piece {
            Piece::Here(part) => return Ok(part),
            Piece::Chunk { key, reading, at, range } => {
                let chunk = self.read_chunk(key, reading).await?;
                let chunks = &self.environment.chunks;
                if range.end == at + chunks.chunk_bytes() {
                    chunks.spend(key);
                }
                let of_chunk = |position: u64| {
                    usize::try_from(position - at).unwrap_or(usize::MAX).min(chunk.len())
                };
                (chunk.slice(of_chunk(range.start)..of_chunk(range.end)), range)
            }
            Piece::LastBlock(range) => {
                let file = self.reader_file(segment).await?;
                let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
                let bytes = file.read_at(range.start, len).await;
                (bytes.map_err(StorageError::from_read)?, range)
            }
        };
        if bytes.len() as u64 != range.end - range.start {
            let walk = HeaderWalk::new(self, segment);
            return Err(walk.corrupt(range.start, "the file ends before the log does"));
        }
        Ok(Part::Memory(bytes))
    }

    /// A segment's file, for a reader: where that opens it, it counts as open for readers.
    pub(crate) async fn reader_file(&self, segment: &Rc<Segment<D>>) -> StorageResult<D::File> {
        if let Some(file) = segment.open_file() {
            return Ok(file);
        }
        let file = segment.file(&self.environment.disk).await?;
        if segment.is_closed.get() {
            self.environment.opened(segment);
        }
        Ok(file)
    }
}
