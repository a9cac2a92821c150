//! What the logs of a shard share: the disk, the batch cache, the notes of flushed ends, space,
//! bounds.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::{Rc, Weak};

use futures_util::lock::Mutex;
use vltava_protocol::types::Uuid;

use crate::batch_cache::BatchCache;
use crate::buffer_supply::BufferSupply;
use crate::chunks::ChunkCache;
use crate::group_key::GroupKey;
use crate::io::{AlignedBlocks, AlignedBuffer, BLOCK_BYTES, Disk, IoError, IoResult, Space};
use crate::notes::{LoadedNotes, Note, NoteFile};
use crate::options::{AppendClass, EnvironmentOptions};
use crate::segment::Segment;

/// Something an operator should hear of, though the call that met it went on.
#[derive(Clone, Debug)]
pub enum StorageEvent {
    /// Recovery cut what a stop had torn off behind the last flushed batch.
    TailCut {
        /// The segment's file.
        path: String,
        /// Where it was cut, in bytes.
        position: u64,
        /// The offset the log ends with.
        end: i64,
    },
    /// An index did not lead to the batches it names, and was made anew from the log.
    IndexRebuilt {
        /// The segment's file.
        path: String,
    },
    /// A snapshot of producers was missing or damaged; their state was read from the log.
    SnapshotLost {
        /// Its file.
        path: String,
    },
    /// Kafka's file with the topic's id was missing, or said another: the checkpoint's counts.
    TopicIdLost {
        /// Its file.
        path: String,
    },
    /// One of a shard's two files of votes was damaged. What it held stands in the other, and it
    /// is written anew.
    VotesDamaged {
        /// The file.
        path: String,
    },
    /// Both files of votes are damaged: what a group set last is not known.
    VotesLost {
        /// The files.
        path: String,
        /// Whose it was; `None`: nobody knows, so nothing that was set before is certain.
        group: Option<GroupKey>,
    },
    /// A write or sync failed: the groups of this shard set nothing more until a restart.
    VotesEnded {
        /// The file.
        path: String,
        /// What failed.
        error: IoError,
    },
    /// A write or sync failed: this log takes no more appends until a restart.
    LogEnded {
        /// The log's directory.
        directory: String,
        /// What failed.
        error: IoError,
    },
}

impl fmt::Display for StorageEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TailCut { path, position, end } => {
                write!(f, "{path}: torn tail cut at byte {position}; the log ends at {end}")
            }
            Self::IndexRebuilt { path } => write!(f, "{path}: index damaged, rebuilt from the log"),
            Self::SnapshotLost { path } => {
                write!(f, "{path}: lost or damaged; producer state read from the log")
            }
            Self::TopicIdLost { path } => {
                write!(f, "{path}: lost or damaged; the topic's id is that of vltava-checkpoint")
            }
            Self::VotesDamaged { path } => {
                write!(f, "{path}: damaged; what it held is in its copy, and it is written anew")
            }
            Self::VotesLost { path, group: Some(group) } => {
                write!(f, "{path}: both damaged; the vote of {group} is lost: it becomes a learner")
            }
            Self::VotesLost { path, group: None } => {
                write!(f, "{path}: both damaged; votes are lost: all groups become learners")
            }
            Self::VotesEnded { path, error } => {
                write!(f, "{path}: takes no more votes until a restart: {error}")
            }
            Self::LogEnded { directory, error } => {
                write!(f, "{directory}: takes no more appends until a restart: {error}")
            }
        }
    }
}

/// Hears events.
type Reporter = Rc<dyn Fn(&StorageEvent)>;

/// A log's note, shared with the environment that writes it.
pub(crate) struct NoteSlot {
    pub(crate) directory: Rc<str>,
    pub(crate) note: Cell<Note>,
    is_listed: Cell<bool>,
}

impl NoteSlot {
    pub(crate) fn new(directory: Rc<str>, note: Note) -> Rc<Self> {
        Rc::new(Self { directory, note: Cell::new(note), is_listed: Cell::new(false) })
    }
}

/// What the logs of one shard share.
pub struct LogEnvironment<D: Disk> {
    pub(crate) disk: D,
    pub(crate) options: EnvironmentOptions,
    pub(crate) cache: BatchCache,
    pub(crate) chunks: ChunkCache,
    /// Where the appenders' buffers come from.
    pub(crate) buffers: BufferSupply,
    /// For all writes of zeros; filled when the first is made.
    zeros: RefCell<Option<AlignedBuffer>>,
    notes: Mutex<NoteFile<D>>,
    moved: RefCell<Vec<Rc<NoteSlot>>>,
    free_bytes: Cell<Option<u64>>,
    producer_ids: Cell<usize>,
    next_log: Cell<u64>,
    open_files: RefCell<VecDeque<Weak<Segment<D>>>>,
    reporter: RefCell<Option<Reporter>>,
}

impl<D: Disk> LogEnvironment<D> {
    /// The environment of a shard. `notes` are those of all shards ([`crate::load_notes`]): a log
    /// may have been another's before.
    pub fn new(
        disk: D,
        options: EnvironmentOptions,
        shard: u32,
        notes: impl Into<LoadedNotes>,
    ) -> Rc<Self> {
        let options = options.rounded();
        let buffers = BufferSupply::new(options.buffer_bytes_max, options.cache_bytes_max);
        Rc::new(Self {
            disk,
            cache: BatchCache::new(options.cache_bytes_max, buffers.pool().clone()),
            buffers,
            chunks: ChunkCache::new(options.read_chunk_bytes, options.read_bytes_max),
            zeros: RefCell::default(),
            options,
            notes: Mutex::new(NoteFile::new(shard, notes.into())),
            moved: RefCell::default(),
            free_bytes: Cell::new(None),
            producer_ids: Cell::new(0),
            next_log: Cell::new(0),
            open_files: RefCell::default(),
            reporter: RefCell::default(),
        })
    }

    /// The data directory.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Hears events from now on.
    pub fn on_event(&self, reporter: impl Fn(&StorageEvent) + 'static) {
        *self.reporter.borrow_mut() = Some(Rc::new(reporter));
    }

    /// The space that is left, as the caller learned it. Client appends are refused below the
    /// reserve.
    pub fn set_space(&self, space: Space) {
        self.free_bytes.set(Some(space.free));
    }

    /// Asks the disk for its space and remembers it. Call it once a second.
    ///
    /// # Errors
    /// Where the disk does not say; what was known stays.
    pub async fn refresh_space(&self) -> IoResult<Space> {
        let space = self.disk.space().await?;
        self.set_space(space);
        Ok(space)
    }

    /// Notes the flushed ends of the logs that moved since the last call: one small durable write
    /// for all. Call it once a second.
    ///
    /// # Errors
    /// Where the write failed; the notes are tried again with the next call.
    pub async fn write_notes(&self) -> IoResult<()> {
        let mut file = self.notes.lock().await;
        let moved = self.moved.take();
        let notes = moved.iter().map(|slot| {
            slot.is_listed.set(false);
            (slot.directory.to_string(), slot.note.get())
        });
        let written = file.write(&self.disk, notes.collect()).await;
        if written.is_err() {
            moved.into_iter().for_each(|slot| self.list_moved(slot));
        }
        written
    }

    /// Whether a log of this name and topic was made here, by the notes: up to where it is known to
    /// have been flushed. Its directory may be gone.
    pub async fn made(&self, directory: &str, topic_id: Uuid) -> Option<i64> {
        let notes = self.notes.lock().await;
        let note = notes.of_log(directory, topic_id);
        note.filter(|_| !notes.is_given_away(directory, topic_id)).map(|note| note.flushed_end)
    }

    /// Forgets that logs were made whose directory is gone, and whose topic is, too.
    pub async fn keep_notes_of_gone(&self, is_known: impl Fn(Uuid) -> bool) {
        self.notes.lock().await.keep_gone(is_known);
    }

    /// A log that was made here, and whose directory is gone, was given away: it may be made anew.
    /// Until it is, [`LogEnvironment::made`] says nothing of it.
    pub async fn given_away(&self, directory: &str, topic_id: Uuid) {
        self.notes.lock().await.give_away(directory, topic_id);
    }

    /// Which generation a log that is made now has: notes of one that was given away say nothing
    /// of it.
    pub(crate) async fn first_generation(&self, directory: &str, topic_id: Uuid) -> u32 {
        let note = self.notes.lock().await.of_log(directory, topic_id);
        note.map_or(0, |note| note.generation.saturating_add(1))
    }

    /// Whether less space is free than the reserve, as far as is known.
    pub fn is_low(&self) -> bool {
        self.has_less_than(self.options.reserve_bytes)
    }

    fn has_less_than(&self, bytes: u64) -> bool {
        self.free_bytes.get().is_some_and(|free| free < bytes)
    }

    /// Memory of all buffers: those being filled, the batch cache, what is read of older ranges,
    /// and what answers under way hold of any.
    pub fn buffer_bytes(&self) -> usize {
        self.buffers.pool().lent_bytes() + self.chunks.lent_bytes()
    }

    /// Makes large buffers ready before busy logs want them, for as long as the batch cache grows:
    /// the first use of memory may take milliseconds, which nobody should wait for. For a task of
    /// its own, in the background; never ends.
    pub async fn prepare_buffers(&self) {
        self.buffers.prepare(&self.disk).await;
    }

    /// Producer ids known to all logs.
    pub fn producer_ids(&self) -> usize {
        self.producer_ids.get()
    }

    pub(crate) fn report(&self, event: &StorageEvent) {
        let reporter = self.reporter.borrow().clone();
        if let Some(reporter) = reporter {
            reporter(event);
        }
    }

    pub(crate) fn log_number(&self) -> u64 {
        let number = self.next_log.get();
        self.next_log.set(number + 1);
        number
    }

    pub(crate) async fn note_of(&self, directory: &str) -> Option<Note> {
        self.notes.lock().await.get(directory)
    }

    pub(crate) async fn forget_note(&self, slot: &Rc<NoteSlot>) {
        self.moved.borrow_mut().retain(|moved| !Rc::ptr_eq(moved, slot));
        self.notes.lock().await.forget(&slot.directory, slot.note.get());
    }

    /// A log was flushed further.
    pub(crate) fn note_flushed(&self, slot: &Rc<NoteSlot>, generation: u32, flushed_end: i64) {
        slot.note.set(Note { generation, flushed_end, ..slot.note.get() });
        self.list_moved(Rc::clone(slot));
    }

    fn list_moved(&self, slot: Rc<NoteSlot>) {
        if !slot.is_listed.replace(true) {
            self.moved.borrow_mut().push(slot);
        }
    }

    /// So many zeros, at most `zero_bytes_max`, in whole blocks.
    pub(crate) fn zeros(&self, bytes: u64) -> AlignedBlocks {
        let mut zeros = self.zeros.borrow_mut();
        let buffer = zeros.get_or_insert_with(|| {
            let mut buffer = AlignedBuffer::new(self.options.zero_bytes_max);
            let block = [0; BLOCK_BYTES];
            (0..buffer.capacity() / BLOCK_BYTES).for_each(|_| buffer.append(&block));
            buffer
        });
        buffer.blocks(0..usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Whether this append may take space.
    pub(crate) fn may_append(&self, class: AppendClass) -> bool {
        match class {
            AppendClass::Client => !self.is_low(),
            AppendClass::Replica => !self.has_less_than(self.options.reserve_bytes / 2),
            AppendClass::Internal => true,
        }
    }

    /// Space was taken since the disk was asked.
    pub(crate) fn take_space(&self, bytes: u64) {
        let left = self.free_bytes.get().map(|free| free.saturating_sub(bytes));
        self.free_bytes.set(left);
    }

    pub(crate) fn count_producers(&self, before: usize, after: usize) {
        let others = self.producer_ids.get().saturating_sub(before);
        self.producer_ids.set(others + after);
    }

    /// How many producer ids a log that has `own` of them may have.
    pub(crate) fn producer_ids_max(&self, own: usize) -> usize {
        let others = self.producer_ids.get().saturating_sub(own);
        self.options.producer_ids_max.saturating_sub(others).max(1)
    }

    /// A reader opened this segment's file: where too many are open, the one opened first is
    /// closed.
    pub(crate) fn opened(&self, segment: &Rc<Segment<D>>) {
        let mut open = self.open_files.borrow_mut();
        open.push_back(Rc::downgrade(segment));
        while open.len() > self.options.open_files_max {
            let oldest = open.pop_front().and_then(|oldest| oldest.upgrade());
            if let Some(oldest) = oldest.filter(|oldest| oldest.is_closed.get()) {
                oldest.close_files();
            }
        }
    }
}
