//! The driver of one replica: appends to its log, what becomes durable to its raft group, what is
//! committed to those who wait.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use vltava_storage::producer_state::{ProducerEntry, SequenceCheck};
use vltava_storage::{AppendBatch, AppendClass, Log, LogOptions, ReplicatedBatches, StorageError};

use self::carry_out::Agenda;
pub use self::change_shard::Departure;
use self::elect::Asking;
pub use self::forced::Named;
use self::forced::Void;
pub use self::join::GroupPlace;
use self::mend::Rot;
use self::replicate::Sends;
use self::shorten::Shortening;
pub use self::standing::Standing;
use self::waits::Waits;
pub use self::waits::{Watch, Watching};
use super::error::PartitionError;
use super::in_sync::InSync;
use super::request::{Acks, PartitionId, Terms};
use super::surroundings::Surroundings;
use super::throttle::Throttled;
use super::waiters::UncommittedBytes;
use crate::metadata::topic_name;
use crate::raft::message::Input;
use crate::raft::node::{Node, Role};
use crate::raft::persisted::Persisted;
use crate::runtime::sync::Event;
use crate::runtime::{Monotonic, Queue, Runtime};

mod carry_out;
mod change_shard;
mod confirm;
mod elect;
mod forced;
mod group;
mod hand_over;
mod join;
mod mend;
pub mod members;
mod part;
mod regain;
mod replicate;
mod restore;
mod serving;
mod shorten;
mod standing;
mod throttled;
mod waits;

/// How long a read or a write that found no descriptor is remembered, where none follows that shows
/// more.
const REFUSAL_TOLD: Duration = Duration::from_secs(10);

/// How long a replica stays in sync that had all, in milliseconds, before somebody says otherwise.
const LAG_MS_MAX: u64 = 30_000;

/// One replica of one partition, on the shard that owns it.
pub struct Replica<R: Runtime> {
    name: String,
    runtime: R,
    pub(super) log: Log<R::Disk>,
    raft: RefCell<Node>,
    waits: Waits,
    /// How often what was queued was refused, and why the last time.
    refusals: RefCell<(u64, Option<PartitionError>)>,
    /// See [`Replica::leads`].
    led: Cell<Option<i32>>,
    /// Since when.
    led_since: Cell<Option<Monotonic>>,
    /// Notified when that changes, or who is in sync.
    leadership: Event,
    partition: PartitionId,
    /// Where the node has others beside it.
    surroundings: Option<Rc<Surroundings<R>>>,
    agenda: RefCell<Agenda>,
    /// Notified when it is over, and when nothing of it is being done any more.
    agenda_changes: Event,
    sends: Sends,
    /// Which members were met: where those stand in the history. See [`members`].
    members_met: Cell<(i64, Option<i64>)>,
    /// How much of the disk's reserve may be used for what a leader sends.
    replicated_class: AppendClass,
    in_sync: RefCell<InSync>,
    throttled: RefCell<Throttled>,
    rot: RefCell<Rot>,
    shortening: Shortening,
    void: Void,
    asking: Asking<R>,
    this: Weak<Self>,
    /// Whether the task that writes what is queued runs.
    writing: Cell<bool>,
    /// When the last write found no descriptor, where it did.
    lacked_to_write: Cell<Option<Monotonic>>,
    /// When a read last found none.
    lacked_to_read: Cell<Option<Monotonic>>,
    /// Bytes appended since the replica was opened.
    bytes_appended: Cell<u64>,
    /// The same at the last [`Replica::tidy_up`].
    bytes_tidied: Cell<u64>,
    /// Bytes of batches that are not committed yet.
    uncommitted: RefCell<UncommittedBytes>,
    /// See [`Replica::work`].
    work: Cell<u64>,
    /// Nothing was written or read since it was tidied up: there is nothing to give back.
    is_tidy: Cell<bool>,
}

/// A write that stands in the log's queue.
pub struct Queued {
    /// The offset of its first record.
    pub base_offset: i64,
    /// It stood there before, and was not written again.
    pub is_duplicate: bool,
    /// Completes when it is committed, or what else its terms ask for; or cannot be any more.
    pub committed: oneshot::Receiver<Result<(), PartitionError>>,
}

impl<R: Runtime> Replica<R> {
    /// The replica over an open log to which no other belongs: it leads at once.
    pub fn alone(
        runtime: R,
        name: String,
        log: Log<R::Disk>,
        min_insync_replicas: usize,
    ) -> Rc<Self> {
        let raft = group::alone::<R>(&log, min_insync_replicas);
        let replica = Self::new(runtime, name, log, PartitionId::default(), raft, None, None);
        replica.begin(None);
        replica
    }

    fn new(
        runtime: R,
        name: String,
        log: Log<R::Disk>,
        partition: PartitionId,
        raft: Node,
        surroundings: Option<Rc<Surroundings<R>>>,
        kept: Option<Persisted>,
    ) -> Rc<Self> {
        let topic = name.rsplit_once('-').map_or(name.as_str(), |(topic, _)| topic);
        let is_ours = partition == PartitionId::CLUSTER_METADATA || topic_name::is_internal(topic);
        let replicated_class = if is_ours { AppendClass::Internal } else { AppendClass::Replica };
        Rc::new_cyclic(|this| Self {
            replicated_class,
            name,
            runtime,
            log,
            raft: RefCell::new(raft),
            waits: Waits::default(),
            refusals: RefCell::default(),
            led: Cell::new(None),
            led_since: Cell::new(None),
            leadership: Event::new(),
            partition,
            surroundings,
            agenda: RefCell::new(Agenda::new(kept)),
            agenda_changes: Event::new(),
            sends: Sends::default(),
            members_met: Cell::default(),
            in_sync: RefCell::new(InSync::new(LAG_MS_MAX)),
            throttled: RefCell::default(),
            rot: RefCell::default(),
            shortening: Shortening::default(),
            void: Void::default(),
            asking: Asking::default(),
            this: Weak::clone(this),
            writing: Cell::new(false),
            lacked_to_write: Cell::new(None),
            lacked_to_read: Cell::new(None),
            bytes_appended: Cell::new(0),
            bytes_tidied: Cell::new(0),
            uncommitted: RefCell::default(),
            work: Cell::new(0),
            is_tidy: Cell::new(false),
        })
    }

    /// `topic-partition`, for logs of the other kind.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first offset that is not committed: nothing at or above it is served.
    pub fn high_watermark(&self) -> i64 {
        // What is deleted was committed, also where that is not known again since a restart.
        self.raft.borrow().high_watermark().max(self.log.log_start())
    }

    /// Whether its log is being taken from its leader as it is, or was when the process stopped:
    /// what it says of its ends counts for nothing then, and nobody is served by it.
    pub fn is_restoring(&self) -> bool {
        self.agenda.borrow().kept().is_some_and(|kept| kept.is_restoring)
    }

    /// The first offset of the log, by what the group has decided: what lies below may still be on
    /// the disk.
    pub fn log_start(&self) -> i64 {
        let decided = self.raft.borrow().log_start();
        self.log.log_start().max(decided.min(self.high_watermark()))
    }

    /// The leader epoch of this replica.
    pub fn leader_epoch(&self) -> i32 {
        self.raft.borrow().epoch()
    }

    /// The epoch at which this replica leads, where it does and all that earlier leaders left is
    /// committed: what is in its log, is and stays.
    pub fn leads(&self) -> Option<i32> {
        self.led.get()
    }

    /// Completes when [`Replica::leads`] may say something else than at the call.
    pub fn leadership_changes(&self) -> impl Future<Output = ()> + use<R> {
        self.leadership.listen()
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
        self.append_for(batch, class, None)
    }

    /// The same on a client's terms; without them it waits for its commit, however long.
    pub fn append_for(
        self: &Rc<Self>,
        batch: Bytes,
        class: AppendClass,
        terms: Option<Terms>,
    ) -> Result<Queued, PartitionError> {
        let batch = AppendBatch::new(batch).map_err(|e| PartitionError::Storage(e.to_string()))?;
        let producer = batch.producer();
        if let Err(refusal) = self.may_append(terms) {
            if let Some(producer) = producer {
                self.log.refuse_producer(&producer);
            }
            return Err(refusal);
        }
        let checked = producer.map_or(SequenceCheck::Append, |p| self.log.check_producer(&p));
        let (base_offset, last_offset) = match checked {
            SequenceCheck::Append => self.enqueue(batch, class)?,
            SequenceCheck::Duplicate { base_offset, last_offset } => (base_offset, last_offset),
            SequenceCheck::OutOfOrder => return Err(PartitionError::OutOfOrderSequence),
            SequenceCheck::InvalidEpoch => return Err(PartitionError::StaleProducerEpoch),
        };
        let committed = self.wait_for(last_offset + 1, terms);
        self.write_queued();
        Ok(Queued {
            base_offset,
            is_duplicate: matches!(checked, SequenceCheck::Duplicate { .. }),
            committed,
        })
    }

    /// Whether a batch may be appended on these terms, by what the group says.
    fn may_append(&self, terms: Option<Terms>) -> Result<(), PartitionError> {
        let raft = self.raft.borrow();
        if raft.role() == Role::Ended {
            return Err(PartitionError::Ended);
        }
        // What is about to be cut would come first.
        if !raft.takes_writes() || !self.agenda.borrow().is_log_settled() {
            return Err(PartitionError::NotLeader);
        }
        drop(raft);
        let is_for_all = terms.is_some_and(|terms| terms.acks == Acks::All);
        match is_for_all && !self.has_enough_in_sync() {
            true => Err(PartitionError::NotEnoughReplicas),
            false => Ok(()),
        }
    }

    fn enqueue(
        &self,
        batch: AppendBatch,
        class: AppendClass,
    ) -> Result<(i64, i64), PartitionError> {
        let bytes = batch.batch_bytes() as u64;
        let (epoch, now_ms) = (self.leader_epoch(), self.runtime.wall_clock_ms());
        let appended = self.heed_end(self.log.append(vec![batch], epoch, class, now_ms))?;
        // Else the commit of this batch would acknowledge one that the log took back.
        for waiting in [&self.waits.commits, &self.waits.flushes] {
            assert!(
                waiting.borrow().last_end().is_none_or(|end| end <= appended.base_offset),
                "somebody waits above the end of the log"
            );
        }
        self.step(Input::Appended { offsets: appended.last_offset + 1 - appended.base_offset });
        self.count_appended(appended.base_offset, appended.last_offset, bytes);
        Ok((appended.base_offset, appended.last_offset))
    }

    /// Counts batches that stand in the log's queue.
    fn count_appended(&self, base_offset: i64, last_offset: i64, bytes: u64) {
        self.bytes_appended.set(self.bytes_appended.get() + bytes);
        self.count_work(bytes);
        self.uncommitted.borrow_mut().append(base_offset, last_offset + 1, bytes);
        self.is_tidy.set(false);
    }

    /// Starts the task that writes what is queued, where it does not run. A task lives as long as
    /// something is queued: an idle partition has none.
    fn write_queued(&self) {
        let may_write = || self.log.has_pending() && self.agenda.borrow().may_write();
        if self.writing.get() || !may_write() {
            return;
        }
        let Some(replica) = self.this.upgrade() else { return };
        self.writing.set(true);
        self.runtime.spawn(Queue::Foreground, async move {
            while replica.log.has_pending() && replica.agenda.borrow().may_write() {
                let written = replica.log.write_pending().await;
                replica.after_write(written);
            }
            replica.writing.set(false);
            replica.agenda_changes.notify();
        });
    }

    fn after_write(&self, written: Result<i64, StorageError>) {
        let is_settled = self.agenda.borrow().is_log_settled();
        let input = match written {
            // What is about to be cut is nobody's. The group hears of the rest behind the cut.
            Ok(_) | Err(StorageError::Truncating) if !is_settled => return,
            Ok(end_offset) => {
                self.lacked_to_write.set(None);
                self.flushed(end_offset);
                Input::Flushed { end_offset }
            }
            // The log has told it to whoever reads the broker's (`StorageEvent::LogEnded`).
            Err(StorageError::Failed(_)) => Input::LogEnded,
            // Others have what cannot be read here, and lead from now on.
            Err(error @ StorageError::Unreadable(_)) if self.is_shared() => {
                tracing::error!(
                    partition = self.name, %error,
                    "a log cannot be read to be written on: its replica takes no part in its group \
                     until a restart"
                );
                self.taken_back();
                self.refuse_queued(&PartitionError::from(error));
                Input::LogEnded
            }
            Err(error) => {
                if let StorageError::Corrupt(damage) = &error {
                    // In the last block, which is written again.
                    self.suspect(damage.offset);
                }
                let why = PartitionError::from(error);
                let is_lacking = why == PartitionError::NoDescriptor;
                self.lacked_to_write.set(is_lacking.then(|| self.runtime.now()));
                self.taken_back();
                return self.refuse_queued(&why);
            }
        };
        self.step(input);
        if self.is_shared() {
            self.replicate_to_all();
        }
    }

    /// The group hears of it where the log has ended, whatever was done with it: a leader that
    /// never writes again would lead on.
    fn heed_end<T>(&self, done: Result<T, StorageError>) -> Result<T, StorageError> {
        if done.is_err() && self.log.ended().is_some() {
            self.step(Input::LogEnded);
        }
        done
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
        (end_offset > self.high_watermark()).then(|| self.wait_for(end_offset, None))
    }

    /// Whether a segment is closed: whoever keeps the log short may write its live state again.
    pub fn has_closed_segments(&self) -> bool {
        self.log.segments().len() > 1
    }

    /// The first offsets of its segments, oldest first.
    pub fn segments(&self) -> Vec<i64> {
        self.log.segments().iter().map(|segment| segment.base_offset).collect()
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

    /// Whether [`Replica::checkpoint`] and [`Replica::tidy_up`] have nothing to do. Of a thousand
    /// partitions, few are busy.
    pub fn is_tidy(&self) -> bool {
        self.is_tidy.get()
    }

    /// To be called a few times a second: writes a checkpoint where one is due.
    pub async fn checkpoint(&self) -> Result<(), PartitionError> {
        if self.log.is_checkpoint_due() {
            self.heed_end(self.log.checkpoint().await)?;
        }
        Ok(())
    }

    /// To be called about once a second: gives back the buffer of a log that took nothing since the
    /// last call.
    pub fn tidy_up(&self) {
        let appended = self.bytes_appended.get();
        if self.bytes_tidied.replace(appended) == appended && !self.log.is_checkpoint_due() {
            self.agenda.borrow_mut().tidy_up();
            self.is_tidy.set(self.log.release_idle());
        }
    }

    /// The producers that the log remembers.
    pub fn producers(&self) -> Vec<(i64, ProducerEntry)> {
        self.log.producers()
    }

    /// Why the log takes no appends, or took none a moment ago, where that is so.
    pub fn refuses(&self) -> Option<String> {
        let lacks = self.was_just_now(&self.lacked_to_write);
        let why = lacks.then(|| PartitionError::NoDescriptor.to_string());
        self.ended().or(why)
    }

    /// Whether a read or a write found no descriptor a moment ago.
    pub fn lacks_descriptor(&self) -> bool {
        self.was_just_now(&self.lacked_to_write) || self.was_just_now(&self.lacked_to_read)
    }

    fn was_just_now(&self, lacked: &Cell<Option<Monotonic>>) -> bool {
        lacked.get().is_some_and(|at| self.runtime.now().since(at) < REFUSAL_TOLD)
    }

    /// A read from this offset on was refused: what may be rotten is looked at, and a lack of
    /// descriptors remembered.
    pub(super) fn note_unread(&self, offset: i64, error: &StorageError) {
        match error {
            StorageError::Corrupt(_) => drop(self.suspect(offset)),
            StorageError::NoDescriptor(_) => self.lacked_to_read.set(Some(self.runtime.now())),
            _ => {}
        }
    }

    /// Why the log takes no more appends until a restart, where that is so.
    pub fn ended(&self) -> Option<String> {
        let has_ended = self.raft.borrow().role() == Role::Ended;
        let why = self.log.ended().map(|why| why.to_string());
        why.or_else(|| {
            has_ended.then(|| "it takes no part in its group until a restart".to_owned())
        })
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.log.size_bytes()
    }

    /// Takes other options, and another `min.insync.replicas`, from now on.
    pub fn set_options(&self, options: LogOptions, min_insync_replicas: usize) {
        self.log.set_options(options);
        let now = self.now_ms();
        let actions = self.raft.borrow_mut().set_min_insync_replicas(now, min_insync_replicas);
        self.perform(actions, ReplicatedBatches::default());
    }

    /// From now on so many others should rather lead.
    pub fn set_rank(&self, rank: u32) {
        self.raft.borrow_mut().set_rank(rank);
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
        self.tell_ended();
        Ok(closed?)
    }

    /// Those who live by this replica, or wait for its log to begin later, look again.
    fn tell_ended(&self) {
        self.leadership.notify();
        self.shortening.moved.notify();
    }

    /// Removes the log from the disk. Reads under way end as they would have.
    pub async fn remove(&self) -> Result<(), PartitionError> {
        // Who waits for more looks again, and sees that it is gone.
        self.satisfy_watches();
        let removed = self.log.clone().remove().await;
        // It takes nothing more; what it had taken is gone.
        self.refuse_queued(&PartitionError::Unknown);
        self.tell_ended();
        Ok(removed?)
    }
}

#[cfg(test)]
#[cfg(feature = "simulator")]
mod tests;
