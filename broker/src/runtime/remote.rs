//! Waking the tasks of a shard from other threads.
//!
//! The executor has a way of its own for that, and can lose a wake there: glommio 0.9.0 goes to
//! sleep over tasks that are ready where its own eventfd is signalled between its last look at the
//! I/O and its first look at the task queues. So every task of a shard is polled with a waker of
//! ours. On the shard's thread it wakes the executor's task; on others it goes through a queue to
//! the ring's driver, which is waiting for the ring's eventfd. A shard whose driver is at work is
//! not signalled.

use std::cell::Cell;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};

thread_local! {
    /// Which shard this thread runs; 0 is none.
    static HERE: Cell<u64> = const { Cell::new(0) };
}

/// What other threads reach of a shard.
#[derive(Debug)]
pub(super) struct Remote {
    /// Unique in the process.
    id: u64,
    woken: mpsc::Sender<Arc<TaskWaker>>,
    /// The driver waits for the eventfd.
    asleep: AtomicBool,
    eventfd: std::fs::File,
}

/// Tasks that other threads have woken, in order.
pub(super) type Woken = mpsc::Receiver<Arc<TaskWaker>>;

impl Remote {
    /// For the shard that runs on the calling thread.
    pub(super) fn new(eventfd: &OwnedFd) -> io::Result<(Arc<Self>, Woken)> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        HERE.set(id);
        let (woken, receiver) = mpsc::channel();
        let remote = Self {
            id,
            woken,
            asleep: AtomicBool::new(false),
            eventfd: eventfd.try_clone()?.into(),
        };
        Ok((Arc::new(remote), receiver))
    }

    fn wake(&self, task: &Arc<TaskWaker>) {
        if task.queued.swap(true, Ordering::AcqRel) {
            return; // It will be woken for this, too.
        }
        if self.woken.send(Arc::clone(task)).is_err() {
            return; // The shard has ended.
        }
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.signal();
        }
    }

    /// Wakes the driver. An error (a counter that is full) means that it is woken already.
    pub(super) fn signal(&self) {
        let _full = (&self.eventfd).write(&1u64.to_ne_bytes());
    }

    /// The driver goes to sleep: who wakes a task from now on signals. What came before has to be
    /// looked for after this.
    pub(super) fn rest(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The driver is awake.
    pub(super) fn rise(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// A waker for all threads over the executor's own. Made on the shard's thread.
    pub(super) fn waker(self: &Arc<Self>, local: &Waker) -> Waker {
        Waker::from(Arc::new(TaskWaker {
            local: local.clone(),
            shard: Arc::clone(self),
            queued: AtomicBool::new(false),
        }))
    }
}

/// Wakes a task of a shard, from any thread.
#[derive(Debug)]
pub(super) struct TaskWaker {
    /// The executor's own waker: woken on the shard's thread only.
    local: Waker,
    shard: Arc<Remote>,
    /// It stands in the shard's queue of woken tasks.
    queued: AtomicBool,
}

impl TaskWaker {
    /// Wakes the task for another thread that has asked for it. On the shard's thread.
    pub(super) fn wake_here(&self) {
        // First, so that a wake that comes now is not taken for this one.
        self.queued.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
        self.local.wake_by_ref();
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if HERE.get() == self.shard.id {
            self.local.wake_by_ref();
        } else {
            self.shard.wake(self);
        }
    }
}
