//! ListPartitionReassignments (key 46): the moves of partitions that are under way (KIP-455).
//!
//! Ours: also a move that was cancelled is listed until it is taken back.
//!
//! Answered from this node's image.

use vltava_protocol::api::ApiKey;
use vltava_protocol::messages::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    OngoingPartitionReassignment, OngoingTopicReassignment,
};

use super::Reply;
use super::context::Context;
use crate::metadata::image::{Image, Partition, Replica, Topic};
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::LIST_PARTITION_REASSIGNMENTS;

/// Those asked for, or all.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: ListPartitionReassignmentsRequest,
) -> Reply<ListPartitionReassignmentsResponse> {
    Reply::Now(listed(&context.services.node.image(), &request))
}

fn listed(
    image: &Image,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let topics = match &request.topics {
        None => image.topics().filter_map(|topic| of_topic(topic, None)).collect(),
        Some(asked) => asked
            .iter()
            .filter_map(|asked| of_topic(image.topic(&asked.name)?, Some(&asked.partition_indexes)))
            .collect(),
    };
    ListPartitionReassignmentsResponse { topics, ..ListPartitionReassignmentsResponse::default() }
}

/// Of these partitions, or of all; `None` where there is none.
fn of_topic(topic: &Topic, asked: Option<&[i32]>) -> Option<OngoingTopicReassignment> {
    let is_asked = |index: &i32| asked.is_none_or(|asked| asked.contains(index));
    let partitions: Vec<_> = topic
        .indexed_partitions()
        .filter(|(index, partition)| partition.is_changing() && is_asked(index))
        .map(|(index, partition)| of_partition(index, partition))
        .collect();
    let name = topic.name.clone();
    (!partitions.is_empty()).then_some(OngoingTopicReassignment { name, partitions })
}

fn of_partition(index: i32, partition: &Partition) -> OngoingPartitionReassignment {
    let nodes = |replicas: &[Replica]| replicas.iter().map(|it| it.node_id).collect();
    OngoingPartitionReassignment {
        partition_index: index,
        replicas: partition.node_ids(),
        adding_replicas: nodes(&partition.adding),
        removing_replicas: nodes(&partition.removing),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use vltava_protocol::messages::list_partition_reassignments::ListPartitionReassignmentsTopics;
    use vltava_protocol::types::{Str, Uuid};

    use super::*;
    use crate::cluster::reassign::begin;
    use crate::metadata::image::{Cluster, PartitionId};
    use crate::metadata::records::Record;

    fn image() -> Image {
        let mut image = Image::default();
        let cluster = Cluster { id: Uuid(1), format_version: 1, features: <_>::default() };
        image.apply(Record::Cluster(cluster)).unwrap();
        let replicas = |nodes: &[i32]| -> Vec<Replica> {
            nodes.iter().map(|id| Replica { node_id: *id, disk_id: Uuid(8) }).collect()
        };
        for (topic, name) in [(2, "a"), (3, "b")] {
            image.apply(Record::Topic(Uuid(topic), Some(Str::from(name)))).unwrap();
            for index in 0..3 {
                let mut partition = Partition::new(replicas(&[1, 2]));
                if index == 1 {
                    partition = begin(&partition, replicas(&[2, 3])).unwrap();
                }
                let id = PartitionId { topic_id: Uuid(topic), index };
                image.apply(Record::Partition(id, partition)).unwrap();
            }
        }
        image
    }

    fn names(asked: Option<&[(&str, &[i32])]>) -> Vec<(String, Vec<i32>)> {
        let topic = |(name, indexes): &(&str, &[i32])| ListPartitionReassignmentsTopics {
            name: Str::from(*name),
            partition_indexes: indexes.to_vec(),
        };
        let request = ListPartitionReassignmentsRequest {
            topics: asked.map(|asked| asked.iter().map(topic).collect()),
            ..ListPartitionReassignmentsRequest::default()
        };
        let topics = listed(&image(), &request).topics.into_iter();
        let indexes = |topic: &OngoingTopicReassignment| {
            topic.partitions.iter().map(|partition| partition.partition_index).collect()
        };
        topics.map(|topic| (topic.name.to_string(), indexes(&topic))).collect()
    }

    #[test]
    fn what_is_under_way_is_listed() {
        let all = [("a".to_owned(), vec![1]), ("b".to_owned(), vec![1])];
        assert_eq!(names(None), all);
        assert_eq!(names(Some(&[("b", &[0, 1, 7]), ("c", &[0])])), all[1..]);
        assert_eq!(names(Some(&[("a", &[0, 2])])), []);
        let found = listed(&image(), &ListPartitionReassignmentsRequest::default());
        let expected = OngoingPartitionReassignment {
            partition_index: 1,
            replicas: vec![2, 3, 1],
            adding_replicas: vec![3],
            removing_replicas: vec![1],
        };
        assert_eq!(found.topics[0].partitions, [expected]);
    }
}
