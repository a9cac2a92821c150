//! A log that is damaged or gone, of a partition that other nodes keep, too: it is begun anew, and
//! filled from them.

use vltava_storage::{Log, LogOptions, StorageError};

use super::options::log_options;
use super::view::Node;
use crate::metadata::image::{PartitionId, Replica as ImageReplica, Topic};
use crate::partition::kept::{self, Votes};
use crate::runtime::Runtime;

impl<R: Runtime> Node<R> {
    /// An empty log in place of the one that could not be opened, where that was damaged or is gone
    /// and the group remembers what it voted; its replica has no say before it has caught up.
    ///
    /// # Errors
    /// The error, where it is another, or its log must not be begun anew, or not before a restart;
    /// or what the disk says.
    pub(super) async fn begin_anew(
        &self,
        id: PartitionId,
        name: &str,
        options: LogOptions,
        error: StorageError,
    ) -> Result<Log<R::Disk>, StorageError> {
        let is_lost = matches!(error, StorageError::Corrupt(_) | StorageError::Missing { .. });
        // Whoever leads forgets what a replica has told it where a session begins. What this one
        // has told in the sessions that its node has may be on its way there still.
        let may_be = is_lost && !self.reopened.borrow().contains(&id);
        let Some(surroundings) = self.surroundings().filter(|_| may_be) else {
            return Err(error);
        };
        if !kept::note_lost(&surroundings, id).await? {
            return Err(error);
        }
        tracing::error!(
            partition = name, %error,
            "a log is damaged or gone: it is set aside, and taken anew from the other replicas"
        );
        Log::replace(&self.parts.logs, name, id.topic_id, options).await
    }

    /// The log of a partition, where what was kept of its group beside it is there; where that is
    /// lost, and others have what the log holds, an empty one.
    pub(super) async fn with_votes(
        &self,
        topic: &Topic,
        index: i32,
        log: Log<R::Disk>,
    ) -> Result<Log<R::Disk>, StorageError> {
        let own = self.parts.config.node_id;
        let known = topic.partition(index).zip(self.surroundings());
        let Some((partition, surroundings)) = known else { return Ok(log) };
        let founders = self.membership(partition.founders().iter());
        let began_alone = founders.is_alone(&surroundings.own);
        // Who began alone notes nothing before others come; those that go may never have come.
        let has_all = |it: &&ImageReplica| {
            let goes = began_alone && partition.removing.contains(it);
            it.node_id != own && !partition.adding.contains(it) && !goes
        };
        let id = topic.partition_id(index);
        let may_be_new = log.end() == 0 && !began_alone;
        let is_kept = partition.replicas.iter().find(has_all).is_none()
            || kept::votes(&surroundings, id, may_be_new) != Votes::Lost;
        if is_kept {
            return Ok(log);
        }
        let name = topic.log_name(index);
        tracing::error!(
            partition = name,
            "what this replica voted is lost: its log is set aside, and taken anew from the other \
             replicas once all of them are there; it has no vote before that"
        );
        log.close().await?;
        kept::note_votes_lost(&surroundings, id, founders).await?;
        let options = log_options(&self.topic_config(topic), &self.parts.config);
        Log::replace(&self.parts.logs, &name, topic.id, options).await
    }
}
