//! What makes a log shorter: truncation, a new log start, retention, deletion; and the orderly
//! close.

use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::lock::MutexGuard;

use crate::append_queue::RollPoint;
use crate::checkpoint::remove_unneeded;
use crate::error::{StorageError, StorageResult};
use crate::header_walk::HeaderWalk;
use crate::io::{Disk, File, IoError, IoErrorKind};
use crate::log_checkpoint::LogCheckpoint;
use crate::options::LogOptions;
use crate::partition_files::remove_directory;
use crate::recovery::{Damage, Recovery, segment_files};
use crate::retention::{SegmentFacts, segments_to_delete};
use crate::segment::{NO_TIMESTAMP, Segment, SegmentCursor};
use crate::state::{Capture, LogInner};

impl<D: Disk> LogInner<D> {
    fn recovery<'a>(&'a self, options: &'a LogOptions) -> Recovery<'a, D> {
        Recovery {
            environment: &self.environment,
            directory: Rc::clone(&self.directory),
            options,
            flushed_note: None,
            reach: self.environment.options.write_bytes_max as u64,
            damage: Damage::Refuse,
        }
    }

    /// Cuts the log so that it ends with the last batch that ends at or below `to`. What is queued
    /// is taken back in any case.
    pub(crate) async fn truncate(&self, to: i64) -> StorageResult<()> {
        let _writer = self.writer.lock().await;
        self.state.borrow().check_open()?;
        self.take_back(Vec::new());
        self.retire_buffer(true);
        self.state.borrow_mut().truncating = true;
        let done = match self.end_zeros().await {
            Ok(()) => self.truncate_flushed(to).await,
            Err(error) => Err(self.fail(error)),
        };
        self.state.borrow_mut().truncating = false;
        done
    }

    async fn truncate_flushed(&self, to: i64) -> StorageResult<()> {
        let (start, end) = {
            let state = self.state.borrow();
            (state.first_batch, state.flushed_end())
        };
        if to < start {
            return Err(StorageError::OutOfRange { offset: to, start, end });
        }
        if to >= end {
            return Ok(());
        }
        let segment = self.state.borrow().segment_of(to);
        let Some(segment) = segment else {
            return Ok(());
        };
        let mut walk = HeaderWalk::new(self, &segment);
        let found = self.locate(&segment, to, &mut walk).await?;
        let flushed = segment.flushed.get();
        let (position, new_end) = found.map_or((flushed.position, flushed.next_offset), |found| {
            (found.position, found.base_offset)
        });
        // Nothing has changed yet: what has rotted can be mended, and it is tried again.
        self.verify_below(&segment, position).await?;
        let _files = self.files.lock().await;
        let cut = self.truncate_files(&segment, position, new_end).await;
        cut.map_err(|error| self.fail(error))
    }

    async fn truncate_files(
        &self,
        segment: &Rc<Segment<D>>,
        position: u64,
        new_end: i64,
    ) -> StorageResult<()> {
        let (options, mut proved, generation) = {
            let state = self.state.borrow();
            (state.options.clone(), state.proved, state.generation + 1)
        };
        let is_below = proved.base_offset > segment.base_offset
            || (proved.base_offset == segment.base_offset && proved.position > position);
        let cursors: Vec<SegmentCursor> = {
            let state = self.state.borrow();
            state.segments.values().map(|s| s.flushed.get()).collect()
        };
        let mut snapshot = self.state.borrow().snapshot;
        if is_below {
            // The checkpoint must not claim more than will be left: from the segment's start on,
            // everything is walked again.
            proved = SegmentCursor::new(segment.base_offset, segment.flushed.get().created_ms);
            let recovery = self.recovery(&options);
            let offset = proved.base_offset;
            let snapshots = self.state.borrow().snapshots.clone();
            let (_, states) = recovery.producers_at(offset, &snapshots, &cursors).await?;
            let bytes = (!states.is_empty()).then(|| states.to_snapshot());
            snapshot = bytes.as_ref().map(|_| offset);
            self.state.borrow_mut().snapshots.retain(|known| *known < offset);
            self.write_snapshot(offset, bytes.as_deref()).await?;
        }
        let (before, epochs) = {
            let mut state = self.state.borrow_mut();
            let before = (state.generation, state.log_start);
            state.generation = generation;
            // A start inside the batch that goes: what takes its place must not begin below the
            // start.
            state.log_start = state.log_start.min(new_end);
            let mut epochs = state.epochs.clone();
            epochs.truncate(proved.next_offset, state.log_start);
            (before, epochs)
        };
        let capture = Capture { cursor: proved, snapshot: None, epochs };
        if let Err(error) = self.write_checkpoint(&capture, snapshot).await {
            // Without space nothing has changed; notes must not speak of a truncation that the
            // checkpoint does not know.
            let mut state = self.state.borrow_mut();
            (state.generation, state.log_start) = before;
            return Err(error);
        }
        let cut = self.finish_truncation(segment, (position, new_end), &cursors, is_below).await;
        cut.map_err(|error| self.half_done("truncate", error))
    }

    /// An error halfway, damage that was found on the way included: what the files hold is known to
    /// recovery only.
    pub(crate) fn half_done(&self, operation: &'static str, error: StorageError) -> StorageError {
        match error {
            StorageError::Failed(_) => error,
            other => StorageError::Failed(IoError {
                kind: IoErrorKind::Failed,
                operation,
                path: self.directory.to_string(),
                message: other.to_string(),
            }),
        }
    }

    async fn finish_truncation(
        &self,
        segment: &Rc<Segment<D>>,
        (position, new_end): (u64, i64),
        cursors: &[SegmentCursor],
        is_below: bool,
    ) -> StorageResult<()> {
        self.cut_files(segment, position, cursors).await?;
        let generation = self.state.borrow().generation;
        self.environment.note_flushed(&self.note, generation, new_end);
        let options = self.state.borrow().options.clone();
        let checkpoint = LogCheckpoint::read(&self.environment.disk, &self.directory).await?;
        self.reload(checkpoint, &options, Some(new_end)).await?;
        match self.restore_producers(&options, is_below).await {
            // It is cut; what the checkpoint lacks is walked again after a crash.
            Err(StorageError::Full(_)) => Ok(()),
            restored => restored,
        }
    }

    /// After a cut below the checkpoint: producers as the newest snapshot at or below the cut knows
    /// them, and a checkpoint that says so.
    async fn restore_producers(&self, options: &LogOptions, is_below: bool) -> StorageResult<()> {
        if !is_below {
            return Ok(());
        }
        let (end, snapshots, cursors) = {
            let state = self.state.borrow();
            let cursors = state.segments.values().map(|s| s.flushed.get());
            let cursors: Vec<SegmentCursor> = cursors.collect();
            (state.flushed_end(), state.snapshots.clone(), cursors)
        };
        let recovery = self.recovery(options);
        let (_, states) = recovery.producers_at(end, &snapshots, &cursors).await?;
        let capture = {
            let mut state = self.state.borrow_mut();
            let (before, after) = (state.producers.len(), states.len());
            self.environment.count_producers(before, after);
            state.producers = states;
            state.capture()
        };
        self.save(capture).await
    }

    /// Removes the segments behind `segment`, newest first, and makes that one end at `position`.
    /// Durable once this returns.
    async fn cut_files(
        &self,
        segment: &Rc<Segment<D>>,
        position: u64,
        cursors: &[SegmentCursor],
    ) -> StorageResult<()> {
        let disk = &self.environment.disk;
        let later = cursors.iter().map(|cursor| cursor.base_offset);
        let later: Vec<i64> = later.filter(|base| *base > segment.base_offset).collect();
        let options = self.state.borrow().options.clone();
        self.recovery(&options).remove_segments(later.iter()).await?;
        self.zero_ahead.borrow_mut().begin_file();
        self.environment.cache.forget_from(self.number, segment.base_offset, position);
        segment.close_files();
        segment.is_closed.set(false);
        let file = segment.file(disk).await?;
        file.set_len(position).await.map_err(StorageError::from_write)?;
        file.sync().await.map_err(StorageError::from_sync)
    }

    /// Puts what recovery finds in place of the state. Everything below `flushed_end` is known to
    /// have been flushed.
    pub(crate) async fn reload(
        &self,
        checkpoint: LogCheckpoint,
        options: &LogOptions,
        flushed_end: Option<i64>,
    ) -> StorageResult<()> {
        let recovery = Recovery { flushed_note: flushed_end, ..self.recovery(options) };
        let recovered = recovery.run(checkpoint).await?;
        let LogCheckpoint { generation, snapshot, log_start, .. } = recovered.checkpoint;
        let proved = recovered.checkpoint.proved().copied();
        let flushed_end = {
            let mut state = self.state.borrow_mut();
            let producers = (state.producers.len(), recovered.producers.len());
            self.environment.count_producers(producers.0, producers.1);
            let cursor = recovered.active.flushed.get();
            state.queue.drain(cursor);
            state.log_start = log_start;
            state.first_batch = state.first_batch.min(log_start);
            state.segments = recovered.segments;
            state.active = recovered.active;
            state.allocated = recovered.allocated;
            state.epochs = recovered.epochs;
            state.snapshot_bytes = recovered.producers.snapshot_bytes();
            state.producers = recovered.producers;
            state.proved = proved.unwrap_or(cursor);
            state.snapshot = snapshot;
            state.snapshots = recovered.snapshots;
            state.last_block_crc = None;
            state.capture = None;
            state.forget_places();
            cursor.next_offset
        };
        let environment = &self.environment;
        environment.note_flushed(&self.note, generation, flushed_end);
        Ok(())
    }

    /// Moves the log's start up to `new_start`, durably; segments wholly below it go. The log's
    /// start after it.
    pub(crate) async fn delete_records(&self, new_start: i64) -> StorageResult<i64> {
        let writer = self.writer.lock().await;
        let (log_start, end) = {
            let state = self.state.borrow();
            state.check_open()?;
            (state.log_start, state.flushed_end())
        };
        if new_start > end {
            return Err(StorageError::OutOfRange { offset: new_start, start: log_start, end });
        }
        if new_start <= log_start {
            return Ok(log_start);
        }
        let first_batch = self.find_first_batch(new_start).await;
        let _files = self.files.lock().await;
        let done = self.move_start((new_start, first_batch), writer).await;
        done.map_err(|error| self.fail(error))?;
        Ok(new_start)
    }

    /// Deletes the oldest segments, as far as the options say. How many.
    pub(crate) async fn apply_retention(
        &self,
        now_ms: i64,
        committed_end: i64,
    ) -> StorageResult<usize> {
        let writer = self.writer.lock().await;
        self.state.borrow().check_open()?;
        self.expire_producers(now_ms);
        let (going, segments, log_start) = {
            let state = self.state.borrow();
            let facts: Vec<SegmentFacts> = state.segments.values().map(|s| facts(s)).collect();
            let (start, options) = (state.log_start, &state.options);
            let going = segments_to_delete(&facts, start, committed_end, options, now_ms);
            (going, facts, start)
        };
        if going == 0 {
            return Ok(0);
        }
        let new_start = segments[going - 1].next_offset;
        if going == segments.len() {
            if !self.state.borrow().queue.is_empty() {
                // Something new is on its way: the log is not as old as it looks.
                return Ok(0);
            }
            let point = {
                let state = self.state.borrow();
                RollPoint {
                    cursor: SegmentCursor::new(new_start, now_ms),
                    snapshot: state.capture().snapshot,
                }
            };
            self.state.borrow_mut().queue.cursor = point.cursor;
            if let Err(error) = self.roll(&point).await {
                // What came meanwhile has been promised an answer, and only the next write gives
                // one: that rolls again, or says what failed.
                let mut state = self.state.borrow_mut();
                let end = state.active.flushed.get();
                state.queue.postpone_roll(point, end);
                drop(state);
                return Err(self.fail(error));
            }
        }
        let new_start = new_start.max(log_start);
        let first_batch = self.find_first_batch(new_start).await;
        let _files = self.files.lock().await;
        let done = self.move_start((new_start, first_batch), writer).await;
        done.map_err(|error| self.fail(error))?;
        Ok(going)
    }

    pub(crate) fn retention_start(&self, now_ms: i64, committed_end: i64) -> i64 {
        let state = self.state.borrow();
        let facts: Vec<SegmentFacts> = state.segments.values().map(|s| facts(s)).collect();
        let (start, options) = (state.log_start, &state.options);
        let going = segments_to_delete(&facts, start, committed_end, options, now_ms);
        let last = going.checked_sub(1).and_then(|last| facts.get(last));
        last.map_or(start, |last| last.next_offset.max(start))
    }

    fn expire_producers(&self, now_ms: i64) {
        let mut state = self.state.borrow_mut();
        // What is queued could not be taken back over an expiry.
        if !state.queue.is_empty() {
            return;
        }
        let before = state.producers.len();
        let expiration_ms = state.options.producer_expiration_ms;
        state.producers.expire(now_ms, expiration_ms);
        let after = state.producers.len();
        drop(state);
        self.environment.count_producers(before, after);
    }

    /// The log starts at `new_start`, inside the batch that begins at `first_batch`: first the
    /// checkpoint says so, durably, then the files below it go. The caller holds both locks;
    /// `writer` is given back in between: a file system may need long to remove a large file.
    async fn move_start(
        &self,
        (new_start, first_batch): (i64, i64),
        writer: MutexGuard<'_, ()>,
    ) -> StorageResult<()> {
        let capture = {
            let mut state = self.state.borrow_mut();
            // Shown to nobody yet: a start that was seen never goes back.
            state.start_to_be = Some(new_start);
            let mut epochs = state.epochs.clone();
            epochs.cut_front(new_start);
            // A walk that begins below the start finds the epochs on its way.
            let proved = state.proved.next_offset;
            epochs.truncate(proved.max(new_start), proved.min(new_start));
            Capture { cursor: state.proved, snapshot: None, epochs }
        };
        let snapshot = self.state.borrow().snapshot;
        let mut written = self.write_epochs(&capture.epochs).await;
        if written.is_ok() {
            written = self.write_checkpoint(&capture, snapshot).await;
        }
        let going = {
            let mut state = self.state.borrow_mut();
            state.start_to_be = None;
            written?;
            (state.log_start, state.first_batch) = (new_start, first_batch);
            // Only now: what was appended meanwhile has added to them.
            state.epochs.cut_front(new_start);
            let going = state.below(new_start);
            state.segments.retain(|base, _| !going.contains(base));
            going
        };
        drop(writer);
        if let Some(first) = self.first_base() {
            self.environment.cache.forget_below(self.number, first);
        }
        for base in &going {
            for path in segment_files(&self.directory, *base) {
                remove_unneeded(&self.environment.disk, &path).await?;
            }
        }
        if !going.is_empty() {
            let synced = self.environment.disk.sync_dir(&self.directory).await;
            synced.map_err(StorageError::from_sync)?;
        }
        Ok(())
    }

    fn first_base(&self) -> Option<i64> {
        let state = self.state.borrow();
        state.segments.keys().next().copied()
    }

    /// Writes what waits, and leaves the files as Kafka's tools expect them: cut to their length,
    /// with whole indexes. Where that fails nothing more is written either: the files may be opened
    /// anew once this returns.
    pub(crate) async fn close(&self) -> StorageResult<()> {
        let closed = self.close_in_order().await;
        if closed.is_err() {
            // What is under way is done then, and finds its end.
            let _writer = self.writer.lock().await;
            let _files = self.files.lock().await;
            self.state.borrow_mut().ended.get_or_insert(StorageError::Closed);
        }
        closed
    }

    async fn close_in_order(&self) -> StorageResult<()> {
        // From here on nothing is taken: what came while the files are closed would stand in the
        // snapshot of producers without standing in the log.
        self.state.borrow_mut().closing = true;
        while !self.state.borrow().queue.is_empty() {
            self.write_pending().await?;
        }
        let _writer = self.writer.lock().await;
        let _files = self.files.lock().await;
        if matches!(self.state.borrow().ended, Some(StorageError::Closed)) {
            return Ok(());
        }
        self.state.borrow().check_open()?;
        let active = Rc::clone(&self.state.borrow().active);
        let is_as_proved = {
            let state = self.state.borrow();
            let flushed = active.flushed.get();
            state.allocated == flushed.position && state.proved == flushed
        };
        if !is_as_proved {
            let closed = self.close_files(&active).await;
            closed.map_err(|error| self.fail(error))?;
        }
        self.retire_buffer(true);
        self.state.borrow_mut().ended = Some(StorageError::Closed);
        active.close_files();
        Ok(())
    }

    async fn close_files(&self, active: &Rc<Segment<D>>) -> StorageResult<()> {
        if self.state.borrow().allocated != active.flushed.get().position {
            self.cut_active(active).await?;
        }
        let capture = {
            let mut state = self.state.borrow_mut();
            // Nothing is queued: the end is where it is flushed.
            state.queue.cursor = active.flushed.get();
            state.capture()
        };
        active.save_indexes(&self.environment.disk, true).await?;
        self.save(capture).await
    }

    /// Deletes the log: once this returns, it is gone for good. Readers that hold a file go on.
    pub(crate) async fn remove(&self) -> StorageResult<()> {
        let _writer = self.writer.lock().await;
        let _files = self.files.lock().await;
        // Whether they were written is all the same.
        let _ = self.end_zeros().await;
        self.take_back(Vec::new());
        self.retire_buffer(false);
        self.state.borrow_mut().ended = Some(StorageError::Closed);
        self.environment.forget_note(&self.note).await;
        self.environment.cache.forget_from(self.number, i64::MIN, 0);
        let segments: BTreeMap<i64, Rc<Segment<D>>> = self.state.borrow().segments.clone();
        segments.values().for_each(|segment| segment.close_files());
        remove_directory(&self.environment.disk, &self.directory, self.note.note.get()).await
    }
}

/// What retention, and a caller, sees of a segment.
pub(crate) fn facts<D: Disk>(segment: &Segment<D>) -> SegmentFacts {
    let cursor = segment.flushed.get();
    let newest_ms = match (cursor.max_timestamp, cursor.created_ms) {
        // Nobody knows how old it is: it stays.
        (NO_TIMESTAMP, 0) => i64::MAX,
        (NO_TIMESTAMP, created_ms) => created_ms,
        (max_timestamp, _) => max_timestamp,
    };
    SegmentFacts {
        base_offset: cursor.base_offset,
        next_offset: cursor.next_offset,
        bytes: cursor.position,
        newest_ms,
    }
}
