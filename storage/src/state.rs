//! What an open log holds in memory, and the few rules that everything which changes it shares.
//!
//! Two locks, always taken in this order: `writer` (one write, roll or cut at a time) and `files`
//! (one change of the files beside the log at a time). The state itself is borrowed for moments
//! only, never across an await.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::lock::Mutex;
use vltava_protocol::types::Uuid;

use crate::append_queue::{AppendQueue, Queued};
use crate::environment::{LogEnvironment, NoteSlot, StorageEvent};
use crate::error::{StorageError, StorageResult};
use crate::header::AppendBatch;
use crate::io::Disk;
use crate::leader_epochs::LeaderEpochs;
use crate::log_checkpoint::LogCheckpoint;
use crate::options::LogOptions;
use crate::producer_state::{ProducerBatch, ProducerStates};
use crate::refused::RefusedProducers;
use crate::segment::{Segment, SegmentCursor};
use crate::zero_ahead::ZeroAhead;

/// Places that a log remembers: of each kind.
const PLACES_KEPT: usize = 8;

/// Where a reader will go on: the batch that begins after `after` and ends at or behind `until`
/// starts at `position`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) segment: i64,
    pub(crate) position: u64,
    /// Offsets above this one ...
    pub(crate) after: i64,
    /// ... up to this one are answered by the batch at `position`; whether it begins with the
    /// offset asked for is to be checked.
    pub(crate) until: i64,
}

/// The newest few places of one kind. They take no memory before there is one: most logs of a
/// shard are idle, and have none.
#[derive(Default)]
pub(crate) struct Places(Option<Box<Kept>>);

#[derive(Default)]
struct Kept {
    places: [Option<Place>; PLACES_KEPT],
    next: usize,
}

impl Places {
    pub(crate) fn remember(&mut self, place: Place) {
        let kept = self.0.get_or_insert_default();
        kept.places[kept.next] = Some(place);
        kept.next = (kept.next + 1) % PLACES_KEPT;
    }

    fn find(&self, segment: i64, offset: i64) -> Option<Place> {
        let fits = |place: &&Place| {
            place.segment == segment && place.after < offset && offset <= place.until
        };
        let found = self.0.as_ref()?.places.iter().flatten().filter(fits);
        found.max_by_key(|place| place.after).copied()
    }
}

/// State captured for a checkpoint at a point that is not flushed yet.
pub(crate) struct Capture {
    pub(crate) cursor: SegmentCursor,
    pub(crate) snapshot: Option<Vec<u8>>,
    pub(crate) epochs: LeaderEpochs,
}

/// What changes.
pub(crate) struct LogState<D: Disk> {
    pub(crate) options: LogOptions,
    pub(crate) log_start: i64,
    /// Where the first batch begins: below `log_start` where that is inside it.
    pub(crate) first_batch: i64,
    /// The start that is being written: it is `log_start` once it is durable.
    pub(crate) start_to_be: Option<i64>,
    /// By base offset; the last one is active.
    pub(crate) segments: BTreeMap<i64, Rc<Segment<D>>>,
    pub(crate) active: Rc<Segment<D>>,
    pub(crate) queue: AppendQueue,
    /// With what is queued.
    pub(crate) epochs: LeaderEpochs,
    /// With what is queued.
    pub(crate) producers: ProducerStates,
    pub(crate) refused: RefusedProducers,
    pub(crate) generation: u32,
    /// What the checkpoint file says.
    pub(crate) proved: SegmentCursor,
    pub(crate) snapshot: Option<i64>,
    /// Size of the last snapshot, or of what was recovered as one: a checkpoint is not written for
    /// less log than it costs.
    pub(crate) snapshot_bytes: usize,
    /// Snapshot files, oldest first.
    pub(crate) snapshots: Vec<i64>,
    pub(crate) epochs_written: Option<LeaderEpochs>,
    pub(crate) capture: Option<Capture>,
    /// Length of the active segment's file.
    pub(crate) allocated: u64,
    /// CRC-32C of what the last, partly filled block holds, while no buffer does.
    pub(crate) last_block_crc: Option<u32>,
    /// The log is being closed: what is queued is written, nothing new is taken.
    pub(crate) closing: bool,
    /// The log is being truncated: an offset given now would be given again.
    pub(crate) truncating: bool,
    /// Why nothing is appended any more.
    pub(crate) ended: Option<StorageError>,
    /// Where writes ended: there, readers of the tail go on.
    pub(crate) write_ends: Places,
    /// Where reads ended: there, readers of older ranges go on.
    pub(crate) read_ends: Places,
    /// How often all places were forgotten: a read that began before remembers none.
    pub(crate) places_forgotten: u64,
}

/// An open log.
pub(crate) struct LogInner<D: Disk> {
    pub(crate) environment: Rc<LogEnvironment<D>>,
    /// Names the log in the batch cache.
    pub(crate) number: u64,
    pub(crate) directory: Rc<str>,
    pub(crate) topic_id: Uuid,
    pub(crate) writer: Mutex<()>,
    pub(crate) files: Mutex<()>,
    pub(crate) note: Rc<NoteSlot>,
    pub(crate) zero_ahead: RefCell<ZeroAhead>,
    pub(crate) state: RefCell<LogState<D>>,
}

/// What recovery found, to make a state of.
pub(crate) struct Recovered<D: Disk> {
    pub(crate) checkpoint: LogCheckpoint,
    pub(crate) segments: BTreeMap<i64, Rc<Segment<D>>>,
    pub(crate) active: Rc<Segment<D>>,
    pub(crate) epochs: LeaderEpochs,
    pub(crate) producers: ProducerStates,
    pub(crate) snapshots: Vec<i64>,
    /// Length of the active segment's file.
    pub(crate) allocated: u64,
}

impl<D: Disk> LogState<D> {
    pub(crate) fn new(recovered: Recovered<D>, options: LogOptions) -> Self {
        let checkpoint = recovered.checkpoint;
        let cursor = recovered.active.flushed.get();
        let proved = checkpoint.proved().copied();
        Self {
            options,
            log_start: checkpoint.log_start,
            first_batch: checkpoint.log_start,
            start_to_be: None,
            segments: recovered.segments,
            active: recovered.active,
            queue: AppendQueue::new(cursor),
            epochs: recovered.epochs,
            snapshot_bytes: recovered.producers.snapshot_bytes(),
            producers: recovered.producers,
            refused: RefusedProducers::default(),
            generation: checkpoint.generation,
            proved: proved.unwrap_or(SegmentCursor::new(cursor.base_offset, cursor.created_ms)),
            snapshot: checkpoint.snapshot,
            snapshots: recovered.snapshots,
            epochs_written: None,
            capture: None,
            allocated: recovered.allocated,
            last_block_crc: None,
            closing: false,
            truncating: false,
            ended: None,
            write_ends: Places::default(),
            read_ends: Places::default(),
            places_forgotten: 0,
        }
    }

    /// Everything below is on stable storage.
    pub(crate) fn flushed_end(&self) -> i64 {
        self.active.flushed.get().next_offset
    }

    /// With what is queued.
    pub(crate) fn end(&self) -> i64 {
        self.queue.cursor.next_offset
    }

    /// These are refused for lack of space.
    pub(crate) fn refuse(&mut self, batches: &[AppendBatch]) {
        for producer in batches.iter().filter_map(AppendBatch::producer) {
            self.refuse_producer(&producer);
        }
    }

    /// This one is refused, for whatever may pass.
    pub(crate) fn refuse_producer(&mut self, batch: &ProducerBatch) {
        if self.producers.get(batch.producer_id).is_none() {
            self.refused.refuse(batch);
        }
    }

    /// The log's present end, with all that follows from what is before it.
    pub(crate) fn capture(&self) -> Capture {
        let snapshot = (!self.producers.is_empty()).then(|| self.producers.to_snapshot());
        Capture { cursor: self.queue.cursor, snapshot, epochs: self.epochs.clone() }
    }

    /// The segment that holds this offset, or, in a gap, the one before it.
    pub(crate) fn segment_of(&self, offset: i64) -> Option<Rc<Segment<D>>> {
        let found = self.segments.range(..=offset).next_back();
        found.map(|(_, segment)| Rc::clone(segment))
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        let sizes = self.segments.values().map(|s| s.flushed.get().position);
        sizes.sum()
    }

    pub(crate) fn check_open(&self) -> StorageResult<()> {
        self.ended.as_ref().map_or(Ok(()), |why| Err(why.clone()))
    }

    /// A place at which a reader of `offset` may go on in the segment.
    pub(crate) fn place_of(&self, segment: i64, offset: i64) -> Option<Place> {
        let written = self.write_ends.find(segment, offset);
        written.or_else(|| self.read_ends.find(segment, offset))
    }

    pub(crate) fn forget_places(&mut self) {
        self.write_ends = Places::default();
        self.read_ends = Places::default();
        self.places_forgotten += 1;
    }

    /// Closed segments that hold nothing at or above `start`, by base offset.
    pub(crate) fn below(&self, start: i64) -> Vec<i64> {
        let active = self.active.base_offset;
        let goes =
            |s: &&Rc<Segment<D>>| s.base_offset != active && s.flushed.get().next_offset <= start;
        self.segments.values().filter(goes).map(|s| s.base_offset).collect()
    }

    /// The checkpoint of this state, proved up to `cursor` of the active segment.
    pub(crate) fn to_checkpoint(
        &self,
        topic_id: Uuid,
        write_bytes_max: usize,
        cursor: SegmentCursor,
        epochs: LeaderEpochs,
        snapshot: Option<i64>,
    ) -> LogCheckpoint {
        let log_start = self.start_to_be.unwrap_or(self.log_start);
        let going = self.start_to_be.map_or_else(Vec::new, |start| self.below(start));
        let closed = self.segments.range(..cursor.base_offset);
        let kept = closed.filter(|(base, _)| !going.contains(base));
        let mut segments: Vec<SegmentCursor> = kept.map(|(_, s)| s.flushed.get()).collect();
        segments.push(cursor);
        LogCheckpoint {
            topic_id,
            generation: self.generation,
            log_start,
            write_bytes_max: write_bytes_max as u64,
            snapshot,
            epochs,
            segments,
        }
    }
}

impl<D: Disk> LogInner<D> {
    /// After an error while something was changed. No space: what is queued is taken back, and the
    /// log goes on. Anything else but a failed read ends the log. The same error, for the caller.
    pub(crate) fn fail(&self, error: StorageError) -> StorageError {
        if let StorageError::Failed(io) = &error {
            let mut state = self.state.borrow_mut();
            if state.ended.is_none() {
                state.ended = Some(error.clone());
                drop(state);
                let directory = self.directory.to_string();
                let error = io.clone();
                self.environment.report(&StorageEvent::LogEnded { directory, error });
            }
        }
        error
    }

    /// Takes back everything that is not flushed: the batches of a failed write, and all that is
    /// queued behind them.
    pub(crate) fn take_back(&self, failed: Vec<Queued>) {
        let mut state = self.state.borrow_mut();
        let flushed = state.active.flushed.get();
        let queued = state.queue.drain(flushed);
        let before = state.producers.len();
        for queued in queued.into_iter().chain(failed.into_iter().rev()) {
            if let Some(undo) = queued.undo {
                state.producers.undo(undo);
            }
            if let Some(producer) = queued.batch.producer()
                && state.producers.get(producer.producer_id).is_none()
            {
                state.refused.take_back(&producer);
            }
        }
        let after = state.producers.len();
        let log_start = state.log_start;
        state.epochs.truncate(flushed.next_offset, log_start);
        state.capture = None;
        drop(state);
        self.environment.count_producers(before, after);
    }

    /// Lets go of the buffers. What of them is on disk goes to the batch cache where `keep`.
    pub(crate) fn retire_buffer(&self, keep: bool) {
        let mut state = self.state.borrow_mut();
        let Some(buffer) = state.queue.take_buffer() else {
            return;
        };
        let segment = state.active.base_offset;
        let last_block = buffer.last_block();
        state.last_block_crc = Some(crc32c::crc32c(&last_block));
        drop(state);
        let cache = &self.environment.cache;
        if keep {
            let bytes = buffer.flushed_bytes();
            cache.keep(self.number, segment, buffer.start(), bytes);
        }
    }
}

impl<D: Disk> Drop for LogInner<D> {
    fn drop(&mut self) {
        self.retire_buffer(false);
        let producers = self.state.borrow().producers.len();
        self.environment.count_producers(producers, 0);
        self.environment.cache.forget_from(self.number, i64::MIN, 0);
    }
}
