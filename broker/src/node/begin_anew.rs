//! A log that is damaged or gone, of a partition that other nodes keep, too: it is begun anew, and
//! filled from them.

use vltava_storage::{Log, LogOptions, StorageError};

use super::view::Node;
use crate::metadata::image::PartitionId;
use crate::partition::replica::note_lost;
use crate::runtime::Runtime;

impl<R: Runtime> Node<R> {
    /// An empty log in place of the one that could not be opened, where that was damaged or is gone
    /// and the group remembers what it voted; its replica has no say before it has caught up.
    ///
    /// # Errors
    /// The error, where it is another, or its log must not be begun anew; or what the disk says.
    pub(super) async fn begin_anew(
        &self,
        id: PartitionId,
        name: &str,
        options: LogOptions,
        error: StorageError,
    ) -> Result<Log<R::Disk>, StorageError> {
        let is_lost = matches!(error, StorageError::Corrupt(_) | StorageError::Missing { .. });
        let Some(surroundings) = self.surroundings().filter(|_| is_lost) else {
            return Err(error);
        };
        if !note_lost(&surroundings, id).await? {
            return Err(error);
        }
        tracing::error!(
            partition = name, %error,
            "a log is damaged or gone: it is set aside, and taken anew from the other replicas"
        );
        Log::replace(&self.parts.logs, name, id.topic_id, options).await
    }
}
