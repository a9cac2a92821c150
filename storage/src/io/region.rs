//! Addresses of huge pages.

use std::ptr::NonNull;

use super::aligned::{Memory, Origin};

/// Memory of so much, or a multiple, is aligned to it and asks for pages of this size: a fault for
/// each small page costs more than the disk's write of it.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Addresses for all large buffers of a pool, of huge pages; memory only where they are used. One
/// area for the kernel, which is never changed: it lets one thread wait for the memory of a buffer
/// while others use theirs, and it has room for 65,530 areas only.
pub(super) struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: only addresses; who may use which is told by the `Memory` that is made of them.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Aligned addresses; `None` where the kernel has none to give.
    pub(super) fn reserve(bytes: usize) -> Option<Self> {
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
    pub(super) fn part(&self, number: usize, capacity: usize) -> Option<Memory> {
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

/// Gives the pages of a part back to the system. They read as zeros then.
pub(super) fn release_pages(part: &Memory) {
    assert!(matches!(part.origin, Origin::Region), "pages of the allocator");
    // SAFETY: whole pages of a region, which `part` owns: nobody else uses them.
    unsafe { libc::madvise(part.start.as_ptr().cast(), part.capacity, libc::MADV_DONTNEED) };
}

/// # Safety
/// The range was mapped, and nobody uses it any more.
unsafe fn unmap(start: NonNull<u8>, len: usize) {
    if len > 0 {
        // SAFETY: by the caller.
        unsafe { libc::munmap(start.as_ptr().cast(), len) };
    }
}
