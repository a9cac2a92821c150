//! One shard's executor: a thread that runs tasks, and sleeps in the ring where there are none.
//!
//! Between two slices of tasks the ring is turned: what the tasks asked for is submitted together,
//! and who waits for what has completed is woken. A shard with nothing to run submits and sleeps in
//! one system call.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::rc::Rc;

use super::Queue;
use super::ring::Ring;
use super::tasks::Tasks;

/// Runs the tasks of the calling thread.
pub(super) struct Executor {
    tasks: Rc<Tasks>,
    ring: Ring,
}

/// A shard that panicked has nothing to say any more, and what it promised to others never comes:
/// the next start recovers, as from a loss of power.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl Executor {
    /// One that waits on this ring.
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub(super) fn new(ring: Ring) -> io::Result<Self> {
        let tasks = Tasks::new(ring.alarm()?);
        Ok(Self { tasks, ring })
    }

    /// Its tasks.
    pub(super) fn tasks(&self) -> &Rc<Tasks> {
        &self.tasks
    }

    /// Runs until this task ends: the others are dropped where they wait, then the ring is shut
    /// down.
    pub(super) fn run<T: 'static>(self, root: impl Future<Output = T> + 'static) -> T {
        let _abort = AbortOnPanic;
        let result = Rc::new(RefCell::new(None));
        let ended = Rc::clone(&result);
        self.tasks.spawn(Queue::Foreground, async move {
            let value = root.await;
            *ended.borrow_mut() = Some(value);
        });
        loop {
            self.tasks.run_slice();
            if let Some(value) = result.borrow_mut().take() {
                self.tasks.end();
                self.ring.shut_down();
                return value;
            }
            self.turn();
        }
    }

    fn turn(&self) {
        if self.tasks.has_ready() || !self.tasks.may_sleep() {
            self.ring.turn();
        } else {
            self.ring.sleep();
            self.tasks.rise();
        }
    }
}
