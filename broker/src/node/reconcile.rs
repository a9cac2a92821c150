//! Makes the replicas of one shard match the image.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use vltava_storage::{Log, StorageError, remove_damaged, remove_log};

use super::group_offsets;
use super::logs::open_or_create;
use super::options::{group_options, log_options, min_insync_replicas, throttled};
use super::view::Node;
use crate::cluster::dynamic_settings::topic_defaults;
use crate::config::topic_values::TopicConfig;
use crate::groups::{GroupMachine, Input};
use crate::metadata::delta::Delta;
use crate::metadata::image::{Image, Partition, PartitionId, Replica as ImageReplica, Topic};
use crate::metadata::topic_name::CONSUMER_OFFSETS;
use crate::partition::error::PartitionError;
use crate::partition::kept::{Promised, promised};
use crate::partition::replica::{GroupPlace, Replica};
use crate::raft::membership::{Membership, ReplicaId};
use crate::runtime::{Queue, Runtime};

/// Logs that a shard opens, creates or removes side by side.
const SIDE_BY_SIDE: usize = 16;
/// How often a shard says how far it is.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

/// What an image that was taken leaves to be done.
#[derive(Default)]
pub(super) struct Taken {
    /// Partitions of this shard that are to be opened.
    added: Vec<(Arc<Topic>, i32)>,
    changed: Vec<Arc<Topic>>,
}

impl<R: Runtime> Node<R> {
    /// Takes a newer image: removes what is gone of this shard's partitions, hands on changed
    /// settings. What is new is opened by [`Node::open_taken`], which is to be called once this is
    /// done on all shards: a topic that was deleted and made again within one image has the same
    /// directories, and others' at that.
    pub(super) async fn take(self: Rc<Self>, image: Arc<Image>) {
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
        }
        let altered = self.with_other_settings(&before, &image, &delta);
        let changed: Vec<_> =
            delta.changed_topics.iter().map(|change| Arc::clone(change.after)).collect();
        for (topic, index) in &added {
            self.parts.partitions.opening(topic.partition_id(*index));
        }
        drop(delta);
        self.parts.logs.keep_notes_of_gone(|id| image.topic_by_id(id).is_some()).await;
        self.set_image(image);
        for topic in &altered {
            self.set_options(topic);
        }
        for topic in &removed {
            self.remove_topic(topic).await;
        }
        *self.taken.borrow_mut() = Taken { added, changed };
    }

    /// Topics that stay, and whose settings are others now, their own or defaults.
    fn with_other_settings(
        &self,
        before: &Image,
        image: &Image,
        delta: &Delta<'_>,
    ) -> Vec<Arc<Topic>> {
        let own = self.node_id();
        if topic_defaults(before, own) != topic_defaults(image, own) {
            return image.topics().cloned().collect();
        }
        let altered = delta.changed_topics.iter().filter(|change| change.has_other_settings());
        altered.map(|change| Arc::clone(change.after)).collect()
    }

    /// Opens and creates what is new of this shard's partitions in the image that was taken last.
    /// Returns when that is done.
    pub(super) async fn open_taken(self: Rc<Self>) {
        let _reconciling = self.reconciling.lock().await;
        let Taken { added, changed } = self.taken.take();
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
        for topic in &changed {
            self.rank_replicas(topic);
            self.part_with_unnamed(topic);
            self.hear_of_named(topic);
            self.lead_changes(topic);
        }
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
        let indexes = topic.indexed_partitions().filter(|(index, partition)| {
            let id = topic.partition_id(*index);
            // Who parts with one opens it again itself.
            let is_known = partitions.knows(id) || self.parting.borrow().contains_key(&id);
            self.is_named(partition) && partitions.shard_of(id) == own && !is_known
        });
        let indexes = indexes.map(|(index, _)| index);
        indexes.map(|index| (Arc::clone(topic), index)).collect()
    }

    /// Whether this node is to keep a replica of a partition.
    pub(super) fn is_named(&self, partition: &Partition) -> bool {
        partition.is_on(self.parts.config.node_id)
    }

    /// The settings in effect for a topic.
    pub fn topic_config(&self, topic: &Topic) -> TopicConfig {
        let image = self.image();
        let defaults = topic_defaults(&image, self.node_id());
        let settings = defaults.into_iter().chain(topic.own_settings());
        self.parts.config.topic_defaults.resolve(settings)
    }

    pub(super) fn set_options(&self, topic: &Topic) {
        let config = self.topic_config(topic);
        for id in topic.partition_ids() {
            if let Ok(replica) = self.parts.partitions.local(id) {
                let options = log_options(&config, &self.parts.config);
                replica.set_options(options, min_insync_replicas(&config));
                replica.set_throttled(throttled(topic, id.index));
            }
        }
    }

    pub(super) async fn open(self: &Rc<Self>, topic: Arc<Topic>, index: i32) {
        let opened = self.open_replica(&topic, index).await;
        self.begin_to_serve(&topic, index, opened);
    }

    /// From this call on the partition is served, or answers why it is not.
    pub(super) fn begin_to_serve(
        self: &Rc<Self>,
        topic: &Topic,
        index: i32,
        opened: Result<Rc<Replica<R>>, PartitionError>,
    ) {
        let (id, name) = (topic.partition_id(index), topic.log_name(index));
        match opened {
            Ok(replica) => {
                replica.set_throttled(throttled(topic, index));
                self.begin_to_coordinate(topic, id, &replica);
                self.parts.partitions.ready(id, Rc::clone(&replica));
                if self.surroundings().is_some() {
                    let announcing = Rc::clone(self).announce_changes(id, replica);
                    self.parts.runtime.spawn(Queue::Control, announcing);
                }
            }
            Err(error) => {
                let why = match error.clone() {
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

    /// One replica of a partition, in its group.
    pub(super) async fn open_replica(
        &self,
        topic: &Topic,
        index: i32,
    ) -> Result<Rc<Replica<R>>, PartitionError> {
        self.expect_no_log(topic, index).await;
        let log = self.open_log(topic, index).await?;
        let log = self.with_votes(topic, index, log).await?;
        self.take_place(topic, index, log).await
    }

    /// The replica over an open log.
    pub(super) async fn take_place(
        &self,
        topic: &Topic,
        index: i32,
        log: Log<R::Disk>,
    ) -> Result<Rc<Replica<R>>, PartitionError> {
        let min_insync_replicas = min_insync_replicas(&self.topic_config(topic));
        let (runtime, name) = (self.parts.runtime.clone(), topic.log_name(index));
        let Some(surroundings) = self.surroundings() else {
            return Ok(Replica::alone(runtime, name, log, min_insync_replicas));
        };
        let partition = topic.partition(index);
        let founders = partition.map_or(&[][..], Partition::founders);
        let replicas = partition.map_or(&[][..], |partition| &partition.replicas);
        let place = GroupPlace {
            partition: topic.partition_id(index),
            founders: self.membership(founders.iter()),
            replicas: self.membership(replicas.iter()).ids().collect(),
            rank: partition.map_or(0, |partition| self.rank(partition)),
            named: partition.and_then(|partition| self.named(partition)),
            surroundings,
        };
        Replica::join(runtime, name, log, min_insync_replicas, place).await
    }

    /// How many of a partition's replicas should rather lead it than this node's: those named
    /// before it.
    fn rank(&self, partition: &Partition) -> u32 {
        let is_other = |replica: &&ImageReplica| replica.node_id != self.parts.config.node_id;
        u32::try_from(partition.target().take_while(is_other).count()).unwrap_or(u32::MAX)
    }

    /// Other replicas may come first now.
    fn rank_replicas(&self, topic: &Topic) {
        for (index, partition) in topic.indexed_partitions() {
            if let Ok(replica) = self.parts.partitions.local(topic.partition_id(index)) {
                replica.set_rank(self.rank(partition));
            }
        }
    }

    /// A group of these replicas.
    pub(super) fn membership<'a>(
        &self,
        replicas: impl Iterator<Item = &'a ImageReplica>,
    ) -> Membership {
        let own = self.surroundings().map(|near| near.own);
        let ids = replicas.map(|replica| {
            // Before there were clusters, records named no disk.
            let own = own.filter(|own| own.node == replica.node_id && replica.disk_id.is_zero());
            let disk = own.map_or(replica.disk_id, |own| own.disk);
            ReplicaId { node: replica.node_id, disk }
        });
        Membership::new(ids, [])
    }

    /// A replica that comes has no log yet, whatever was made here before: that was given away.
    async fn expect_no_log(&self, topic: &Topic, index: i32) {
        let Some(near) = self.surroundings() else { return };
        let may_be_first = topic.partition(index).is_none_or(|partition| {
            let founders = self.membership(partition.founders().iter());
            partition.founders.is_none() || founders.is_alone(&near.own)
        });
        match promised(&near, topic.partition_id(index)) {
            Promised::Nothing if !may_be_first => {}
            Promised::GivenAway => {}
            _ => return,
        }
        self.parts.logs.given_away(&topic.log_name(index), topic.id).await;
    }

    /// Starts the group coordinator over a partition of the topic of offsets.
    pub(super) fn begin_to_coordinate(
        self: &Rc<Self>,
        topic: &Topic,
        id: PartitionId,
        replica: &Rc<Replica<R>>,
    ) {
        if topic.name != CONSUMER_OFFSETS {
            return;
        }
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

    /// Opens the log where it exists, creates it where not; and begins it anew where it is lost,
    /// and others have what it held.
    pub(super) async fn open_log(
        &self,
        topic: &Topic,
        index: i32,
    ) -> Result<Log<R::Disk>, StorageError> {
        let name = topic.log_name(index);
        let options = log_options(&self.topic_config(topic), &self.parts.config);
        let image = self.image();
        let is_known = |id| image.topic_by_id(id).is_some();
        let opened =
            open_or_create(&self.parts.logs, &name, topic.id, options.clone(), is_known).await;
        let others = topic.partition(index).map_or(0, |partition| partition.replicas.len()) > 1;
        match opened {
            Err(error) if others => {
                self.begin_anew(topic.partition_id(index), &name, options, error).await
            }
            opened => opened,
        }
    }

    async fn remove(&self, topic: &Topic, index: i32) {
        let id = topic.partition_id(index);
        self.forget_leader(id);
        self.reopened.borrow_mut().remove(&id);
        self.parts.groups.remove(id);
        let parting = self.parting.borrow_mut().remove(&id);
        if !self.parts.partitions.knows(id) && parting.is_none() {
            return;
        }
        let name = topic.log_name(index);
        let replica = self.parts.partitions.remove(id).or(parting.flatten());
        let removed = match replica {
            Some(replica) => replica.forget().await,
            // It could not be opened: whoever deletes the topic does not want it mended.
            None => {
                let removed = remove_log(&self.parts.logs, &name, topic.id).await;
                removed.map_err(PartitionError::from)
            }
        };
        let aside = remove_damaged(&self.parts.logs, &name, topic.id).await;
        let removed = removed.and(aside.map_err(PartitionError::from));
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
