//! Where the appenders' buffers come from, without keeping a shard waiting for memory.
//!
//! Memory that was used before costs nothing. A large buffer that nobody has used is huge pages,
//! each cleared at its first use: milliseconds, where the host has to find it first. So that is
//! done beside the shard; and while the batch cache grows, before a log asks for it. Small buffers
//! are small pages, and are met one by one: they are left to the allocator.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

use crate::io::{AlignedBuffer, BufferPool, Disk, Haste};

/// Buffers kept for the next log that wants one: of those that the batch cache gives up, few wait
/// for long.
const FREE_BUFFERS_MAX: usize = 4;
/// Buffers made ready before a log wants them.
const READY_BUFFERS: usize = 2;

/// The buffers of a shard.
pub(crate) struct BufferSupply {
    pool: BufferPool,
    buffer_bytes: usize,
    /// All buffers together.
    bytes_max: usize,
    /// A log has come so far that it will want large buffers.
    is_wanted: Cell<bool>,
    /// Waits for that.
    preparer: RefCell<Option<Waker>>,
}

impl BufferSupply {
    /// Large buffers are of `buffer_bytes`; all together are of at most `bytes_max`.
    pub(crate) fn new(buffer_bytes: usize, bytes_max: usize) -> Self {
        let buffers_max = bytes_max / buffer_bytes + FREE_BUFFERS_MAX + READY_BUFFERS;
        let pool = BufferPool::new(buffer_bytes, FREE_BUFFERS_MAX, buffers_max);
        let (is_wanted, preparer) = (Cell::new(false), RefCell::default());
        Self { pool, buffer_bytes, bytes_max, is_wanted, preparer }
    }

    pub(crate) fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// An empty buffer, which is counted from now on.
    pub(crate) async fn take<D: Disk>(&self, disk: &D, capacity: usize) -> AlignedBuffer {
        let mut buffer = self.pool.take(capacity);
        if capacity >= self.buffer_bytes / 2 && self.wants_ready() {
            self.is_wanted.set(true);
            let preparer = self.preparer.take();
            preparer.into_iter().for_each(Waker::wake);
        }
        if !buffer.is_slow() {
            return buffer;
        }
        let ready = disk.beside(Haste::Soon, move || {
            buffer.touch();
            buffer
        });
        // Where nobody can do that beside, it is slow.
        ready.await.unwrap_or_else(|_| self.pool.take(capacity))
    }

    /// Makes buffers ready, again and again.
    pub(crate) async fn prepare<D: Disk>(&self, disk: &D) {
        loop {
            poll_fn(|context| {
                if self.is_wanted.take() {
                    return Poll::Ready(());
                }
                *self.preparer.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            })
            .await;
            while self.wants_ready() {
                let mut buffer = self.pool.take_fresh();
                let touched = disk.beside(Haste::WhenIdle, move || {
                    buffer.touch();
                    buffer
                });
                let Ok(buffer) = touched.await else {
                    break;
                };
                // Dropped here: a thread that may be stopped at any time must not hold the pool's
                // lock.
                drop(buffer);
            }
        }
    }

    /// Whether another buffer is to be made ready: few are, and there is room for it.
    fn wants_ready(&self) -> bool {
        let free = self.pool.free_buffers();
        let bytes = self.pool.lent_bytes() + (free + 1) * self.buffer_bytes;
        free < READY_BUFFERS && bytes <= self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use futures_util::FutureExt;
    use futures_util::task::noop_waker;

    use super::*;
    use crate::io::fault_disk::FaultDisk;

    const LARGE: usize = 2 << 20;

    #[test]
    fn large_buffers_are_ready_once_a_log_grows_and_while_there_is_room() {
        let disk = FaultDisk::new(1);
        let supply = BufferSupply::new(LARGE, 5 * LARGE);
        let take = |capacity| supply.take(&disk, capacity).now_or_never().unwrap();
        let mut preparing = pin!(supply.prepare(&disk));
        let mut prepare = || {
            let waker = noop_waker();
            assert!(preparing.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            supply.pool.free_buffers()
        };
        let small = take(LARGE / 4);
        assert_eq!(prepare(), 0, "a log with a trickle");
        let middle = take(LARGE / 2);
        assert_eq!(prepare(), 2);
        assert_eq!(supply.pool.lent_bytes(), LARGE / 4 + LARGE / 2, "what is ready is nobody's");
        let first = take(LARGE);
        assert_eq!((supply.pool.free_buffers(), prepare()), (1, 2));
        let (second, third) = (take(LARGE), take(LARGE));
        assert_eq!(prepare(), 1, "no room for another");
        drop((small, middle));
        let fourth = take(LARGE);
        assert_eq!(prepare(), 1);
        let fifth = take(LARGE);
        assert_eq!(prepare(), 0, "all are lent");
        let buffers = [first, second, third, fourth, fifth];
        assert!(buffers.iter().all(|buffer| !buffer.is_slow()));
    }
}
