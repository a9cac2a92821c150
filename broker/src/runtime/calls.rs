//! Questions whose answers come back as messages: the asking side's table of who waits for which.
//!
//! A question carries the [`CallId`] that [`Calls::begin`] gave; the answer brings it back. An id is never used twice, so a late or
//! doubled answer finds nobody.

use std::cell::RefCell;
use std::rc::Rc;

use slab::Slab;

use super::sync::{Receiver, Sender, oneshot};

/// Names a question, within the shard that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId {
    slot: usize,
    serial: u64,
}

/// Who waits for which answer, on one shard. A clone is the same table.
#[derive(Debug)]
pub struct Calls<A>(Rc<RefCell<Table<A>>>);

#[derive(Debug)]
struct Table<A> {
    waiting: Slab<(u64, Sender<A>)>,
    next_serial: u64,
}

impl<A> Clone for Calls<A> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<A> Default for Calls<A> {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(Table {
            waiting: Slab::new(),
            next_serial: 0,
        })))
    }
}

impl<A> Calls<A> {
    /// An id for a question, and what its answer comes out of. The question must be answered by all means: its place is kept
    /// until then, even where nobody waits any more.
    pub fn begin(&self) -> (CallId, Receiver<A>) {
        let (sender, receiver) = oneshot();
        let mut table = self.0.borrow_mut();
        let serial = table.next_serial;
        table.next_serial += 1;
        let slot = table.waiting.insert((serial, sender));
        (CallId { slot, serial }, receiver)
    }

    /// Hands an answer to who waits for it; drops it where nobody does.
    pub fn answer(&self, id: CallId, answer: A) {
        if let Some(sender) = self.take(id) {
            drop(sender.send(answer));
        }
    }

    /// There will be no answer: the question could not be sent.
    pub fn cancel(&self, id: CallId) {
        drop(self.take(id));
    }

    /// How many questions are open.
    pub fn len(&self) -> usize {
        self.0.borrow().waiting.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take(&self, id: CallId) -> Option<Sender<A>> {
        let mut table = self.0.borrow_mut();
        match table.waiting.get(id.slot) {
            Some((serial, _)) if *serial == id.serial => Some(table.waiting.remove(id.slot).1),
            _ => None,
        }
    }
}
