//! Replicas that this node is to keep no more.
//!
//! A log is removed only when its partition's record names this node no more, and that is the
//! newest there is: a node that was away for a while sees old records first, and its replica may
//! have been taken in again since. So the replica leaves its group, then the controller is asked,
//! and what it has decided by then is looked at; whoever is named again comes back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use vltava_storage::{partition_directories, remove_log, topic_id_of};

use super::view::Node;
use crate::cluster::controller::Input;
use crate::metadata::features::FIRST;
use crate::metadata::image::{Partition, PartitionId, Topic};
use crate::partition::error::PartitionError;
use crate::partition::kept;
use crate::partition::replica::Replica;
use crate::runtime::{Queue, Runtime};

/// How long to wait before the controller is asked again.
const ASK_PERIOD: Duration = Duration::from_secs(1);

impl<R: Runtime> Node<R> {
    /// Parts with the replicas of this shard that the topic's partitions name no more.
    pub(super) fn part_with_unnamed(self: &Rc<Self>, topic: &Arc<Topic>) {
        for (index, partition) in topic.indexed_partitions() {
            let id = topic.partition_id(index);
            if !self.is_named(partition) && self.parts.partitions.knows(id) {
                self.part_with(Arc::clone(topic), index);
            }
        }
    }

    fn part_with(self: &Rc<Self>, topic: Arc<Topic>, index: i32) {
        let id = topic.partition_id(index);
        if self.parting.borrow().contains_key(&id) {
            return;
        }
        self.parts.groups.remove(id);
        let replica = self.parts.partitions.remove(id);
        self.parting.borrow_mut().insert(id, replica);
        let node = Rc::clone(self);
        self.parts.runtime.spawn(Queue::Control, async move { node.part(topic, index).await });
    }

    async fn part(self: Rc<Self>, topic: Arc<Topic>, index: i32) {
        let id = topic.partition_id(index);
        let replica = self.parting.borrow().get(&id).cloned().flatten();
        if let Some(replica) = &replica {
            replica.leave_group().await;
        }
        self.hear_of_all().await;
        let _reconciling = self.reconciling.lock().await;
        if !self.parting.borrow().contains_key(&id) {
            // The topic was deleted, and the replica with it.
            return;
        }
        let Some((topic, partition)) = self.partition_now(id) else {
            return;
        };
        if self.is_named(&partition) {
            if let Some(replica) = &replica
                && let Err(error) = replica.close().await
            {
                tracing::warn!(partition = replica.name(), %error, "a log was not closed in order");
            }
            self.parting.borrow_mut().remove(&id);
            self.parts.partitions.opening(id);
            self.reopened.borrow_mut().insert(id);
            self.open(topic, index).await;
            return self.announce(vec![id]).await;
        }
        let removed = self.give_away(&topic, index, &partition, replica).await;
        self.parting.borrow_mut().remove(&id);
        let (topic, nodes) = (&topic.name, partition.node_ids());
        match removed {
            Ok(()) => tracing::info!(%topic, index, ?nodes, "a replica is gone from this node"),
            Err(error) => tracing::error!(
                %topic, index, %error,
                "the log of a replica that is kept elsewhere now cannot be removed; it is tried \
                 again at the next start"
            ),
        }
    }

    async fn give_away(
        &self,
        topic: &Topic,
        index: i32,
        partition: &Partition,
        replica: Option<Rc<Replica<R>>>,
    ) -> Result<(), PartitionError> {
        let members = self.membership(partition.replicas.iter());
        if let Some(replica) = replica {
            return replica.give_away(members).await;
        }
        if let Some(near) = self.surroundings() {
            kept::give_away(&near, topic.partition_id(index), members).await?;
        }
        Ok(remove_log(&self.parts.logs, &topic.log_name(index), topic.id).await?)
    }

    /// Returns when this node's image holds all that the controller had decided when this was
    /// called.
    async fn hear_of_all(self: &Rc<Self>) {
        let runtime = &self.parts.runtime;
        loop {
            let cluster_id = self.image().cluster().map(|cluster| cluster.id);
            // It has formed long ago: this changes nothing.
            if let Some(cluster_id) = cluster_id
                && self.ask_controller(Input::Form { cluster_id, level: FIRST }).await.is_ok()
            {
                return;
            }
            runtime.sleep(ASK_PERIOD).await;
        }
    }

    /// After a start: parts with the replicas whose logs are here, and that partitions ceased to
    /// name while this node was away.
    pub async fn part_with_left_over(self: Rc<Self>) {
        if self.parts.peers.is_none() {
            return;
        }
        self.ready.wait().await;
        self.hear_of_all().await;
        let directories = match partition_directories(self.parts.runtime.disk()).await {
            Ok(directories) => directories,
            Err(error) => return tracing::warn!(%error, "the data directory cannot be listed"),
        };
        for name in directories {
            if let Some((topic, index)) = self.left_over(&name).await {
                let id = topic.partition_id(index);
                if let Ok(replica) = self.open_replica(&topic, index).await {
                    self.parts.partitions.ready(id, replica);
                } else {
                    let why = PartitionError::Storage("it is to be removed".to_owned());
                    self.parts.partitions.broken(id, why);
                }
                self.part_with(topic, index);
            }
        }
    }

    /// The partition of a directory, where it is this shard's and does not name this node.
    async fn left_over(&self, directory: &str) -> Option<(Arc<Topic>, i32)> {
        let (topic, index) = directory.rsplit_once('-')?;
        let index: i32 = index.parse().ok()?;
        let topic = Arc::clone(self.image().topic(topic)?);
        let id: PartitionId = topic.partition_id(index);
        let is_here = || {
            let partitions = &self.parts.partitions;
            partitions.knows(id) || self.parting.borrow().contains_key(&id)
        };
        let is_own = self.parts.partitions.shard_of(id) == self.parts.jobs.own();
        if self.is_named(topic.partition(index)?) || !is_own || is_here() {
            return None;
        }
        let found = topic_id_of(&self.parts.logs, directory).await;
        let is_its = found.is_ok_and(|found| found == Some(topic.id));
        (is_its && !is_here()).then_some((topic, index))
    }
}
