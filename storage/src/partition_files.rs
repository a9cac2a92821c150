//! The directory of a partition: made whole, found, removed.

use vltava_protocol::types::Uuid;

use crate::checkpoint::{Tail, read_file, replace, write_new};
use crate::environment::{LogEnvironment, StorageEvent};
use crate::error::{StorageError, StorageResult};
use crate::io::{Disk, IoError, IoErrorKind, IoResult};
use crate::layout::{self, DirectoryKind};
use crate::log_checkpoint::LogCheckpoint;
use crate::notes::Note;

/// Makes a partition's directory aside, whole and durable, then gives it its name.
pub(crate) async fn make_directory<D: Disk>(
    disk: &D,
    directory: &str,
    checkpoint: &LogCheckpoint,
) -> IoResult<()> {
    let new = layout::new_directory(directory, checkpoint.topic_id);
    disk.create_dir(&new).await?;
    let metadata = layout::partition_metadata(checkpoint.topic_id);
    let path = format!("{new}/{}", layout::PARTITION_METADATA);
    write_new(disk, &path, metadata.as_bytes(), Tail::Exact).await?;
    let path = format!("{new}/{}", layout::log_file(0));
    write_new(disk, &path, &[], Tail::Padded).await?;
    let path = format!("{new}/{}", layout::CHECKPOINT);
    write_new(disk, &path, &checkpoint.encode(), Tail::Padded).await?;
    // Nothing has the partition's name yet: without a descriptor it can be tried again.
    let of_sync = |error: IoError| match error.kind {
        IoErrorKind::NoDescriptor => error,
        _ => error.of_sync(),
    };
    disk.sync_dir(&new).await.map_err(of_sync)?;
    let failed = disk.root_syncs_failed();
    disk.rename(&new, directory).await?;
    if let Err(error) = disk.sync_names("", failed).await {
        // Whether the name survives is not known: nobody shall find it, and write there.
        disk.rename(directory, &new).await?;
        return Err(of_sync(error));
    }
    Ok(())
}

/// The directories of all partitions, sorted.
///
/// # Errors
/// Where the data directory cannot be listed.
pub async fn partition_directories<D: Disk>(disk: &D) -> StorageResult<Vec<String>> {
    let entries = disk.list("").await.map_err(StorageError::from_read)?;
    let is_partition =
        |name: &str| matches!(layout::directory_kind(name), DirectoryKind::Partition(_));
    let found = entries.into_iter().filter(|e| e.is_directory && is_partition(&e.name));
    Ok(found.map(|entry| entry.name).collect())
}

/// Removes what a stop left half created or half deleted. To be called once at start, before any
/// log is opened.
///
/// # Errors
/// What the disk says.
pub async fn remove_leftovers<D: Disk>(disk: &D) -> StorageResult<()> {
    // A process that was killed may have renamed, and not synced: power that fails would bring back
    // a directory under its old name, without the files that are removed here; or take away a log
    // that is written to by then.
    disk.sync_dir("").await.map_err(|error| StorageError::from_write(error.of_sync()))?;
    let entries = disk.list("").await.map_err(StorageError::from_read)?;
    for entry in entries {
        let is_leftover = layout::directory_kind(&entry.name) == DirectoryKind::Leftover;
        if entry.is_directory && is_leftover {
            remove_tree(disk, &entry.name).await?;
        }
    }
    Ok(())
}

/// The topic's id of a partition's directory, without opening its log; `None` where there is no
/// such directory, or nothing in it. It stands in the log's checkpoint, under a checksum. Kafka's
/// own file with it is a copy, and written again where it says something else.
///
/// Where there is no checkpoint, the copy counts: a log that was being removed, and whose old name
/// came back with power that failed, has that file to the last.
///
/// # Errors
/// [`StorageError::Corrupt`] or [`StorageError::Format`] where the checkpoint cannot be used;
/// [`StorageError::Unreadable`].
pub async fn topic_id_of<D: Disk>(
    environment: &LogEnvironment<D>,
    directory: &str,
) -> StorageResult<Option<Uuid>> {
    let disk = &environment.disk;
    let topic_id = match LogCheckpoint::read(disk, directory).await {
        Ok(checkpoint) => checkpoint.topic_id,
        Err(error) => {
            let entries = match disk.list(directory).await {
                Err(gone) if gone.kind == IoErrorKind::NotFound => return Ok(None),
                Ok(entries) => entries,
                // What it is that is missing is not known then: later it may be.
                Err(none) if none.kind == IoErrorKind::NoDescriptor => {
                    return Err(StorageError::from_read(none));
                }
                Err(_) => return Err(error),
            };
            if entries.is_empty() {
                return Ok(None);
            }
            let has_checkpoint = entries.iter().any(|entry| entry.name == layout::CHECKPOINT);
            let copy = topic_id_in_copy(disk, directory).await?;
            return copy.filter(|_| !has_checkpoint).map(Some).ok_or(error);
        }
    };
    if topic_id_in_copy(disk, directory).await? != Some(topic_id) {
        let text = layout::partition_metadata(topic_id);
        let name = layout::PARTITION_METADATA;
        // A copy that only others read: where it cannot be written now, it is at the next start.
        let _written = replace(disk, directory, name, text.as_bytes(), Tail::Exact).await;
        let path = format!("{directory}/{name}");
        environment.report(&StorageEvent::TopicIdLost { path });
    }
    Ok(Some(topic_id))
}

/// The topic's id in Kafka's file, where that can be understood.
async fn topic_id_in_copy<D: Disk>(disk: &D, directory: &str) -> StorageResult<Option<Uuid>> {
    let path = format!("{directory}/{}", layout::PARTITION_METADATA);
    let text = read_file(disk, &path).await.map_err(StorageError::from_read)?.unwrap_or_default();
    Ok(layout::parse_partition_metadata(&String::from_utf8_lossy(&text)))
}

/// Removes the log of a topic that is deleted, without opening it: one that is damaged, or could
/// not be opened. A directory that holds another topic's log stays.
///
/// # Errors
/// What the disk says.
pub async fn remove_log<D: Disk>(
    environment: &LogEnvironment<D>,
    directory: &str,
    topic_id: Uuid,
) -> StorageResult<()> {
    match topic_id_of(environment, directory).await {
        Ok(None) => return Ok(()),
        Ok(Some(found)) if found != topic_id => return Ok(()),
        Ok(Some(_)) | Err(StorageError::Corrupt(_) | StorageError::Format { .. }) => {}
        Err(error) => return Err(error),
    }
    let note = Note { topic_id, generation: 0, flushed_end: 0 };
    remove_directory(&environment.disk, directory, note).await
}

/// Renames a partition's directory, durably, then removes it with what is in it.
pub(crate) async fn remove_directory<D: Disk>(
    disk: &D,
    directory: &str,
    note: Note,
) -> StorageResult<()> {
    let deleted = layout::deleted_directory(directory, note.topic_id);
    let renamed = disk.rename_durably(directory, &deleted, "").await;
    renamed.map_err(StorageError::from_write)?;
    remove_tree(disk, &deleted).await
}

/// Removes a directory of files: the one with the topic's id last, and once the others are gone for
/// good. Should its old name come back, whoever finds it knows what it was; see [`topic_id_of`].
pub(crate) async fn remove_tree<D: Disk>(disk: &D, directory: &str) -> StorageResult<()> {
    let entries = disk.list(directory).await.map_err(StorageError::from_read)?;
    let (last, others): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.name == layout::PARTITION_METADATA);
    for entry in &others {
        let removed = disk.remove_file(&format!("{directory}/{}", entry.name)).await;
        removed.map_err(StorageError::from_write)?;
    }
    for entry in &last {
        disk.sync_dir(directory).await.map_err(StorageError::from_write)?;
        let removed = disk.remove_file(&format!("{directory}/{}", entry.name)).await;
        removed.map_err(StorageError::from_write)?;
    }
    let removed = disk.remove_dir(directory).await;
    removed.map_err(StorageError::from_write)
}
