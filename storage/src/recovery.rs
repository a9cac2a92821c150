//! Opening a log: walk what is not proved, cut a torn tail, and report what must not be cut.
//!
//! The checkpoint says up to where the log is proved. From there each batch is checked: its header,
//! that its offset continues, its CRC. At the first that fails there are two cases. *Torn*: the
//! stop tore the last write; nothing there was acknowledged; it is cut, the file is shortened and
//! flushed before anything else happens. *Damaged*: the note of flushed ends lies above; or a valid
//! batch stands farther behind than one write reaches; or another segment follows. Then nothing is
//! changed, and the caller is told.

mod reset;
mod survey;

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::checkpoint::read_file;
use crate::environment::{LogEnvironment, StorageEvent};
use crate::error::{Corruption, StorageError, StorageResult};
use crate::header::ZEROS;
use crate::io::{BLOCK_BYTES, Disk, File, OpenMode};
use crate::layout::{self, TEMPORARY};
use crate::leader_epochs::LeaderEpochs;
use crate::log_checkpoint::LogCheckpoint;
use crate::options::LogOptions;
use crate::producer_state::ProducerStates;
use crate::scan::FileScan;
use crate::segment::{Segment, SegmentCursor};
use crate::state::Recovered;

pub use self::survey::Loss;

/// What to do with damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Change nothing and say so.
    Refuse,
    /// An operator gave up what cannot be proved.
    Accept,
}

/// One recovery.
pub(crate) struct Recovery<'a, D: Disk> {
    pub(crate) environment: &'a Rc<LogEnvironment<D>>,
    pub(crate) directory: Rc<str>,
    pub(crate) options: &'a LogOptions,
    /// Everything below was flushed.
    pub(crate) flushed_note: Option<i64>,
    /// The most bytes of one write.
    pub(crate) reach: u64,
    pub(crate) damage: Damage,
}

/// Files of a partition, by what they are.
#[derive(Debug, Default)]
struct Files {
    segments: Vec<i64>,
    snapshots: Vec<i64>,
    /// None of them counts: a reset was begun.
    is_reset: bool,
}

/// A segment that is not as long as it was.
struct Unsound {
    /// Its number in the checkpoint.
    at: usize,
    /// `None`: its file is missing.
    len: Option<u64>,
}

/// A batch that fails.
struct Failing {
    position: u64,
    what: &'static str,
}

/// What the walk builds up.
struct Walked<D: Disk> {
    segments: BTreeMap<i64, Rc<Segment<D>>>,
    epochs: LeaderEpochs,
    producers: ProducerStates,
}

impl<D: Disk> Recovery<'_, D> {
    /// Recovers from a checkpoint; or, where a reset was begun, finishes that.
    pub(crate) async fn run(&self, checkpoint: LogCheckpoint) -> StorageResult<Recovered<D>> {
        let files = self.list().await?;
        if !files.is_reset {
            return self.run_on(checkpoint, files).await;
        }
        match self.finish_reset().await {
            Ok(checkpoint) => {
                // Notes speak of the log that was.
                let directory = Rc::clone(&self.directory);
                let recovery = Recovery { flushed_note: None, directory, ..*self };
                let files = recovery.list().await?;
                recovery.run_on(checkpoint, files).await
            }
            Err(StorageError::Corrupt(_)) if self.damage == Damage::Accept => {
                self.remove_reset().await?;
                self.run_on(checkpoint, files).await
            }
            Err(error) => Err(error),
        }
    }

    async fn run_on(
        &self,
        mut checkpoint: LogCheckpoint,
        files: Files,
    ) -> StorageResult<Recovered<D>> {
        self.check_closed(&mut checkpoint).await?;
        let Some(proved) = checkpoint.proved().copied() else {
            return Err(self.corrupt("", 0, -1, "its checkpoint names no segment"));
        };
        let first = checkpoint.segments[0].base_offset;
        self.remove_segments(files.segments.iter().filter(|base| **base < first)).await?;
        let mut walked = Walked {
            segments: self.closed_segments(&checkpoint),
            producers: self.producers(&checkpoint, &files).await?,
            epochs: checkpoint.epochs.clone(),
        };
        let later = files.segments.iter().copied();
        let later: Vec<i64> = later.filter(|base| *base > proved.base_offset).collect();
        let (active, allocated) = self.walk_all(proved, later, &mut walked).await?;
        let end = active.flushed.get().next_offset;
        if checkpoint.log_start > end {
            checkpoint.log_start = end;
        }
        walked.epochs.cut_front(checkpoint.log_start);
        let (stale, snapshots): (Vec<i64>, Vec<i64>) =
            files.snapshots.into_iter().partition(|offset| *offset > end);
        self.remove_snapshots(&stale).await?;
        Ok(Recovered {
            checkpoint,
            segments: walked.segments,
            active,
            epochs: walked.epochs,
            producers: walked.producers,
            snapshots,
            allocated,
        })
    }

    fn corrupt(&self, file: &str, position: u64, offset: i64, what: &str) -> StorageError {
        StorageError::Corrupt(Corruption {
            path: format!("{}/{file}", self.directory),
            position,
            offset,
            what: what.to_owned(),
        })
    }

    fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.directory)
    }

    /// Lists the files, and removes those that were not whole at a stop.
    async fn list(&self) -> StorageResult<Files> {
        let disk = &self.environment.disk;
        let entries = disk.list(&self.directory).await;
        let mut files = Files::default();
        for entry in entries.map_err(StorageError::from_read)? {
            if entry.name.ends_with(TEMPORARY) {
                let removed = disk.remove_file(&self.path(&entry.name)).await;
                removed.map_err(StorageError::from_write)?;
            }
            files.is_reset |= entry.name == layout::RESET;
            files.segments.extend(layout::offset_of(&entry.name, "log"));
            files.snapshots.extend(layout::offset_of(&entry.name, "snapshot"));
        }
        Ok(files)
    }

    /// Closed segments must be there, and as long as they were. Where a loss is accepted, the log
    /// goes on from the first that is not.
    async fn check_closed(&self, checkpoint: &mut LogCheckpoint) -> StorageResult<()> {
        let Some(Unsound { at, len }) = self.first_unsound(checkpoint).await? else {
            return Ok(());
        };
        let cursor = checkpoint.segments[at];
        let name = layout::log_file(cursor.base_offset);
        if self.damage == Damage::Refuse {
            let what = len.map_or("it is missing", |_| "its length is not what it was");
            let position = len.unwrap_or(0).min(cursor.position);
            return Err(self.corrupt(&name, position, cursor.base_offset, what));
        }
        if len.is_none() {
            let created = self.environment.disk.open(&self.path(&name), OpenMode::Create).await;
            created.map_err(StorageError::from_write)?;
        }
        checkpoint.distrust_from(at);
        Ok(())
    }

    async fn first_unsound(&self, checkpoint: &LogCheckpoint) -> StorageResult<Option<Unsound>> {
        let disk = &self.environment.disk;
        for (at, cursor) in checkpoint.segments.iter().enumerate() {
            let is_proved_only = at + 1 == checkpoint.segments.len();
            let name = layout::log_file(cursor.base_offset);
            let file = disk.open(&self.path(&name), OpenMode::Read).await;
            let len = match file {
                Ok(file) => Some(file.len().await.map_err(StorageError::from_read)?),
                Err(error) if error.kind == crate::io::IoErrorKind::NotFound => None,
                Err(error) => return Err(StorageError::from_read(error)),
            };
            let is_sound = match len {
                Some(len) if is_proved_only => len >= cursor.position,
                // A stop while its last batches were mended leaves the last block whole.
                Some(len) => {
                    let blocks_end = cursor.position.next_multiple_of(BLOCK_BYTES as u64);
                    len == cursor.position || len == blocks_end
                }
                None => false,
            };
            if !is_sound {
                return Ok(Some(Unsound { at, len }));
            }
        }
        Ok(None)
    }

    fn closed_segments(&self, checkpoint: &LogCheckpoint) -> BTreeMap<i64, Rc<Segment<D>>> {
        let closed = checkpoint.segments.split_last().map_or(&[][..], |(_, c)| c);
        let closed = closed.iter().map(|cursor| {
            let saved = (cursor.offset_entries, cursor.time_entries);
            let segment = Segment::new(Rc::clone(&self.directory), *cursor, true, saved);
            (cursor.base_offset, Rc::new(segment))
        });
        closed.collect()
    }

    /// The producers at the proved end: from the snapshot, or, where that is lost, from an older
    /// one and the log.
    async fn producers(
        &self,
        checkpoint: &LogCheckpoint,
        files: &Files,
    ) -> StorageResult<ProducerStates> {
        let (Some(offset), Some(proved)) = (checkpoint.snapshot, checkpoint.proved()) else {
            return Ok(ProducerStates::default());
        };
        let (at, states) =
            self.producers_at(proved.next_offset, &files.snapshots, &checkpoint.segments).await?;
        if at != Some(offset) {
            let path = self.path(&layout::snapshot_file(offset));
            self.environment.report(&StorageEvent::SnapshotLost { path });
        }
        Ok(states)
    }

    /// The producers at `offset`: from the newest sound snapshot at or below it, and the log from
    /// there. Which snapshot that was.
    pub(crate) async fn producers_at(
        &self,
        offset: i64,
        snapshots: &[i64],
        segments: &[SegmentCursor],
    ) -> StorageResult<(Option<i64>, ProducerStates)> {
        // Batches between an older snapshot and the first segment are gone: what that snapshot says
        // of a producer may be out of date, and a producer that is not known may go on where it is.
        let first = segments.first().map_or(offset, |s| s.base_offset);
        let usable = snapshots.iter().copied();
        let usable = usable.filter(|snapshot| (first..=offset).contains(snapshot));
        let (at, states) = self.newest_snapshot(usable.collect()).await?;
        let from = at.unwrap_or(i64::MIN);
        let states = self.replay_producers(states, from, offset, segments).await?;
        Ok((at, states))
    }

    async fn newest_snapshot(
        &self,
        mut snapshots: Vec<i64>,
    ) -> StorageResult<(Option<i64>, ProducerStates)> {
        while let Some(offset) = snapshots.pop() {
            let path = self.path(&layout::snapshot_file(offset));
            let bytes = read_file(&self.environment.disk, &path).await;
            let bytes = bytes.map_err(StorageError::from_read)?.unwrap_or_default();
            if let Some(states) = ProducerStates::from_snapshot(&bytes) {
                return Ok((Some(offset), states));
            }
        }
        Ok((None, ProducerStates::default()))
    }

    /// Adds the batches of `[from, to)` to producer state, by their headers.
    async fn replay_producers(
        &self,
        mut states: ProducerStates,
        from: i64,
        to: i64,
        segments: &[SegmentCursor],
    ) -> StorageResult<ProducerStates> {
        let holds = |s: &&SegmentCursor| s.next_offset > from && s.base_offset < to;
        for cursor in segments.iter().filter(holds) {
            let name = layout::log_file(cursor.base_offset);
            let mut scan = FileScan::open(&self.environment.disk, &self.path(&name)).await?;
            let mut position = 0;
            while position < cursor.position {
                let header = scan.header(position).await?;
                let header = header
                    .map_err(|what| self.corrupt(&name, position, cursor.base_offset, what))?;
                if header.base_offset >= to {
                    break;
                }
                if let Some(batch) = header.producer().filter(|_| header.base_offset >= from) {
                    let ids_max = self.environment.producer_ids_max(states.len());
                    states.note(&batch, header.base_offset, ids_max);
                }
                position += header.bytes;
            }
        }
        Ok(states)
    }

    /// Walks from the proved point to the end of the log. The active segment, and how long its file
    /// is.
    async fn walk_all(
        &self,
        proved: SegmentCursor,
        mut later: Vec<i64>,
        walked: &mut Walked<D>,
    ) -> StorageResult<(Rc<Segment<D>>, u64)> {
        let empty = self.take_empty(&mut later).await?;
        let mut later = later.into_iter();
        let saved = (proved.offset_entries, proved.time_entries);
        let mut segment = Segment::new(Rc::clone(&self.directory), proved, false, saved);
        loop {
            let name = layout::log_file(segment.base_offset);
            let mut scan = FileScan::open(&self.environment.disk, &self.path(&name)).await?;
            let failing = self.walk(&mut scan, &segment, walked).await?;
            let next = later.next();
            let end = segment.flushed.get();
            let joins = failing.is_none() && next == Some(end.next_offset);
            let damaged = match (&failing, next) {
                (_, Some(_)) if joins => None,
                (Some(failing), Some(_)) => Some(failing.what),
                (None, Some(_)) => Some("the next segment does not continue it"),
                (Some(failing), None) => self.is_damage(&mut scan, end, failing).await?,
                (None, None) => self.is_below_note(end.next_offset),
            };
            if let Some(what) = damaged.filter(|_| self.damage == Damage::Refuse) {
                return Err(self.corrupt(&name, end.position, end.next_offset, what));
            }
            if joins {
                self.close(&segment).await?;
                walked.segments.insert(segment.base_offset, Rc::new(segment));
                let fresh = SegmentCursor::new(end.next_offset, end.created_ms);
                segment = Segment::new(Rc::clone(&self.directory), fresh, false, (0, 0));
                continue;
            }
            let gone: Vec<i64> = next.into_iter().chain(later).collect();
            self.remove_segments(gone.iter()).await?;
            let is_torn = failing.is_some_and(|failing| failing.what != ZEROS);
            self.cut(&segment, scan.len(), proved, is_torn).await?;
            self.remove_segments(empty.iter()).await?;
            let segment = Rc::new(segment);
            let allocated = segment.flushed.get().position;
            walked.segments.insert(segment.base_offset, Rc::clone(&segment));
            return Ok((segment, allocated));
        }
    }

    /// An empty file is a roll that was begun: it stands where the log ends, or was left when there
    /// was no space, each time where the log was to go on then. It is begun anew: the sync of that
    /// name may have failed, and none that follows makes it durable.
    async fn take_empty(&self, later: &mut Vec<i64>) -> StorageResult<Vec<i64>> {
        let mut empty = Vec::new();
        for base in later.iter().copied() {
            let path = self.path(&layout::log_file(base));
            if FileScan::open(&self.environment.disk, &path).await?.len() == 0 {
                empty.push(base);
            }
        }
        later.retain(|base| !empty.contains(base));
        Ok(empty)
    }

    /// Adds all batches that can be proved. The one that cannot, if the file goes on.
    async fn walk(
        &self,
        scan: &mut FileScan<D>,
        segment: &Segment<D>,
        walked: &mut Walked<D>,
    ) -> StorageResult<Option<Failing>> {
        loop {
            let cursor = segment.flushed.get();
            let position = cursor.position;
            let failing = |what| Ok(Some(Failing { position, what }));
            if position >= scan.len() {
                return Ok(None);
            }
            let header = match scan.header(position).await? {
                Ok(header) => header,
                Err(what) => return failing(what),
            };
            if header.base_offset != cursor.next_offset {
                return failing("a batch whose offset does not continue the log");
            }
            let before = walked.epochs.epoch_at(cursor.next_offset - 1);
            if before.is_some_and(|before| header.leader_epoch < before) {
                return failing("a batch whose epoch goes back");
            }
            if header.bytes > scan.len() - position {
                return failing("a batch that ends behind the file");
            }
            if !scan.check_crc(position, &header).await? {
                return failing("a batch whose CRC does not match");
            }
            segment.advance(&header, self.options.index_interval_bytes);
            walked.epochs.assign(header.leader_epoch, header.base_offset);
            if let Some(batch) = header.producer() {
                let ids_max = self.environment.producer_ids_max(walked.producers.len());
                walked.producers.note(&batch, header.base_offset, ids_max);
            }
        }
    }

    fn is_below_note(&self, end: i64) -> Option<&'static str> {
        let note = self.flushed_note?;
        (end < note).then_some("batches that were flushed are missing")
    }

    /// Why a failing batch at the end of the last segment is no torn tail.
    async fn is_damage(
        &self,
        scan: &mut FileScan<D>,
        end: SegmentCursor,
        failing: &Failing,
    ) -> StorageResult<Option<&'static str>> {
        if self.is_below_note(end.next_offset).is_some() {
            return Ok(Some(failing.what));
        }
        let reach = self.reach;
        // A batch larger than one write is written in pieces: what stands inside it is its payload.
        let header = scan.header(failing.position).await?;
        let inside = header.map_or(0, |header| {
            let fits = header.base_offset == end.next_offset && header.bytes > reach;
            if fits { header.bytes } else { 0 }
        });
        let from = failing.position.saturating_add(reach.max(inside));
        let found = scan.find_batch(from, from.saturating_add(2 * reach), end.next_offset);
        let found = found.await?;
        Ok(found.map(|_| "a batch that fails, with a valid one behind it"))
    }

    /// A segment that was walked to its end and has one behind it.
    async fn close(&self, segment: &Segment<D>) -> StorageResult<()> {
        segment.is_closed.set(true);
        segment.seal_time_index();
        let disk = &self.environment.disk;
        segment.save_indexes(disk, true).await?;
        segment.name_indexes(disk).await
    }

    /// Makes the file end with its last batch, and everything in it durable, before it is served.
    async fn cut(
        &self,
        segment: &Segment<D>,
        file_bytes: u64,
        proved: SegmentCursor,
        is_torn: bool,
    ) -> StorageResult<()> {
        let end = segment.flushed.get();
        let is_proved = end.base_offset == proved.base_offset && end.position == proved.position;
        if file_bytes == end.position && is_proved {
            return Ok(());
        }
        let file = segment.file(&self.environment.disk).await?;
        if file_bytes != end.position {
            let cut = file.set_len(end.position).await;
            cut.map_err(StorageError::from_write)?;
        }
        if is_torn {
            self.environment.report(&StorageEvent::TailCut {
                path: segment.log_path(),
                position: end.position,
                end: end.next_offset,
            });
        }
        file.sync().await.map_err(StorageError::from_sync)
    }

    /// Removes snapshots behind the end, of a log that is no more: once the log has grown past them
    /// again they would lie. Durable once this returns.
    async fn remove_snapshots(&self, offsets: &[i64]) -> StorageResult<()> {
        let disk = &self.environment.disk;
        for offset in offsets {
            let path = self.path(&layout::snapshot_file(*offset));
            let removed = disk.remove_file(&path).await;
            removed.map_err(StorageError::from_write)?;
        }
        if !offsets.is_empty() {
            let synced = disk.sync_dir(&self.directory).await;
            synced.map_err(StorageError::from_sync)?;
        }
        Ok(())
    }

    /// Removes segments with their indexes, newest first; durable once this returns.
    pub(crate) async fn remove_segments<'b>(
        &self,
        bases: impl DoubleEndedIterator<Item = &'b i64>,
    ) -> StorageResult<()> {
        let disk = &self.environment.disk;
        for base in bases.rev() {
            remove_segment_files(disk, &self.directory, *base).await?;
            // One by one: after a crash in between, what is left must be the start of the log.
            let synced = disk.sync_dir(&self.directory).await;
            synced.map_err(StorageError::from_sync)?;
        }
        Ok(())
    }
}

/// The files of one segment.
pub(crate) fn segment_files(directory: &str, base: i64) -> [String; 3] {
    [layout::log_file(base), layout::offset_index_file(base), layout::time_index_file(base)]
        .map(|name| format!("{directory}/{name}"))
}

/// Removes the files of one segment, those that are there.
async fn remove_segment_files<D: Disk>(disk: &D, directory: &str, base: i64) -> StorageResult<()> {
    for path in segment_files(directory, base) {
        match disk.remove_file(&path).await {
            Err(error) if error.kind != crate::io::IoErrorKind::NotFound => {
                return Err(StorageError::from_write(error));
            }
            _ => {}
        }
    }
    Ok(())
}
