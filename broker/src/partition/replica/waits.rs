//! Who waits for what this replica commits: writes, fetches, and what follows a log.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;

use super::Replica;
use crate::partition::client::Owed;
use crate::partition::error::PartitionError;
use crate::partition::request::{Acks, Terms};
use crate::partition::waiters::{CommitQueue, WatchId, Watches};
use crate::runtime::{Monotonic, Queue, Runtime};

/// How long it is at most before it is looked again who has waited too long, while somebody waits.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// How long readers wait for a new leader to know what is committed.
const SETTLING_MAX: Duration = Duration::from_millis(500);

/// What one who waits for a commit is told.
pub(super) type Committed = oneshot::Receiver<Result<(), PartitionError>>;

/// Somebody who waits for a write, or for what is committed.
pub(super) struct Waiter {
    answer: oneshot::Sender<Result<(), PartitionError>>,
    /// Of a client: how long it does.
    deadline: Option<Monotonic>,
}

impl Waiter {
    fn tell(self, result: Result<(), PartitionError>) {
        // It may have gone.
        let _ = self.answer.send(result);
    }
}

/// Who waits for what a replica commits.
#[derive(Default)]
pub(super) struct Waits {
    /// For the commit of what was appended: none waits above the log's end.
    pub(super) commits: RefCell<CommitQueue<Waiter>>,
    /// Only until it is on this disk; the same holds.
    pub(super) flushes: RefCell<CommitQueue<Waiter>>,
    /// For what will be.
    expecting: RefCell<CommitQueue<Waiter>>,
    watches: RefCell<Watches<Rc<Watch>>>,
    /// When it is looked again who has waited too long.
    expiry: Cell<Option<Monotonic>>,
}

/// Who waits for no more than this. Taken out first: whoever is woken may append again.
fn pop(waiting: &RefCell<CommitQueue<Waiter>>, end_offset: i64) -> Option<Waiter> {
    waiting.borrow_mut().pop_committed(end_offset)
}

/// A fetch that waits for committed bytes, in any of the partitions it watches on this shard.
pub struct Watch {
    missing_bytes: Cell<u64>,
    satisfied: RefCell<Option<oneshot::Sender<()>>>,
}

impl Watch {
    /// A watch that is satisfied once this many bytes have been committed, over all partitions it
    /// is added to.
    pub fn new(missing_bytes: u64) -> (Rc<Self>, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let missing_bytes = Cell::new(missing_bytes.max(1));
        (Rc::new(Self { missing_bytes, satisfied: RefCell::new(Some(sender)) }), receiver)
    }

    /// Counts committed bytes; whether that is enough now.
    fn count(&self, bytes: u64) -> bool {
        let missing = self.missing_bytes.get().saturating_sub(bytes);
        self.missing_bytes.set(missing);
        if missing > 0 {
            return false;
        }
        self.satisfy();
        true
    }

    fn satisfy(&self) {
        if let Some(satisfied) = self.satisfied.borrow_mut().take() {
            // Whoever watched may have given up.
            let _ = satisfied.send(());
        }
    }
}

/// A watch of one partition; ends when dropped.
pub struct Watching<R: Runtime> {
    replica: Rc<Replica<R>>,
    id: WatchId,
}

impl<R: Runtime> Drop for Watching<R> {
    fn drop(&mut self) {
        self.replica.waits.watches.borrow_mut().remove(self.id);
    }
}

impl<R: Runtime> Replica<R> {
    /// Counts what is committed from now on for a watch, while the returned guard lives.
    pub fn watch(self: &Rc<Self>, watch: &Rc<Watch>) -> Watching<R> {
        let id = self.waits.watches.borrow_mut().add(Rc::clone(watch));
        Watching { replica: Rc::clone(self), id }
    }

    /// Completes when something at or beyond `offset` is committed; also when the log has ended,
    /// and nothing will be.
    pub async fn committed_beyond(&self, offset: i64) {
        if offset < self.high_watermark() {
            return;
        }
        let (answer, committed) = oneshot::channel();
        self.waits.expecting.borrow_mut().push(offset + 1, Waiter { answer, deadline: None });
        // Either answer is one.
        let _ = committed.await;
    }

    /// Waits on a client's terms for what was appended below `end_offset`.
    pub(super) fn wait_for(
        &self,
        end_offset: i64,
        terms: Option<Terms>,
    ) -> oneshot::Receiver<Result<(), PartitionError>> {
        let (answer, done) = oneshot::channel();
        let waiter = Waiter { answer, deadline: terms.map(|terms| terms.deadline) };
        let (waiting, end) = match terms {
            Some(Terms { acks: Acks::Leader, .. }) => (&self.waits.flushes, self.log.flushed_end()),
            _ => (&self.waits.commits, self.high_watermark()),
        };
        if end_offset <= end {
            // A duplicate.
            waiter.tell(Ok(()));
        } else {
            waiting.borrow_mut().push(end_offset, waiter);
            if let Some(terms) = terms.filter(|_| self.is_shared()) {
                self.expire_at(terms.deadline);
            }
        }
        done
    }

    /// Takes out who waits for a commit: each with the end that it waits for, and how long.
    pub(super) fn take_commits(&self) -> Vec<(i64, Owed, Option<Monotonic>)> {
        let waiting = self.waits.commits.borrow_mut().drain_with_ends();
        let waiting = waiting.into_iter();
        waiting.map(|(end, waiter)| (end, waiter.answer, waiter.deadline)).collect()
    }

    /// Waits for such a commit; on the terms of one who waited elsewhere.
    pub(super) fn wait_on(&self, end_offset: i64, deadline: Option<Monotonic>) -> Committed {
        let (answer, committed) = oneshot::channel();
        self.waits.commits.borrow_mut().push(end_offset, Waiter { answer, deadline });
        if let Some(deadline) = deadline {
            self.expire_at(deadline);
        }
        committed
    }

    /// More of the log is on this disk.
    pub(super) fn flushed(&self, end_offset: i64) {
        while let Some(waiter) = pop(&self.waits.flushes, end_offset) {
            waiter.tell(Ok(()));
        }
    }

    pub(super) fn committed(&self, high_watermark: i64) {
        let has_enough = self.has_enough_in_sync();
        for waiting in [&self.waits.commits, &self.waits.expecting] {
            while let Some(waiter) = pop(waiting, high_watermark) {
                let is_refused = waiter.deadline.is_some() && !has_enough;
                waiter.tell(match is_refused {
                    true => Err(PartitionError::NotEnoughReplicasAfterAppend),
                    false => Ok(()),
                });
            }
        }
        let bytes = self.uncommitted.borrow_mut().commit(high_watermark);
        self.waits.watches.borrow_mut().retain(|watch| watch.count(bytes));
    }

    /// Fewer are in sync than clients are to wait for: what waits for them stands in the log, and
    /// may be committed. In Kafka, too, whoever waits is told as the set shrinks.
    pub(super) fn tell_too_few(&self) {
        let is_client = |waiter: &Waiter| waiter.deadline.is_some();
        let waiting = self.waits.commits.borrow_mut().take_where(is_client);
        for waiter in waiting {
            waiter.tell(Err(PartitionError::NotEnoughReplicasAfterAppend));
        }
    }

    /// Waits until the high watermark is known, where this replica has begun to lead: a round trip
    /// and a flush. Not for ever: fewer may be in sync than clients are to wait for.
    pub async fn high_watermark_known(&self) {
        let Some(began) = self.led_since.get() else { return };
        let until = began.after(SETTLING_MAX);
        if let Some(begun) = self.high_watermark_unknown_below()
            && self.runtime.now() < until
        {
            self.runtime.before(until, self.committed_beyond(begun - 1)).await;
        }
    }

    /// What was queued will not be committed: the log took it back.
    pub(super) fn refuse_queued(&self, why: &PartitionError) {
        {
            let mut refusals = self.refusals.borrow_mut();
            *refusals = (refusals.0 + 1, Some(why.clone()));
        }
        for waiting in [&self.waits.flushes, &self.waits.commits, &self.waits.expecting] {
            let waiting: Vec<_> = waiting.borrow_mut().drain().collect();
            for waiter in waiting {
                waiter.tell(Err(why.clone()));
            }
        }
    }

    /// Sees to it that it is looked who has waited too long, at this moment or before. Who sleeps
    /// until then does not for long: earlier moments come, and it is not told.
    fn expire_at(&self, deadline: Monotonic) {
        let deadline = deadline.min(self.runtime.now().after(SLEEP_MAX));
        if self.waits.expiry.get().is_some_and(|set| set <= deadline) {
            return;
        }
        self.waits.expiry.set(Some(deadline));
        let Some(replica) = self.this.upgrade() else { return };
        self.runtime.spawn(Queue::Control, async move {
            replica.runtime.sleep_until(deadline).await;
            if replica.waits.expiry.get() == Some(deadline) {
                replica.waits.expiry.set(None);
                replica.expire();
            }
        });
    }

    /// Gives up on writes that have waited too long: they stand in the log, and may be committed.
    fn expire(&self) {
        let now = self.runtime.now();
        let mut next: Option<Monotonic> = None;
        for waiting in [&self.waits.flushes, &self.waits.commits] {
            let is_over = |waiter: &Waiter| waiter.deadline.is_some_and(|until| until <= now);
            let expired = waiting.borrow_mut().take_where(is_over);
            let left = waiting.borrow().waiting().filter_map(|waiter| waiter.deadline).min();
            next = [next, left].into_iter().flatten().min();
            for waiter in expired {
                waiter.tell(Err(PartitionError::TimedOut));
            }
        }
        if let Some(next) = next {
            self.expire_at(next);
        }
    }

    /// Whoever waits for more looks again: it is to be had elsewhere, or gone.
    pub(super) fn satisfy_watches(&self) {
        self.waits.watches.borrow_mut().retain(|watch| {
            watch.satisfy();
            true
        });
    }
}
