//! The elections of one shard, so many at a time.
//!
//! Where a node goes, or all of them start, thousands of groups want a leader at once. A group that
//! hears nothing in time asks again: where so many ask together that no answer comes in time, all
//! ask for ever, and nobody is elected. So a shard has so many elections under way at most, and
//! other groups wait in line for their turn.
//!
//! What must hold: the line always moves. Nobody keeps a turn beyond its own group's next deadline,
//! and who cannot be elected (too few voters can be talked to) takes none.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use super::replica::Replica;
use crate::runtime::{Queue, Runtime};

/// Elections of a shard that are under way at a time: some milliseconds of work for each of the
/// nodes, well below the time after which a group asks again.
pub const ELECTIONS_MAX: usize = 256;

/// See the module.
pub struct Elections<R: Runtime> {
    runtime: R,
    under_way_max: usize,
    under_way: Cell<usize>,
    line: RefCell<VecDeque<Weak<Replica<R>>>>,
    /// The task that gives turns to those in line runs.
    is_giving: Cell<bool>,
    this: Weak<Self>,
}

/// A turn to ask for votes; over when it is dropped.
pub struct Turn<R: Runtime>(Rc<Elections<R>>);

impl<R: Runtime> Elections<R> {
    /// None under way; so many may be.
    pub fn new(runtime: R, under_way_max: usize) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            runtime,
            under_way_max,
            under_way: Cell::new(0),
            line: RefCell::default(),
            is_giving: Cell::new(false),
            this: Weak::clone(this),
        })
    }

    /// A turn, where there is one now. Else the replica stands in line, and is given its turn
    /// ([`Replica::turn_came`]).
    pub(super) fn turn_for(&self, replica: &Weak<Replica<R>>) -> Option<Turn<R>> {
        let turn = if self.line.borrow().is_empty() { self.turn() } else { None };
        if turn.is_none() {
            self.line.borrow_mut().push_back(Weak::clone(replica));
            self.give_turns();
        }
        turn
    }

    /// How many are under way, and how many groups wait for a turn.
    pub fn load(&self) -> (usize, usize) {
        (self.under_way.get(), self.line.borrow().len())
    }

    fn turn(&self) -> Option<Turn<R>> {
        let under_way = self.under_way.get();
        let elections = self.this.upgrade().filter(|_| under_way < self.under_way_max)?;
        self.under_way.set(under_way + 1);
        Some(Turn(elections))
    }

    /// Starts the task that gives turns, where it does not run, and there is something for it.
    fn give_turns(&self) {
        let is_idle = self.line.borrow().is_empty() || self.under_way.get() >= self.under_way_max;
        let Some(elections) = self.this.upgrade() else { return };
        if is_idle || self.is_giving.replace(true) {
            return;
        }
        self.runtime.spawn(Queue::Control, async move {
            while let Some((replica, turn)) = elections.next() {
                replica.turn_came(turn);
                elections.runtime.yield_if_needed().await;
            }
            elections.is_giving.set(false);
        });
    }

    /// Who is next, of those that are still there.
    fn next(&self) -> Option<(Rc<Replica<R>>, Turn<R>)> {
        let turn = self.turn()?;
        loop {
            let next = self.line.borrow_mut().pop_front()?;
            if let Some(replica) = next.upgrade() {
                return Some((replica, turn));
            }
        }
    }
}

impl<R: Runtime> Drop for Turn<R> {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        self.0.give_turns();
    }
}
