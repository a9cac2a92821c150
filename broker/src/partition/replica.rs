//! The driver of one replica: appends to its log, what becomes durable to its raft group, what is
//! committed to those who wait.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use vltava_storage::producer_state::{ProducerEntry, SequenceCheck};
use vltava_storage::{AppendBatch, AppendClass, Log, LogOptions, StorageError};

use super::error::PartitionError;
use super::waiters::{CommitQueue, WatchId, Watches};
use crate::raft::message::{Action, Input};
use crate::raft::node::{Node, Role};
use crate::runtime::{Monotonic, Queue, Runtime};

/// How long a write that found no descriptor is told of, where none follows that shows more.
const REFUSAL_TOLD: Duration = Duration::from_secs(10);

/// One replica of one partition, on the shard that owns it.
pub struct Replica<R: Runtime> {
    name: String,
    runtime: R,
    pub(super) log: Log<R::Disk>,
    raft: RefCell<Node>,
    /// Who waits for what was appended: none waits above the log's end.
    commits: RefCell<CommitQueue<Waiter>>,
    /// Who waits for what will be.
    expecting: RefCell<CommitQueue<Waiter>>,
    /// How often what was queued was refused, and why the last time.
    refusals: RefCell<(u64, Option<PartitionError>)>,
    watches: RefCell<Watches<Rc<Watch>>>,
    /// Whether the task that writes what is queued runs.
    writing: Cell<bool>,
    /// When the last write found no descriptor, where it did.
    lacked_descriptor: Cell<Option<Monotonic>>,
    /// Bytes appended since the replica was opened.
    bytes_appended: Cell<u64>,
    /// The same at the last [`Replica::tidy_up`].
    bytes_tidied: Cell<u64>,
    /// Those of them that watches have been told of.
    bytes_counted: Cell<u64>,
    /// Nothing was written or read since it was tidied up: there is nothing to give back.
    is_tidy: Cell<bool>,
}

type Waiter = oneshot::Sender<Result<(), PartitionError>>;

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

/// A write that stands in the log's queue.
pub struct Queued {
    /// The offset of its first record.
    pub base_offset: i64,
    /// It stood there before, and was not written again.
    pub is_duplicate: bool,
    /// Completes when it is committed, or cannot be any more.
    pub committed: oneshot::Receiver<Result<(), PartitionError>>,
}

impl<R: Runtime> Replica<R> {
    /// The replica over an open log.
    pub fn new(
        runtime: R,
        name: String,
        log: Log<R::Disk>,
        min_insync_replicas: usize,
    ) -> Rc<Self> {
        let raft = Node::sole_voter(log.latest_epoch(), log.flushed_end(), min_insync_replicas);
        Rc::new(Self {
            name,
            runtime,
            log,
            raft: RefCell::new(raft),
            commits: RefCell::default(),
            expecting: RefCell::default(),
            refusals: RefCell::default(),
            watches: RefCell::default(),
            writing: Cell::new(false),
            lacked_descriptor: Cell::new(None),
            bytes_appended: Cell::new(0),
            bytes_tidied: Cell::new(0),
            bytes_counted: Cell::new(0),
            is_tidy: Cell::new(false),
        })
    }

    /// `topic-partition`, for logs of the other kind.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first offset that is not committed: nothing at or above it is served.
    pub fn high_watermark(&self) -> i64 {
        self.raft.borrow().high_watermark()
    }

    /// The first offset of the log.
    pub fn log_start(&self) -> i64 {
        self.log.log_start()
    }

    /// The leader epoch of this replica.
    pub fn leader_epoch(&self) -> i32 {
        self.raft.borrow().epoch()
    }

    /// Whether the caller's idea of the leader epoch (-1: it has none) fits this replica's
    /// (KIP-320).
    pub fn check_epoch(&self, current_leader_epoch: i32) -> Result<(), PartitionError> {
        let epoch = self.leader_epoch();
        match current_leader_epoch {
            -1 => Ok(()),
            older if older < epoch => Err(PartitionError::FencedEpoch),
            newer if newer > epoch => Err(PartitionError::UnknownEpoch),
            _ => Ok(()),
        }
    }

    /// Puts a batch into the log's queue, without waiting: two calls stand in the log in the order
    /// of the calls. The batch is whole and valid (`validate`); base offset and leader epoch
    /// are given here. A duplicate of an idempotent producer's batch is not written again: it
    /// waits for the original.
    pub fn append(
        self: &Rc<Self>,
        batch: Bytes,
        class: AppendClass,
    ) -> Result<Queued, PartitionError> {
        if self.raft.borrow().role() == Role::Resigned {
            return Err(PartitionError::Ended);
        }
        let batch = AppendBatch::new(batch).map_err(|e| PartitionError::Storage(e.to_string()))?;
        let producer = batch.producer();
        let checked = producer.map_or(SequenceCheck::Append, |p| self.log.check_producer(&p));
        let (base_offset, last_offset) = match checked {
            SequenceCheck::Append => self.enqueue(batch, class)?,
            SequenceCheck::Duplicate { base_offset, last_offset } => (base_offset, last_offset),
            SequenceCheck::OutOfOrder => return Err(PartitionError::OutOfOrderSequence),
            SequenceCheck::InvalidEpoch => return Err(PartitionError::StaleProducerEpoch),
        };
        let (sender, committed) = oneshot::channel();
        if last_offset < self.high_watermark() {
            // A duplicate of what is committed. Nobody can have dropped the receiver yet.
            let _ = sender.send(Ok(()));
        } else {
            self.commits.borrow_mut().push(last_offset + 1, sender);
        }
        self.write_queued();
        Ok(Queued {
            base_offset,
            is_duplicate: matches!(checked, SequenceCheck::Duplicate { .. }),
            committed,
        })
    }

    fn enqueue(
        &self,
        batch: AppendBatch,
        class: AppendClass,
    ) -> Result<(i64, i64), PartitionError> {
        let bytes = batch.batch_bytes() as u64;
        let (epoch, now_ms) = (self.leader_epoch(), self.runtime.wall_clock_ms());
        let appended = self.log.append(vec![batch], epoch, class, now_ms)?;
        // Else the commit of this batch would acknowledge one that the log took back.
        assert!(
            self.commits.borrow().last_end().is_none_or(|end| end <= appended.base_offset),
            "somebody waits above the end of the log"
        );
        self.bytes_appended.set(self.bytes_appended.get() + bytes);
        self.is_tidy.set(false);
        Ok((appended.base_offset, appended.last_offset))
    }

    /// Starts the task that writes what is queued, where it does not run. A task lives as long as
    /// something is queued: an idle partition has none.
    fn write_queued(self: &Rc<Self>) {
        if self.writing.get() || !self.log.has_pending() {
            return;
        }
        self.writing.set(true);
        let replica = Rc::clone(self);
        self.runtime.spawn(Queue::Foreground, async move {
            while replica.log.has_pending() {
                let written = replica.log.write_pending().await;
                replica.after_write(written);
            }
            replica.writing.set(false);
        });
    }

    fn after_write(&self, written: Result<i64, StorageError>) {
        let input = match written {
            Ok(end_offset) => {
                self.lacked_descriptor.set(None);
                Input::Flushed { end_offset }
            }
            // The log has told it to whoever reads the broker's (`StorageEvent::LogEnded`).
            Err(StorageError::Failed(_)) => Input::LogEnded,
            Err(error) => {
                let why = PartitionError::from(error);
                let is_lacking = why == PartitionError::NoDescriptor;
                self.lacked_descriptor.set(is_lacking.then(|| self.runtime.now()));
                return self.refuse_queued(&why);
            }
        };
        let action = self.raft.borrow_mut().step(input);
        match action {
            Some(Action::HighWatermark { offset }) => self.committed(offset),
            Some(Action::Resign) => self.refuse_queued(&PartitionError::Ended),
            None => {}
        }
    }

    fn committed(&self, high_watermark: i64) {
        for waiting in [&self.commits, &self.expecting] {
            loop {
                // Taken out first: whoever is woken may append again.
                let Some(waiter) = waiting.borrow_mut().pop_committed(high_watermark) else {
                    break;
                };
                let _ = waiter.send(Ok(()));
            }
        }
        let flushed = self.bytes_appended.get().saturating_sub(self.log.pending_bytes() as u64);
        let bytes = flushed.saturating_sub(self.bytes_counted.replace(flushed));
        self.watches.borrow_mut().retain(|watch| watch.count(bytes));
    }

    /// What was queued will not be committed: the log took it back.
    fn refuse_queued(&self, why: &PartitionError) {
        {
            let mut refusals = self.refusals.borrow_mut();
            *refusals = (refusals.0 + 1, Some(why.clone()));
        }
        for waiting in [&self.commits, &self.expecting] {
            let waiting: Vec<_> = waiting.borrow_mut().drain().collect();
            for waiter in waiting {
                let _ = waiter.send(Err(why.clone()));
            }
        }
    }

    /// How often what was queued was refused. Whoever decides by what was appended, committed or
    /// not, has to begin anew from the log once this has grown: at once, before those who waited
    /// are woken.
    pub fn refusals(&self) -> u64 {
        self.refusals.borrow().0
    }

    /// Why what was queued was refused the last time.
    pub fn last_refusal(&self) -> Option<PartitionError> {
        self.refusals.borrow().1.clone()
    }

    /// Completes when everything that was appended so far is committed; `None` where it is already.
    pub fn committed_so_far(&self) -> Option<oneshot::Receiver<Result<(), PartitionError>>> {
        let end_offset = self.log.end();
        if end_offset <= self.high_watermark() {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.commits.borrow_mut().push(end_offset, sender);
        Some(receiver)
    }

    /// Completes when something at or beyond `offset` is committed; also when the log has ended,
    /// and nothing will be.
    pub async fn committed_beyond(&self, offset: i64) {
        if offset < self.high_watermark() {
            return;
        }
        let (sender, committed) = oneshot::channel();
        self.expecting.borrow_mut().push(offset + 1, sender);
        // Either answer is one.
        let _ = committed.await;
    }

    /// Counts what is committed from now on for a watch, while the returned guard lives.
    pub fn watch(self: &Rc<Self>, watch: &Rc<Watch>) -> Watching<R> {
        let id = self.watches.borrow_mut().add(Rc::clone(watch));
        Watching { replica: Rc::clone(self), id }
    }

    /// The end of the log: the offset that the next record gets. What lies between the high
    /// watermark and this is on its way to the disk.
    pub fn end(&self) -> i64 {
        self.log.end()
    }

    /// The largest epoch at or below `epoch` that the log has, and the offset at which it ends, as
    /// clients see it: nothing ends beyond the high watermark (KIP-101). `(-1, -1)` where the
    /// log knows no such epoch, or none is named.
    pub fn end_of_epoch(&self, epoch: i32) -> (i32, i64) {
        if epoch < 0 {
            return (-1, -1);
        }
        let high_watermark = self.high_watermark();
        if epoch == self.leader_epoch() {
            return (epoch, high_watermark);
        }
        match self.log.end_of_epoch(epoch) {
            Some(found) => (found.epoch, found.end_offset.min(high_watermark)),
            None => (-1, -1),
        }
    }

    /// Whole batches from the one that holds `offset` on, in memory; about `bytes_max` of them.
    /// Only what is flushed can be read.
    pub async fn read_bytes(&self, offset: i64, bytes_max: usize) -> Result<Bytes, PartitionError> {
        let log = self.log_to_read();
        Ok(log.read_in_memory(offset, log.flushed_end(), bytes_max).await?)
    }

    /// The log, for a reader: what it opens is to be closed again.
    pub(super) fn log_to_read(&self) -> LogToRead<'_, R> {
        LogToRead(self)
    }

    /// Whether a segment is closed: whoever keeps the log short may write its live state again.
    pub fn has_closed_segments(&self) -> bool {
        self.log.segments().len() > 1
    }

    /// The first offsets of the segments that are closed, oldest first.
    pub fn closed_segments(&self) -> Vec<i64> {
        let mut bases: Vec<i64> = self.log.segments().iter().map(|s| s.base_offset).collect();
        bases.pop();
        bases
    }

    /// Checks every batch of the segment that begins at this offset, reading it from disk; waits
    /// for `pause` after so many bytes each.
    pub async fn verify(
        &self,
        base_offset: i64,
        pause: impl AsyncFn(u64),
    ) -> Result<(), StorageError> {
        self.log.verify_slowly(base_offset, pause).await.map(drop)
    }

    /// Moves the start of the log; durable when it returns. Gives the new start. An offset below
    /// the start changes nothing; one above the high watermark is out of range.
    pub async fn delete_records(&self, to: i64) -> Result<i64, PartitionError> {
        let (start, end) = (self.log_start(), self.high_watermark());
        if to > end || to < 0 {
            return Err(PartitionError::OutOfRange { start, end });
        }
        Ok(self.log.delete_records(to).await?)
    }

    /// Whether [`Replica::checkpoint`] and [`Replica::tidy_up`] have nothing to do. Of a thousand
    /// partitions, few are busy.
    pub fn is_tidy(&self) -> bool {
        self.is_tidy.get()
    }

    /// To be called a few times a second: writes a checkpoint where one is due.
    pub async fn checkpoint(&self) -> Result<(), PartitionError> {
        if self.log.is_checkpoint_due() {
            self.log.checkpoint().await?;
        }
        Ok(())
    }

    /// To be called about once a second: gives back the buffer of a log that took nothing since the
    /// last call.
    pub fn tidy_up(&self) {
        let appended = self.bytes_appended.get();
        if self.bytes_tidied.replace(appended) == appended && !self.log.is_checkpoint_due() {
            self.is_tidy.set(self.log.release_idle());
        }
    }

    /// Deletes the segments that age and size allow; how many there were.
    pub async fn apply_retention(&self) -> Result<usize, PartitionError> {
        let now_ms = self.runtime.wall_clock_ms();
        let deleted = self.log.apply_retention(now_ms, self.high_watermark()).await;
        if !matches!(deleted, Ok(0)) {
            // It may have begun a segment, whose file is open: also where it failed after that.
            self.is_tidy.set(false);
        }
        Ok(deleted?)
    }

    /// The producers that the log remembers.
    pub fn producers(&self) -> Vec<(i64, ProducerEntry)> {
        self.log.producers()
    }

    /// Why the log takes no appends, or took none a moment ago, where that is so.
    pub fn refuses(&self) -> Option<String> {
        let lacked = self.lacked_descriptor.get();
        let lacks = lacked.is_some_and(|at| self.runtime.now().since(at) < REFUSAL_TOLD);
        let why = lacks.then(|| PartitionError::NoDescriptor.to_string());
        self.ended().or(why)
    }

    /// Why the log takes no more appends until a restart, where that is so.
    pub fn ended(&self) -> Option<String> {
        self.log.ended().map(|why| why.to_string())
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.log.size_bytes()
    }

    /// Takes other options, and another `min.insync.replicas`, from now on.
    pub fn set_options(&self, options: LogOptions, min_insync_replicas: usize) {
        self.log.set_options(options);
        self.raft.borrow_mut().set_min_insync_replicas(min_insync_replicas);
    }

    /// Writes what is queued and closes the log in order: it needs no recovery. Whoever waits for a
    /// commit is told.
    pub async fn close(&self) -> Result<(), PartitionError> {
        let closed = self.log.close().await;
        // The log wrote what was queued by itself.
        self.after_write(Ok(self.log.flushed_end()));
        if let Err(error) = &closed {
            self.refuse_queued(&error.clone().into());
        }
        Ok(closed?)
    }

    /// Removes the log from the disk. Reads under way end as they would have.
    pub async fn remove(&self) -> Result<(), PartitionError> {
        // Who waits for more looks again, and sees that it is gone.
        self.watches.borrow_mut().retain(|watch| {
            watch.satisfy();
            true
        });
        let removed = self.log.clone().remove().await;
        // It takes nothing more; what it had taken is gone.
        self.refuse_queued(&PartitionError::Unknown);
        Ok(removed?)
    }
}

/// The log of a replica, while something reads it.
pub(super) struct LogToRead<'a, R: Runtime>(&'a Replica<R>);

impl<R: Runtime> Deref for LogToRead<'_, R> {
    type Target = Log<R::Disk>;

    fn deref(&self) -> &Log<R::Disk> {
        &self.0.log
    }
}

impl<R: Runtime> Drop for LogToRead<'_, R> {
    fn drop(&mut self) {
        // Not before: it may have been tidied up while this waited for the disk.
        self.0.is_tidy.set(false);
    }
}

/// A watch of one partition; ends when dropped.
pub struct Watching<R: Runtime> {
    replica: Rc<Replica<R>>,
    id: WatchId,
}

impl<R: Runtime> Drop for Watching<R> {
    fn drop(&mut self) {
        self.replica.watches.borrow_mut().remove(self.id);
    }
}

#[cfg(test)]
#[cfg(feature = "simulator")]
mod tests;
