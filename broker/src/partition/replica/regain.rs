//! A replica whose log was lost or damaged: it begins anew, empty, and has no say in elections
//! until it has again what its word may have helped to choose (`raft::follower`).

use bytes::Bytes;
use vltava_storage::{GroupKey, Recorded, StorageError};

use super::Replica;
use crate::partition::request::PartitionId;
use crate::partition::surroundings::Surroundings;
use crate::raft::persisted::Persisted;
use crate::runtime::Runtime;

/// Notes that the log of a group is lost on this disk, before it is begun anew. False where that
/// must not be: what was kept of the group is lost, too, and its vote might count twice; or nothing
/// ever was, and no other replica has what the log had.
///
/// # Errors
/// What the disk says.
pub async fn note_lost<R: Runtime>(
    surroundings: &Surroundings<R>,
    partition: PartitionId,
) -> Result<bool, StorageError> {
    let key = GroupKey { topic_id: partition.topic_id, partition: partition.index };
    let Recorded::Value(bytes) = surroundings.journal.get(&key) else { return Ok(false) };
    let Ok(mut kept) = Persisted::from_bytes(&bytes) else { return Ok(false) };
    kept.is_lost = true;
    surroundings.journal.set(key, Some(Bytes::from(kept.to_bytes()))).await?;
    Ok(true)
}

impl<R: Runtime> Replica<R> {
    /// The loss is made good: that survives a restart, and what was damaged is nobody's any more.
    pub(super) async fn regained(&self) -> Result<(), StorageError> {
        self.keep(|kept| kept.is_lost = false).await?;
        tracing::info!(
            partition = self.name,
            "a replica whose log was lost has it again, and votes again"
        );
        if let Err(error) = self.log.remove_damaged().await {
            tracing::warn!(
                partition = self.name, %error,
                "what was set aside of a damaged log cannot be removed; remove it by hand"
            );
        }
        Ok(())
    }
}
