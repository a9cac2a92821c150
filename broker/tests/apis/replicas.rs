//! ElectLeaders, AlterPartitionReassignments, ListPartitionReassignments, DescribeQuorum,
//! UnregisterBroker: asked of a cluster of one, where nothing can move.

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use vltava_protocol::messages::describe_quorum::{DescribeQuorumRequest, PartitionData, TopicData};
use vltava_protocol::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use vltava_protocol::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;
use vltava_protocol::messages::unregister_broker::UnregisterBrokerRequest;
use vltava_protocol::types::Str;

use crate::cluster::create;
use crate::talk::Talk;

/// No broker's number.
const NOBODY: i32 = 77;

/// Sends all of this file's.
pub fn ask(talk: &mut Talk) {
    create(talk, "kept", 1);
    elect_leaders(talk);
    reassign(talk);
    describe_quorum(talk);
    for version in talk.versions::<UnregisterBrokerRequest>() {
        let answer = talk.ask(version, &UnregisterBrokerRequest { broker_id: NOBODY });
        assert!(!answer.error_code.is_none());
    }
}

fn elect_leaders(talk: &mut Talk) {
    for version in talk.versions::<ElectLeadersRequest>() {
        let topic = TopicPartitions { topic: talk.str("kept"), partitions: vec![0, 7] };
        let request =
            ElectLeadersRequest { topic_partitions: Some(vec![topic]), ..Default::default() };
        let answer = talk.ask(version, &request);
        let told = |one: i32| {
            let all = answer.replica_election_results.iter().flat_map(|it| &it.partition_result);
            all.filter(|it| it.partition_id == one).map(|it| it.error_code).next()
        };
        assert_eq!(told(0), Some(ErrorCode::ELECTION_NOT_NEEDED));
        assert_eq!(told(7), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        if version > 0 {
            let answer = talk.ask(version, &ElectLeadersRequest { election_type: 7, ..request });
            let told = &answer.replica_election_results[0].partition_result;
            let said = told[0].error_message.as_ref().map(ToString::to_string);
            assert_eq!(answer.error_code, ErrorCode::INVALID_REQUEST);
            assert_eq!(told.len(), 2);
            assert_eq!(told[0].error_code, ErrorCode::INVALID_REQUEST);
            assert_eq!(said.as_deref(), Some("Unknown election type 7"));
        }
    }
}

fn reassign(talk: &mut Talk) {
    for version in talk.versions::<AlterPartitionReassignmentsRequest>() {
        let request = |name: Str, replicas: Option<Vec<i32>>| {
            let partition = ReassignablePartition { partition_index: 0, replicas };
            let partitions = vec![partition];
            let topics = vec![ReassignableTopic { name, partitions }];
            AlterPartitionReassignmentsRequest { topics, ..Default::default() }
        };
        for (replicas, error) in [
            (Some(vec![NOBODY]), ErrorCode::INVALID_REPLICA_ASSIGNMENT),
            (None, ErrorCode::NO_REASSIGNMENT_IN_PROGRESS),
        ] {
            let answer = talk.ask(version, &request(talk.str("kept"), replicas));
            assert_eq!(answer.responses[0].partitions[0].error_code, error);
        }
    }
    for version in talk.versions::<ListPartitionReassignmentsRequest>() {
        let answer = talk.ask(version, &ListPartitionReassignmentsRequest::default());
        assert_eq!((answer.error_code, answer.topics.len()), (ErrorCode::NONE, 0));
    }
}

fn describe_quorum(talk: &mut Talk) {
    for version in talk.versions::<DescribeQuorumRequest>() {
        let partitions = vec![PartitionData { partition_index: 0 }];
        let topic_name = Str::from_static("__cluster_metadata");
        let topics = vec![TopicData { topic_name, partitions }];
        let answer = talk.ask(version, &DescribeQuorumRequest { topics });
        let group = &answer.topics[0].partitions[0];
        assert_eq!(group.error_code, ErrorCode::NONE);
        assert_eq!((group.current_voters.len(), group.observers.len()), (1, 0));
        assert_eq!(group.current_voters[0].replica_id, group.leader_id);
    }
}
