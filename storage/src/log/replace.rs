//! A log that is begun anew, empty, because others have what it held: the damaged one is set aside
//! until that is there again.

use std::rc::Rc;

use vltava_protocol::types::Uuid;

use super::facade::Log;
use crate::environment::LogEnvironment;
use crate::error::{StorageError, StorageResult};
use crate::io::{Disk, IoErrorKind};
use crate::layout;
use crate::notes::Note;
use crate::options::LogOptions;
use crate::partition_files::{remove_directory, remove_tree};

impl<D: Disk> Log<D> {
    /// Makes an empty log in place of one that is damaged or gone. What is there is set aside;
    /// where something was set aside before, that has more, and stays.
    ///
    /// The caller has noted, durably, that what was in the log counts for nothing: after a crash in
    /// between there is no log, or an empty one.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn replace(
        environment: &Rc<LogEnvironment<D>>,
        directory: &str,
        topic_id: Uuid,
        options: LogOptions,
    ) -> StorageResult<Self> {
        let disk = &environment.disk;
        if is_there(disk, directory).await? {
            let aside = layout::damaged_directory(directory, topic_id);
            if is_there(disk, &aside).await? {
                let note = Note { topic_id, generation: 0, flushed_end: 0 };
                remove_directory(disk, directory, note).await?;
            } else {
                let renamed = disk.rename_durably(directory, &aside, "").await;
                renamed.map_err(StorageError::from_write)?;
            }
        }
        Self::create(environment, directory, topic_id, options).await
    }

    /// Removes what was set aside when this log was made, where there is something.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn remove_damaged(&self) -> StorageResult<()> {
        remove_damaged(&self.inner.environment, &self.inner.directory, self.inner.topic_id).await
    }
}

/// Removes what was set aside of a partition's log, where there is something.
///
/// # Errors
/// What the disk says.
pub async fn remove_damaged<D: Disk>(
    environment: &LogEnvironment<D>,
    directory: &str,
    topic_id: Uuid,
) -> StorageResult<()> {
    let disk = &environment.disk;
    let aside = layout::damaged_directory(directory, topic_id);
    if !is_there(disk, &aside).await? {
        return Ok(());
    }
    // What a stop leaves of it is removed at the next start.
    let deleted = layout::deleted_directory(directory, topic_id);
    let renamed = disk.rename_durably(&aside, &deleted, "").await;
    renamed.map_err(StorageError::from_write)?;
    remove_tree(disk, &deleted).await
}

/// Removes what was set aside of logs of topics that are gone.
///
/// # Errors
/// What the disk says.
pub async fn remove_damaged_of_gone<D: Disk>(
    disk: &D,
    is_gone: impl Fn(Uuid) -> bool,
) -> StorageResult<()> {
    for entry in disk.list("").await.map_err(StorageError::from_read)? {
        let Some((id, deleted)) = layout::parse_damaged(&entry.name) else { continue };
        if entry.is_directory && is_gone(id) {
            let renamed = disk.rename_durably(&entry.name, &deleted, "").await;
            renamed.map_err(StorageError::from_write)?;
            remove_tree(disk, &deleted).await?;
        }
    }
    Ok(())
}

/// Whether a partition's log was damaged and set aside, and is not there again whole, or at all.
///
/// # Errors
/// What the disk says.
pub async fn is_set_aside<D: Disk>(
    disk: &D,
    directory: &str,
    topic_id: Uuid,
) -> StorageResult<bool> {
    is_there(disk, &layout::damaged_directory(directory, topic_id)).await
}

async fn is_there<D: Disk>(disk: &D, directory: &str) -> StorageResult<bool> {
    match disk.list(directory).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind == IoErrorKind::NotFound => Ok(false),
        Err(error) => Err(StorageError::from_read(error)),
    }
}
