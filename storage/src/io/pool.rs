//! Buffers that are counted, and used again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::aligned::{AlignedBuffer, BLOCK_BYTES, Memory, Origin};
use super::region::{HUGE_PAGE_BYTES, Region, release_pages};

/// Counts the memory of its buffers, and uses those of one size again instead of freeing them:
/// fresh memory costs a fault, and its clearing, for each page. Clones are the same pool. A buffer
/// comes back when the last of its slices is dropped, on whichever thread.
#[derive(Clone)]
pub struct BufferPool(Arc<Shelf>);

struct Shelf {
    buffer_bytes: usize,
    free_max: usize,
    kept: Mutex<Kept>,
    /// Where large buffers are made; `None` where there is no such place.
    region: Option<Region>,
    /// Bytes of all buffers that are somebody's.
    lent_bytes: AtomicUsize,
}

/// What nobody uses.
#[derive(Default)]
struct Kept {
    free: Vec<Memory>,
    /// Parts of the region whose memory was given back to the system.
    empty: Vec<Memory>,
    /// Parts of the region that were used at all.
    parts: usize,
}

impl BufferPool {
    /// A pool of buffers of `buffer_bytes`, that keeps at most `free_max` which nobody uses. Where
    /// those are of huge pages, there are `buffers_max` addresses for them; beyond, and for other
    /// sizes, memory comes from the allocator.
    pub fn new(buffer_bytes: usize, free_max: usize, buffers_max: usize) -> Self {
        let bytes = buffer_bytes.saturating_mul(buffers_max);
        let is_huge = buffer_bytes.is_multiple_of(HUGE_PAGE_BYTES) && bytes > 0;
        let region = is_huge.then(|| Region::reserve(bytes)).flatten();
        let (kept, lent_bytes) = (Mutex::default(), AtomicUsize::new(0));
        Self(Arc::new(Shelf { buffer_bytes, free_max, kept, region, lent_bytes }))
    }

    /// An empty buffer of `capacity` bytes, rounded up to whole blocks. Those of the pool's size
    /// are used again.
    pub fn take(&self, capacity: usize) -> AlignedBuffer {
        let capacity = capacity.max(1).next_multiple_of(BLOCK_BYTES);
        if capacity != self.0.buffer_bytes {
            return self.lend(Memory::new(capacity), true);
        }
        let used = self.kept().free.pop();
        used.map_or_else(|| self.take_fresh(), |used| self.lend(used, false))
    }

    /// An empty buffer of the pool's size that nobody has used.
    pub fn take_fresh(&self) -> AlignedBuffer {
        let Shelf { buffer_bytes, region, .. } = &*self.0;
        let part = region.as_ref().and_then(|region| {
            let mut kept = self.kept();
            kept.empty.pop().or_else(|| {
                let part = region.part(kept.parts, *buffer_bytes)?;
                kept.parts += 1;
                Some(part)
            })
        });
        self.lend(part.unwrap_or_else(|| Memory::new(*buffer_bytes)), true)
    }

    fn lend(&self, mut memory: Memory, is_fresh: bool) -> AlignedBuffer {
        memory.pool = Some(self.clone());
        self.0.lent_bytes.fetch_add(memory.capacity, Ordering::Relaxed);
        AlignedBuffer::over(memory, is_fresh)
    }

    /// How many buffers nobody uses.
    pub fn free_buffers(&self) -> usize {
        self.kept().free.len()
    }

    /// Bytes of all buffers that are being filled, or of which a slice is left, wherever it is.
    pub fn lent_bytes(&self) -> usize {
        self.0.lent_bytes.load(Ordering::Relaxed)
    }

    /// Takes memory that nobody uses any more.
    pub(super) fn give_back(&self, memory: Memory) {
        self.0.lent_bytes.fetch_sub(memory.capacity, Ordering::Relaxed);
        let Some(surplus) = self.keep(memory) else {
            return;
        };
        if matches!(surplus.origin, Origin::Region) {
            // Without the lock: it takes a while.
            release_pages(&surplus);
            self.kept().empty.push(surplus);
        }
    }

    /// Keeps memory for whoever wants some next; gives it back where there is enough of it.
    fn keep(&self, memory: Memory) -> Option<Memory> {
        let mut kept = self.kept();
        if memory.capacity != self.0.buffer_bytes || kept.free.len() >= self.0.free_max {
            return Some(memory);
        }
        kept.free.push(memory);
        None
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whole after every statement that is run under the lock.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_uses_a_buffer_again_once_nothing_reads_it() {
        let pool = BufferPool::new(2 * BLOCK_BYTES, 1, 0);
        let mut buffer = pool.take(BLOCK_BYTES + 1);
        buffer.append(&[7; BLOCK_BYTES + 5]);
        let slice = buffer.slice(0..5);
        drop(buffer);
        assert_eq!(pool.free_buffers(), 0, "a slice still reads it");
        drop(slice);
        assert_eq!(pool.free_buffers(), 1);
        let mut again = pool.take(2 * BLOCK_BYTES);
        assert_eq!((pool.free_buffers(), again.filled()), (0, 0));
        again.append(&[1; BLOCK_BYTES + 1]);
        let blocks = again.blocks(0..BLOCK_BYTES + 1).to_vec();
        assert_eq!(blocks[BLOCK_BYTES + 1..], [0; BLOCK_BYTES - 1], "zeros, not what was there");
        let other = pool.take(BLOCK_BYTES);
        assert_eq!(pool.lent_bytes(), 3 * BLOCK_BYTES);
        drop((pool.take(2 * BLOCK_BYTES), again, other));
        assert_eq!(pool.free_buffers(), 1, "no more than it may keep, none of another size");
        assert_eq!(pool.lent_bytes(), 0);
    }

    #[test]
    fn huge_buffers_are_aligned_and_come_and_go() {
        let pool = BufferPool::new(HUGE_PAGE_BYTES, 1, 3);
        let mut seen = Vec::new();
        for round in 0..4 {
            let buffers = [0, 1, 2, 3].map(|n| {
                let mut buffer = pool.take(HUGE_PAGE_BYTES);
                assert_eq!(buffer.is_slow(), n < 3 && (round == 0 || n > 0), "{round} {n}");
                buffer.append(&[7 + n; BLOCK_BYTES]);
                buffer
            });
            let slices = buffers.each_ref().map(|buffer| buffer.slice(0..BLOCK_BYTES));
            drop(buffers);
            for (slice, n) in slices.iter().zip(0..) {
                assert_eq!(slice[..], [7 + n; BLOCK_BYTES]);
                seen.push(slice.as_ptr().addr());
            }
            assert_eq!(pool.lent_bytes(), 4 * HUGE_PAGE_BYTES);
        }
        assert!(seen.iter().filter(|at| at.is_multiple_of(HUGE_PAGE_BYTES)).count() >= 12);
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() < 8, "used again: {seen:?}");
        // What is left of it outlives the pool.
        let mut last = pool.take(HUGE_PAGE_BYTES);
        last.append(b"last");
        let slice = last.slice(0..4);
        drop((pool, last));
        assert_eq!(slice, b"last"[..]);
    }

    #[test]
    fn what_is_touched_or_was_used_is_not_slow() {
        let pool = BufferPool::new(HUGE_PAGE_BYTES, 1, 8);
        let mut buffer = pool.take(HUGE_PAGE_BYTES);
        assert!(buffer.is_slow());
        buffer.append(b"first");
        buffer.touch();
        assert!(!buffer.is_slow() && !pool.take(BLOCK_BYTES).is_slow());
        assert_eq!(buffer.slice(0..5), b"first"[..]);
        drop(buffer);
        assert!(pool.take_fresh().is_slow());
        assert!(!pool.take(HUGE_PAGE_BYTES).is_slow());
        assert_eq!((pool.lent_bytes(), pool.free_buffers()), (0, 1));
    }
}
