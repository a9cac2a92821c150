//! Requests about offsets: where a partition begins and ends, and where a group stands.

use std::collections::BTreeMap;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    OffsetFetchResponse,
};
use vltava_protocol::types::Str;

use crate::metadata::{Metadata, NodeId, TopicPartition};

/// Asks for the offset behind the last record.
pub const LATEST: i64 = -1;
/// Asks for the offset of the first record.
pub const EARLIEST: i64 = -2;

/// From this version on, several groups are asked about in one request.
const OFFSET_FETCH_GROUPS: i16 = 8;

/// Requests to the leaders for the offset at a timestamp (milliseconds since 1970), or at
/// [`LATEST`] or [`EARLIEST`]. Partitions without a leader are left out.
pub fn list_offsets(
    partitions: &[(TopicPartition, i64)],
    metadata: &Metadata,
) -> BTreeMap<NodeId, ListOffsetsRequest> {
    let mut requests: BTreeMap<NodeId, ListOffsetsRequest> = BTreeMap::new();
    for (partition, timestamp) in partitions {
        let Some((leader, leader_epoch)) = metadata.leader(partition) else {
            continue;
        };
        let request = requests.entry(leader).or_insert_with(|| ListOffsetsRequest {
            replica_id: -1,
            timeout_ms: 30_000,
            ..ListOffsetsRequest::default()
        });
        let wanted = ListOffsetsPartition {
            partition_index: partition.partition,
            current_leader_epoch: leader_epoch,
            timestamp: *timestamp,
        };
        match request.topics.iter_mut().find(|topic| topic.name == partition.topic) {
            Some(topic) => topic.partitions.push(wanted),
            None => request
                .topics
                .push(ListOffsetsTopic { name: partition.topic.clone(), partitions: vec![wanted] }),
        }
    }
    requests
}

/// What an answer says of each partition: an offset, -1 where there is no record at or behind the
/// timestamp.
pub fn listed(response: ListOffsetsResponse) -> Vec<(TopicPartition, Result<i64, ErrorCode>)> {
    let topics = response.topics.into_iter().flat_map(|topic| {
        let name = topic.name;
        topic.partitions.into_iter().map(move |found| {
            let partition =
                TopicPartition { topic: name.clone(), partition: found.partition_index };
            let code = found.error_code;
            (partition, if code.is_none() { Ok(found.offset) } else { Err(code) })
        })
    });
    topics.collect()
}

/// Commits offsets of a member, or (generation -1, no member id) of nobody.
pub fn commit(
    group: &Str,
    generation: i32,
    member_id: &Str,
    group_instance_id: Option<&Str>,
    offsets: &[(TopicPartition, i64)],
    metadata: &Metadata,
) -> OffsetCommitRequest {
    let mut request = OffsetCommitRequest {
        group_id: group.clone(),
        generation_id_or_member_epoch: generation,
        member_id: member_id.clone(),
        group_instance_id: group_instance_id.cloned(),
        ..OffsetCommitRequest::default()
    };
    for (partition, offset) in offsets {
        let committed = OffsetCommitRequestPartition {
            partition_index: partition.partition,
            committed_offset: *offset,
            committed_metadata: Some(Str::EMPTY),
            ..OffsetCommitRequestPartition::default()
        };
        match request.topics.iter_mut().find(|topic| topic.name == partition.topic) {
            Some(topic) => topic.partitions.push(committed),
            None => request.topics.push(OffsetCommitRequestTopic {
                name: partition.topic.clone(),
                topic_id: metadata.topic_id(&partition.topic),
                partitions: vec![committed],
            }),
        }
    }
    request
}

/// Asks where a group stands: in some partitions, or (`None`) wherever it has committed. In the
/// shape of `version`.
pub fn fetch_committed(
    version: i16,
    group: &Str,
    partitions: Option<&[TopicPartition]>,
    metadata: &Metadata,
) -> OffsetFetchRequest {
    let by_topic = partitions.map(|partitions| {
        let mut by_topic: BTreeMap<Str, Vec<i32>> = BTreeMap::new();
        for partition in partitions {
            by_topic.entry(partition.topic.clone()).or_default().push(partition.partition);
        }
        by_topic
    });
    if version < OFFSET_FETCH_GROUPS {
        let topics = by_topic.map(|topics| {
            let topics = topics.into_iter();
            topics
                .map(|(name, partition_indexes)| OffsetFetchRequestTopic {
                    name,
                    partition_indexes,
                })
                .collect()
        });
        return OffsetFetchRequest {
            group_id: group.clone(),
            topics,
            ..OffsetFetchRequest::default()
        };
    }
    let topics = by_topic.map(|topics| {
        let topics = topics.into_iter().map(|(name, partition_indexes)| OffsetFetchRequestTopics {
            topic_id: metadata.topic_id(&name),
            name,
            partition_indexes,
        });
        topics.collect()
    });
    OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.clone(),
            topics,
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    }
}

/// Where a group stands, from an answer of any version. Partitions without a commit are left out.
pub fn committed(
    response: OffsetFetchResponse,
    metadata: &Metadata,
) -> Result<BTreeMap<TopicPartition, i64>, ErrorCode> {
    if !response.error_code.is_none() {
        return Err(response.error_code);
    }
    let mut found = BTreeMap::new();
    let mut add = |topic: &Str, partition: i32, offset: i64, code: ErrorCode| {
        if !code.is_none() {
            return Err(code);
        }
        if offset >= 0 {
            found.insert(TopicPartition { topic: topic.clone(), partition }, offset);
        }
        Ok(())
    };
    for topic in response.topics {
        for at in topic.partitions {
            add(&topic.name, at.partition_index, at.committed_offset, at.error_code)?;
        }
    }
    for group in response.groups {
        if !group.error_code.is_none() {
            return Err(group.error_code);
        }
        for topic in group.topics {
            let Some(name) = metadata.name_of(&topic.name, topic.topic_id) else {
                continue;
            };
            for at in topic.partitions {
                add(&name, at.partition_index, at.committed_offset, at.error_code)?;
            }
        }
    }
    Ok(found)
}
