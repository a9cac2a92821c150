//! How a log comes to be: made, or opened and recovered.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::lock::Mutex;
use vltava_protocol::types::Uuid;

use super::corrupt::CorruptLog;
use super::facade::Log;
use crate::environment::{LogEnvironment, NoteSlot};
use crate::error::{Corruption, StorageError, StorageResult};
use crate::io::{Disk, IoErrorKind};
use crate::layout;
use crate::leader_epochs::LeaderEpochs;
use crate::log_checkpoint::LogCheckpoint;
use crate::notes::Note;
use crate::options::LogOptions;
use crate::partition_files::make_directory;
use crate::producer_state::ProducerStates;
use crate::recovery::{Damage, Recovery};
use crate::segment::{Segment, SegmentCursor};
use crate::state::{LogInner, LogState, Recovered};

/// What opening a log came to.
pub enum Opened<D: Disk> {
    /// It serves.
    Ready(Log<D>),
    /// It is damaged, and was left as it is.
    Corrupt(CorruptLog<D>),
}

impl<D: Disk> Log<D> {
    /// Makes the log of a new partition: its directory appears whole, or not at all.
    ///
    /// # Errors
    /// [`StorageError::AlreadyExists`]; [`StorageError::Full`]; or what the disk says.
    pub async fn create(
        environment: &Rc<LogEnvironment<D>>,
        directory: &str,
        topic_id: Uuid,
        options: LogOptions,
    ) -> StorageResult<Self> {
        let disk = &environment.disk;
        match disk.list(directory).await {
            Err(error) if error.kind == IoErrorKind::NotFound => {}
            Err(error) => return Err(StorageError::from_read(error)),
            // Of a log that was removed, and whose old name came back: the new one replaces it.
            Ok(entries) if entries.is_empty() => {}
            Ok(_) => return Err(StorageError::AlreadyExists(directory.to_owned())),
        }
        let cursor = SegmentCursor::new(0, 0);
        let generation = environment.first_generation(directory, topic_id).await;
        let checkpoint = LogCheckpoint {
            topic_id,
            generation,
            log_start: 0,
            write_bytes_max: environment.options.write_bytes_max as u64,
            snapshot: None,
            epochs: LeaderEpochs::default(),
            segments: vec![cursor],
        };
        let made = make_directory(disk, directory, &checkpoint).await;
        made.map_err(StorageError::from_write)?;
        // What was just made whole needs no recovery: it is this.
        let directory: Rc<str> = Rc::from(directory);
        let active = Rc::new(Segment::new(Rc::clone(&directory), cursor, false, (0, 0)));
        let recovered = Recovered {
            checkpoint,
            segments: BTreeMap::from([(cursor.base_offset, Rc::clone(&active))]),
            active,
            epochs: LeaderEpochs::default(),
            producers: ProducerStates::default(),
            snapshots: Vec::new(),
            allocated: 0,
        };
        let log = Self::with_state(environment, directory, topic_id, recovered, options);
        environment.note_flushed(&log.inner.note, generation, 0);
        Ok(log)
    }

    /// Opens a partition's log, and recovers it where the last stop was no orderly one.
    ///
    /// # Errors
    /// [`StorageError::Format`] for files of another version; or what the disk says. Damage is no
    /// error: [`Opened::Corrupt`].
    pub async fn open(
        environment: &Rc<LogEnvironment<D>>,
        directory: &str,
        options: LogOptions,
    ) -> StorageResult<Opened<D>> {
        let found = match LogCheckpoint::read(&environment.disk, directory).await {
            Ok(checkpoint) => {
                Self::recover(environment, directory, &options, checkpoint, Damage::Refuse).await
            }
            Err(error) => Err(error),
        };
        match found {
            Ok(log) => Ok(Opened::Ready(log)),
            Err(StorageError::Corrupt(corruption)) => {
                let corrupt = CorruptLog::new(environment, directory, options, corruption);
                corrupt.or_reset().await
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn recover(
        environment: &Rc<LogEnvironment<D>>,
        directory: &str,
        options: &LogOptions,
        checkpoint: LogCheckpoint,
        damage: Damage,
    ) -> StorageResult<Self> {
        let note = environment.note_of(directory).await;
        let note = note.filter(|note| note.topic_id == checkpoint.topic_id);
        let (topic_id, generation) = (checkpoint.topic_id, checkpoint.generation);
        if damage == Damage::Refuse && note.is_some_and(|note| note.generation > generation) {
            return Err(StorageError::Corrupt(Corruption {
                path: format!("{directory}/{}", layout::CHECKPOINT),
                position: 0,
                offset: -1,
                what: "it is older than the last truncation".to_owned(),
            }));
        }
        if note.is_none_or(|note| note.generation < generation) {
            // A process that was killed may have renamed the checkpoint, and not synced that. Notes
            // must not speak of a truncation that power which fails could take back.
            environment.disk.sync_dir(directory).await.map_err(StorageError::from_sync)?;
        }
        let noted = note.filter(|note| note.generation == generation);
        let reach = checkpoint.write_bytes_max;
        let directory: Rc<str> = Rc::from(directory);
        let recovery = Recovery {
            environment,
            directory: Rc::clone(&directory),
            options,
            flushed_note: noted.map(|note| note.flushed_end),
            reach,
            damage,
        };
        let segments_proved = checkpoint.segments.len();
        let proved_end = checkpoint.proved().map_or(0, |proved| proved.next_offset);
        let epoch_known = checkpoint.epochs.latest();
        let mut recovered = recovery.run(checkpoint).await?;
        if damage == Damage::Accept
            && let Some(epoch) = epoch_known
            && recovered.epochs.latest().is_none_or(|latest| latest < epoch)
        {
            // Of the batches that are given up: others must not get the same offset and epoch.
            let end = recovered.active.flushed.get().next_offset;
            recovered.epochs.assign(epoch, end);
        }
        let is_stale = damage == Damage::Accept
            || recovered.segments.len() != segments_proved
            || (environment.options.write_bytes_max as u64) > reach;
        let generation = recovered.checkpoint.generation;
        let note = note.filter(|note| note.generation == generation);
        let log = Self::with_state(environment, directory, topic_id, recovered, options.clone());
        let first_batch = log.inner.find_first_batch(log.log_start()).await;
        log.inner.state.borrow_mut().first_batch = first_batch;
        if is_stale {
            log.inner.checkpoint().await?;
        }
        // What recovery kept is flushed, and will be served: it must not look like a torn tail at
        // the next start. A log without a note is a new one.
        let noted_end = note.map_or(0, |note| note.flushed_end);
        let end = log.flushed_end();
        if note.is_none() || end > noted_end.max(proved_end) {
            environment.note_flushed(&log.inner.note, generation, end);
        }
        Ok(log)
    }

    fn with_state(
        environment: &Rc<LogEnvironment<D>>,
        directory: Rc<str>,
        topic_id: Uuid,
        recovered: Recovered<D>,
        options: LogOptions,
    ) -> Self {
        let note = Note {
            topic_id,
            generation: recovered.checkpoint.generation,
            flushed_end: recovered.active.flushed.get().next_offset,
        };
        environment.count_producers(0, recovered.producers.len());
        let inner = LogInner {
            environment: Rc::clone(environment),
            number: environment.log_number(),
            directory: Rc::clone(&directory),
            topic_id,
            writer: Mutex::new(()),
            files: Mutex::new(()),
            note: NoteSlot::new(directory, note),
            zero_ahead: RefCell::default(),
            state: RefCell::new(LogState::new(recovered, options)),
        };
        Self { inner: Rc::new(inner) }
    }
}
