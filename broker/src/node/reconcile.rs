//! Makes the replicas of one shard match the image.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use vltava_storage::{Log, StorageError, remove_log};

use super::group_offsets;
use super::logs::open_or_create;
use super::options::{group_options, log_options, min_insync_replicas};
use super::view::Node;
use crate::config::topic_values::TopicConfig;
use crate::groups::{GroupMachine, Input};
use crate::metadata::image::{Image, PartitionId, Topic};
use crate::metadata::topic_name::CONSUMER_OFFSETS;
use crate::partition::error::PartitionError;
use crate::partition::replica::Replica;
use crate::runtime::{Queue, Runtime};

/// Logs that a shard opens, creates or removes side by side.
const SIDE_BY_SIDE: usize = 16;
/// How often a shard says how far it is.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

impl<R: Runtime> Node<R> {
    /// Takes a newer image: opens and creates what is new of this shard's partitions, removes what
    /// is gone, hands on changed settings. Returns when all that is done.
    pub(super) async fn apply(self: Rc<Self>, image: Arc<Image>) {
        let _reconciling = self.reconciling.lock().await;
        let before = self.image();
        let delta = image.changes_since(&before);
        let removed: Vec<_> = delta.removed_topics.iter().map(|topic| Arc::clone(topic)).collect();
        let mut added: Vec<(Arc<Topic>, i32)> = Vec::new();
        for topic in &delta.added_topics {
            added.extend(self.own_partitions(topic));
        }
        for change in &delta.changed_topics {
            added.extend(self.own_partitions(change.after));
            if change.has_other_settings() {
                self.set_options(change.after);
            }
        }
        for (topic, index) in &added {
            self.parts.partitions.opening(topic.partition_id(*index));
        }
        drop(delta);
        self.parts.logs.keep_notes_of_gone(|id| image.topic_by_id(id).is_some()).await;
        self.set_image(image);
        for topic in &removed {
            self.remove_topic(topic).await;
        }
        let opened: Vec<_> =
            added.iter().map(|(topic, index)| topic.partition_id(*index)).collect();
        self.open_all(added).await;
        if !opened.is_empty()
            && let Err(error) = self.parts.logs.write_notes().await
        {
            // Upkeep writes it; until then, a log that is lost is not missed at a start.
            tracing::warn!(%error, "it could not be noted which logs were made");
        }
        self.announce(opened).await;
        self.ready.set();
    }

    /// Opens or creates logs, side by side. Says how far it is where that takes long.
    async fn open_all(self: &Rc<Self>, added: Vec<(Arc<Topic>, i32)>) {
        let (runtime, logs) = (&self.parts.runtime, added.len());
        let (opened, told) = (Cell::new(0), Cell::new(runtime.now()));
        let open = async |(topic, index)| {
            self.open(topic, index).await;
            opened.set(opened.get() + 1);
            if runtime.now().since(told.get()) >= PROGRESS_PERIOD {
                told.set(runtime.now());
                let shard = self.parts.jobs.own();
                tracing::info!(shard, opened = opened.get(), logs, "opening logs");
            }
        };
        stream::iter(added).for_each_concurrent(SIDE_BY_SIDE, open).await;
    }

    /// The partitions of a topic that this shard owns and does not know yet.
    fn own_partitions(&self, topic: &Arc<Topic>) -> Vec<(Arc<Topic>, i32)> {
        let own = self.parts.jobs.own();
        let partitions = &self.parts.partitions;
        let indexes = topic.partition_indexes().filter(|index| {
            let id = topic.partition_id(*index);
            partitions.shard_of(id) == own && !partitions.knows(id)
        });
        indexes.map(|index| (Arc::clone(topic), index)).collect()
    }

    /// The settings in effect for a topic.
    pub fn topic_config(&self, topic: &Topic) -> TopicConfig {
        self.parts.config.topic_defaults.resolve(topic.own_settings())
    }

    fn set_options(&self, topic: &Topic) {
        let config = self.topic_config(topic);
        for id in topic.partition_ids() {
            if let Ok(replica) = self.parts.partitions.local(id) {
                let options = log_options(&config, &self.parts.config);
                replica.set_options(options, min_insync_replicas(&config));
            }
        }
    }

    async fn open(self: &Rc<Self>, topic: Arc<Topic>, index: i32) {
        let id = topic.partition_id(index);
        let name = format!("{}-{index}", topic.name);
        match self.open_log(&topic, &name).await {
            Ok(log) => {
                let min_insync_replicas = min_insync_replicas(&self.topic_config(&topic));
                let runtime = self.parts.runtime.clone();
                let replica = Replica::new(runtime, name, log, min_insync_replicas);
                if topic.name == CONSUMER_OFFSETS {
                    self.coordinate(id, &replica);
                }
                self.parts.partitions.ready(id, replica);
            }
            Err(error) => {
                let why = match PartitionError::from(error.clone()) {
                    passing if passing.is_passing() => {
                        tracing::warn!(
                            partition = name, %error,
                            "a log cannot be opened; it is tried again"
                        );
                        self.awaits_room.set(true);
                        passing
                    }
                    _ => {
                        tracing::error!(
                            partition = name, %error,
                            "a log cannot be opened; its partition answers KAFKA_STORAGE_ERROR \
                             (docs/operations.md, \"A damaged log\")"
                        );
                        PartitionError::Storage(error.to_string())
                    }
                };
                self.parts.partitions.broken(id, why);
            }
        }
    }

    /// Starts the group coordinator over one partition of the topic of offsets.
    fn coordinate(self: &Rc<Self>, id: PartitionId, replica: &Rc<Replica<R>>) {
        let parts = &self.parts;
        let options = group_options(&parts.config, parts.group_memory_bytes_max);
        let machine = GroupMachine::new(options, &parts.group_memory);
        let host = parts.groups.add(id, machine, Rc::clone(replica));
        let compare = group_offsets::compare_after_loads(Rc::clone(self), host);
        parts.runtime.spawn(Queue::Background, compare);
    }

    /// Opens, one after the other, the partitions that could not be opened for want of space or
    /// descriptors, until there is none again.
    pub(super) async fn open_where_room_was_missing(self: &Rc<Self>) {
        if !self.awaits_room.replace(false) {
            return;
        }
        let _reconciling = self.reconciling.lock().await;
        let image = self.image();
        let all = image
            .topics()
            .flat_map(|topic| topic.partition_indexes().map(move |index| (topic, index)));
        let mut opened = Vec::new();
        for (topic, index) in all {
            let id = topic.partition_id(index);
            let partition = self.parts.partitions.local(id);
            if !partition.is_err_and(|why| why.is_passing()) {
                continue;
            }
            self.open(Arc::clone(topic), index).await;
            if self.awaits_room.get() {
                break;
            }
            opened.push(id);
        }
        self.announce(opened).await;
    }

    /// Opens the log where it exists, creates it where not.
    async fn open_log(&self, topic: &Topic, name: &str) -> Result<Log<R::Disk>, StorageError> {
        let options = log_options(&self.topic_config(topic), &self.parts.config);
        let image = self.image();
        let is_known = |id| image.topic_by_id(id).is_some();
        open_or_create(&self.parts.logs, name, topic.id, options, is_known).await
    }

    async fn remove(&self, topic: &Topic, index: i32) {
        let id = topic.partition_id(index);
        self.forget_leader(id);
        self.parts.groups.remove(id);
        if !self.parts.partitions.knows(id) {
            return;
        }
        let name = format!("{}-{index}", topic.name);
        let removed = match self.parts.partitions.remove(id) {
            Some(replica) => replica.remove().await,
            // It could not be opened: whoever deletes the topic does not want it mended.
            None => {
                let removed = remove_log(&self.parts.logs, &name, topic.id).await;
                removed.map_err(PartitionError::from)
            }
        };
        if let Err(error) = removed {
            tracing::error!(
                partition = name, %error,
                "the log of a deleted partition cannot be removed; remove its directory by hand"
            );
        }
    }

    async fn remove_topic(&self, topic: &Arc<Topic>) {
        stream::iter(topic.partition_indexes())
            .for_each_concurrent(SIDE_BY_SIDE, |index| self.remove(topic, index))
            .await;
        // A topic of the same name may come: it must not inherit what groups have read of this one.
        self.parts
            .groups
            .tell_local(|| Input::TopicDeleted { name: topic.name.clone(), id: topic.id });
    }
}
