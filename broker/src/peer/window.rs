//! Room for payload: who has much to send waits until what was sent before has left.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::runtime::sync::Event;

/// Bytes that may wait for one node, on one shard. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Window(Rc<State>);

#[derive(Debug)]
struct State {
    bytes_max: usize,
    taken: Cell<usize>,
    /// Who waits, by its place, and what wakes it: the first in line goes first, and only that one
    /// is woken. There may be thousands.
    line: RefCell<BTreeMap<u64, Event>>,
    next_place: Cell<u64>,
    is_closed: Cell<bool>,
}

impl Window {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Rc::new(State {
            bytes_max,
            taken: Cell::new(0),
            line: RefCell::default(),
            next_place: Cell::new(0),
            is_closed: Cell::new(false),
        }))
    }

    /// Room for so many bytes, in turn. More than there ever is gets all of it. `None` where the
    /// window was closed.
    pub(super) async fn take(&self, bytes: usize) -> Option<Taken> {
        let place = self.0.next_place.get();
        self.0.next_place.set(place + 1);
        let turn = Event::new();
        self.0.line.borrow_mut().insert(place, turn.clone());
        let waiting = InLine { window: self, place };
        loop {
            let woken = turn.listen();
            if self.0.is_closed.get() {
                return None;
            }
            let is_first = self.0.line.borrow().keys().next() == Some(&waiting.place);
            if is_first && self.has(bytes) {
                return Some(self.take_now(bytes));
            }
            woken.await;
        }
    }

    /// Nothing is sent any more: who waits, waits in vain.
    pub(super) fn close(&self) {
        self.0.is_closed.set(true);
        self.0.line.borrow().values().for_each(Event::notify);
    }

    fn has(&self, bytes: usize) -> bool {
        let taken = self.0.taken.get();
        !self.0.is_closed.get() && (taken == 0 || taken.saturating_add(bytes) <= self.0.bytes_max)
    }

    fn take_now(&self, bytes: usize) -> Taken {
        self.0.taken.set(self.0.taken.get() + bytes);
        Taken { window: self.clone(), bytes }
    }

    fn release(&self, bytes: usize) {
        self.0.taken.set(self.0.taken.get() - bytes);
        self.wake_first();
    }

    fn wake_first(&self) {
        if let Some((_, turn)) = self.0.line.borrow().first_key_value() {
            turn.notify();
        }
    }
}

/// A place in the line; left when this is dropped, also by who gives up.
struct InLine<'a> {
    window: &'a Window,
    place: u64,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.window.0.line.borrow_mut().remove(&self.place);
        self.window.wake_first();
    }
}

/// Bytes of a window; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    window: Window,
    bytes: usize,
}

impl Taken {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is not needed.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if let Some(unused) = self.bytes.checked_sub(bytes).filter(|unused| *unused > 0) {
            self.bytes = bytes;
            self.window.release(unused);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.window.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use futures_util::FutureExt;

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// What is to be had without waiting.
    fn now(taking: impl Future<Output = Option<Taken>>) -> Option<Taken> {
        taking.now_or_never().flatten()
    }

    #[test]
    fn room_is_given_in_turn() {
        let window = Window::new(100);
        let first = now(window.take(60)).unwrap();
        assert!(now(window.take(50)).is_none());
        let mut large = pin!(window.take(50));
        let mut small = pin!(window.take(10));
        assert!(poll(large.as_mut()).is_pending());
        assert!(poll(small.as_mut()).is_pending(), "nobody overtakes");
        assert!(now(window.take(1)).is_none(), "nor so");
        drop(first);
        let Poll::Ready(Some(large)) = poll(large.as_mut()) else { panic!() };
        let Poll::Ready(Some(small)) = poll(small.as_mut()) else { panic!() };
        assert!(now(window.take(41)).is_none());
        drop((large, small));
        assert!(now(window.take(1000)).is_some(), "more than there ever is, when it is empty");
    }

    /// How often somebody was woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_the_first_in_line_is_woken() {
        const LINE: usize = 1000;
        let window = Window::new(1);
        let mut held = now(window.take(1));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut line: Vec<_> = (0..LINE).map(|_| Box::pin(window.take(1))).collect();
        let mut ask = |nth: usize| line[nth].as_mut().poll(&mut Context::from_waker(&waker));
        assert!((0..LINE).all(|nth| ask(nth).is_pending()));
        for nth in 0..LINE {
            drop(held.take());
            let Poll::Ready(taken) = ask(nth) else { panic!("{nth} is the first") };
            held = taken;
        }
        let wakes = wakes.0.load(Ordering::Relaxed);
        assert!(wakes <= 2 * LINE, "{wakes}: for room, and as the first");
    }

    #[test]
    fn who_gives_up_leaves_the_line_and_what_is_unused_comes_back() {
        let window = Window::new(100);
        let mut all = now(window.take(100)).unwrap();
        let mut behind = pin!(window.take(30));
        {
            let mut gives_up = pin!(window.take(80));
            assert!(poll(gives_up.as_mut()).is_pending());
        }
        assert!(poll(behind.as_mut()).is_pending());
        all.shrink(70);
        all.shrink(90);
        assert_eq!(all.bytes(), 70);
        assert!(matches!(poll(behind.as_mut()), Poll::Ready(Some(_))));
    }

    #[test]
    fn a_closed_window_lets_nobody_wait() {
        let window = Window::new(10);
        let held = now(window.take(10)).unwrap();
        let mut waiting = pin!(window.take(5));
        assert!(poll(waiting.as_mut()).is_pending());
        window.close();
        assert!(matches!(poll(waiting.as_mut()), Poll::Ready(None)));
        drop(held);
        assert!(now(window.take(1)).is_none());
    }
}
