//! An image as the records that make it, in pieces: what a log must hold for a replay to give it
//! again.

use std::sync::Arc;

use vltava_protocol::records::metadata::Key;
use vltava_protocol::types::Uuid;

use super::image::{Image, Node, PartitionId};
use super::records::{Record, TOPIC_RESOURCE};

type Records<'a> = Box<dyn Iterator<Item = Record> + 'a>;

/// Kinds of records, in the order in which an image takes them: topics before what belongs to them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Cluster,
    Nodes,
    ProducerIds,
    Topics,
    Partitions,
    TopicSettings,
    OtherSettings,
}

const STAGES: [Stage; 7] = [
    Stage::Cluster,
    Stage::Nodes,
    Stage::ProducerIds,
    Stage::Topics,
    Stage::Partitions,
    Stage::TopicSettings,
    Stage::OtherSettings,
];

fn stage_of(key: &Key) -> Stage {
    match key {
        Key::Cluster(_) => Stage::Cluster,
        Key::Node(_) => Stage::Nodes,
        Key::ProducerIds(_) => Stage::ProducerIds,
        Key::Topic(_) => Stage::Topics,
        Key::Partition(_) => Stage::Partitions,
        Key::Config(key) if key.resource_type == TOPIC_RESOURCE => Stage::TopicSettings,
        Key::Config(_) => Stage::OtherSettings,
    }
}

impl Image {
    /// The records that make this image from nothing, in an order that [`Image::apply`] takes:
    /// those behind the record with key `after`, at most `records_max`. Empty at the end.
    ///
    /// The image may change between two pieces, as long as each piece stands in the log before the
    /// records that come after it and behind those that made the image it is from.
    pub fn to_records(&self, after: Option<&Key>, records_max: usize) -> Vec<Record> {
        let first = after.map_or(Stage::Cluster, stage_of);
        let stages = STAGES.into_iter().filter(|stage| *stage >= first);
        let records =
            stages.flat_map(|stage| self.records_of(stage, after.filter(|_| stage == first)));
        records.take(records_max).collect()
    }

    fn records_of<'a>(&'a self, stage: Stage, after: Option<&'a Key>) -> Records<'a> {
        match (stage, after) {
            (Stage::Cluster, None) => Box::new(self.cluster.iter().cloned().map(Record::Cluster)),
            (Stage::ProducerIds, None) => {
                let given = Some(self.next_producer_id).filter(|next| *next > 0);
                Box::new(given.into_iter().map(Record::ProducerIds))
            }
            (Stage::Cluster | Stage::ProducerIds, Some(_)) => Box::new(std::iter::empty()),
            (Stage::Nodes, after) => self.node_records(after),
            (Stage::Topics, after) => self.topic_records(after),
            (Stage::Partitions, after) => self.partition_records(after),
            (Stage::TopicSettings, after) => self.topic_settings_records(after),
            (Stage::OtherSettings, after) => self.other_settings_records(after),
        }
    }

    fn node_records(&self, after: Option<&Key>) -> Records<'_> {
        let after = match after {
            Some(Key::Node(key)) => Some(key.node_id),
            _ => None,
        };
        let left =
            self.nodes.values().filter(move |node| after.is_none_or(|after| node.id > after));
        Box::new(left.map(|node| Record::Node(node.id, Some(Node::clone(node)))))
    }

    fn topic_records(&self, after: Option<&Key>) -> Records<'_> {
        let from = match after {
            Some(Key::Topic(key)) => key.topic_id,
            _ => Uuid::ZERO,
        };
        let is_after = after.is_some();
        let left =
            self.topic_names.iter_from(&from).filter(move |(id, _)| !is_after || **id > from);
        Box::new(left.map(|(id, name)| Record::Topic(*id, Some(name.clone()))))
    }

    fn partition_records(&self, after: Option<&Key>) -> Records<'_> {
        let after = match after {
            Some(Key::Partition(key)) => {
                Some(PartitionId { topic_id: key.topic_id, index: key.partition })
            }
            _ => None,
        };
        let from = after.map_or(Uuid::ZERO, |after| after.topic_id);
        let topics = self.topic_names.iter_from(&from).filter_map(|(_, name)| self.topic(name));
        Box::new(topics.flat_map(move |topic| {
            let partitions = topic
                .indexed_partitions()
                .map(|(index, partition)| (PartitionId { topic_id: topic.id, index }, partition));
            partitions
                .filter(move |(id, _)| after.is_none_or(|after| *id > after))
                .map(|(id, partition)| Record::Partition(id, partition.clone()))
        }))
    }

    fn topic_settings_records(&self, after: Option<&Key>) -> Records<'_> {
        let after = match after {
            Some(Key::Config(key)) => Some(key.resource_name.clone()),
            _ => None,
        };
        let topics = self.topics_from(after.as_deref().unwrap_or_default());
        let left = topics
            .filter(move |topic| after.as_ref() != Some(&topic.name) && !topic.settings.is_empty());
        Box::new(left.map(|topic| {
            Record::Settings((TOPIC_RESOURCE, topic.name.clone()), Arc::clone(&topic.settings))
        }))
    }

    fn other_settings_records(&self, after: Option<&Key>) -> Records<'_> {
        let after = match after {
            Some(Key::Config(key)) => Some((key.resource_type, key.resource_name.clone())),
            _ => None,
        };
        let left = self
            .settings
            .iter()
            .filter(move |(resource, _)| after.as_ref().is_none_or(|after| *resource > after));
        Box::new(
            left.map(|(resource, settings)| {
                Record::Settings(resource.clone(), Arc::clone(settings))
            }),
        )
    }
}
