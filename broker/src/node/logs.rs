//! Opens the log of a partition, or creates it.

use std::rc::Rc;

use vltava_protocol::types::Uuid;
use vltava_storage::io::Disk;
use vltava_storage::{
    Corruption, Log, LogEnvironment, LogOptions, Opened, StorageError, StorageResult, topic_id_of,
};

/// Opens the log of a partition of the topic where it exists, creates it where not. A damaged log
/// is an error, and so is one that was made here and is gone: what is there is left as it is.
///
/// A directory of that name with another topic's id is what a stop left of a topic that was
/// deleted, and whose name was used again: group 0 knows the id no more (`is_known`), and so it is
/// deleted now.
pub async fn open_or_create<D: Disk>(
    logs: &Rc<LogEnvironment<D>>,
    directory: &str,
    topic_id: Uuid,
    options: LogOptions,
    is_known: impl Fn(Uuid) -> bool,
) -> StorageResult<Log<D>> {
    let found = topic_id_of(logs, directory).await?;
    if found == Some(topic_id) {
        return ready(Log::open(logs, directory, options).await?);
    }
    let made = logs.made(directory, topic_id).await;
    match (found, made) {
        (None, Some(flushed_end)) => {
            let directory = directory.to_owned();
            return Err(StorageError::Missing { directory, flushed_end });
        }
        (None, None) => {}
        (Some(found), None) if !is_known(found) => {
            tracing::warn!(
                directory, %found, %topic_id,
                "deleting what is left of a deleted topic"
            );
            ready(Log::open(logs, directory, options.clone()).await?)?.remove().await?;
        }
        (Some(found), _) => {
            return Err(StorageError::Corrupt(Corruption {
                path: directory.to_owned(),
                position: 0,
                offset: -1,
                what: format!("it holds a log of topic id {found}, and not of {topic_id}"),
            }));
        }
    }
    Log::create(logs, directory, topic_id, options).await
}

fn ready<D: Disk>(opened: Opened<D>) -> StorageResult<Log<D>> {
    match opened {
        Opened::Ready(log) => Ok(log),
        Opened::Corrupt(corrupt) => Err(StorageError::Corrupt(corrupt.corruption().clone())),
    }
}
