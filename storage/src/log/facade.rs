//! One partition's log, as its users see it.

use std::rc::Rc;

use bytes::Bytes;
use vltava_protocol::encode::Part;
use vltava_protocol::types::Uuid;

use crate::appends::Appended;
use crate::cut::facts;
use crate::error::{Corruption, StorageError, StorageResult};
use crate::header::{AppendBatches, ReplicatedBatches};
use crate::io::Disk;
use crate::leader_epochs::EpochEnd;
use crate::lookup::TimestampOffset;
use crate::options::{AppendClass, LogOptions};
use crate::producer_state::{ProducerBatch, ProducerEntry, SequenceCheck};
use crate::reader::ReadResult;
use crate::reset_record::LogBeginning;
use crate::retention::SegmentFacts;
use crate::state::LogInner;

/// One partition's log. A clone is the same log.
pub struct Log<D: Disk> {
    pub(super) inner: Rc<LogInner<D>>,
}

impl<D: Disk> Clone for Log<D> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<D: Disk> Log<D> {
    /// Gives batches their offsets and puts them in the queue, all or none. They are kept by
    /// reference until they are written.
    ///
    /// Nothing is acknowledged by this: wait until the flushed end is above `last_offset`. Should a
    /// later write fail, [`Log::end`] goes back to the flushed end, and every batch above it is
    /// gone.
    ///
    /// # Errors
    /// [`StorageError::Full`] for a client below the reserve; [`StorageError::BatchTooLarge`];
    /// [`StorageError::Failed`] or [`StorageError::Closed`] when the log has ended;
    /// [`StorageError::Truncating`]. Nothing has changed then.
    pub fn append(
        &self,
        batches: AppendBatches,
        leader_epoch: i32,
        class: AppendClass,
        now_ms: i64,
    ) -> StorageResult<Appended> {
        self.inner.append(batches, leader_epoch, class, now_ms)
    }

    /// Puts what a leader sent into the queue, byte for byte as it is, all or none: it begins where
    /// the log ends, and no epoch of it is below that of the last batch. Otherwise as
    /// [`Log::append`]: kept by reference until it is written, with all else that waits, by
    /// [`Log::write_pending`]. Segments are this log's own: they end where its options say.
    ///
    /// # Errors
    /// [`StorageError::NotContinued`]; [`StorageError::Full`] where less is free than `class` may
    /// go down to; and as for [`Log::append`]. Nothing has changed then.
    pub fn append_replicated(
        &self,
        batches: ReplicatedBatches,
        class: AppendClass,
        now_ms: i64,
    ) -> StorageResult<Appended> {
        self.inner.append_replicated(batches, class, now_ms)
    }

    /// What is to be done with a client's batch, by what its producer wrote before, queued batches
    /// included.
    pub fn check_producer(&self, batch: &ProducerBatch) -> SequenceCheck {
        let state = self.inner.state.borrow();
        match state.producers.check(batch) {
            SequenceCheck::Append
                if state.producers.get(batch.producer_id).is_none()
                    && state.refused.is_ahead(batch) =>
            {
                SequenceCheck::OutOfOrder
            }
            checked => checked,
        }
    }

    /// A client's batch was refused before it came to the log, for a reason that may pass: what
    /// stands behind it is not to be taken for its producer's beginning.
    pub fn refuse_producer(&self, batch: &ProducerBatch) {
        self.inner.state.borrow_mut().refuse_producer(batch);
    }

    /// Whether anything waits to be written.
    pub fn has_pending(&self) -> bool {
        !self.inner.state.borrow().queue.is_empty()
    }

    /// Bytes that wait to be written.
    pub fn pending_bytes(&self) -> usize {
        self.inner.state.borrow().queue.waiting_bytes()
    }

    /// Writes the next batches that wait, durably, as one group; the new flushed end. To be called
    /// while [`Log::has_pending`].
    ///
    /// # Errors
    /// [`StorageError::Full`]: everything that waited is gone, as if it had never been appended;
    /// later appends work again. Any other error: the same, and after [`StorageError::Failed`]
    /// nothing is appended until the log is opened anew (what was gone may be there then).
    pub async fn write_pending(&self) -> StorageResult<i64> {
        self.inner.write_pending().await
    }

    /// The log's first offset.
    pub fn log_start(&self) -> i64 {
        self.inner.state.borrow().log_start
    }

    /// Where its first batch begins: below [`Log::log_start`] where that is inside the batch. What
    /// copies a log begins here, and can read and cut from here on.
    pub fn first_batch(&self) -> i64 {
        self.inner.state.borrow().first_batch
    }

    /// Everything below is on stable storage.
    pub fn flushed_end(&self) -> i64 {
        self.inner.state.borrow().flushed_end()
    }

    /// The offset the next batch will have, queued batches included.
    pub fn end(&self) -> i64 {
        self.inner.state.borrow().end()
    }

    /// The topic's id.
    pub fn topic_id(&self) -> Uuid {
        self.inner.topic_id
    }

    /// Its directory below the data directory.
    pub fn directory(&self) -> &str {
        &self.inner.directory
    }

    /// Why nothing can be appended any more; `None` while it can.
    pub fn ended(&self) -> Option<StorageError> {
        self.inner.state.borrow().ended.clone()
    }

    /// Batches from the one that holds `from`, none at or above `limit`, at most `bytes_max` bytes;
    /// where `at_least_one`, the first batch whatever its size. Whole batches of one segment.
    /// Nothing to read yet is an empty result.
    ///
    /// # Errors
    /// [`StorageError::OutOfRange`] below the first batch or above the flushed end;
    /// [`StorageError::Unreadable`]; [`StorageError::Corrupt`] where the log is found to be
    /// damaged; [`StorageError::Truncating`] where it is cut again and again.
    pub async fn read(
        &self,
        from: i64,
        limit: i64,
        bytes_max: usize,
        at_least_one: bool,
    ) -> StorageResult<ReadResult> {
        let read = async || self.inner.read(from, limit, bytes_max, at_least_one).await;
        self.inner.undisturbed(from, read).await
    }

    /// The batches that [`Log::read`] finds, the first whatever its size, and the offset at which
    /// the next one begins; `None` where nothing is there yet.
    ///
    /// What replicates a log reads it with this, up to [`Log::flushed_end`], and sends the parts as
    /// they are: those of the tail are slices of the buffers that were written, with no copy; a
    /// batch may lie in two of them. Where the log is cut afterwards, parts in memory stay what
    /// they are; ranges of files do not, and who receives batches checks them.
    ///
    /// # Errors
    /// As for [`Log::read`].
    pub async fn read_to_send(
        &self,
        from: i64,
        limit: i64,
        bytes_max: usize,
    ) -> StorageResult<Option<(Vec<Part>, i64)>> {
        let read = async || self.inner.read_to_send(from, limit, bytes_max).await;
        self.inner.undisturbed(from, read).await
    }

    /// The batches that [`Log::read`] finds, as bytes in memory; the first whatever its size. Empty
    /// where nothing is there yet.
    ///
    /// # Errors
    /// As for [`Log::read`].
    pub async fn read_in_memory(
        &self,
        from: i64,
        limit: i64,
        bytes_max: usize,
    ) -> StorageResult<Bytes> {
        let read = async || self.inner.read_in_memory(from, limit, bytes_max).await;
        self.inner.undisturbed(from, read).await
    }

    /// The same, also in front of the log's first batch, as far as its segment still has them:
    /// nobody reads those, and a replica that is damaged there cannot find what follows.
    ///
    /// # Errors
    /// As for [`Log::read`]; [`StorageError::OutOfRange`] below the oldest segment.
    pub async fn read_to_mend(
        &self,
        from: i64,
        limit: i64,
        bytes_max: usize,
    ) -> StorageResult<Bytes> {
        let read = async || self.inner.read_to_mend(from, limit, bytes_max).await;
        self.inner.undisturbed(from, read).await
    }

    /// The first record whose timestamp is at least `timestamp` (milliseconds since 1970).
    ///
    /// # Errors
    /// As for [`Log::read`].
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
    ) -> StorageResult<Option<TimestampOffset>> {
        let look_up = async || self.inner.offset_for_timestamp(timestamp).await;
        self.inner.undisturbed(i64::MAX, look_up).await
    }

    /// The first record that has the largest timestamp of all.
    ///
    /// # Errors
    /// As for [`Log::read`].
    pub async fn largest_timestamp(&self) -> StorageResult<Option<TimestampOffset>> {
        let look_up = async || self.inner.largest_timestamp().await;
        self.inner.undisturbed(i64::MAX, look_up).await
    }

    /// Where `epoch` ended: the start of the first larger one, or the log's end, queued batches
    /// included, for the newest. The epoch in the answer is the largest that is not larger. `None`
    /// for an epoch that is newer than all, or where nothing is known (KIP-101).
    pub fn end_of_epoch(&self, epoch: i32) -> Option<EpochEnd> {
        let state = self.inner.state.borrow();
        state.epochs.end_of(epoch, state.end())
    }

    /// The newest epoch that has a batch, queued batches included; of a log that has none, the last
    /// one that it had, or was reset with.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.inner.state.borrow().epochs.latest()
    }

    /// All epochs that have a batch, queued batches included: (epoch, where the first of its
    /// batches begins), rising.
    pub fn epochs(&self) -> Vec<(i32, i64)> {
        let state = self.inner.state.borrow();
        let mut epochs = state.epochs.entries().to_vec();
        if let Some(first) = epochs.first_mut().filter(|first| first.1 == state.log_start) {
            first.1 = state.first_batch;
        }
        epochs
    }

    /// The epoch of the batch at this offset.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        self.inner.state.borrow().epochs.epoch_at(offset)
    }

    /// Cuts the log so that it ends with the last batch that ends at or below `to`, durably:
    /// [`Log::end`] says where. What was queued is gone in any case, also below `to`, and whoever
    /// waits for it is the caller's to tell; a write that is under way is waited for. Producers,
    /// epochs and what was kept of the batches go back with them; until this returns nothing is
    /// appended. After a crash in between, the log is as before, or cut.
    ///
    /// # Errors
    /// [`StorageError::OutOfRange`] below the first batch; [`StorageError::Full`], and nothing is
    /// cut; or what the disk says.
    pub async fn truncate(&self, to: i64) -> StorageResult<()> {
        self.inner.truncate(to).await
    }

    /// Gives up all content: the log is empty then, and begins at `base_offset`, for what a leader
    /// sends from there on. `producers` is what that leader's [`Log::producers_before`] gave,
    /// `epochs` are its (epoch, start offset), rising, up to `base_offset`. What was queued is gone
    /// in any case. After a crash in between, the log is as before, or as it is after this.
    ///
    /// # Errors
    /// [`StorageError::InvalidBeginning`]; [`StorageError::Full`]: the log is as before, or takes
    /// nothing until it is reset again; or what the disk says.
    pub async fn reset_to(
        &self,
        base_offset: i64,
        producers: &[u8],
        epochs: &[(i32, i64)],
    ) -> StorageResult<()> {
        let beginning = LogBeginning::check(base_offset, producers, epochs)?;
        self.inner.reset_to(beginning).await
    }

    /// Moves the log's start up to `new_start`, durably; a lower one changes nothing. The log's
    /// start.
    ///
    /// # Errors
    /// [`StorageError::OutOfRange`] above the flushed end; or what the disk says.
    pub async fn delete_records(&self, new_start: i64) -> StorageResult<i64> {
        self.inner.delete_records(new_start).await
    }

    /// Deletes the oldest segments as far as the options say, none that holds an offset at or above
    /// `committed_end`, and forgets producers that have expired. How many segments.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn apply_retention(&self, now_ms: i64, committed_end: i64) -> StorageResult<usize> {
        self.inner.apply_retention(now_ms, committed_end).await
    }

    /// Where the log would begin after [`Log::apply_retention`] with the same arguments: for who
    /// has to ask others first.
    pub fn retention_start(&self, now_ms: i64, committed_end: i64) -> i64 {
        self.inner.retention_start(now_ms, committed_end)
    }

    /// Whether [`Log::checkpoint`] would be worth its cost. Ask a few times a second.
    pub fn is_checkpoint_due(&self) -> bool {
        self.inner.is_checkpoint_due()
    }

    /// Writes down what a restart would have to work out again: indexes, producers, epochs. Writes
    /// go on meanwhile. False where it could not be done yet; call again later.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn checkpoint(&self) -> StorageResult<bool> {
        self.inner.checkpoint().await
    }

    /// Gives back buffer and file handle, unless something is being written; whether it did. For
    /// logs that were idle for a while.
    pub fn release_idle(&self) -> bool {
        let Some(_writer) = self.inner.writer.try_lock() else {
            return false;
        };
        if self.has_pending() || !self.inner.have_zeros_ended() {
            return false;
        }
        self.inner.zero_ahead.borrow_mut().forget_trickle();
        self.inner.retire_buffer(false);
        let mut state = self.inner.state.borrow_mut();
        state.queue.shrink();
        state.active.close_files();
        true
    }

    /// Checks every batch of one segment against its CRC, reading it from disk: the segment that
    /// holds `offset`. The next segment's first offset; `None` behind the last. Nothing else looks
    /// at segments once they are proved.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where a batch is not what was written;
    /// [`StorageError::Unreadable`]; [`StorageError::Truncating`] where the log is cut again and
    /// again.
    pub async fn verify(&self, offset: i64) -> StorageResult<Option<i64>> {
        self.verify_slowly(offset, async |_| {}).await
    }

    /// The same, for a background task that must not be felt: after each mebibyte or so, and at the
    /// end, it waits for what `pause` returns for so many bytes.
    ///
    /// # Errors
    /// As for [`Log::verify`].
    pub async fn verify_slowly(
        &self,
        offset: i64,
        pause: impl AsyncFn(u64),
    ) -> StorageResult<Option<i64>> {
        let verify = async || self.inner.verify(offset, &pause).await;
        let from = offset.max(self.inner.state.borrow().first_batch);
        self.inner.undisturbed(from, verify).await
    }

    /// Puts batches of another replica in place of what [`Log::verify`] has found damaged: those of
    /// `batches` from the damaged one up to the first behind which the log is sound again, or that
    /// do not fit into the segment. They are durable when this returns; what stands behind them may
    /// be damaged, too. `None` where nothing was written: the damage is gone, or stands where the
    /// log is still written to, or these are not what stood there.
    ///
    /// The caller knows that the log had these batches: they are committed.
    ///
    /// # Errors
    /// What the disk says. Where a write fails the log has ended, as by any other: what stood
    /// beside the damage was written again with it.
    pub async fn mend(
        &self,
        damage: &Corruption,
        batches: &ReplicatedBatches,
    ) -> StorageResult<Option<i64>> {
        self.inner.mend(damage, batches).await
    }

    /// Forgets what was read of the segment that holds `offset`: the next read asks the disk.
    pub fn forget_read(&self, offset: i64) {
        let segment = self.inner.state.borrow().segment_of(offset);
        if let Some(segment) = segment {
            let chunks = &self.inner.environment.chunks;
            chunks.forget_segment(segment.number(chunks));
        }
    }

    /// All producers, by id, queued batches included.
    pub fn producers(&self) -> Vec<(i64, ProducerEntry)> {
        let state = self.inner.state.borrow();
        state.producers.iter().map(|(id, entry)| (id, *entry)).collect()
    }

    /// What a log has to know of producers that is to begin at `offset` and go on as this one
    /// ([`Log::reset_to`]); empty where there are none.
    pub fn producers_before(&self, offset: i64) -> Vec<u8> {
        let states = self.inner.state.borrow().producers.before(offset);
        if states.is_empty() { Vec::new() } else { states.to_snapshot() }
    }

    /// First offset of the oldest open transaction.
    pub fn first_open_transaction(&self) -> Option<i64> {
        self.inner.state.borrow().producers.first_open_transaction()
    }

    /// Other options from now on.
    pub fn set_options(&self, options: LogOptions) {
        self.inner.state.borrow_mut().options = options;
    }

    /// Bytes of all batches that are flushed.
    pub fn size_bytes(&self) -> u64 {
        self.inner.state.borrow().size_bytes()
    }

    /// All segments, oldest first; the last one is active.
    pub fn segments(&self) -> Vec<SegmentFacts> {
        let state = self.inner.state.borrow();
        state.segments.values().map(|segment| facts(segment)).collect()
    }

    /// Writes what waits and closes the log in good order: the next open walks nothing, and Kafka's
    /// tools read all files. Whatever changes the log fails from then on; what is there can be
    /// read.
    ///
    /// # Errors
    /// What the disk says; the log is then closed as a crash would close it.
    pub async fn close(&self) -> StorageResult<()> {
        self.inner.close().await
    }

    /// Deletes the log. Once this returns it does not come back; readers that hold one of its files
    /// go on.
    ///
    /// # Errors
    /// What the disk says. What is left is removed by [`crate::remove_leftovers`].
    pub async fn remove(self) -> StorageResult<()> {
        self.inner.remove().await
    }
}
