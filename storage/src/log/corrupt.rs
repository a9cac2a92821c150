//! A damaged log, until somebody decides.

use std::rc::Rc;

use vltava_protocol::types::Uuid;

use super::facade::Log;
use super::opening::Opened;
use crate::checkpoint::read_file;
use crate::environment::LogEnvironment;
use crate::error::{Corruption, StorageError, StorageResult};
use crate::io::Disk;
use crate::layout;
use crate::leader_epochs::LeaderEpochs;
use crate::log_checkpoint::LogCheckpoint;
use crate::notes::Note;
use crate::options::LogOptions;
use crate::partition_files::remove_directory;
use crate::recovery::{Damage, Loss, Recovery};
use crate::reset_record::{LogBeginning, ResetRecord};
use crate::segment::SegmentCursor;

/// A damaged log, kept aside. Every use of it is answered with [`StorageError::Corrupt`] by whoever
/// holds this.
pub struct CorruptLog<D: Disk> {
    environment: Rc<LogEnvironment<D>>,
    directory: String,
    options: LogOptions,
    corruption: Corruption,
}

impl<D: Disk> CorruptLog<D> {
    pub(crate) fn new(
        environment: &Rc<LogEnvironment<D>>,
        directory: &str,
        options: LogOptions,
        corruption: Corruption,
    ) -> Self {
        Self {
            environment: Rc::clone(environment),
            directory: directory.to_owned(),
            options,
            corruption,
        }
    }

    /// What is damaged, and where.
    pub fn corruption(&self) -> &Corruption {
        &self.corruption
    }

    /// Its directory below the data directory.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// What [`CorruptLog::accept_loss`] would leave and what it would give up. Changes nothing but
    /// what any opening does.
    ///
    /// # Errors
    /// As for [`CorruptLog::accept_loss`].
    pub async fn survey(&self) -> StorageResult<Loss> {
        let checkpoint = self.checkpoint().await?;
        let note = self.environment.note_of(&self.directory).await;
        let note = note.filter(|note| note.topic_id == checkpoint.topic_id);
        let recovery = Recovery {
            environment: &self.environment,
            directory: Rc::from(self.directory.as_str()),
            options: &self.options,
            flushed_note: note.map(|note| note.flushed_end),
            reach: checkpoint.write_bytes_max,
            damage: Damage::Refuse,
        };
        recovery.survey(checkpoint).await
    }

    /// Gives up everything from the first batch on that cannot be proved, for good, and serves the
    /// rest. Only on an operator's word.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where not even the topic's id is known; or what the disk says.
    pub async fn accept_loss(self) -> StorageResult<Log<D>> {
        let note = self.environment.note_of(&self.directory).await;
        let mut checkpoint = self.checkpoint().await?;
        let noted = note.map_or(0, |note| note.generation);
        checkpoint.generation = checkpoint.generation.max(noted) + 1;
        let (environment, options) = (&self.environment, &self.options);
        let directory = self.directory.as_str();
        Log::recover(environment, directory, options, checkpoint, Damage::Accept).await
    }

    /// Gives up everything: the log is empty then, and begins with what another replica sent, as
    /// [`Log::reset_to`] makes it.
    ///
    /// # Errors
    /// As for [`Log::reset_to`].
    pub async fn reset_to(
        self,
        topic_id: Uuid,
        base_offset: i64,
        producers: &[u8],
        epochs: &[(i32, i64)],
    ) -> StorageResult<Log<D>> {
        let beginning = LogBeginning::check(base_offset, producers, epochs)?;
        let disk = &self.environment.disk;
        let before = LogCheckpoint::read(disk, &self.directory).await;
        let before = before.map_or(0, |checkpoint| checkpoint.generation);
        let note = self.environment.note_of(&self.directory).await;
        let noted = note.map_or(0, |note| note.generation);
        let record = ResetRecord {
            topic_id,
            generation: before.max(noted) + 1,
            write_bytes_max: self.environment.options.write_bytes_max as u64,
            beginning,
        };
        let written = record.write(disk, &self.directory).await;
        written.map_err(StorageError::from_write)?;
        self.recover_as(&record).await
    }

    async fn recover_as(&self, record: &ResetRecord) -> StorageResult<Log<D>> {
        let (environment, directory) = (&self.environment, self.directory.as_str());
        let checkpoint = record.to_checkpoint();
        Log::recover(environment, directory, &self.options, checkpoint, Damage::Refuse).await
    }

    /// Where a reset had been begun, that is finished: whatever was damaged does not count.
    pub(super) async fn or_reset(self) -> StorageResult<Opened<D>> {
        match ResetRecord::read(&self.environment.disk, &self.directory).await {
            Ok(record) => self.recover_as(&record).await.map(Opened::Ready),
            Err(StorageError::Corrupt(_)) => Ok(Opened::Corrupt(self)),
            Err(error) => Err(error),
        }
    }

    /// Deletes it, where nobody wants it any more.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn remove(self) -> StorageResult<()> {
        let note = Note { topic_id: Uuid(0), generation: 0, flushed_end: 0 };
        remove_directory(&self.environment.disk, &self.directory, note).await
    }

    async fn checkpoint(&self) -> StorageResult<LogCheckpoint> {
        match LogCheckpoint::read(&self.environment.disk, &self.directory).await {
            Err(StorageError::Corrupt(_)) => self.checkpoint_from_files().await,
            read => read,
        }
    }

    /// A checkpoint that claims nothing, from the files that are there: everything is to be walked.
    async fn checkpoint_from_files(&self) -> StorageResult<LogCheckpoint> {
        let disk = &self.environment.disk;
        let path = format!("{}/{}", self.directory, layout::PARTITION_METADATA);
        let text = read_file(disk, &path).await.map_err(StorageError::from_read)?;
        let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
        let topic_id = layout::parse_partition_metadata(&text)
            .ok_or_else(|| StorageError::Corrupt(self.corruption.clone()))?;
        let entries = disk.list(&self.directory).await;
        let entries = entries.map_err(StorageError::from_read)?;
        let mut bases = entries.iter().filter_map(|e| layout::offset_of(&e.name, "log"));
        let first = bases.next().unwrap_or(0);
        Ok(LogCheckpoint {
            topic_id,
            generation: 0,
            log_start: first,
            write_bytes_max: self.environment.options.write_bytes_max as u64,
            snapshot: None,
            epochs: LeaderEpochs::default(),
            segments: vec![SegmentCursor::new(first, 0)],
        })
    }
}
