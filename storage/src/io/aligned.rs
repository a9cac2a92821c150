//! Memory that the disk can take without a copy, shared by reference once written.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;

use super::pool::BufferPool;

/// Writes begin and end at multiples of this.
pub const BLOCK_BYTES: usize = 4096;

/// Memory of its own, aligned to [`BLOCK_BYTES`], as the allocator or the kernel gave it: nothing
/// may be read that was not written.
pub(super) struct Memory {
    pub(super) start: NonNull<u8>,
    pub(super) capacity: usize,
    pub(super) origin: Origin,
    /// Who takes it back.
    pub(super) pool: Option<BufferPool>,
}

/// Where memory comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin {
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

    pub(super) fn new(capacity: usize) -> Self {
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
        Self::over(Memory::new(capacity), true)
    }

    /// An empty buffer in this memory.
    pub(super) fn over(memory: Memory, is_fresh: bool) -> Self {
        Self { memory: Arc::new(memory), filled: 0, is_fresh }
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
    #[should_panic(expected = "append of")]
    fn an_append_that_does_not_fit_is_the_callers_mistake() {
        AlignedBuffer::new(1).append(&[0; BLOCK_BYTES + 1]);
    }
}
