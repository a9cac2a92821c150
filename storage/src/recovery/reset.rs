//! The rest of a reset: what its record says becomes what the files say. Done again from the start
//! where a stop came in between.

use super::Recovery;
use crate::checkpoint::{Tail, replace, write_new};
use crate::error::{StorageError, StorageResult};
use crate::io::Disk;
use crate::layout::{self, LEADER_EPOCHS, RESET};
use crate::log_checkpoint::LogCheckpoint;
use crate::reset_record::ResetRecord;

/// Files that belong to a place in the log.
const EXTENSIONS: [&str; 4] = ["log", "index", "timeindex", "snapshot"];

impl<D: Disk> Recovery<'_, D> {
    /// Makes the files those of the empty log, durably. Its checkpoint.
    pub(super) async fn finish_reset(&self) -> StorageResult<LogCheckpoint> {
        let disk = &self.environment.disk;
        let record = ResetRecord::read(disk, &self.directory).await?;
        self.remove_content().await?;
        let base_offset = record.beginning.base_offset;
        if !record.beginning.producers.is_empty() {
            let name = layout::snapshot_file(base_offset);
            let producers = &record.beginning.producers;
            let written = replace(disk, &self.directory, &name, producers, Tail::Exact).await;
            written.map_err(StorageError::from_write)?;
        }
        let path = self.path(&layout::log_file(base_offset));
        let written = write_new(disk, &path, &[], Tail::Padded).await;
        written.map_err(StorageError::from_write)?;
        // Its replacement makes the names of all that is new durable, and the removals.
        let text = record.beginning.epochs.to_text();
        let text = text.as_bytes();
        let written = replace(disk, &self.directory, LEADER_EPOCHS, text, Tail::Exact).await;
        written.map_err(StorageError::from_write)?;
        let checkpoint = record.to_checkpoint();
        let written = checkpoint.write(disk, &self.directory).await;
        written.map_err(StorageError::from_write)?;
        self.remove_reset().await?;
        Ok(checkpoint)
    }

    /// Removes the record: durable once this returns. Else it would come back, and take what was
    /// appended since.
    pub(super) async fn remove_reset(&self) -> StorageResult<()> {
        let disk = &self.environment.disk;
        let removed = disk.remove_file(&self.path(RESET)).await;
        removed.map_err(StorageError::from_write)?;
        let synced = disk.sync_dir(&self.directory).await;
        synced.map_err(StorageError::from_sync)
    }

    async fn remove_content(&self) -> StorageResult<()> {
        let disk = &self.environment.disk;
        let entries = disk.list(&self.directory).await.map_err(StorageError::from_read)?;
        let is_content = |name: &str| {
            EXTENSIONS.iter().any(|extension| layout::offset_of(name, extension).is_some())
        };
        for entry in entries.iter().filter(|entry| is_content(&entry.name)) {
            let removed = disk.remove_file(&self.path(&entry.name)).await;
            removed.map_err(StorageError::from_write)?;
        }
        Ok(())
    }
}
