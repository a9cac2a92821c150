//! When a replica asks for votes, or a leader asks again: the group's deadline, and its turn
//! ([`Elections`](crate::partition::elections::Elections)).

use std::cell::{Cell, RefCell};

use super::Replica;
use super::group::NS_PER_MS;
use crate::partition::elections::Turn;
use crate::raft::message::Input;
use crate::raft::node::Role;
use crate::runtime::{Monotonic, Queue, Runtime};

/// What a replica has to do with elections of its group.
pub(super) struct Asking<R: Runtime> {
    /// When the group is to hear of the time, in milliseconds.
    timer: Cell<Option<u64>>,
    /// Its turn to ask for votes.
    turn: RefCell<Option<Turn<R>>>,
    /// It waits for one.
    is_in_line: Cell<bool>,
}

impl<R: Runtime> Default for Asking<R> {
    fn default() -> Self {
        Self { timer: Cell::new(None), turn: RefCell::new(None), is_in_line: Cell::new(false) }
    }
}

impl<R: Runtime> Replica<R> {
    /// Sees to it that the group hears when its time has come.
    pub(super) fn set_timer(&self) {
        let Some(due) = self.raft.borrow().deadline() else { return };
        if self.asking.is_in_line.get() || self.asking.timer.get().is_some_and(|set| set <= due) {
            return;
        }
        self.asking.timer.set(Some(due));
        let Some(replica) = self.this.upgrade() else { return };
        self.runtime.spawn(Queue::Control, async move {
            replica.runtime.sleep_until(Monotonic(due.saturating_mul(NS_PER_MS))).await;
            replica.time_has_come(due);
        });
    }

    fn time_has_come(&self, set: u64) {
        if self.asking.timer.get() != Some(set) {
            // Another is set for an earlier time.
            return;
        }
        self.asking.timer.set(None);
        match self.is_due() {
            true => self.deadline_came(),
            false => self.set_timer(),
        }
    }

    fn is_due(&self) -> bool {
        self.raft.borrow().deadline().is_some_and(|due| due <= self.now_ms())
    }

    fn deadline_came(&self) {
        // It had its time: those in line come first.
        self.end_turn();
        let elections = self.surroundings.as_ref().map(|near| &near.elections);
        let Some(elections) = elections.filter(|_| self.raft.borrow().may_be_elected()) else {
            return self.step(Input::Deadline);
        };
        match elections.turn_for(&self.this) {
            Some(turn) => self.ask_for_votes(turn),
            None => self.asking.is_in_line.set(true),
        }
    }

    /// Its turn has come; it may need none any more.
    pub(in crate::partition) fn turn_came(&self, turn: Turn<R>) {
        self.asking.is_in_line.set(false);
        if self.is_due() && self.raft.borrow().may_be_elected() {
            self.ask_for_votes(turn);
        } else {
            self.set_timer();
        }
    }

    fn ask_for_votes(&self, turn: Turn<R>) {
        *self.asking.turn.borrow_mut() = Some(turn);
        self.step(Input::Deadline);
    }

    /// Its turn is over once there is no election, or a leader that has something committed.
    pub(super) fn look_at_turn(&self) {
        let is_electing = {
            let raft = self.raft.borrow();
            match raft.role() {
                Role::PreCandidate | Role::Candidate => true,
                Role::Leader => raft.leads().is_none(),
                Role::Follower | Role::Ended => false,
            }
        };
        if !is_electing {
            self.end_turn();
        }
    }

    pub(super) fn end_turn(&self) {
        let turn = self.asking.turn.borrow_mut().take();
        drop(turn);
    }
}
