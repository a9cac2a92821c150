//! Opens the log of a partition, or creates it.

use std::rc::Rc;

use vltava_protocol::types::Uuid;
use vltava_storage::io::Disk;
use vltava_storage::{
    Log, LogEnvironment, LogOptions, Opened, StorageError, StorageResult, topic_id_of,
};

/// Opens the log of a partition of the topic where it exists, creates it where not. A damaged log
/// is an error: it is left as it is.
///
/// A directory of that name with another topic's id is what a stop left of a topic that was
/// deleted, and whose name was used again: group 0 knows the id no more, and so it is deleted now.
pub async fn open_or_create<D: Disk>(
    logs: &Rc<LogEnvironment<D>>,
    disk: &D,
    directory: &str,
    topic_id: Uuid,
    options: LogOptions,
) -> StorageResult<Log<D>> {
    match topic_id_of(disk, directory).await? {
        None => Log::create(logs, directory, topic_id, options).await,
        Some(found) if found == topic_id => ready(Log::open(logs, directory, options).await?),
        Some(found) => {
            tracing::warn!(
                directory, %found, %topic_id,
                "deleting what is left of a deleted topic"
            );
            match Log::open(logs, directory, options.clone()).await? {
                Opened::Ready(log) => log.remove().await?,
                Opened::Corrupt(corrupt) => corrupt.remove().await?,
            }
            Log::create(logs, directory, topic_id, options).await
        }
    }
}

fn ready<D: Disk>(opened: Opened<D>) -> StorageResult<Log<D>> {
    match opened {
        Opened::Ready(log) => Ok(log),
        Opened::Corrupt(corrupt) => Err(StorageError::Corrupt(corrupt.corruption().clone())),
    }
}
