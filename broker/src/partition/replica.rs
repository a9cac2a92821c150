//! The driver of one replica: appends to its log, what becomes durable to its raft group, what is committed to those who wait.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;
use vltava_protocol::types::{Str, Uuid};
use vltava_storage::{AppendClass, Log};

use super::error::PartitionError;
use super::waiters::{CommitQueue, WatchId, Watches};
use crate::raft::message::{Action, Input};
use crate::raft::node::{Node, Role};
use crate::runtime::{Monotonic, Queue, Runtime};

/// One replica of one partition, on the shard that owns it.
pub struct Replica<R: Runtime> {
    name: String,
    topic_id: Uuid,
    runtime: R,
    pub(super) log: Log<R::Disk>,
    raft: RefCell<Node>,
    commits: RefCell<CommitQueue<CommitWaiter>>,
    watches: RefCell<Watches<Rc<Watch>>>,
    /// Whether the task that writes what is queued runs.
    writing: Cell<bool>,
    last_write: Cell<Monotonic>,
}

struct CommitWaiter {
    committed: oneshot::Sender<Result<(), PartitionError>>,
}

/// A fetch that waits for committed bytes, in any of the partitions it watches on this shard.
pub struct Watch {
    missing_bytes: Cell<u64>,
    satisfied: RefCell<Option<oneshot::Sender<()>>>,
}

impl Watch {
    /// A watch that is satisfied once this many bytes have been committed, over all partitions it is added to.
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
    /// The offset of its last record.
    pub last_offset: i64,
    /// Completes when it is committed, or cannot be any more.
    pub committed: oneshot::Receiver<Result<(), PartitionError>>,
}

impl<R: Runtime> Replica<R> {
    /// The replica over an open log.
    pub fn new(
        runtime: R,
        name: String,
        topic_id: Uuid,
        log: Log<R::Disk>,
        min_insync_replicas: usize,
    ) -> Rc<Self> {
        let raft = Node::sole_voter(log.latest_epoch(), log.flushed_end(), min_insync_replicas);
        let last_write = Cell::new(runtime.now());
        Rc::new(Self {
            name,
            topic_id,
            runtime,
            log,
            raft: RefCell::new(raft),
            commits: RefCell::default(),
            watches: RefCell::default(),
            writing: Cell::new(false),
            last_write,
        })
    }

    /// `topic-partition`, for logs of the other kind.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The topic's id.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
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

    /// Whether the caller's idea of the leader epoch (-1: it has none) fits this replica's (KIP-320).
    pub fn check_epoch(&self, current_leader_epoch: i32) -> Result<(), PartitionError> {
        let epoch = self.leader_epoch();
        match current_leader_epoch {
            -1 => Ok(()),
            older if older < epoch => Err(PartitionError::FencedEpoch),
            newer if newer > epoch => Err(PartitionError::UnknownEpoch),
            _ => Ok(()),
        }
    }

    /// Puts a batch into the log's queue, without waiting: two calls stand in the log in the order of the calls. The batch is whole
    /// and valid (`validate`); base offset and leader epoch are given here. A duplicate of an idempotent producer's batch
    /// is not written again: it waits for the original.
    pub fn append(
        self: &Rc<Self>,
        batch: Bytes,
        class: AppendClass,
    ) -> Result<Queued, PartitionError> {
        if self.raft.borrow().role() == Role::Resigned {
            return Err(PartitionError::Ended);
        }
        let now_ms = self.runtime.wall_clock_ms();
        let appended = match self.log.append(batch, self.leader_epoch(), class, now_ms)? {
            Appended::Queued { base_offset, last_offset } => (base_offset, last_offset),
            Appended::Duplicate { base_offset, last_offset } => (base_offset, last_offset),
        };
        let (base_offset, last_offset) = appended;
        let (sender, committed) = oneshot::channel();
        if last_offset < self.high_watermark() {
            // A duplicate of what is committed. Nobody can have dropped the receiver yet.
            let _ = sender.send(Ok(()));
        } else {
            self.commits.borrow_mut().push(last_offset + 1, sender);
        }
        self.write_queued();
        Ok(Queued { base_offset, last_offset, committed })
    }

    /// Starts the task that writes what is queued, where it does not run. A task lives as long as something is queued: an idle partition has none.
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
            Ok(end_offset) => Input::Flushed { end_offset },
            Err(error) if error.ends_the_log() => {
                tracing::error!(partition = self.name, %error, "the log has ended: nothing more is acknowledged before a restart");
                Input::LogEnded
            }
            Err(error) => return self.refuse_queued(&error.into()),
        };
        let action = self.raft.borrow_mut().step(input);
        match action {
            Some(Action::HighWatermark { offset }) => self.committed(offset),
            Some(Action::Resign) => self.refuse_queued(&PartitionError::Ended),
            None => {}
        }
    }

    fn committed(&self, high_watermark: i64) {
        loop {
            // Taken out first: whoever is woken may append again.
            let Some(waiter) = self.commits.borrow_mut().pop_committed(high_watermark) else { break };
            let _ = waiter.send(Ok(()));
        }
        let total = self.log.bytes_flushed();
        let bytes = total - self.bytes_counted.replace(total);
        self.watches.borrow_mut().retain(|watch| watch.count(bytes));
    }

    /// What was queued will not be committed: the log took it back.
    fn refuse_queued(&self, why: &PartitionError) {
        let waiting: Vec<_> = self.commits.borrow_mut().drain().collect();
        for waiter in waiting {
            let _ = waiter.send(Err(why.clone()));
        }
    }

    /// Completes when everything below `end_offset` is committed; `None` where it is already.
    pub fn committed_to(
        &self,
        end_offset: i64,
    ) -> Option<oneshot::Receiver<Result<(), PartitionError>>> {
        if end_offset <= self.high_watermark() {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.commits.borrow_mut().push(end_offset, sender);
        Some(receiver)
    }

    /// Counts what is committed from now on for a watch, while the returned guard lives.
    pub fn watch(self: &Rc<Self>, watch: &Rc<Watch>) -> Watching<R> {
        let id = self.watches.borrow_mut().add(Rc::clone(watch));
        Watching { replica: Rc::clone(self), id }
    }

    /// The end of the log: the offset that the next record gets. What lies between the high watermark and this is on its way to the disk.
    pub fn end(&self) -> i64 {
        self.log.end()
    }

    /// The largest epoch at or below `epoch` that the log has, and the offset at which it ends (KIP-101).
    pub fn end_of_epoch(&self, epoch: i32) -> (i32, i64) {
        self.log.end_of_epoch(epoch)
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
