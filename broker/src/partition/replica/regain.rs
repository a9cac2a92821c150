//! A replica whose log was lost or damaged: it begins anew, empty, and has no say in elections
//! until it has again what its word may have helped to choose (`raft::follower`).

use bytes::Bytes;
use vltava_storage::{GroupKey, Recorded, ReplicatedBatches, StorageError};

use super::Replica;
use crate::partition::request::PartitionId;
use crate::partition::surroundings::Surroundings;
use crate::raft::history::{Base, History};
use crate::raft::membership::{Membership, ReplicaId};
use crate::raft::persisted::Persisted;
use crate::raft::position::Position;
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

/// Notes that what was kept of a group is lost on this disk, and with it what its log is worth: it
/// is begun anew, and takes part in nothing before it knows in which epochs it may have voted
/// (`raft::forced`). Nothing is known of its members but whom the group began with.
///
/// # Errors
/// What the disk says.
pub async fn note_votes_lost<R: Runtime>(
    surroundings: &Surroundings<R>,
    partition: PartitionId,
    founders: Membership,
) -> Result<(), StorageError> {
    let key = GroupKey { topic_id: partition.topic_id, partition: partition.index };
    let history = History::new(Base { at: Position::ZERO, members: founders, log_start: 0 });
    let kept = Persisted::of(-1, None, false, &history);
    let kept = Persisted { is_lost: true, are_votes_lost: true, ..kept };
    surroundings.journal.set(key, Some(Bytes::from(kept.to_bytes()))).await
}

/// What a disk knows of what it has voted in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Votes {
    /// All.
    Known,
    /// That it was lost, and is noted as such.
    Unsure,
    /// It is lost.
    Lost,
}

/// What this disk knows of what it has voted in a group, whose log ends here.
pub fn votes<R: Runtime>(
    surroundings: &Surroundings<R>,
    partition: PartitionId,
    log_end: i64,
) -> Votes {
    let key = GroupKey { topic_id: partition.topic_id, partition: partition.index };
    match surroundings.journal.get(&key) {
        Recorded::Lost => Votes::Lost,
        // Both files are gone.
        Recorded::Nothing if log_end > 0 => Votes::Lost,
        Recorded::Nothing => Votes::Known,
        Recorded::Value(bytes) => match Persisted::from_bytes(&bytes) {
            Ok(kept) if kept.are_votes_lost => Votes::Unsure,
            _ => Votes::Known,
        },
    }
}

impl<R: Runtime> Replica<R> {
    /// Only these may belong to the group now.
    pub fn narrow(&self, members: &[ReplicaId]) {
        let actions = self.raft.borrow_mut().narrow(self.now_ms(), members);
        self.perform(actions, ReplicatedBatches::default());
    }

    /// The loss is made good: that survives a restart, and what was damaged is nobody's any more.
    pub(super) async fn regained(&self) -> Result<(), StorageError> {
        // First: nobody looks for it once the loss is forgotten.
        if let Err(error) = self.log.remove_damaged().await {
            tracing::warn!(
                partition = self.name, %error,
                "what was set aside of a damaged log cannot be removed; remove it by hand"
            );
        }
        self.keep(|kept| kept.is_lost = false).await?;
        tracing::info!(
            partition = self.name,
            "a replica whose log was lost has it again, and votes again"
        );
        Ok(())
    }
}
