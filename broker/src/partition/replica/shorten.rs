//! What makes a replica's log begin later: records that are deleted, and retention.
//!
//! A replica that has others beside it deletes nothing on its own. Its leader writes the new start
//! as a mark; once that is committed, each replica deletes what lies below. One move is under way
//! at a time, and the next takes with it all that was asked for meanwhile.

use std::cell::Cell;
use std::time::Duration;

use vltava_storage::ReplicatedBatches;

use super::Replica;
use crate::partition::error::PartitionError;
use crate::raft::node::Role;
use crate::runtime::sync::Event;
use crate::runtime::{Monotonic, Queue, Runtime};

/// How long a log that could not be shortened is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// A move of the log's start.
#[derive(Default)]
pub(super) struct Shortening {
    /// Where the log is to begin, as somebody asked of this leader.
    pub(super) wanted: Cell<i64>,
    /// The log is being made to begin where its group has decided.
    is_under_way: Cell<bool>,
    /// It begins later than before, or this replica does not lead any more.
    pub(super) moved: Event,
}

impl<R: Runtime> Replica<R> {
    /// Moves the start of the log; committed, and durable here, when it returns. Gives the new
    /// start. An offset below the start changes nothing; one above the high watermark is out of
    /// range, once that is known.
    pub async fn delete_records(&self, to: i64) -> Result<i64, PartitionError> {
        self.check_leads()?;
        if self.role() == Role::Ended {
            return Err(PartitionError::Ended);
        }
        let (start, end) = (self.log_start(), self.high_watermark());
        // A new leader does not know yet what clients were told before.
        if !self.knows_log_start() || to >= end && self.is_high_watermark_behind() {
            return Err(PartitionError::NotAvailable);
        }
        if to > end || to < 0 {
            return Err(PartitionError::OutOfRange { start, end });
        }
        if !self.is_shared() {
            let start = self.heed_end(self.log.delete_records(to).await)?;
            self.forget_marks();
            return Ok(start);
        }
        loop {
            let moved = self.shortening.moved.listen();
            self.check_leads()?;
            let start = self.log.log_start();
            if start >= to {
                return Ok(start);
            }
            if let Some(error) = self.log.ended() {
                return Err(error.into());
            }
            self.want_log_start(to);
            moved.await;
        }
    }

    /// The same, in a client's time: others may be slow to follow.
    pub async fn delete_records_until(
        &self,
        to: i64,
        deadline: Monotonic,
    ) -> Result<i64, PartitionError> {
        if !self.is_shared() {
            return self.delete_records(to).await;
        }
        let moved = self.runtime.before(deadline, self.delete_records(to)).await;
        moved.unwrap_or(Err(PartitionError::TimedOut))
    }

    /// Deletes the segments that age and size allow; how many there were. Where others belong to
    /// the group, its leader only says so, and what goes is what the group has decided. A log that
    /// has ended stays as it is: why was told when it did.
    pub async fn apply_retention(&self) -> Result<usize, PartitionError> {
        if self.log.ended().is_some() {
            return Ok(0);
        }
        let now_ms = self.runtime.wall_clock_ms();
        let mut end = self.high_watermark();
        if self.is_shared() {
            if self.leads().is_some() {
                self.want_log_start(self.log.retention_start(now_ms, end));
            }
            end = self.log.log_start();
        }
        let deleted = self.heed_end(self.log.apply_retention(now_ms, end).await);
        self.forget_marks();
        if !matches!(deleted, Ok(0)) {
            // It may have begun a segment, whose file is open: also where it failed after that.
            self.is_tidy.set(false);
        }
        Ok(deleted?)
    }

    /// As leader: the log is to begin here.
    fn want_log_start(&self, offset: i64) {
        self.shortening.wanted.set(self.shortening.wanted.get().max(offset));
        self.move_log_start();
    }

    fn move_log_start(&self) {
        let wanted = self.shortening.wanted.get();
        let moved = {
            let mut raft = self.raft.borrow_mut();
            if wanted <= raft.log_start() || raft.is_moving_log_start() {
                return;
            }
            raft.move_log_start(self.now_ms(), wanted)
        };
        match moved {
            Ok(actions) => self.perform(actions, ReplicatedBatches::default()),
            // Not for it to say any more; or so much is under way that it is said with the next.
            Err(_refused) => {}
        }
    }

    /// Does what the group has decided of the log's start, where that is not done.
    pub(super) fn follow_log_start(&self) {
        let (decided, committed, base) = {
            let raft = self.raft.borrow();
            (raft.log_start(), raft.committed(), raft.history().base().at)
        };
        if self.shortening.wanted.get() > decided && self.leads().is_some() {
            self.move_log_start();
        }
        let start = self.log.log_start();
        if base.offset < self.log.first_batch() && base.index() < committed {
            self.forget_marks();
        }
        // What is not flushed here yet is deleted when it is.
        let is_there = self.log.flushed_end() >= decided && self.agenda.borrow().is_log_settled();
        if decided <= start
            || !is_there
            || self.shortening.is_under_way.get()
            || self.log.ended().is_some()
        {
            return;
        }
        let Some(replica) = self.this.upgrade() else { return };
        self.shortening.is_under_way.set(true);
        self.runtime.spawn(Queue::Background, async move { replica.shorten().await });
    }

    async fn shorten(&self) {
        let decided = self.raft.borrow().log_start();
        let shortened = self.heed_end(self.log.delete_records(decided).await);
        self.is_tidy.set(false);
        if let Err(error) = shortened {
            tracing::warn!(
                partition = self.name, %error,
                "a log could not be made to begin where its group has decided; it is tried again"
            );
            self.runtime.sleep(PAUSE).await;
        }
        self.shortening.is_under_way.set(false);
        self.shortening.moved.notify();
        self.follow_log_start();
    }

    /// What stands before the log's first batch is known by its sum from now on: whoever lacks it
    /// takes the log as it is. Never from inside a batch on: a place in a group's log is one
    /// between batches.
    fn forget_marks(&self) {
        let mut raft = self.raft.borrow_mut();
        raft.begins_at(self.log.log_start());
        let first = raft.history().index_of(self.log.first_batch());
        let index = first.min(raft.committed());
        if self.agenda.borrow().is_log_settled() && index > raft.history().base().at.index() {
            raft.compact(index);
            debug_assert!(raft.history().base().at.offset <= self.log.first_batch());
        }
    }
}
