//! Batches that wait for their write, and the aligned buffer they are written from. No I/O.
//!
//! A batch is copied once: from the receive buffer into the segment's buffer, when its write
//! starts. While a write is under way nothing changes the buffer: the last block must reach the
//! disk as it was.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::header::AppendBatch;
use crate::io::{AlignedBlocks, AlignedBuffer, BLOCK_BYTES, BufferPool};
use crate::producer_state::ProducerUndo;
use crate::segment::{IndexEntries, SegmentCursor};

/// What a batch that begins a segment brings with it.
pub(crate) struct RollPoint {
    /// The new segment, empty.
    pub(crate) cursor: SegmentCursor,
    /// Producer state before the batch; `None`: no producer is known.
    pub(crate) snapshot: Option<Vec<u8>>,
}

/// A batch in the queue, in its place.
pub(crate) struct Queued {
    pub(crate) batch: AppendBatch,
    /// Where its segment stands behind it.
    pub(crate) after: SegmentCursor,
    pub(crate) entries: IndexEntries,
    /// It is the first of a new segment.
    pub(crate) roll: Option<Box<RollPoint>>,
    pub(crate) undo: Option<ProducerUndo>,
}

/// The buffer that is being filled.
pub(crate) struct TailBuffer {
    buffer: AlignedBuffer,
    /// Position in the file of the buffer's first byte.
    start: u64,
    /// How much of it is on disk.
    flushed: usize,
}

impl TailBuffer {
    /// A buffer for what follows `position`: `prefix` is what its first block holds already.
    pub(crate) fn new(pool: &BufferPool, position: u64, prefix: &[u8], capacity: usize) -> Self {
        let start = block_start(position);
        assert_eq!(start + prefix.len() as u64, position, "a prefix of another length");
        let mut buffer = pool.take(capacity.max(prefix.len() + 1));
        buffer.append(prefix);
        Self { flushed: prefix.len(), buffer, start }
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// What is on disk, shared.
    pub(crate) fn flushed_bytes(&self) -> Bytes {
        self.buffer.slice(0..self.flushed)
    }

    /// What of it is on disk at `position`, at most `len` bytes.
    pub(crate) fn find(&self, position: u64, len: usize) -> Option<Bytes> {
        let from = usize::try_from(position.checked_sub(self.start)?).ok()?;
        let end = from.saturating_add(len).min(self.flushed);
        (from < end).then(|| self.buffer.slice(from..end))
    }

    /// What is on disk of the last block, to begin the next buffer with.
    pub(crate) fn last_block(&self) -> Bytes {
        let from = self.flushed / BLOCK_BYTES * BLOCK_BYTES;
        self.buffer.slice(from..self.flushed)
    }
}

/// The start of the block that holds `position`.
pub(crate) fn block_start(position: u64) -> u64 {
    position / BLOCK_BYTES as u64 * BLOCK_BYTES as u64
}

/// A write that is under way.
pub(crate) struct Write {
    /// In pieces of at most one write's size, one behind the other.
    pub(crate) pieces: Vec<(AlignedBlocks, u64)>,
    /// What is acknowledged when all pieces are on disk.
    pub(crate) batches: Vec<Queued>,
}

/// The queue of one log, and its buffer.
pub(crate) struct AppendQueue {
    waiting: VecDeque<Queued>,
    waiting_bytes: usize,
    /// Where the log will stand when all that waits is written.
    pub(crate) cursor: SegmentCursor,
    pub(crate) buffer: Option<TailBuffer>,
    next_buffer_bytes: usize,
}

impl AppendQueue {
    pub(crate) fn new(cursor: SegmentCursor) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            cursor,
            buffer: None,
            next_buffer_bytes: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    pub(crate) fn push(&mut self, queued: Queued) {
        self.waiting_bytes += queued.batch.batch_bytes();
        self.cursor = queued.after;
        self.waiting.push_back(queued);
    }

    /// Takes the roll that the next batch asks for, if it does.
    pub(crate) fn next_roll(&mut self) -> Option<Box<RollPoint>> {
        self.waiting.front_mut()?.roll.take()
    }

    /// A roll that was begun before anything asked for it did not come about: the next batch, which
    /// stands behind it, asks for it now; where none waits, the log ends at `end` as before.
    pub(crate) fn postpone_roll(&mut self, point: RollPoint, end: SegmentCursor) {
        let Some(next) = self.waiting.front_mut() else {
            self.cursor = end;
            return;
        };
        assert!(next.roll.is_none(), "the first batch of an empty segment asks for no roll");
        next.roll = Some(Box::new(point));
    }

    /// Bytes of the batch that is next; and of all that could go with it into one write.
    pub(crate) fn next_bytes(&self, write_bytes_max: usize) -> (usize, usize) {
        let first = self.waiting.front().map_or(0, |q| q.batch.batch_bytes());
        let mut run = 0;
        for queued in &self.waiting {
            let bytes = queued.batch.batch_bytes();
            let ends_run = run > 0 && (queued.roll.is_some() || run + bytes > write_bytes_max);
            if ends_run {
                break;
            }
            run += bytes;
        }
        (first, run)
    }

    /// Whether the next batch fits the buffer.
    pub(crate) fn has_room(&self) -> bool {
        let (first, _) = self.next_bytes(0);
        let room = self.buffer.as_ref().map(|buffer| buffer.buffer.remaining());
        room.is_some_and(|room| room >= first)
    }

    /// How large the next buffer is: twice the last while the log is busy, and large enough for
    /// what waits.
    pub(crate) fn buffer_bytes(
        &mut self,
        prefix: usize,
        run: usize,
        min: usize,
        max: usize,
    ) -> usize {
        let (first, _) = self.next_bytes(0);
        let wanted = self.next_buffer_bytes.max(min);
        let wanted = wanted.max((prefix + run).next_power_of_two()).min(max);
        self.next_buffer_bytes = (2 * wanted).min(max);
        wanted.max(prefix + first).next_multiple_of(BLOCK_BYTES)
    }

    /// The log is idle: its next buffer is small again.
    pub(crate) fn shrink(&mut self) {
        self.next_buffer_bytes = 0;
    }

    /// Copies what fits into the buffer, stamped, and gives it as one write. There is room for the
    /// first batch; `allocated` is the length of the file, behind which nothing else is written:
    /// what came while it was made longer waits for the next write.
    pub(crate) fn gather(&mut self, write_bytes_max: usize, allocated: u64) -> Option<Write> {
        assert_eq!(write_bytes_max % BLOCK_BYTES, 0, "a write of whole blocks");
        let tail = self.buffer.as_mut()?;
        // The first block is written from its start.
        let bytes_max = write_bytes_max - tail.flushed % BLOCK_BYTES;
        let space = allocated.saturating_sub(tail.start + tail.flushed as u64);
        let bytes_max = bytes_max.min(usize::try_from(space).unwrap_or(usize::MAX));
        let mut batches: Vec<Queued> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            let len = next.batch.batch_bytes();
            let ends_write = next.roll.is_some() || bytes + len > bytes_max;
            if tail.buffer.remaining() < len || (bytes > 0 && ends_write) {
                break;
            }
            let (header, rest) = next.batch.pieces();
            tail.buffer.append(header);
            tail.buffer.append(rest);
            bytes += len;
            self.waiting_bytes -= len;
            batches.extend(self.waiting.pop_front());
        }
        if bytes == 0 {
            return None;
        }
        let mut pieces = Vec::new();
        let mut from = tail.flushed;
        while from < tail.buffer.filled() {
            let piece_start = from / BLOCK_BYTES * BLOCK_BYTES;
            let end = (piece_start + write_bytes_max).min(tail.buffer.filled());
            let position = tail.start + piece_start as u64;
            pieces.push((tail.buffer.blocks(from..end), position));
            from = end;
        }
        Some(Write { pieces, batches })
    }

    /// The write is on disk.
    pub(crate) fn finish(&mut self) {
        if let Some(tail) = &mut self.buffer {
            tail.flushed = tail.buffer.filled();
        }
    }

    /// Takes all that waits, newest first, and puts the end back to `cursor`.
    pub(crate) fn drain(&mut self, cursor: SegmentCursor) -> Vec<Queued> {
        self.waiting_bytes = 0;
        self.cursor = cursor;
        self.waiting.drain(..).rev().collect()
    }
}

#[cfg(test)]
mod tests {
    use vltava_protocol::batch_builder::BatchBuilder;

    use super::*;

    fn queued(offset: i64, value_bytes: usize, roll: bool) -> Queued {
        let mut builder = BatchBuilder::new();
        builder.append(1, None, Some(&vec![7; value_bytes]), &[]).unwrap();
        let mut batch = AppendBatch::new(Bytes::from(builder.build())).unwrap();
        batch.stamp(offset, 1);
        let cursor = SegmentCursor::new(offset, 0);
        let roll_point = || Box::new(RollPoint { cursor, snapshot: None });
        Queued {
            batch,
            after: cursor,
            entries: IndexEntries::default(),
            roll: roll.then(roll_point),
            undo: None,
        }
    }

    #[test]
    fn a_write_takes_whole_batches_up_to_its_size_and_stops_before_a_roll() {
        let mut queue = AppendQueue::new(SegmentCursor::new(0, 0));
        (0..4).for_each(|n| queue.push(queued(n, 1500, n == 3)));
        let len = queued(0, 1500, false).batch.batch_bytes();
        assert_eq!(queue.next_bytes(2 * len), (len, 2 * len));
        assert_eq!(queue.next_bytes(9 * len), (len, 3 * len));
        let pool = BufferPool::new(BLOCK_BYTES, 0);
        queue.buffer = Some(TailBuffer::new(&pool, 100, &[1; 100], 65536));
        let write = queue.gather(4096, 16_384).unwrap();
        assert_eq!(write.batches.len(), 2);
        assert_eq!(write.pieces[0].1, 0);
        queue.finish();
        let write = queue.gather(16_384, 1 << 20).unwrap();
        assert_eq!(write.batches.len(), 1);
        assert_eq!(write.pieces[0].1, block_start(100 + 2 * len as u64));
        queue.finish();
        assert!(queue.next_roll().is_some());
        assert_eq!(queue.buffer.as_ref().unwrap().find(0, 100).unwrap(), vec![1; 100]);
        assert_eq!(queue.drain(SegmentCursor::new(0, 0)).len(), 1);
        assert_eq!(queue.waiting_bytes(), 0);
    }

    #[test]
    fn a_large_batch_is_written_in_pieces_that_join() {
        let mut queue = AppendQueue::new(SegmentCursor::new(0, 0));
        queue.push(queued(0, 50_000, false));
        let capacity = queue.buffer_bytes(0, 0, 4096, 8192);
        assert!(capacity >= 50_000);
        let pool = BufferPool::new(BLOCK_BYTES, 0);
        queue.buffer = Some(TailBuffer::new(&pool, 8192 + 10, &[1; 10], capacity + 10));
        let write = queue.gather(16_384, 1 << 20).unwrap();
        let mut end = 8192;
        for (blocks, position) in &write.pieces {
            assert_eq!(*position, end);
            assert!(blocks.len() <= 16_384);
            end += blocks.len() as u64;
        }
        assert!(end >= 8192 + 50_000);
    }

    #[test]
    fn buffers_grow_while_the_log_is_busy() {
        let mut queue = AppendQueue::new(SegmentCursor::new(0, 0));
        queue.push(queued(0, 10, false));
        let sizes = [0; 4].map(|_| queue.buffer_bytes(0, 100, 4096, 16_384));
        assert_eq!(sizes, [4096, 8192, 16_384, 16_384]);
        queue.shrink();
        assert_eq!(queue.buffer_bytes(0, 5000, 4096, 16_384), 8192);
    }
}
