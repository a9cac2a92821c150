//! Group commit: what was appended goes to disk in one write for all that waits; and the roll from
//! one segment to the next.
//!
//! Order of a write: roll if the next batch begins a segment; allocate space (here a full disk is
//! met, before any byte); copy into the buffer; write with data sync; only then is anything
//! acknowledged. Order of a roll: the closing file is cut to its length and synced; its indexes and
//! the snapshot of producers are written; the new file's name is synced; the checkpoint that knows
//! both is written.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use crate::append_queue::{RollPoint, Write};
use crate::checkpoint::{Tail, remove_unneeded, replace};
use crate::error::{Corruption, StorageError, StorageResult};
use crate::io::{BLOCK_BYTES, Disk, Durability, File, IoErrorKind, OpenMode, block_start};
use crate::layout;
use crate::log_checkpoint::LogCheckpoint;
use crate::segment::Segment;
use crate::state::{Capture, LogInner, Place};

/// The first space a log takes.
const ALLOCATE_BYTES_MIN: u64 = 16 << 10;
/// The most it takes at once.
const ALLOCATE_BYTES_MAX: u64 = 64 << 20;
/// A checkpoint is not written for less log than this,
const CHECKPOINT_BYTES_MIN: u64 = 1 << 20;
/// and of a large segment for so much: a start after a kill reads what came since.
const CHECKPOINT_BYTES_MAX: u64 = 8 << 20;
/// Nor for less than so many times what it takes itself.
const CHECKPOINT_TIMES: u64 = 16;
/// Snapshots of producers kept on disk.
const SNAPSHOTS_KEPT: usize = 2;

impl<D: Disk> LogInner<D> {
    /// Writes the next batches that wait, as many as one write takes. The new flushed end.
    pub(crate) async fn write_pending(&self) -> StorageResult<i64> {
        let _writer = self.writer.lock().await;
        let write = match self.prepare_write().await {
            Ok(Some(write)) => write,
            Ok(None) => return Ok(self.state.borrow().flushed_end()),
            Err(error) => {
                let error = self.fail(error);
                self.take_back(Vec::new());
                return Err(error);
            }
        };
        match self.zero_beside(&write, self.perform(&write)).await {
            Ok(()) => Ok(self.finish(write)),
            Err(error) => Err(self.write_failed(write, error).await),
        }
    }

    async fn prepare_write(&self) -> StorageResult<Option<Write>> {
        self.state.borrow().check_open()?;
        let roll = self.state.borrow_mut().queue.next_roll();
        if let Some(roll) = roll {
            self.roll(&roll).await?;
        }
        let write_bytes_max = self.environment.options.write_bytes_max;
        let (end, is_empty) = {
            let state = self.state.borrow();
            let (_, run) = state.queue.next_bytes(write_bytes_max);
            (state.active.flushed.get().position + run as u64, state.queue.is_empty())
        };
        if is_empty {
            return Ok(None);
        }
        self.pass_zeros(end).await?;
        self.make_space(end).await?;
        self.make_room().await?;
        let mut state = self.state.borrow_mut();
        let space_end = state.allocated.min(self.zero_ahead.borrow().space_end());
        Ok(state.queue.gather(write_bytes_max, space_end))
    }

    /// Allocates up to `end` of the active file, and ahead of it. A full disk changes nothing.
    async fn make_space(&self, end: u64) -> StorageResult<()> {
        let (active, allocated, segment_bytes) = {
            let state = self.state.borrow();
            let active = Rc::clone(&state.active);
            (active, state.allocated, state.options.segment_bytes)
        };
        let block = BLOCK_BYTES as u64;
        let needed = end.next_multiple_of(block);
        if needed <= allocated {
            return Ok(());
        }
        let ahead = (2 * allocated).min(allocated + ALLOCATE_BYTES_MAX);
        let ahead = ahead.max(ALLOCATE_BYTES_MIN).min(segment_bytes);
        let wanted = ahead.max(needed).next_multiple_of(block);
        let file = active.file(&self.environment.disk).await?;
        let mut target = wanted;
        let mut result = file.allocate(allocated, target - allocated).await;
        let is_full = |error: &crate::io::IoError| error.kind == IoErrorKind::Full;
        if result.as_ref().is_err_and(is_full) && needed < wanted {
            target = needed;
            result = file.allocate(allocated, target - allocated).await;
        }
        result.map_err(StorageError::from_write)?;
        self.environment.take_space(target - allocated);
        self.state.borrow_mut().allocated = target;
        Ok(())
    }

    /// Runs a write of appends, and beside it one of zeros where that is due. Zeros may still be
    /// under way when this returns.
    async fn zero_beside<T>(&self, write: &Write, append: impl Future<Output = T>) -> T {
        self.begin_zeros(write);
        let mut append = pin!(append);
        poll_fn(|context| {
            let done = append.as_mut().poll(context);
            // Whether zeros are done is asked by whoever needs their blocks.
            let _ = self.zero_ahead.borrow_mut().poll(context);
            done
        })
        .await
    }

    fn begin_zeros(&self, write: &Write) {
        let bytes_max = self.environment.options.zero_bytes_max as u64;
        let mut ahead = self.zero_ahead.borrow_mut();
        ahead.begin_write(write, bytes_max);
        let state = self.state.borrow();
        let next = ahead.next(state.allocated, bytes_max);
        // Where it is not open yet, there is another append soon.
        let Some((range, file)) = next.zip(state.active.open_file()) else {
            return;
        };
        let zeros = self.environment.zeros(range.end - range.start);
        let start = range.start;
        let write = async move { file.write_at(zeros, start, Durability::Flushed).await };
        ahead.begin(range, Box::pin(write));
    }

    /// Waits for zeros under way where appends up to `end` need their blocks.
    async fn pass_zeros(&self, end: u64) -> StorageResult<()> {
        let space_end = self.zero_ahead.borrow().space_end();
        if end.next_multiple_of(BLOCK_BYTES as u64) > space_end {
            return self.end_zeros().await;
        }
        self.zero_ahead.borrow().check()
    }

    /// Waits for zeros under way. The caller holds `writer`: no others begin.
    ///
    /// # Errors
    /// [`StorageError::Failed`] where they were not written.
    pub(crate) async fn end_zeros(&self) -> StorageResult<()> {
        // Polled in its place: whoever gives up waiting leaves it there for the next.
        poll_fn(|context| self.zero_ahead.borrow_mut().poll(context)).await;
        self.zero_ahead.borrow().check()
    }

    /// Whether no zeros are under way. The caller holds `writer`.
    pub(crate) fn have_zeros_ended(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.zero_ahead.borrow_mut().poll(&mut context).is_ready()
    }

    /// Buffers for all that could go into one write; where memory is short, for the next batch. The
    /// first begins with what the last block on disk holds.
    async fn make_room(&self) -> StorageResult<()> {
        let cursor = self.state.borrow().active.flushed.get();
        let from = block_start(cursor.position);
        let has_buffer = self.state.borrow().queue.buffer.is_some();
        let mut prefix = match usize::try_from(cursor.position - from) {
            Ok(len) if len > 0 && !has_buffer => self.read_last_block(from, len).await?,
            _ => bytes::Bytes::new(),
        };
        while let Some(capacity) = self.next_capacity(prefix.len()) {
            let environment = &self.environment;
            let buffer = environment.buffers.take(&environment.disk, capacity).await;
            let prefix = std::mem::take(&mut prefix);
            self.state.borrow_mut().queue.add_buffer(buffer, cursor.position, &prefix);
        }
        Ok(())
    }

    /// The size of the buffer that is lacking; `None`: there is room. Makes room for it in the
    /// batch cache.
    fn next_capacity(&self, prefix: usize) -> Option<usize> {
        let options = &self.environment.options;
        let (min, max) = (options.buffer_bytes_min, options.buffer_bytes_max);
        let mut state = self.state.borrow_mut();
        let (first, run) = state.queue.lacking(options.write_bytes_max);
        if run == 0 {
            return None;
        }
        let capacity = state.queue.buffer_bytes(prefix + run, min, max);
        if self.environment.cache.make_room(capacity) {
            return Some(capacity);
        }
        state.queue.shrink();
        (first > 0).then(|| (prefix + first).max(min).next_multiple_of(BLOCK_BYTES))
    }

    /// What the last block holds, from disk. It is written again with what follows, so it must be
    /// what was written: as its checksum says, or after a start and a cut, which leave none, its
    /// batches.
    async fn read_last_block(&self, from: u64, len: usize) -> StorageResult<bytes::Bytes> {
        let (active, expected) = {
            let state = self.state.borrow();
            (Rc::clone(&state.active), state.last_block_crc)
        };
        if expected.is_none() {
            self.verify_end(&active, from).await?;
        }
        let file = active.file(&self.environment.disk).await?;
        let bytes = file.read_at(from, len).await;
        let bytes = bytes.map_err(StorageError::from_read)?;
        if bytes.len() == len && expected.is_none_or(|crc| crc == crc32c::crc32c(&bytes)) {
            return Ok(bytes);
        }
        Err(StorageError::Corrupt(Corruption {
            path: active.log_path(),
            position: from,
            offset: active.flushed.get().next_offset - 1,
            what: "its last block is not what was written".to_owned(),
        }))
    }

    async fn perform(&self, write: &Write) -> StorageResult<()> {
        let active = Rc::clone(&self.state.borrow().active);
        let file = active.file(&self.environment.disk).await?;
        for (blocks, position) in &write.pieces {
            let written = file.write_at(blocks.clone(), *position, Durability::Flushed).await;
            written.map_err(StorageError::from_write)?;
        }
        Ok(())
    }

    /// All of the write is on disk.
    fn finish(&self, write: Write) -> i64 {
        let mut state = self.state.borrow_mut();
        let full = state.queue.finish();
        let active = Rc::clone(&state.active);
        for (position, bytes) in full {
            let cache = &self.environment.cache;
            cache.keep(self.number, active.base_offset, position, bytes);
        }
        for queued in &write.batches {
            active.flushed.set(queued.after);
            let entries = queued.entries;
            entries.offset.into_iter().for_each(|entry| active.offsets.push(entry));
            entries.time.into_iter().for_each(|entry| active.times.push(entry));
        }
        let cursor = active.flushed.get();
        state.write_ends.remember(Place {
            segment: cursor.base_offset,
            position: cursor.position,
            after: cursor.next_offset - 1,
            until: cursor.next_offset,
        });
        let generation = state.generation;
        drop(state);
        let environment = &self.environment;
        environment.note_flushed(&self.note, generation, cursor.next_offset);
        cursor.next_offset
    }

    /// The write failed. Without space a part of it may be in the file all the same: that is cut
    /// away, durably, before anything else is written there.
    async fn write_failed(&self, write: Write, error: StorageError) -> StorageError {
        let mut error = error;
        if matches!(error, StorageError::Full(_)) {
            let active = Rc::clone(&self.state.borrow().active);
            if let Err(cut) = self.cut_active(&active).await {
                error = cut;
            }
        }
        // Nothing is awaited between this and the caller's word to those who wait: what came
        // meanwhile is taken back with the rest.
        let error = self.fail(error);
        self.take_back(write.batches);
        self.retire_buffer(true);
        error
    }

    /// Makes the active file end with its last flushed batch, durably.
    pub(crate) async fn cut_active(&self, active: &Rc<Segment<D>>) -> StorageResult<()> {
        self.end_zeros().await?;
        let file = active.file(&self.environment.disk).await?;
        let position = active.flushed.get().position;
        let failed = |error| StorageError::Failed(error);
        file.set_len(position).await.map_err(failed)?;
        file.sync().await.map_err(failed)?;
        self.state.borrow_mut().allocated = position;
        self.zero_ahead.borrow_mut().begin_file();
        Ok(())
    }

    /// Closes the active segment and begins the next. The caller holds `writer`. May be repeated
    /// where it failed for want of space.
    pub(crate) async fn roll(&self, point: &RollPoint) -> StorageResult<()> {
        let _files = self.files.lock().await;
        let disk = &self.environment.disk;
        let closing = Rc::clone(&self.state.borrow().active);
        self.cut_active(&closing).await?;
        closing.seal_time_index();
        closing.save_indexes(disk, true).await?;
        let offset = point.cursor.base_offset;
        self.write_snapshot(offset, point.snapshot.as_deref()).await?;
        let next = Segment::new(Rc::clone(&self.directory), point.cursor, false, (0, 0));
        let path = next.log_path();
        let created = match disk.open(&path, OpenMode::Create).await {
            Err(error) if error.kind == IoErrorKind::AlreadyExists => {
                // Left by a roll that found no space.
                let removed = disk.remove_file(&path).await;
                removed.map_err(StorageError::from_write)?;
                disk.open(&path, OpenMode::Create).await
            }
            created => created,
        };
        next.set_file(created.map_err(StorageError::from_write)?);
        let synced = disk.sync_dir(&self.directory).await;
        synced.map_err(StorageError::from_sync)?;
        let epochs = {
            let state = self.state.borrow();
            let mut epochs = state.epochs.clone();
            epochs.truncate(offset, state.log_start);
            epochs
        };
        self.write_epochs(&epochs).await?;
        let capture = Capture { cursor: point.cursor, snapshot: None, epochs };
        let snapshot = point.snapshot.as_ref().map(|_| offset);
        self.write_checkpoint(&capture, snapshot).await?;
        self.retire_buffer(true);
        closing.is_closed.set(true);
        self.environment.opened(&closing);
        let next = Rc::new(next);
        let mut state = self.state.borrow_mut();
        state.segments.insert(offset, Rc::clone(&next));
        state.active = next;
        state.allocated = 0;
        state.last_block_crc = None;
        state.capture = None;
        Ok(())
    }

    /// Whether enough was written since the last checkpoint for another: an eighth of the active
    /// segment, within bounds, and much more than the checkpoint itself with its snapshot.
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        let state = self.state.borrow();
        let flushed = state.active.flushed.get();
        let proved = state.proved;
        if state.ended.is_some() || flushed.base_offset != proved.base_offset {
            return false;
        }
        let part = (flushed.position / 8).clamp(CHECKPOINT_BYTES_MIN, CHECKPOINT_BYTES_MAX);
        let epochs = state.epochs.entries().len();
        let cost = LogCheckpoint::bytes(epochs, state.segments.len()) + state.snapshot_bytes;
        let enough = part.max(CHECKPOINT_TIMES * cost as u64);
        flushed.position - proved.position >= enough
    }

    /// Writes a checkpoint of the log's present end. False where that end is not flushed yet: call
    /// again.
    pub(crate) async fn checkpoint(&self) -> StorageResult<bool> {
        let _files = self.files.lock().await;
        self.state.borrow().check_open()?;
        let capture = {
            let mut state = self.state.borrow_mut();
            let capture = match state.capture.take() {
                Some(capture) => capture,
                None => state.capture(),
            };
            let is_active = capture.cursor.base_offset == state.active.base_offset;
            if !is_active || capture.cursor.next_offset > state.flushed_end() {
                state.capture = is_active.then_some(capture);
                return Ok(false);
            }
            capture
        };
        let written = self.save(capture).await;
        written.map(|()| true).map_err(|error| self.fail(error))
    }

    /// Writes indexes, snapshot, epochs and checkpoint. The caller holds `files`.
    pub(crate) async fn save(&self, capture: Capture) -> StorageResult<()> {
        let active = Rc::clone(&self.state.borrow().active);
        let disk = &self.environment.disk;
        active.save_indexes(disk, false).await?;
        active.name_indexes(disk).await?;
        let offset = capture.cursor.next_offset;
        self.write_snapshot(offset, capture.snapshot.as_deref()).await?;
        self.write_epochs(&capture.epochs).await?;
        let snapshot = capture.snapshot.as_ref().map(|_| offset);
        self.write_checkpoint(&capture, snapshot).await
    }

    /// Writes the snapshot at `offset`.
    pub(crate) async fn write_snapshot(
        &self,
        offset: i64,
        snapshot: Option<&[u8]>,
    ) -> StorageResult<()> {
        self.state.borrow_mut().snapshot_bytes = snapshot.map_or(0, <[u8]>::len);
        let disk = &self.environment.disk;
        if let Some(snapshot) = snapshot {
            let name = layout::snapshot_file(offset);
            let written = replace(disk, &self.directory, &name, snapshot, Tail::Exact).await;
            written.map_err(StorageError::from_write)?;
            let mut state = self.state.borrow_mut();
            state.snapshots.retain(|known| *known != offset);
            state.snapshots.push(offset);
            state.snapshots.sort_unstable();
        }
        Ok(())
    }

    /// Removes all snapshots but the newest two, the one that the checkpoint names, the one at the
    /// active segment's start (a truncation walks from there), and the one that the log began with
    /// (a reset's: no batch says that again). Only once that checkpoint is durable.
    async fn prune_snapshots(&self) -> StorageResult<()> {
        let surplus: Vec<i64> = {
            let mut state = self.state.borrow_mut();
            let first = state.segments.keys().next().copied();
            let kept = [state.snapshot, Some(state.active.base_offset), first];
            let older = state.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
            let surplus = state.snapshots[..older].iter().copied();
            let surplus: Vec<i64> =
                surplus.filter(|offset| !kept.contains(&Some(*offset))).collect();
            state.snapshots.retain(|offset| !surplus.contains(offset));
            surplus
        };
        for offset in surplus {
            let name = layout::snapshot_file(offset);
            let path = format!("{}/{name}", self.directory);
            remove_unneeded(&self.environment.disk, &path).await?;
        }
        Ok(())
    }

    /// Kafka's file of epochs, where it does not say this already.
    pub(crate) async fn write_epochs(
        &self,
        epochs: &crate::leader_epochs::LeaderEpochs,
    ) -> StorageResult<()> {
        if self.state.borrow().epochs_written.as_ref() == Some(epochs) {
            return Ok(());
        }
        let (disk, name) = (&self.environment.disk, layout::LEADER_EPOCHS);
        let text = epochs.to_text();
        let written = replace(disk, &self.directory, name, text.as_bytes(), Tail::Exact).await;
        written.map_err(StorageError::from_write)?;
        self.state.borrow_mut().epochs_written = Some(epochs.clone());
        Ok(())
    }

    /// Replaces the checkpoint: proved up to the capture.
    pub(crate) async fn write_checkpoint(
        &self,
        capture: &Capture,
        snapshot: Option<i64>,
    ) -> StorageResult<()> {
        let checkpoint = self.state.borrow().to_checkpoint(
            self.topic_id,
            self.environment.options.write_bytes_max,
            capture.cursor,
            capture.epochs.clone(),
            snapshot,
        );
        let written = checkpoint.write(&self.environment.disk, &self.directory).await;
        written.map_err(StorageError::from_write)?;
        {
            let mut state = self.state.borrow_mut();
            state.proved = capture.cursor;
            state.snapshot = snapshot;
        }
        self.prune_snapshots().await
    }
}
