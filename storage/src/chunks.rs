//! Older ranges of segments in memory, for a while: chunks of their files, read past the page
//! cache.
//!
//! Readers near one another share a chunk, and who reads on finds the next chunks read ahead. The
//! memory is apart from that of the batch cache: who reads what is old does not push out what is
//! new. It is bounded: no more chunks are kept than fit the budget, and together with what answers
//! on their way to slow clients still hold they take twice of it at most; beyond that there is no
//! chunk, and the caller sends the range of the file itself.
//!
//! A chunk is that of one `Segment` value, by a number it is given here. A segment whose file is
//! cut is made anew by recovery, so nobody asks for the chunks of before; they go as all that
//! nobody asks for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};

use crate::io::{BLOCK_BYTES, BufferPool, File, IoResult};

/// The part of the budget that is read ahead for one reader at most, and the part that one answer
/// takes at most.
const AHEAD_PART: usize = 4;
const ANSWER_PART: usize = 8;
/// What is read ahead of a reader: so many times what it read at once.
const AHEAD_TIMES: usize = 4;
/// Readers whose places are remembered.
const READERS_MAX: usize = 256;

/// A chunk on its way from the disk, or here. Who waits for it sees what the disk said.
pub(crate) type Reading = Shared<LocalBoxFuture<'static, IoResult<Bytes>>>;

/// Which chunk: the segment's number, and how many chunks of its file are before.
pub(crate) type ChunkKey = (u64, u64);

/// What a chunk is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Somebody waits for it.
    Answer,
    /// Somebody is expected to want it next.
    Ahead,
}

struct Chunk {
    reading: Reading,
    /// How much of the file it is to hold.
    bytes: usize,
    /// When it was last wanted, in ticks of the clock.
    wanted: u64,
    /// It was read to its end.
    is_spent: bool,
}

/// Chunks of the segments of all logs of a shard.
pub(crate) struct ChunkCache {
    /// Chunks begin at multiples of this in their file.
    chunk_bytes: usize,
    bytes_max: usize,
    pool: BufferPool,
    kept: RefCell<BTreeMap<ChunkKey, Chunk>>,
    /// Ticks whenever a chunk is wanted.
    clock: Cell<u64>,
    segments: Cell<u64>,
    readers: RefCell<Readers>,
}

impl ChunkCache {
    /// One that keeps chunks of `chunk_bytes`, of `bytes_max` together.
    pub(crate) fn new(chunk_bytes: usize, bytes_max: usize) -> Self {
        assert_eq!(chunk_bytes % BLOCK_BYTES, 0, "chunks of whole blocks");
        Self {
            chunk_bytes,
            bytes_max,
            pool: BufferPool::new(chunk_bytes, bytes_max / chunk_bytes, 0),
            kept: RefCell::default(),
            clock: Cell::new(0),
            segments: Cell::new(0),
            readers: RefCell::default(),
        }
    }

    /// How large chunks are, in bytes.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes as u64
    }

    /// A number for a segment.
    pub(crate) fn number_segment(&self) -> u64 {
        self.segments.set(self.segments.get() + 1);
        self.segments.get()
    }

    /// The first `bytes` of a chunk; begins to read it where it is not here. `None` where there is
    /// no memory for it.
    pub(crate) fn chunk(
        &self,
        key: ChunkKey,
        bytes: usize,
        purpose: Purpose,
        file: &impl File,
    ) -> Option<Reading> {
        assert!(bytes > 0 && bytes <= self.chunk_bytes, "a chunk of {bytes} bytes");
        let now = self.clock.get() + 1;
        self.clock.set(now);
        if purpose == Purpose::Answer && self.has_failed(key) {
            self.forget(key);
        }
        if let Some(known) = self.kept.borrow_mut().get_mut(&key)
            && known.bytes >= bytes
        {
            if purpose == Purpose::Answer {
                known.wanted = now;
            }
            return Some(known.reading.clone());
        }
        if !self.make_room(purpose) {
            return None;
        }
        let buffer = self.pool.take(self.chunk_bytes);
        let read = file.begin_read(key.1 * self.chunk_bytes(), bytes, buffer);
        let reading = async move {
            let buffer = read.await?;
            Ok(buffer.slice(0..buffer.filled().min(bytes)))
        };
        let reading = reading.boxed_local().shared();
        let chunk = Chunk { reading: reading.clone(), bytes, wanted: now, is_spent: false };
        let shorter = self.kept.borrow_mut().insert(key, chunk);
        drop(shorter);
        Some(reading)
    }

    /// Whether the disk did not give this chunk, or not all of it, as far as is known by now. Where
    /// it was read ahead, nobody has heard of that.
    fn has_failed(&self, key: ChunkKey) -> bool {
        let kept = self.kept.borrow();
        kept.get(&key).is_some_and(|chunk| match chunk.reading.clone().now_or_never() {
            Some(read) => !read.is_ok_and(|bytes| bytes.len() == chunk.bytes),
            None => false,
        })
    }

    /// Somebody has read the chunk to its end.
    pub(crate) fn spend(&self, key: ChunkKey) {
        if let Some(chunk) = self.kept.borrow_mut().get_mut(&key) {
            chunk.is_spent = true;
        }
    }

    /// The disk did not give this chunk: who wants it next asks again.
    pub(crate) fn forget(&self, key: ChunkKey) {
        let forgotten = self.kept.borrow_mut().remove(&key);
        drop(forgotten);
    }

    /// What stands in a segment's file is another.
    pub(crate) fn forget_segment(&self, segment: u64) {
        let mut kept = self.kept.borrow_mut();
        let (rest, gone) =
            std::mem::take(&mut *kept).into_iter().partition(|(key, _)| key.0 != segment);
        *kept = rest;
        drop(kept);
        // What is read is given up outside of the borrow.
        drop::<BTreeMap<ChunkKey, Chunk>>(gone);
    }

    /// How much of what is not in memory one answer may take, in bytes: the less, the more is held
    /// by answers that do not leave.
    pub(crate) fn answer_bytes_max(&self) -> usize {
        let free = (2 * self.bytes_max).saturating_sub(self.pool.lent_bytes());
        (free / ANSWER_PART)
            .clamp(self.chunk_bytes, (self.bytes_max / ANSWER_PART).max(self.chunk_bytes))
    }

    /// Somebody reads this of a segment. How far to read ahead, in bytes: not at all where it is
    /// not in order.
    pub(crate) fn ahead_bytes(&self, segment: u64, range: Range<u64>) -> usize {
        let read = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        if !self.readers.borrow_mut().read(segment, range) {
            return 0;
        }
        let wanted = read.saturating_mul(AHEAD_TIMES).max(AHEAD_TIMES * self.chunk_bytes);
        wanted.min(self.bytes_max / AHEAD_PART)
    }

    /// Memory of chunks: those kept, and those that answers hold.
    pub(crate) fn lent_bytes(&self) -> usize {
        self.pool.lent_bytes()
    }

    /// Makes room for one chunk. What was read to its end goes first, then what was not wanted for
    /// longest; to read ahead, only what nobody seems to want any more.
    fn make_room(&self, purpose: Purpose) -> bool {
        // What is given up may be held by answers all the same: nothing is, before there is room.
        if self.pool.lent_bytes() + self.chunk_bytes > 2 * self.bytes_max {
            return false;
        }
        let chunks_max = self.bytes_max / self.chunk_bytes;
        while self.kept.borrow().len() >= chunks_max {
            let Some(victim) = self.victim(purpose) else {
                return false;
            };
            self.forget(victim);
        }
        true
    }

    fn victim(&self, purpose: Purpose) -> Option<ChunkKey> {
        let kept = self.kept.borrow();
        let unwanted_since = self.clock.get().saturating_sub(2 * kept.len() as u64);
        let may_go = |chunk: &Chunk| {
            purpose == Purpose::Answer || chunk.is_spent || chunk.wanted < unwanted_since
        };
        let may_go = kept.iter().filter(|(_, chunk)| may_go(chunk));
        let victim = may_go.min_by_key(|(_, chunk)| (!chunk.is_spent, chunk.wanted));
        victim.map(|(key, _)| *key)
    }
}

/// Where readers of older ranges stopped, and so go on where they read in order: segment and
/// position.
#[derive(Default)]
struct Readers {
    ends: Vec<(u64, u64)>,
    oldest: usize,
}

impl Readers {
    /// Whether this is read in order: from where a read ended, or from the segment's begin.
    fn read(&mut self, segment: u64, Range { start, end }: Range<u64>) -> bool {
        if let Some(known) = self.ends.iter_mut().find(|known| **known == (segment, start)) {
            *known = (segment, end);
            return true;
        }
        if self.ends.len() < READERS_MAX {
            self.ends.push((segment, end));
        } else {
            self.ends[self.oldest] = (segment, end);
            self.oldest = (self.oldest + 1) % READERS_MAX;
        }
        start == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Tail, write_new};
    use crate::io::fault_disk::FaultDisk;
    use crate::io::{Disk, OpenMode};
    use crate::testing::run;

    #[test]
    fn nothing_is_given_up_where_answers_hold_all_there_may_be() {
        run(async {
            let disk = FaultDisk::new(1);
            write_new(&disk, "log", &[7; 8 * BLOCK_BYTES], Tail::Exact).await.unwrap();
            let file = disk.open("log", OpenMode::ReadBlocks).await.unwrap();
            let cache = ChunkCache::new(BLOCK_BYTES, 2 * BLOCK_BYTES);
            let chunk = |n| cache.chunk((1, n), BLOCK_BYTES, Purpose::Answer, &file);
            let mut held = Vec::new();
            for n in 0..4 {
                held.push(chunk(n).unwrap().await.unwrap());
            }
            assert!(chunk(4).is_none());
            let kept: Vec<ChunkKey> = cache.kept.borrow().keys().copied().collect();
            assert_eq!(kept, [(1, 2), (1, 3)]);
            drop(held);
            assert!(chunk(4).is_some());
        });
    }
}
