//! A replica whose log was lost or damaged: it begins anew, empty, and has no say in elections
//! until it has again what its word may have helped to choose (`raft::follower`).

use vltava_storage::{ReplicatedBatches, StorageError};

use super::Replica;
use crate::raft::membership::ReplicaId;
use crate::runtime::Runtime;

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
