//! Waiting within one shard: events, latches, and turns.
//!
//! Plain wakers on one thread, so both run on every back end. Nothing here is `Send`, nothing is
//! lost when a waiter is dropped, and wakers run in the order in which their tasks began to wait.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Something that happens again and again, and wakes all that wait for it. A clone is the same
/// event.
///
/// To wait for a condition: `listen()`, look at the condition, and only then await the listener.
/// What happens in between is not missed.
#[derive(Clone, Debug, Default)]
pub struct Event(Rc<EventState>);

#[derive(Debug, Default)]
struct EventState {
    /// How often it happened.
    count: Cell<u64>,
    /// Who waits, in order of arrival.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next_waiter: Cell<u64>,
}

impl Event {
    /// An event that has not happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// It happens: wakes every listener made before this.
    pub fn notify(&self) {
        self.0.count.set(self.0.count.get() + 1);
        let woken = self.0.waiting.take();
        for (_, waker) in woken {
            waker.wake();
        }
    }

    /// Completes at the first `notify` after this call, even one before the listener is first
    /// polled.
    pub fn listen(&self) -> Listen {
        Listen { event: Rc::clone(&self.0), seen: self.0.count.get(), waiter: None }
    }
}

/// Something that happens once. A clone is the same latch.
#[derive(Clone, Debug, Default)]
pub struct Latch {
    is_set: Rc<Cell<bool>>,
    event: Event,
}

impl Latch {
    /// It has happened.
    pub fn set(&self) {
        if !self.is_set.replace(true) {
            self.event.notify();
        }
    }

    /// Whether it has happened.
    pub fn is_set(&self) -> bool {
        self.is_set.get()
    }

    /// Completes when it has happened.
    pub async fn wait(&self) {
        while !self.is_set() {
            let happened = self.event.listen();
            if !self.is_set() {
                happened.await;
            }
        }
    }
}

/// Waits for an [`Event`].
#[derive(Debug)]
#[must_use = "a listener waits only when it is awaited"]
pub struct Listen {
    event: Rc<EventState>,
    seen: u64,
    waiter: Option<u64>,
}

impl Future for Listen {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.event.count.get() != this.seen {
            this.waiter = None;
            return Poll::Ready(());
        }
        let waiter = *this.waiter.get_or_insert_with(|| {
            let next = this.event.next_waiter.get();
            this.event.next_waiter.set(next + 1);
            next
        });
        let waker = context.waker().clone();
        this.event.waiting.borrow_mut().insert(waiter, waker);
        Poll::Pending
    }
}

impl Drop for Listen {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            // Bound first: dropping a waker may run code that comes back here.
            let waker = self.event.waiting.borrow_mut().remove(&waiter);
            drop(waker);
        }
    }
}

/// Lets the tasks that are ready go first, once.
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// See [`yield_now`].
#[derive(Debug)]
#[must_use = "yields only when it is awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll<F: Future + Unpin>(future: &mut F, woken: &Arc<Woken>) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(woken));
        Pin::new(future).poll(&mut Context::from_waker(&waker))
    }

    #[test]
    fn an_event_wakes_all_that_listened_before_it() {
        let event = Event::new();
        let woken = Arc::new(Woken::default());
        let (mut first, mut second) = (event.listen(), event.listen());
        assert!(poll(&mut first, &woken).is_pending());
        event.notify();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(poll(&mut first, &woken).is_ready());
        assert!(poll(&mut second, &woken).is_ready(), "made before, polled after");
        assert!(poll(&mut event.listen(), &woken).is_pending());
    }

    #[test]
    fn a_dropped_listener_leaves_nothing_behind() {
        let event = Event::new();
        let woken = Arc::new(Woken::default());
        let mut listener = event.listen();
        assert!(poll(&mut listener, &woken).is_pending());
        drop(listener);
        assert!(event.0.waiting.borrow().is_empty());
        event.notify();
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    }
}
