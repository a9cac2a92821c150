//! The memory that requests of one shard may hold.
//!
//! Bytes are charged as they arrive. A *complete* request keeps its charge until its answer has
//! left; the charge of an *incomplete* one belongs to its connection. When the budget is spent and
//! incomplete requests hold some of it, the connection whose incomplete request has gone longest
//! without progress is closed; when complete requests hold all of it, reading waits. The
//! only incomplete request is always let through, so one request can always complete.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::rc::Rc;

use futures_channel::oneshot;

use crate::runtime::Monotonic;

/// Names a connection of this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

struct Incomplete {
    bytes: usize,
    progress: Monotonic,
    close: Rc<dyn Fn()>,
}

#[derive(Default)]
struct State {
    used: usize,
    /// Part of `used`: the sum over `incomplete`.
    used_by_incomplete: usize,
    incomplete: BTreeMap<ConnectionId, Incomplete>,
    waiting: VecDeque<oneshot::Sender<()>>,
}

/// One shard's budget. A clone is the same budget.
#[derive(Clone)]
pub struct Budget {
    limit: usize,
    state: Rc<RefCell<State>>,
}

/// What came of asking for memory.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Charged.
    Granted,
    /// This connection's own request was the one that had gone longest without progress: close it.
    Refused,
}

enum Attempt {
    Granted,
    Refused,
    Closed(Rc<dyn Fn()>),
    Wait(oneshot::Receiver<()>),
}

impl State {
    /// Takes out a connection's incomplete request; its bytes stay in `used`.
    fn remove(&mut self, connection: ConnectionId) -> Option<Incomplete> {
        let entry = self.incomplete.remove(&connection)?;
        self.used_by_incomplete -= entry.bytes;
        Some(entry)
    }

    fn give_up_stalest(&mut self, asking: ConnectionId) -> Attempt {
        let stalest = self.incomplete.iter().min_by_key(|(_, entry)| entry.progress);
        let Some(stalest) = stalest.map(|(id, _)| *id) else {
            return Attempt::Refused;
        };
        let Some(entry) = self.remove(stalest) else {
            return Attempt::Refused;
        };
        self.used -= entry.bytes;
        if stalest == asking { Attempt::Refused } else { Attempt::Closed(entry.close) }
    }
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Rc::default() }
    }

    /// Charges `bytes` that just arrived to `connection`'s incomplete request; waits where complete
    /// requests hold the budget, closes others (through their `close`) where they hold it
    /// without progress.
    pub async fn admit(
        &self,
        connection: ConnectionId,
        bytes: usize,
        now: Monotonic,
        close: &Rc<dyn Fn()>,
    ) -> Admission {
        loop {
            let attempt = self.attempt(connection, bytes, now, close);
            match attempt {
                Attempt::Granted => return Admission::Granted,
                Attempt::Refused => return Admission::Refused,
                Attempt::Closed(close_other) => close_other(),
                // A dropped sender is as good as a signal: the next attempt looks for itself.
                Attempt::Wait(released) => drop(released.await),
            }
        }
    }

    fn attempt(
        &self,
        connection: ConnectionId,
        bytes: usize,
        now: Monotonic,
        close: &Rc<dyn Fn()>,
    ) -> Attempt {
        let mut state = self.state.borrow_mut();
        if state.used + bytes > self.limit {
            let own = usize::from(state.incomplete.contains_key(&connection));
            if state.incomplete.len() > own {
                return state.give_up_stalest(connection);
            }
            if state.used > state.used_by_incomplete {
                let (sender, receiver) = oneshot::channel();
                state.waiting.push_back(sender);
                return Attempt::Wait(receiver);
            }
        }
        state.used += bytes;
        state.used_by_incomplete += bytes;
        let entry = state.incomplete.entry(connection).or_insert_with(|| Incomplete {
            bytes: 0,
            progress: now,
            close: Rc::clone(close),
        });
        entry.bytes += bytes;
        entry.progress = now;
        Attempt::Granted
    }

    /// `bytes` of the connection's incomplete request have become a complete one: they stay charged
    /// until the returned charge is dropped. Bytes that were given up with a closed connection
    /// are not charged again.
    pub fn complete(&self, connection: ConnectionId, bytes: usize) -> Charge {
        let mut state = self.state.borrow_mut();
        let mut moved = 0;
        if let Some(entry) = state.incomplete.get_mut(&connection) {
            moved = bytes.min(entry.bytes);
            entry.bytes -= moved;
            if entry.bytes == 0 {
                state.incomplete.remove(&connection);
            }
        }
        state.used_by_incomplete -= moved;
        Charge { bytes: moved, budget: self.clone() }
    }

    /// The connection is gone, with its incomplete request.
    pub fn forget(&self, connection: ConnectionId) {
        let bytes = self.state.borrow_mut().remove(connection).map_or(0, |entry| entry.bytes);
        self.release(bytes);
    }

    /// Bytes charged now.
    pub fn used(&self) -> usize {
        self.state.borrow().used
    }

    /// Bytes that may be charged.
    pub fn limit(&self) -> usize {
        self.limit
    }

    fn release(&self, bytes: usize) {
        let mut state = self.state.borrow_mut();
        state.used -= bytes;
        // All look again, in the order they came: the first that fits takes it.
        for waiting in std::mem::take(&mut state.waiting) {
            // One that is gone no longer needs it.
            let _ = waiting.send(());
        }
    }
}

/// The charge of a complete request; given back when dropped.
pub struct Charge {
    bytes: usize,
    budget: Budget,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt;

    use super::*;

    fn closer(flag: &Rc<Cell<bool>>) -> Rc<dyn Fn()> {
        let flag = Rc::clone(flag);
        Rc::new(move || flag.set(true))
    }

    fn admit(
        budget: &Budget,
        id: u64,
        bytes: usize,
        now: u64,
        close: &Rc<dyn Fn()>,
    ) -> Option<Admission> {
        budget.admit(ConnectionId(id), bytes, Monotonic(now), close).now_or_never()
    }

    #[test]
    fn the_connection_without_progress_is_closed() {
        let budget = Budget::new(100);
        let (slow, quick) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (close_slow, close_quick) = (closer(&slow), closer(&quick));
        assert_eq!(admit(&budget, 1, 60, 1, &close_slow), Some(Admission::Granted));
        assert_eq!(admit(&budget, 2, 60, 2, &close_quick), Some(Admission::Granted));
        assert!(slow.get() && !quick.get());
        assert_eq!(budget.used(), 60);
        budget.forget(ConnectionId(2));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_stalest_is_refused_when_it_asks_itself() {
        let budget = Budget::new(100);
        let flag = Rc::new(Cell::new(false));
        let close = closer(&flag);
        assert_eq!(admit(&budget, 1, 50, 1, &close), Some(Admission::Granted));
        assert_eq!(admit(&budget, 2, 50, 2, &close), Some(Admission::Granted));
        assert_eq!(admit(&budget, 1, 10, 3, &close), Some(Admission::Refused));
        assert!(!flag.get());
        assert_eq!(budget.used(), 50);
    }

    #[test]
    fn one_request_can_always_complete_once_others_are_answered() {
        let budget = Budget::new(100);
        let close: Rc<dyn Fn()> = Rc::new(|| ());
        assert_eq!(admit(&budget, 1, 100, 1, &close), Some(Admission::Granted));
        let charge = budget.complete(ConnectionId(1), 100);
        assert_eq!(admit(&budget, 2, 10, 2, &close), None, "waits for the answer of the first");
        drop(charge);
        assert_eq!(
            admit(&budget, 2, 500, 3, &close),
            Some(Admission::Granted),
            "alone: let through"
        );
    }
}
