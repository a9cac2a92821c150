//! Batches that wait for their write, and the aligned buffers they are written from. No I/O.
//!
//! A batch is copied once: from the receive buffer into the segment's buffers, when its write
//! starts. A buffer is filled to its end, which is that of a block, and the next one goes on there,
//! in the middle of a batch or of its header: one write may come from several. While it is under
//! way nothing changes them: the last block must reach the disk as it was.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::header::AppendBatch;
use crate::io::{AlignedBlocks, AlignedBuffer, BLOCK_BYTES, block_start};
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

/// A buffer that is being filled.
pub(crate) struct TailBuffer {
    buffer: AlignedBuffer,
    /// Position in the file of the buffer's first byte.
    start: u64,
    /// How much of it is on disk.
    flushed: usize,
}

impl TailBuffer {
    /// A buffer for what follows `position`: `prefix` is what its first block holds already.
    fn new(mut buffer: AlignedBuffer, position: u64, prefix: &[u8]) -> Self {
        let start = block_start(position);
        assert_eq!(start + prefix.len() as u64, position, "a prefix of another length");
        buffer.append(prefix);
        Self { flushed: prefix.len(), buffer, start }
    }

    /// Position in the file where it ends when it is full.
    fn end(&self) -> u64 {
        self.start + self.buffer.capacity() as u64
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

    /// What is on disk of the last block.
    pub(crate) fn last_block(&self) -> Bytes {
        let from = self.flushed / BLOCK_BYTES * BLOCK_BYTES;
        self.buffer.slice(from..self.flushed)
    }
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
    /// Holds the end of what is on disk.
    pub(crate) buffer: Option<TailBuffer>,
    /// Where what does not fit `buffer` goes, in this order. Nothing of them is on disk.
    ahead: VecDeque<TailBuffer>,
    next_buffer_bytes: usize,
}

impl AppendQueue {
    pub(crate) fn new(cursor: SegmentCursor) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            cursor,
            buffer: None,
            ahead: VecDeque::new(),
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

    /// Room that buffers lack: for the batch that is next; and for all that could go with it into
    /// one write.
    pub(crate) fn lacking(&self, write_bytes_max: usize) -> (usize, usize) {
        let (first, run) = self.next_bytes(write_bytes_max);
        let room: usize = self.buffers().map(|buffer| buffer.buffer.remaining()).sum();
        (first.saturating_sub(room), run.saturating_sub(room))
    }

    fn buffers(&self) -> impl Iterator<Item = &TailBuffer> {
        self.buffer.iter().chain(&self.ahead)
    }

    /// How large the next buffer is: twice the last while the log is busy, and large enough for
    /// what has no room. `min` and `max` are whole blocks.
    pub(crate) fn buffer_bytes(&mut self, lacking: usize, min: usize, max: usize) -> usize {
        let wanted = self.next_buffer_bytes.max(min).max(lacking.next_power_of_two()).min(max);
        self.next_buffer_bytes = (2 * wanted).min(max);
        wanted
    }

    /// Another buffer, empty. Where it is the only one, it is for what follows `position`, and
    /// `prefix` is what its first block holds already.
    pub(crate) fn add_buffer(&mut self, buffer: AlignedBuffer, position: u64, prefix: &[u8]) {
        let last = self.buffers().last().map(TailBuffer::end);
        match last {
            None => self.buffer = Some(TailBuffer::new(buffer, position, prefix)),
            Some(end) => self.ahead.push_back(TailBuffer::new(buffer, end, &[])),
        }
    }

    /// Lets go of all buffers: the one that holds the end of what is on disk.
    pub(crate) fn take_buffer(&mut self) -> Option<TailBuffer> {
        self.ahead.clear();
        self.buffer.take()
    }

    /// The log is idle: its next buffer is small again.
    pub(crate) fn shrink(&mut self) {
        self.next_buffer_bytes = 0;
    }

    /// Copies what fits into the buffers, stamped, and gives it as one write. There is room for the
    /// first batch; `space_end` is where the space that was made for it ends: what came meanwhile
    /// waits for the next write.
    pub(crate) fn gather(&mut self, write_bytes_max: usize, space_end: u64) -> Option<Write> {
        assert_eq!(write_bytes_max % BLOCK_BYTES, 0, "a write of whole blocks");
        let tail = self.buffer.as_ref()?;
        // The first block is written from its start.
        let bytes_max = write_bytes_max - tail.flushed % BLOCK_BYTES;
        let space = space_end.saturating_sub(tail.start + tail.flushed as u64);
        let bytes_max = bytes_max.min(usize::try_from(space).unwrap_or(usize::MAX));
        let room: usize = self.buffers().map(|buffer| buffer.buffer.remaining()).sum();
        let mut batches: Vec<Queued> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.waiting.pop_front() {
            let len = next.batch.batch_bytes();
            let ends_write = next.roll.is_some() || bytes + len > bytes_max;
            if bytes + len > room || (bytes > 0 && ends_write) {
                self.waiting.push_front(next);
                break;
            }
            let (header, rest) = next.batch.pieces();
            self.copy_in(header);
            self.copy_in(rest);
            bytes += len;
            self.waiting_bytes -= len;
            batches.push(next);
        }
        (bytes > 0).then(|| Write { pieces: self.pieces(write_bytes_max), batches })
    }

    /// Fills one buffer after the other.
    fn copy_in(&mut self, mut bytes: &[u8]) {
        for tail in self.buffer.iter_mut().chain(&mut self.ahead) {
            let (here, rest) = bytes.split_at(bytes.len().min(tail.buffer.remaining()));
            tail.buffer.append(here);
            bytes = rest;
        }
        assert!(bytes.is_empty(), "{} bytes have no room", bytes.len());
    }

    /// What is filled and not on disk, in pieces of at most `bytes_max`.
    fn pieces(&mut self, bytes_max: usize) -> Vec<(AlignedBlocks, u64)> {
        let mut pieces: Vec<(AlignedBlocks, u64)> = Vec::new();
        for tail in self.buffer.iter_mut().chain(&mut self.ahead) {
            let mut from = tail.flushed;
            while from < tail.buffer.filled() {
                let begin = from / BLOCK_BYTES * BLOCK_BYTES;
                let last = pieces.last_mut().filter(|(blocks, _)| blocks.len() < bytes_max);
                let room = bytes_max - last.as_ref().map_or(0, |(blocks, _)| blocks.len());
                let end = tail.buffer.filled().min(begin + room);
                let blocks = tail.buffer.blocks(from..end);
                match last {
                    Some((joined, _)) => joined.join(blocks),
                    None => pieces.push((blocks, tail.start + begin as u64)),
                }
                from = end;
            }
        }
        pieces
    }

    /// The write is on disk. Buffers that are full with it, for readers: each with its position.
    pub(crate) fn finish(&mut self) -> Vec<(u64, Bytes)> {
        let mut full = Vec::new();
        while let Some(tail) = &mut self.buffer {
            tail.flushed = tail.buffer.filled();
            if tail.buffer.remaining() > 0 {
                break;
            }
            full.push((tail.start, tail.flushed_bytes()));
            self.buffer = self.ahead.pop_front();
        }
        full
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
        queue.add_buffer(AlignedBuffer::new(65_536), 100, &[1; 100]);
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

    /// Borders anywhere: of buffers, of pieces, of blocks; in headers and in payloads.
    #[test]
    fn what_is_written_and_what_is_read_is_what_was_appended() {
        for seed in 0..400_u64 {
            let draw = |n: u64, limit: u64| (seed + 1).wrapping_mul(n * 0x9E37_79B9 + 7) % limit;
            let size = |n, limit| usize::try_from(draw(n, limit)).unwrap();
            let (write_bytes_max, prefix) = (BLOCK_BYTES * (1 + size(1, 5)), size(2, 4096));
            let start = 8 * BLOCK_BYTES as u64;
            let mut queue = AppendQueue::new(SegmentCursor::new(0, 0));
            let mut expected = vec![1; prefix];
            let mut file = vec![0; 1 << 20];
            let mut kept = Vec::new();
            let mut end = start + prefix as u64;
            for n in 0..40 {
                queue.push(queued(n, 1 + size(3 + n.unsigned_abs(), 9000), false));
                if n % 4 != 0 {
                    continue;
                }
                while queue.lacking(write_bytes_max).1 > 0 {
                    let buffer = AlignedBuffer::new(BLOCK_BYTES * (1 + size(50, 3)));
                    let last_block = expected.len() - expected.len() % BLOCK_BYTES;
                    queue.add_buffer(buffer, end, &expected[last_block..]);
                }
                while let Some(write) = queue.gather(write_bytes_max, 1 << 20) {
                    for (blocks, position) in &write.pieces {
                        assert!(blocks.len() <= write_bytes_max);
                        let at = usize::try_from(position - start).unwrap();
                        file[at..at + blocks.len()].copy_from_slice(&blocks.to_vec());
                    }
                    for queued in &write.batches {
                        let (header, rest) = queued.batch.pieces();
                        expected.extend_from_slice(header);
                        expected.extend_from_slice(rest);
                    }
                    end = start + expected.len() as u64;
                    kept.extend(queue.finish());
                }
            }
            assert_eq!(file[..expected.len()], expected, "seed {seed}");
            let tail = queue.buffer.as_ref().map(|tail| (tail.start, tail.flushed_bytes()));
            let read: Vec<u8> = kept.iter().chain(&tail).flat_map(|(_, b)| b.to_vec()).collect();
            assert_eq!(read, expected, "seed {seed}");
        }
    }

    #[test]
    fn a_large_batch_is_written_in_pieces_that_join() {
        let mut queue = AppendQueue::new(SegmentCursor::new(0, 0));
        queue.push(queued(0, 50_000, false));
        for _ in 0..5 {
            let bytes = queue.buffer_bytes(60_000, 4096, 12_288);
            assert_eq!(bytes, 12_288);
            queue.add_buffer(AlignedBuffer::new(bytes), 8192 + 10, &[1; 10]);
        }
        assert_eq!(queue.lacking(16_384), (0, 0));
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
        let sizes = [0; 4].map(|_| queue.buffer_bytes(100, 4096, 16_384));
        assert_eq!(sizes, [4096, 8192, 16_384, 16_384]);
        queue.shrink();
        assert_eq!(queue.buffer_bytes(5000, 4096, 16_384), 8192);
    }
}
