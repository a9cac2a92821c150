//! Room for payload: who has much to send waits until what was sent before has left.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::runtime::sync::Event;

/// Bytes that may wait for one node, on one shard. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Window(Rc<State>);

#[derive(Debug)]
struct State {
    bytes_max: usize,
    taken: Cell<usize>,
    /// Who waits: the first in line goes first.
    line: RefCell<BTreeSet<u64>>,
    next_place: Cell<u64>,
    is_closed: Cell<bool>,
    changed: Event,
}

impl Window {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self(Rc::new(State {
            bytes_max,
            taken: Cell::new(0),
            line: RefCell::default(),
            next_place: Cell::new(0),
            is_closed: Cell::new(false),
            changed: Event::new(),
        }))
    }

    /// Room for so many bytes, in turn. More than there ever is gets all of it. `None` where the
    /// window was closed.
    pub(super) async fn take(&self, bytes: usize) -> Option<Taken> {
        let place = self.0.next_place.get();
        self.0.next_place.set(place + 1);
        self.0.line.borrow_mut().insert(place);
        let waiting = InLine { window: self, place };
        loop {
            let changed = self.0.changed.listen();
            if self.0.is_closed.get() {
                return None;
            }
            let is_first = self.0.line.borrow().first() == Some(&waiting.place);
            if is_first && self.has(bytes) {
                return Some(self.take_now(bytes));
            }
            changed.await;
        }
    }

    /// Nothing is sent any more: who waits, waits in vain.
    pub(super) fn close(&self) {
        self.0.is_closed.set(true);
        self.0.changed.notify();
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
        self.0.changed.notify();
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
        self.window.0.changed.notify();
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
    use std::task::{Context, Poll, Waker};

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
