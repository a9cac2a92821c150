//! From batches to the log's queue: a leader's own, which get their place here, and those that a
//! leader sent, which have it.

use crate::append_queue::{Queued, RollPoint};
use crate::environment::LogEnvironment;
use crate::error::{StorageError, StorageResult};
use crate::header::{AppendBatch, AppendBatches, ReplicatedBatches};
use crate::io::Disk;
use crate::options::AppendClass;
use crate::segment::{SEGMENT_BYTES_LIMIT, SegmentCursor};
use crate::state::{LogInner, LogState};

/// Where appended batches stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record. Acknowledged once the flushed end is above it.
    pub last_offset: i64,
}

impl<D: Disk> LogInner<D> {
    /// Gives batches their offsets and puts them in the queue, all or none.
    pub(crate) fn append(
        &self,
        batches: AppendBatches,
        leader_epoch: i32,
        class: AppendClass,
        now_ms: i64,
    ) -> StorageResult<Appended> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.check_append(&batches)?;
        if !self.environment.may_append(class) {
            state.refuse(&batches);
            return Err(no_space());
        }
        let base_offset = state.end();
        for mut batch in batches {
            batch.stamp(state.end(), leader_epoch);
            state.enqueue(&self.environment, batch, now_ms);
        }
        Ok(Appended { base_offset, last_offset: state.end() - 1 })
    }

    /// Puts what a leader sent into the queue as it is, all or none.
    pub(crate) fn append_replicated(
        &self,
        batches: ReplicatedBatches,
        class: AppendClass,
        now_ms: i64,
    ) -> StorageResult<Appended> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let batches = batches.into_batches();
        state.check_append(&batches)?;
        let base_offset = state.end();
        state.check_continues(&batches)?;
        if !self.environment.may_append(class) {
            return Err(no_space());
        }
        for batch in batches {
            state.enqueue(&self.environment, batch, now_ms);
        }
        Ok(Appended { base_offset, last_offset: state.end() - 1 })
    }
}

fn no_space() -> StorageError {
    StorageError::Full("less than the reserve is free".to_owned())
}

impl<D: Disk> LogState<D> {
    fn check_append(&self, batches: &[AppendBatch]) -> StorageResult<()> {
        self.check_open()?;
        if self.closing {
            return Err(StorageError::Closed);
        }
        if self.truncating {
            return Err(StorageError::Truncating);
        }
        let too_large = batches.iter().find(|b| b.batch_bytes() as u64 > SEGMENT_BYTES_LIMIT);
        if let Some(batch) = too_large {
            return Err(StorageError::BatchTooLarge {
                bytes: batch.batch_bytes(),
                limit: SEGMENT_BYTES_LIMIT,
            });
        }
        Ok(())
    }

    /// Batches of a leader begin where the log ends (they follow each other), and their epochs do
    /// not go back.
    fn check_continues(&self, batches: &[AppendBatch]) -> StorageResult<()> {
        let Some(first) = batches.first() else {
            return Ok(());
        };
        // That of the last batch: an epoch that has none left does not count.
        let end = self.end();
        let epoch = self.epochs.epoch_at(end - 1).unwrap_or(0);
        if first.base_offset() == end && first.leader_epoch() >= epoch {
            return Ok(());
        }
        Err(StorageError::NotContinued {
            offset: first.base_offset(),
            leader_epoch: first.leader_epoch(),
            end,
            end_epoch: epoch,
        })
    }

    /// Puts a batch that has its place behind all others. Once for each batch that is written: as
    /// if it stood in both loops.
    #[inline(always)]
    fn enqueue(&mut self, environment: &LogEnvironment<D>, batch: AppendBatch, now_ms: i64) {
        let header = *batch.facts();
        let mut after = self.queue.cursor;
        let last_offset = header.last_offset();
        let (bytes, newest) = (header.bytes, header.max_timestamp);
        let rolls = after.should_roll(bytes, last_offset, newest, &self.options, now_ms);
        let roll = rolls.then(|| {
            after = SegmentCursor::new(header.base_offset, now_ms);
            let snapshot = self.capture().snapshot;
            Box::new(RollPoint { cursor: after, snapshot })
        });
        if after.is_empty() {
            after.created_ms = now_ms;
        }
        let entries = after.advance(&header, self.options.index_interval_bytes);
        let undo = header.producer().map(|producer| {
            let before = self.producers.len();
            let ids_max = environment.producer_ids_max(before);
            let undo = self.producers.note(&producer, header.base_offset, ids_max);
            environment.count_producers(before, self.producers.len());
            self.refused.forget(producer.producer_id);
            undo
        });
        self.epochs.assign(header.leader_epoch, header.base_offset);
        self.queue.push(Queued { batch, after, entries, roll, undo });
    }
}
