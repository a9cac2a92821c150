//! The memory that requests of one shard may hold.
//!
//! Bytes are charged as they arrive. The charge of an *incomplete* request belongs to its
//! connection. A *complete* one keeps it until its handler is done with its bytes or, where logs
//! hold them, until they are committed; what is left until its answer has left is its place.
//!
//! Who finds no room waits, and is not read meanwhile: overload slows clients down. Above half of
//! the budget a request takes bytes only where every other that has begun could still be completed,
//! one after the other (Dijkstra's banker), so requests of honest clients never hold all memory and
//! wait for each other. A connection is closed only where another cannot go on, and only
//! - one that kept its reader waiting for [`STALL_MAX`] and sent next to nothing meanwhile;
//! - one whose request takes more than half of the budget, where incomplete requests are what is in
//!   the way: these are outside of the banker's promise, and go on while nobody else needs room;
//! - the slowest, where all wait for each other nevertheless.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;

use crate::runtime::{Monotonic, Runtime};

/// How long an incomplete request may keep its reader waiting for 64 KiB, where others
/// need its memory.
pub const STALL_MAX: Duration = Duration::from_secs(3);
/// Fewer bytes are no progress.
const PROGRESS_BYTES: usize = 64 * 1024;
/// What a complete request takes beside its bytes: its place in queues, what waits for its answer.
const REQUEST_BYTES: usize = 1024;

/// Names a connection of this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Bytes that have arrived and ask for room.
pub struct Ask<'a> {
    /// On which connection.
    pub connection: ConnectionId,
    /// How many.
    pub bytes: usize,
    /// How many of the same request are still to come.
    pub rest: usize,
    /// Ends the connection.
    pub close: &'a Rc<dyn Fn()>,
}

struct Incomplete {
    held: usize,
    rest: usize,
    /// Time for which its reader waited since it last sent [`PROGRESS_BYTES`].
    kept_waiting: Duration,
    /// Bytes since then.
    moved: usize,
    /// Since when its reader waits; `None`: it does not read, so no progress can be asked for.
    reading_since: Option<Monotonic>,
    close: Rc<dyn Fn()>,
}

impl Incomplete {
    fn kept_waiting_at(&self, now: Monotonic) -> Duration {
        self.kept_waiting + self.reading_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// When it has stalled, if it goes on like this.
    fn stalls_at(&self) -> Option<Monotonic> {
        Some(self.reading_since?.after(STALL_MAX.saturating_sub(self.kept_waiting)))
    }
}

#[derive(Default)]
struct State {
    limit: usize,
    used: usize,
    /// Part of `used`: the sum over `incomplete`.
    used_by_incomplete: usize,
    incomplete: BTreeMap<ConnectionId, Incomplete>,
    waiting: VecDeque<(ConnectionId, oneshot::Sender<()>)>,
}

/// One shard's budget. A clone is the same budget.
#[derive(Clone)]
pub struct Budget(Rc<RefCell<State>>);

/// What came of asking for memory.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// Charged.
    Granted,
    /// This connection's own request was the one to be given up: close it.
    Refused,
}

/// What came of asking once.
enum Attempt {
    Granted,
    Refused,
    /// Another connection is to be closed; then ask again.
    Closed(Rc<dyn Fn()>),
    /// Ask again when something was released, or another may have stalled.
    Wait(oneshot::Receiver<()>, Option<Monotonic>),
}

impl State {
    fn held_by(&self, connection: ConnectionId) -> usize {
        self.incomplete.get(&connection).map_or(0, |entry| entry.held)
    }

    /// Whether a request of so many bytes is outside of the banker's promise.
    fn is_large(&self, bytes: usize) -> bool {
        bytes > self.limit / 2
    }

    /// Whether the bytes fit now; `used` is what is held by all, or by those that count.
    fn fits(&self, ask: &Ask<'_>, used: usize) -> bool {
        let used_then = used + ask.bytes;
        used_then <= self.limit && (used_then <= self.limit / 2 || self.is_safe(ask))
    }

    /// Whether, with these bytes taken, every request that has begun can be completed, one after
    /// the other, from what complete requests will have released.
    fn is_safe(&self, ask: &Ask<'_>) -> bool {
        let own = (ask.rest, self.held_by(ask.connection) + ask.bytes);
        let others = self.incomplete.iter().filter(|(id, _)| **id != ask.connection);
        let others = others.map(|(_, entry)| (entry.rest, entry.held));
        let all = others.chain([own]);
        let mut requests: Vec<_> =
            all.filter(|(rest, held)| !self.is_large(rest.saturating_add(*held))).collect();
        requests.sort_unstable();
        let mut free = self.limit.saturating_sub(self.used_by_incomplete + ask.bytes);
        requests.iter().all(|(rest, held)| {
            let completes = *rest <= free;
            free += held;
            completes
        })
    }

    /// Whether no other request has begun: then one of any size is let through, so that it can
    /// complete.
    fn is_alone(&self, ask: &Ask<'_>) -> bool {
        let complete = self.used - self.used_by_incomplete;
        self.used_by_incomplete == self.held_by(ask.connection) && complete <= self.limit / 2
    }

    fn take(&mut self, ask: &Ask<'_>) {
        self.used += ask.bytes;
        self.used_by_incomplete += ask.bytes;
        let entry = self.incomplete.entry(ask.connection).or_insert_with(|| Incomplete {
            held: 0,
            rest: 0,
            kept_waiting: Duration::ZERO,
            moved: 0,
            reading_since: None,
            close: Rc::clone(ask.close),
        });
        entry.held += ask.bytes;
        entry.rest = ask.rest;
        entry.moved += ask.bytes;
        if entry.moved >= PROGRESS_BYTES {
            entry.moved = 0;
            entry.kept_waiting = Duration::ZERO;
        }
    }

    /// Who is to be given up, so that others can go on; `None`: waiting helps.
    fn in_the_way(&self, ask: &Ask<'_>, now: Monotonic) -> Option<ConnectionId> {
        let slowest = |may_go: &dyn Fn(&Incomplete) -> bool| {
            let candidates = self.incomplete.iter().filter(|(_, entry)| may_go(entry));
            // The first of those that are equal, so that the order does not depend on the rest.
            let slowest =
                candidates.min_by_key(|(_, entry)| Reverse(entry.kept_waiting_at(now)))?;
            Some(*slowest.0)
        };
        let has_stalled = |entry: &Incomplete| entry.stalls_at().is_some_and(|at| at <= now);
        if let Some(stalled) = slowest(&has_stalled) {
            return Some(stalled);
        }
        if self.fits(ask, self.used_by_incomplete) {
            // Complete requests are in the way, and will be answered.
            return None;
        }
        let is_large = |entry: &Incomplete| self.is_large(entry.held.saturating_add(entry.rest));
        let held = self.held_by(ask.connection);
        let has_begun = held > 0 || !self.is_large(ask.bytes.saturating_add(ask.rest));
        let others = || self.incomplete.iter().filter(|(id, _)| **id != ask.connection);
        if has_begun && others().any(|(_, entry)| is_large(entry)) {
            return slowest(&is_large);
        }
        // Who is neither read nor waits for a signal has had one, and is about to go on.
        let waits = |id: &ConnectionId| self.waiting.iter().any(|(waiting, _)| waiting == id);
        let can_move = self.used > self.used_by_incomplete
            || others().any(|(id, entry)| entry.reading_since.is_some() || !waits(id));
        if can_move { None } else { slowest(&|_| true) }
    }

    /// Takes out a connection's incomplete request; gives back what it held.
    fn give_up(&mut self, connection: ConnectionId) -> Option<Incomplete> {
        let entry = self.incomplete.remove(&connection)?;
        self.used_by_incomplete -= entry.held;
        self.release(entry.held);
        Some(entry)
    }

    fn release(&mut self, bytes: usize) {
        self.used -= bytes;
        // All look again, in the order they came: the first that fits takes it.
        for (_, waiting) in self.waiting.drain(..) {
            // One that is gone no longer needs it.
            let _ = waiting.send(());
        }
    }
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self(Rc::new(RefCell::new(State { limit, ..State::default() })))
    }

    /// Charges bytes that just arrived to their connection's incomplete request; waits where there
    /// is no room for them, closes others (through their `close`) where only that helps.
    pub async fn admit<R: Runtime>(&self, runtime: &R, ask: Ask<'_>) -> Admission {
        loop {
            match self.attempt(&ask, runtime.now()) {
                Attempt::Granted => return Admission::Granted,
                Attempt::Refused => return Admission::Refused,
                Attempt::Closed(close_other) => close_other(),
                // A dropped sender is as good as a signal: the next attempt looks for itself.
                Attempt::Wait(released, None) => drop(released.await),
                Attempt::Wait(released, Some(stalled)) => {
                    runtime.before(stalled, released).await;
                }
            }
        }
    }

    fn attempt(&self, ask: &Ask<'_>, now: Monotonic) -> Attempt {
        let mut state = self.0.borrow_mut();
        if state.fits(ask, state.used) || state.is_alone(ask) {
            state.take(ask);
            return Attempt::Granted;
        }
        if let Some(victim) = state.in_the_way(ask, now) {
            return match state.give_up(victim) {
                Some(entry) if victim != ask.connection => Attempt::Closed(entry.close),
                _ => Attempt::Refused,
            };
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.retain(|(connection, _)| *connection != ask.connection);
        state.waiting.push_back((ask.connection, sender));
        let next_stall = state.incomplete.values().filter_map(Incomplete::stalls_at).min();
        Attempt::Wait(receiver, next_stall)
    }

    /// The connection's reader begins to wait for bytes: from now on its incomplete request is
    /// expected to make progress.
    pub fn begin_reading(&self, connection: ConnectionId, now: Monotonic) {
        if let Some(entry) = self.0.borrow_mut().incomplete.get_mut(&connection) {
            entry.reading_since = Some(now);
        }
    }

    /// The connection's reader does something else, or waits for us.
    pub fn end_reading(&self, connection: ConnectionId, now: Monotonic) {
        if let Some(entry) = self.0.borrow_mut().incomplete.get_mut(&connection) {
            entry.kept_waiting = entry.kept_waiting_at(now);
            entry.reading_since = None;
        }
    }

    /// `bytes` of the connection's incomplete request have become a complete one: they stay charged
    /// until the returned charge is dropped. Bytes that were given up with a closed connection
    /// are not charged again. `rest` is what the next request, which may have begun, still
    /// lacks.
    pub fn complete(&self, connection: ConnectionId, bytes: usize, rest: usize) -> Charge {
        let mut state = self.0.borrow_mut();
        let mut moved = 0;
        if let Some(entry) = state.incomplete.get_mut(&connection) {
            moved = bytes.min(entry.held);
            entry.held -= moved;
            entry.rest = rest;
            entry.moved = 0;
            entry.kept_waiting = Duration::ZERO;
            if entry.held == 0 {
                state.incomplete.remove(&connection);
            }
        }
        state.used_by_incomplete -= moved;
        state.used += REQUEST_BYTES;
        Charge { bytes: moved + REQUEST_BYTES, budget: self.clone() }
    }

    /// The connection is gone, with its incomplete request.
    pub fn forget(&self, connection: ConnectionId) {
        let mut state = self.0.borrow_mut();
        state.waiting.retain(|(waiting, _)| *waiting != connection);
        state.give_up(connection);
    }

    /// Whether so many bytes more would not fit.
    pub fn is_short_of(&self, bytes: usize) -> bool {
        let state = self.0.borrow();
        state.used + bytes > state.limit
    }

    /// Bytes charged now.
    pub fn used(&self) -> usize {
        self.0.borrow().used
    }

    /// Bytes that may be charged.
    pub fn limit(&self) -> usize {
        self.0.borrow().limit
    }
}

/// The charge of a complete request; given back when dropped.
pub struct Charge {
    bytes: usize,
    budget: Budget,
}

impl Charge {
    /// The request's bytes are gone; its answer is still to come.
    pub fn without_bytes(mut self) -> Self {
        let released = self.bytes.saturating_sub(REQUEST_BYTES);
        self.bytes -= released;
        self.budget.0.borrow_mut().release(released);
        self
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.0.borrow_mut().release(self.bytes);
    }
}

#[cfg(test)]
mod tests;
