//! Memory that the disk can take without a copy, shared by reference once written.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Writes begin and end at multiples of this.
pub const BLOCK_BYTES: usize = 4096;
/// Memory of so much, or a multiple, is aligned to it and asks for pages of this size: a fault for
/// each small page costs more than the disk's write of it.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Memory of its own, aligned to [`BLOCK_BYTES`], as the allocator or the kernel gave it: nothing
/// may be read that was not written.
struct Memory {
    start: NonNull<u8>,
    capacity: usize,
    origin: Origin,
    /// Who takes it back.
    pool: Option<BufferPool>,
}

/// Where memory comes from.
#[derive(Clone, Copy)]
enum Origin {
    Allocator,
    /// The region of its pool, which is given back as one.
    Region,
}

// SAFETY: the memory is plain bytes owned by this value. Bytes below an `AlignedBuffer`'s `filled`
// never change once a slice of them exists; bytes above it are reached through the one
// `AlignedBuffer` (which needs `&mut`) or by the kernel.
unsafe impl Send for Memory {}
// SAFETY: as above; shared access only ever reads bytes that no longer change.
unsafe impl Sync for Memory {}

impl Memory {
    fn layout(capacity: usize) -> Layout {
        // Capacity is a multiple of the block and was checked by `new`.
        Layout::from_size_align(capacity, BLOCK_BYTES).unwrap_or(Layout::new::<u8>())
    }

    fn new(capacity: usize) -> Self {
        let layout = Self::layout(capacity);
        assert!(layout.size() == capacity && capacity > 0, "capacity {capacity} is no layout");
        // SAFETY: the layout's size is not zero, asserted above.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, capacity, origin: Origin::Allocator, pool: None }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let (start, capacity, origin) = (self.start, self.capacity, self.origin);
        match (self.pool.take(), origin) {
            // It takes over what is owned here; without room for it, it drops it, without a pool.
            (Some(pool), _) => pool.give_back(Self { start, capacity, origin, pool: None }),
            // SAFETY: allocated in `new` with the same layout, freed once: who has a pool has
            // handed it on above.
            (None, Origin::Allocator) => unsafe {
                dealloc(start.as_ptr(), Self::layout(capacity));
            },
            (None, Origin::Region) => {}
        }
    }
}

/// Addresses for all large buffers of a pool, of huge pages; memory only where they are used. One
/// area for the kernel, which is never changed: it lets one thread wait for the memory of a buffer
/// while others use theirs, and it has room for 65,530 areas only.
struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: only addresses; who may use which is told by the `Memory` that is made of them.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Aligned addresses; `None` where the kernel has none to give.
    fn reserve(bytes: usize) -> Option<Self> {
        let mapped = bytes.checked_add(HUGE_PAGE_BYTES)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel likes: no memory of ours is touched.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), mapped, access, kind, -1, 0) };
        let start = NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED)?;
        let address = start.addr().get();
        let before = address.next_multiple_of(HUGE_PAGE_BYTES) - address;
        // SAFETY: of the mapping just made, which nobody else knows, what lies before and behind
        // the aligned part; nothing where that begins or ends with the mapping.
        let start = unsafe {
            unmap(start, before);
            let start = start.add(before);
            unmap(start.add(bytes), HUGE_PAGE_BYTES - before);
            // Advice changes no contents; where it is refused the pages are small, which is slower
            // and nothing else.
            libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
            start
        };
        Some(Self { start, bytes })
    }

    /// The part with this number, of equal ones.
    fn part(&self, number: usize, capacity: usize) -> Option<Memory> {
        let at = number * capacity;
        (at + capacity <= self.bytes).then(|| {
            // SAFETY: within the region.
            let start = unsafe { self.start.add(at) };
            Memory { start, capacity, origin: Origin::Region, pool: None }
        })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `reserve`. Whoever holds memory of it holds the pool, and so this.
        unsafe { unmap(self.start, self.bytes) };
    }
}

/// # Safety
/// The range was mapped, and nobody uses it any more.
unsafe fn unmap(start: NonNull<u8>, len: usize) {
    if len > 0 {
        // SAFETY: by the caller.
        unsafe { libc::munmap(start.as_ptr().cast(), len) };
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
        AlignedBuffer { memory: Arc::new(memory), filled: 0, is_fresh }
    }

    /// How many buffers nobody uses.
    pub fn free_buffers(&self) -> usize {
        self.kept().free.len()
    }

    /// Bytes of all buffers that are being filled, or of which a slice is left, wherever it is.
    pub fn lent_bytes(&self) -> usize {
        self.0.lent_bytes.load(Ordering::Relaxed)
    }

    fn give_back(&self, memory: Memory) {
        self.0.lent_bytes.fetch_sub(memory.capacity, Ordering::Relaxed);
        let Some(surplus) = self.keep(memory) else {
            return;
        };
        if matches!(surplus.origin, Origin::Region) {
            let (start, len) = (surplus.start.as_ptr(), surplus.capacity);
            // SAFETY: whole pages that nobody uses: `surplus` owns them. They read as zeros then.
            // Without the lock: it takes a while.
            unsafe { libc::madvise(start.cast(), len, libc::MADV_DONTNEED) };
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

/// A buffer of fixed capacity that is filled from its start. What is filled is never changed again,
/// so it can be read, and written to disk, by reference while more is appended.
///
/// Rule for callers: nothing is appended while a write of [`AlignedBuffer::blocks`] that covers the
/// last, partly filled block is under way: that block must reach the disk as it was.
pub struct AlignedBuffer {
    memory: Arc<Memory>,
    filled: usize,
    /// Nobody has used its memory.
    is_fresh: bool,
}

impl AlignedBuffer {
    /// An empty buffer of `capacity` bytes, rounded up to whole blocks.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1).next_multiple_of(BLOCK_BYTES);
        Self { memory: Arc::new(Memory::new(capacity)), filled: 0, is_fresh: true }
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

    /// Whether its first use will stop the thread for milliseconds, where the host has taken the
    /// memory back: a huge page is cleared at once. Smaller ones come one after the other, as they
    /// are filled.
    pub fn is_slow(&self) -> bool {
        self.is_fresh && matches!(self.memory.origin, Origin::Region)
    }

    /// Takes its memory from the system, on this thread.
    pub fn touch(&mut self) {
        let behind = self.filled.next_multiple_of(BLOCK_BYTES);
        for at in (behind..self.memory.capacity).step_by(BLOCK_BYTES) {
            // SAFETY: inside the allocation and behind `filled`, where no slice reaches; `&mut
            // self` is the only writer. Volatile, so that it is done though nobody reads it.
            unsafe { self.memory.start.as_ptr().add(at).write_volatile(0) };
        }
        self.is_fresh = false;
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
        let first = Blocks { memory: Arc::clone(&self.memory), range: start..end };
        AlignedBlocks { first, rest: Vec::new() }
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

/// Whole blocks on their way to a disk, in one write: of one buffer, or of several, one behind the
/// other. Keeps the memory alive until the disk is done with it.
#[derive(Clone)]
pub struct AlignedBlocks {
    first: Blocks,
    /// What follows in other buffers.
    rest: Vec<Blocks>,
}

/// Whole blocks of one buffer; never none.
#[derive(Clone)]
struct Blocks {
    memory: Arc<Memory>,
    range: Range<usize>,
}

impl Blocks {
    fn as_slice(&self) -> &[u8] {
        // SAFETY: inside the allocation, by `blocks`. Bytes behind `filled` do not change while a
        // write is under way (the rule of `AlignedBuffer`), so this reads what nobody writes.
        unsafe {
            let start = self.memory.start.as_ptr().add(self.range.start);
            std::slice::from_raw_parts(start, self.range.len())
        }
    }
}

impl AlignedBlocks {
    /// Length in bytes: a multiple of [`BLOCK_BYTES`], never 0.
    pub fn len(&self) -> usize {
        self.rest.iter().fold(self.first.range.len(), |len, blocks| len + blocks.range.len())
    }

    /// Never: a write of nothing is the caller's mistake.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What follows in the next buffer goes with it.
    pub fn join(&mut self, next: Self) {
        self.rest.push(next.first);
        self.rest.extend(next.rest);
    }

    /// What is to be written, in this order. Each part begins at a multiple of [`BLOCK_BYTES`] in
    /// memory, is whole blocks, and stays where it is while this lives.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.first).chain(&self.rest).map(Blocks::as_slice)
    }

    /// The one part, where there is no other.
    pub fn only(&self) -> Option<&[u8]> {
        self.rest.is_empty().then(|| self.first.as_slice())
    }

    /// A copy of what the blocks hold, for a disk that is only memory.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts().collect::<Vec<_>>().concat()
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
        assert!(blocks.parts().all(|part| part.as_ptr().addr().is_multiple_of(BLOCK_BYTES)));
        let bytes = blocks.to_vec();
        assert_eq!((bytes[0], bytes[1], bytes[BLOCK_BYTES - 1]), (7, 0, 0));
    }

    #[test]
    fn blocks_of_several_buffers_are_one_write() {
        let mut buffers = [1, 2, 3].map(|byte| {
            let mut buffer = AlignedBuffer::new(BLOCK_BYTES);
            buffer.append(&[byte; BLOCK_BYTES]);
            buffer
        });
        let [mut joined, second, third] = buffers.each_mut().map(|b| b.blocks(0..BLOCK_BYTES));
        joined.join(second);
        joined.join(third);
        drop(buffers);
        assert_eq!((joined.len(), joined.parts().count()), (3 * BLOCK_BYTES, 3));
        assert_eq!(
            joined.to_vec(),
            [[1; BLOCK_BYTES], [2; BLOCK_BYTES], [3; BLOCK_BYTES]].concat()
        );
    }

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

    #[test]
    #[should_panic(expected = "append of")]
    fn an_append_that_does_not_fit_is_the_callers_mistake() {
        AlignedBuffer::new(1).append(&[0; BLOCK_BYTES + 1]);
    }
}
