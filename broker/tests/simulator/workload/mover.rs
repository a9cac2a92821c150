//! An administrator who moves replicas: from some nodes to others, and back before that is done.

use std::rc::Rc;

use vltava::runtime::sim::MILLION;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use vltava_protocol::types::Str;

use super::{RETRY, Workload};
use crate::client::{CallError, Client};
use crate::cluster::Cluster;
use crate::promise;

/// Moves replicas until the run is to end.
pub async fn shift(workload: &Workload, mut client: Client) {
    while !workload.is_finishing() {
        if move_one(workload, &mut client).await.is_err() {
            client.pause(RETRY).await;
        }
        client.pause(workload.swarm.think_max * 40).await;
    }
}

/// Asks for other replicas of a partition, or cancels what was asked.
async fn move_one(workload: &Workload, client: &mut Client) -> Result<(), CallError> {
    let topic = &workload.topics[client.random.index(workload.topics.len())];
    let index = client.random.index(topic.partitions.unsigned_abs() as usize);
    let index = i32::try_from(index).unwrap_or(0);
    let cancels = client.random.chance(MILLION / 4);
    let replicas = (!cancels).then(|| {
        let mut nodes: Vec<i32> = workload.cluster.nodes().map(Cluster::id).collect();
        let wanted = usize::try_from(topic.replication).unwrap_or(1);
        let chosen = (0..wanted).map(|_| nodes.swap_remove(client.random.index(nodes.len())));
        chosen.collect()
    });
    workload.checkers.replicas.borrow_mut().may_move(topic.id.get(), index);
    let executor = workload.simulation.executor();
    executor.note(&format!("{}: {}-{index} to {replicas:?}", client.name, topic.name));
    let request = AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: Str::from(&*topic.name),
            partitions: vec![ReassignablePartition { partition_index: index, replicas }],
        }],
        ..AlterPartitionReassignmentsRequest::default()
    };
    let answer = client.call(0, |_| request).await?;
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let told = partitions.map(|told| told.error_code).chain([answer.error_code]);
    for error in told {
        // A node that comes may not have registered yet, and one that goes may be gone.
        let is_of_comers = error == ErrorCode::INVALID_REPLICA_ASSIGNMENT;
        promise!(
            error.is_none()
                || error.is_retriable()
                || is_of_comers && workload.swarm.shape.comers > 0
                || cancels && error == ErrorCode::NO_REASSIGNMENT_IN_PROGRESS,
            "AlterPartitionReassignments of {}-{index}: {}",
            Rc::clone(&topic.name),
            error.name()
        );
    }
    Ok(())
}
