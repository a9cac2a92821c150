//! Memory that the disk can take without a copy, shared by reference once written.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Writes begin and end at multiples of this.
pub const BLOCK_BYTES: usize = 4096;
/// Memory of at least this much is aligned to it, and asks for pages of this size: a fault for
/// each small page costs more than the disk's write of it.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Memory of its own, aligned to [`BLOCK_BYTES`], as the allocator gave it: nothing may be read
/// that was not written.
struct Memory {
    start: NonNull<u8>,
    capacity: usize,
    /// Who takes it back.
    pool: Option<BufferPool>,
}

// SAFETY: the memory is plain bytes owned by this value. Bytes below an `AlignedBuffer`'s `filled`
// never change once a slice of them exists; bytes above it are reached through the one
// `AlignedBuffer` (which needs `&mut`) or by the kernel.
unsafe impl Send for Memory {}
// SAFETY: as above; shared access only ever reads bytes that no longer change.
unsafe impl Sync for Memory {}

impl Memory {
    fn layout(capacity: usize) -> Layout {
        let is_huge = capacity.is_multiple_of(HUGE_PAGE_BYTES);
        let align = if is_huge { HUGE_PAGE_BYTES } else { BLOCK_BYTES };
        // Capacity is a multiple of the block and was checked by `new`.
        Layout::from_size_align(capacity, align).unwrap_or(Layout::new::<u8>())
    }

    fn new(capacity: usize) -> Self {
        let layout = Self::layout(capacity);
        assert!(layout.size() == capacity && capacity > 0, "capacity {capacity} is no layout");
        // SAFETY: the layout's size is not zero, asserted above.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        if layout.align() == HUGE_PAGE_BYTES {
            // SAFETY: the range is this allocation, and whole pages. Advice changes no contents;
            // where it is refused the pages are small, which is slower and nothing else.
            unsafe { libc::madvise(start.as_ptr().cast(), capacity, libc::MADV_HUGEPAGE) };
        }
        Self { start, capacity, pool: None }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let (start, capacity) = (self.start, self.capacity);
        match self.pool.take() {
            // It takes over what is owned here; without room for it, it drops it, without a pool.
            Some(pool) => pool.give_back(Self { start, capacity, pool: None }),
            // SAFETY: allocated in `new` with the same layout, freed once: who has a pool has
            // handed it on above.
            None => unsafe { dealloc(start.as_ptr(), Self::layout(capacity)) },
        }
    }
}

/// Counts the memory of its buffers, and uses those of one size again instead of freeing them:
/// fresh memory costs a fault, and its clearing, for each page. Clones are the same pool. A buffer
/// comes back when the last of its slices is dropped, on whichever thread.
#[derive(Clone)]
pub struct BufferPool(Arc<Shelf>);

struct Shelf {
    buffer_bytes: usize,
    free_max: usize,
    free: Mutex<Vec<Memory>>,
    /// Bytes of all buffers that are somebody's.
    lent_bytes: AtomicUsize,
}

impl BufferPool {
    /// A pool of buffers of `buffer_bytes`, that keeps at most `free_max` which nobody uses.
    pub fn new(buffer_bytes: usize, free_max: usize) -> Self {
        let (free, lent_bytes) = (Mutex::default(), AtomicUsize::new(0));
        Self(Arc::new(Shelf { buffer_bytes, free_max, free, lent_bytes }))
    }

    /// An empty buffer of `capacity` bytes, rounded up to whole blocks. Those of the pool's size
    /// are used again.
    pub fn take(&self, capacity: usize) -> AlignedBuffer {
        let capacity = capacity.max(1).next_multiple_of(BLOCK_BYTES);
        let is_kept = capacity == self.0.buffer_bytes;
        let used = is_kept.then(|| self.free().pop()).flatten();
        let mut memory = used.unwrap_or_else(|| Memory::new(capacity));
        memory.pool = Some(self.clone());
        self.0.lent_bytes.fetch_add(capacity, Ordering::Relaxed);
        AlignedBuffer { memory: Arc::new(memory), filled: 0 }
    }

    /// Bytes of all buffers that are being filled, or of which a slice is left, wherever it is.
    pub fn lent_bytes(&self) -> usize {
        self.0.lent_bytes.load(Ordering::Relaxed)
    }

    fn give_back(&self, memory: Memory) {
        self.0.lent_bytes.fetch_sub(memory.capacity, Ordering::Relaxed);
        let mut free = self.free();
        if memory.capacity == self.0.buffer_bytes && free.len() < self.0.free_max {
            free.push(memory);
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Memory>> {
        // Whole after every statement that is run under the lock.
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer of fixed capacity that is filled from its start. What is filled is never changed again,
/// so it can be read, and written to disk, by reference while more is appended.
///
/// Rule for callers: nothing is appended while a write of [`AlignedBuffer::blocks`] that covers the
/// last, partly filled block is under way: that block must reach the disk as it was.
pub struct AlignedBuffer {
    memory: Arc<Memory>,
    filled: usize,
}

impl AlignedBuffer {
    /// An empty buffer of `capacity` bytes, rounded up to whole blocks.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1).next_multiple_of(BLOCK_BYTES);
        Self { memory: Arc::new(Memory::new(capacity)), filled: 0 }
    }

    /// All it can hold, in bytes.
    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// What it holds, in bytes.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// What still fits, in bytes.
    pub fn remaining(&self) -> usize {
        self.memory.capacity - self.filled
    }

    /// Copies `bytes` behind what is filled.
    ///
    /// # Panics
    /// Where they do not fit: the caller's mistake.
    pub fn append(&mut self, bytes: &[u8]) {
        assert!(
            bytes.len() <= self.remaining(),
            "append of {} to {}",
            bytes.len(),
            self.remaining()
        );
        // SAFETY: the range [filled, filled + len) lies inside the allocation (asserted), no slice
        // of it exists (slices end at `filled`), and `&mut self` is the only writer. `bytes` cannot
        // overlap it for the same reason.
        unsafe {
            let to = self.memory.start.as_ptr().add(self.filled);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        self.filled += bytes.len();
    }

    /// Where what follows belongs, for a kernel that fills it: [`AlignedBuffer::remaining`] bytes,
    /// which stay where they are when the buffer moves.
    pub fn spare(&mut self) -> *mut u8 {
        // SAFETY: `filled` is at most the capacity: inside the allocation, or its end.
        unsafe { self.memory.start.as_ptr().add(self.filled) }
    }

    /// So many bytes of what was spare are filled.
    ///
    /// # Safety
    /// They were written, by whoever had [`AlignedBuffer::spare`].
    ///
    /// # Panics
    /// Where so many do not fit.
    pub unsafe fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.remaining(), "{bytes} more of {}", self.remaining());
        self.filled += bytes;
    }

    /// Filled bytes, shared: no copy. `range` lies within what is filled.
    ///
    /// # Panics
    /// Where it does not: the caller's mistake.
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        assert!(
            range.start <= range.end && range.end <= self.filled,
            "slice {range:?} of {}",
            self.filled
        );
        Bytes::from_owner(Filled { memory: Arc::clone(&self.memory), range })
    }

    /// The whole blocks that hold filled bytes `range`; behind `filled`, the last one ends in
    /// zeros.
    ///
    /// # Panics
    /// Where `range` is empty, or not within what is filled.
    pub fn blocks(&mut self, range: Range<usize>) -> AlignedBlocks {
        assert!(
            range.start < range.end && range.end <= self.filled,
            "blocks {range:?} of {}",
            self.filled
        );
        let start = range.start / BLOCK_BYTES * BLOCK_BYTES;
        let end = range.end.next_multiple_of(BLOCK_BYTES);
        let padding = end.saturating_sub(self.filled);
        // SAFETY: [filled, end) lies inside the allocation, whose capacity is whole blocks; no
        // slice reaches beyond `filled`, and `&mut self` is the only writer.
        unsafe {
            let to = self.memory.start.as_ptr().add(end - padding);
            std::ptr::write_bytes(to, 0, padding);
        }
        AlignedBlocks { memory: Arc::clone(&self.memory), range: start..end }
    }
}

/// Filled bytes of a buffer, as the owner behind a `Bytes`.
struct Filled {
    memory: Arc<Memory>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the range was within `filled` when this was made: inside the allocation, which
        // the `Arc` keeps, and never changed again.
        unsafe {
            std::slice::from_raw_parts(
                self.memory.start.as_ptr().add(self.range.start),
                self.range.len(),
            )
        }
    }
}

/// Whole blocks of a buffer on their way to a disk; keeps the memory alive until the disk is done
/// with it.
#[derive(Clone)]
pub struct AlignedBlocks {
    memory: Arc<Memory>,
    range: Range<usize>,
}

impl AlignedBlocks {
    /// Length in bytes: a multiple of [`BLOCK_BYTES`], never 0.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Never: a write of nothing is the caller's mistake.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Where the blocks start, for the kernel. Aligned to [`BLOCK_BYTES`]; valid for
    /// [`AlignedBlocks::len`] bytes while this lives.
    pub fn as_ptr(&self) -> *const u8 {
        // SAFETY: inside the allocation, by `blocks`.
        unsafe { self.memory.start.as_ptr().add(self.range.start) }
    }

    /// A copy of what the blocks hold, for a disk that is only memory.
    pub fn to_vec(&self) -> Vec<u8> {
        // SAFETY: inside the allocation. Bytes behind `filled` do not change while a write is under
        // way (the rule of `AlignedBuffer`), so this reads what nobody writes.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_stay_while_more_is_appended() {
        let mut buffer = AlignedBuffer::new(10);
        assert_eq!(buffer.capacity(), BLOCK_BYTES);
        buffer.append(b"first");
        let first = buffer.slice(0..5);
        buffer.append(b"second");
        assert_eq!(&first[..], b"first");
        assert_eq!(&buffer.slice(5..11)[..], b"second");
        drop(buffer);
        assert_eq!(&first[..], b"first");
    }

    #[test]
    fn blocks_are_whole_and_end_in_zeros() {
        let mut buffer = AlignedBuffer::new(3 * BLOCK_BYTES);
        buffer.append(&vec![7; BLOCK_BYTES + 1]);
        let blocks = buffer.blocks(BLOCK_BYTES..BLOCK_BYTES + 1);
        assert_eq!(blocks.len(), BLOCK_BYTES);
        assert_eq!(blocks.as_ptr() as usize % BLOCK_BYTES, 0);
        let bytes = blocks.to_vec();
        assert_eq!((bytes[0], bytes[1], bytes[BLOCK_BYTES - 1]), (7, 0, 0));
    }

    #[test]
    fn a_pool_uses_a_buffer_again_once_nothing_reads_it() {
        let pool = BufferPool::new(2 * BLOCK_BYTES, 1);
        let mut buffer = pool.take(BLOCK_BYTES + 1);
        buffer.append(&[7; BLOCK_BYTES + 5]);
        let slice = buffer.slice(0..5);
        drop(buffer);
        assert_eq!(pool.free().len(), 0, "a slice still reads it");
        drop(slice);
        assert_eq!(pool.free().len(), 1);
        let mut again = pool.take(2 * BLOCK_BYTES);
        assert_eq!((pool.free().len(), again.filled()), (0, 0));
        again.append(&[1; BLOCK_BYTES + 1]);
        let blocks = again.blocks(0..BLOCK_BYTES + 1).to_vec();
        assert_eq!(blocks[BLOCK_BYTES + 1..], [0; BLOCK_BYTES - 1], "zeros, not what was there");
        let other = pool.take(BLOCK_BYTES);
        assert_eq!(pool.lent_bytes(), 3 * BLOCK_BYTES);
        drop((pool.take(2 * BLOCK_BYTES), again, other));
        assert_eq!(pool.free().len(), 1, "no more than it may keep, none of another size");
        assert_eq!(pool.lent_bytes(), 0);
    }

    #[test]
    #[should_panic(expected = "append of")]
    fn an_append_that_does_not_fit_is_the_callers_mistake() {
        AlignedBuffer::new(1).append(&[0; BLOCK_BYTES + 1]);
    }
}
