//! Opens the log of a partition, or creates it.

use std::rc::Rc;

use vltava_protocol::types::Uuid;
use vltava_storage::io::Disk;
use vltava_storage::{
    Corruption, Log, LogEnvironment, LogOptions, Opened, StorageError, StorageResult, remove_log,
    topic_id_of,
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
            // Without a look into it: it may be damaged, and nobody wants it mended.
            remove_log(logs, directory, found).await?;
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

#[cfg(test)]
#[cfg(feature = "simulator")]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use vltava_storage::{EnvironmentOptions, Notes};

    use super::*;
    use crate::runtime::Runtime;
    use crate::runtime::sim::run_alone;

    #[test]
    fn what_is_left_of_a_deleted_topic_goes_also_where_it_is_damaged() {
        let (gone, known) = (Uuid(1), Uuid(2));
        run_alone(1, |runtime, _| async move {
            let disk = runtime.disk().clone();
            let options = EnvironmentOptions::default();
            let logs = LogEnvironment::new(disk.clone(), options, 0, Notes::default());
            drop(Log::create(&logs, "topic-0", gone, LogOptions::default()).await.unwrap());
            disk.remove_file("topic-0/00000000000000000000.log").await.unwrap();
            let options = LogOptions::default();
            open_or_create(&logs, "topic-0", known, options, |id| id == known).await.unwrap();
            assert_eq!(topic_id_of(&logs, "topic-0").await.unwrap(), Some(known));
        });
    }
}
