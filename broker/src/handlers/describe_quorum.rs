//! DescribeQuorum (key 55): who votes on the cluster's metadata, and how far each is (KIP-595).
//!
//! Versions: 1 when each was last there and caught up (KIP-836), 2 endpoints, disks, error messages
//! (KIP-853).
//!
//! Ours: any node can be asked, and asks the leader of group 0; nodes do not fetch from it, so
//! "last fetch" is when the leader last saw the node, looked at each second. A voter's endpoints
//! are those for clients: there is no controller listener.

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, ResponsePartitionData, ResponseTopicData,
};
use vltava_protocol::types::{Str, Uuid};

use super::Reply;
use super::context::Context;
use crate::metadata::image::PartitionId;
use crate::metadata::topic_name::CLUSTER_METADATA;
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::DESCRIBE_QUORUM;

/// The first version with endpoints and disks.
const DISKS_FROM: i16 = 2;

/// Describes group 0; no other partition has a quorum that clients see.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: DescribeQuorumRequest,
) -> Reply<DescribeQuorumResponse> {
    if let Some(refused) = refused(&request) {
        return Reply::Now(refused);
    }
    let described = context.services.node.describe_quorum().await;
    let mut described = described.unwrap_or_else(|error_code| DescribeQuorumResponse {
        error_code,
        error_message: Some(Str::from_static(error_code.message())),
        ..DescribeQuorumResponse::default()
    });
    if context.api_version < DISKS_FROM {
        leave_out_disks(&mut described);
    }
    Reply::Now(described)
}

/// Earlier versions have no field for disks and endpoints.
fn leave_out_disks(described: &mut DescribeQuorumResponse) {
    described.nodes.clear();
    let groups = described.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for group in groups {
        for replica in group.current_voters.iter_mut().chain(&mut group.observers) {
            replica.replica_directory_id = Uuid::ZERO;
        }
    }
}

/// As Kafka: one other partition, and nothing is described.
fn refused(request: &DescribeQuorumRequest) -> Option<DescribeQuorumResponse> {
    let mut asked = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (&topic.topic_name, partition.partition_index))
    });
    let is_group_0 = |(topic, index): (&Str, i32)| {
        *topic == CLUSTER_METADATA && index == PartitionId::CLUSTER_METADATA.index
    };
    if asked.next().is_some_and(is_group_0) && asked.next().is_none() {
        return None;
    }
    let error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    let topics = request.topics.iter().map(|topic| ResponseTopicData {
        topic_name: topic.topic_name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| ResponsePartitionData {
                partition_index: partition.partition_index,
                error_code,
                error_message: Some(Str::from_static(error_code.message())),
                ..ResponsePartitionData::default()
            })
            .collect(),
    });
    Some(DescribeQuorumResponse { topics: topics.collect(), ..DescribeQuorumResponse::default() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use vltava_protocol::messages::describe_quorum::{PartitionData, TopicData};

    use super::*;

    fn asked(topics: &[(&str, &[i32])]) -> DescribeQuorumRequest {
        let topic = |(name, partitions): &(&str, &[i32])| TopicData {
            topic_name: Str::from(*name),
            partitions: partitions.iter().map(|i| PartitionData { partition_index: *i }).collect(),
        };
        DescribeQuorumRequest { topics: topics.iter().map(topic).collect() }
    }

    #[test]
    fn only_group_0_is_described() {
        assert_eq!(refused(&asked(&[(CLUSTER_METADATA, &[0])])), None);
        for other in [
            &[(CLUSTER_METADATA, &[1][..])][..],
            &[(CLUSTER_METADATA, &[0, 0])],
            &[("t", &[0])],
            &[(CLUSTER_METADATA, &[0]), ("t", &[0])],
        ] {
            let answer = refused(&asked(other)).unwrap();
            assert_eq!(answer.topics.len(), other.len());
            let error = answer.topics[0].partitions[0].error_code;
            assert_eq!(error, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        }
        assert_eq!(refused(&asked(&[])), Some(DescribeQuorumResponse::default()));
    }
}
