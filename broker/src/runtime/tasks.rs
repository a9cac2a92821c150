//! The tasks of one shard: how they are polled, how long they run, and their end.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::remote::Remote;
use super::sync::yield_now;

/// How long a task that asks may run before it yields.
const SLICE_MAX: Duration = Duration::from_micros(500);

/// The tasks of one shard.
#[derive(Debug)]
pub(super) struct Tasks {
    remote: Arc<Remote>,
    /// The wakers of tasks that have begun and not ended.
    live: RefCell<Slab<Waker>>,
    ended: Cell<bool>,
    /// How often any task was polled.
    polls: Cell<u64>,
    /// At which poll the task was that last asked for its time, and when it asked first in it.
    asked: Cell<Option<(u64, Instant)>>,
}

/// Forgets a task when it ends, however it does.
struct Live<'a> {
    tasks: &'a Tasks,
    key: Option<usize>,
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.tasks.live.borrow_mut().remove(key);
            drop(waker);
        }
    }
}

impl Tasks {
    /// Of the shard that runs on this thread.
    pub(super) fn new(remote: Arc<Remote>) -> Self {
        Self {
            remote,
            live: RefCell::default(),
            ended: Cell::new(false),
            polls: Cell::new(0),
            asked: Cell::new(None),
        }
    }

    /// A task as the executor polls it: with a waker for all threads, until it ends or (`None`) all
    /// tasks are ended.
    pub(super) async fn run<F: Future>(self: Rc<Self>, task: F) -> Option<F::Output> {
        let mut task = pin!(task);
        let mut waker: Option<Waker> = None;
        let mut live = Live { tasks: &self, key: None };
        poll_fn(|context| {
            if self.ended.get() {
                return Poll::Ready(None);
            }
            self.polls.set(self.polls.get() + 1);
            // The executor's waker is the same at each poll.
            let waker = waker.get_or_insert_with(|| {
                let waker = self.remote.waker(context.waker());
                live.key = Some(self.live.borrow_mut().insert(waker.clone()));
                waker
            });
            let polled = task.as_mut().poll(&mut Context::from_waker(waker));
            polled.map(Some)
        })
        .await
    }

    /// Ends all tasks but the one that calls: each is dropped where it waits.
    pub(super) async fn end(&self) {
        self.ended.set(true);
        while !self.live.borrow().is_empty() {
            let waiting: Vec<Waker> =
                self.live.borrow().iter().map(|(_, waker)| waker.clone()).collect();
            for waker in waiting {
                waker.wake();
            }
            yield_now().await;
        }
    }

    /// Whether the task that asks has had its time, counted from when it first asked in this poll.
    pub(super) fn has_had_its_time(&self) -> bool {
        let polls = self.polls.get();
        match self.asked.get() {
            Some((asked, since)) if asked == polls => since.elapsed() > SLICE_MAX,
            _ => {
                self.asked.set(Some((polls, Instant::now())));
                false
            }
        }
    }
}
