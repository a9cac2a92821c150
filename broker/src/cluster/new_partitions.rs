//! Where new partitions go, of topics new or old: where the client wants them, or where we choose.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_topics::CreatableReplicaAssignment;
use vltava_protocol::types::Uuid;

use super::controller::PARTITIONS_MAX;
use super::placement::{self, Candidate};
use super::refusal::Refusal;
use crate::metadata::image::{Image, Node, NodeState, Partition, PartitionId, Replica};
use crate::metadata::records::Record;

/// The nodes that are there, where that is known; else all are.
pub(super) type Present<'a> = Option<&'a BTreeSet<i32>>;

/// The client's own choice, for partitions 0 and on.
pub(super) fn assigned(
    image: &Image,
    present: Present<'_>,
    assignments: &[CreatableReplicaAssignment],
) -> Result<Vec<Vec<i32>>, Refusal> {
    let mut by_index: BTreeMap<i32, &Vec<i32>> = BTreeMap::new();
    let mut replication_factor = None;
    for CreatableReplicaAssignment { partition_index, broker_ids } in assignments {
        if by_index.contains_key(partition_index) {
            return Err(Refusal::invalid_assignment(format!(
                "Found multiple manual partition assignments for partition {partition_index}"
            )));
        }
        check_assignment(image, broker_ids, &[], replication_factor)?;
        check_there(image, present, *partition_index, broker_ids)?;
        replication_factor = Some(broker_ids.len());
        by_index.insert(*partition_index, broker_ids);
    }
    if !by_index.keys().copied().eq((0..).take(by_index.len())) {
        let message = "partitions should be a consecutive 0-based integer sequence";
        return Err(Refusal::invalid_assignment(message));
    }
    Ok(by_index.into_values().cloned().collect())
}

/// One partition's replicas as a client names them: registered nodes, each once, as many as the
/// other partitions have; beside those that it has already, none that is about to leave.
pub(super) fn check_assignment(
    image: &Image,
    node_ids: &[i32],
    present: &[i32],
    replication_factor: Option<usize>,
) -> Result<(), Refusal> {
    if node_ids.is_empty() {
        let message = "The manual partition assignment includes an empty replica list.";
        return Err(Refusal::invalid_assignment(message));
    }
    let mut sorted = node_ids.to_vec();
    sorted.sort_unstable();
    let mut previous = None;
    for node_id in sorted {
        // Of one that was never seen no disk is known.
        if image.node(node_id).is_none_or(|node| node.state == NodeState::Expected) {
            return Err(Refusal::invalid_assignment(format!(
                "The manual partition assignment includes broker {node_id}, but no such broker is \
                 registered."
            )));
        }
        let goes = |node: &Node| node.state == NodeState::Removing;
        if image.node(node_id).is_some_and(goes) && !present.contains(&node_id) {
            return Err(Refusal::invalid_assignment(format!(
                "The manual partition assignment includes broker {node_id}, which is being removed \
                 from the cluster."
            )));
        }
        if previous == Some(node_id) {
            return Err(Refusal::invalid_assignment(format!(
                "The manual partition assignment includes the broker {node_id} more than once."
            )));
        }
        previous = Some(node_id);
    }
    let count = node_ids.len();
    match replication_factor {
        Some(expected) if expected != count => Err(Refusal::invalid_assignment(format!(
            "The manual partition assignment includes a partition with {count} replica(s), but \
             this is not consistent with previous partitions, which have {expected} replica(s)."
        ))),
        _ => Ok(()),
    }
}

/// Whether enough of the nodes that a client names are there: a majority, else nobody could write
/// to the partition. With none Kafka refuses it for good.
pub(super) fn check_there(
    image: &Image,
    present: Present<'_>,
    partition_index: i32,
    node_ids: &[i32],
) -> Result<(), Refusal> {
    let Some(present) = present else { return Ok(()) };
    let there = node_ids.iter().filter(|id| present.contains(id)).count();
    if there > node_ids.len() / 2 {
        return Ok(());
    }
    if there == 0 {
        return Err(Refusal::invalid_assignment(format!(
            "All brokers specified in the manual partition assignment for partition \
             {partition_index} are fenced or in controlled shutdown."
        )));
    }
    let replication_factor = i16::try_from(node_ids.len()).unwrap_or(i16::MAX);
    Err(too_few(replication_factor, there, image.nodes().count() - there))
}

/// Our choice, for these partitions: nodes that are there, and only where those are too few others
/// beside them, as in Kafka. A majority of each partition's replicas is there, the one that should
/// lead among them: else nobody could write to it.
pub(super) fn chosen(
    image: &Image,
    present: Present<'_>,
    topic_id: Uuid,
    partitions: Range<usize>,
    replication_factor: i16,
) -> Result<Vec<Vec<i32>>, Refusal> {
    let candidate = |node: &Node| Candidate { id: node.id, rack: node.rack.clone() };
    let takes_more =
        |node: &&Node| !matches!(node.state, NodeState::Expected | NodeState::Removing);
    let is_there = |node: &Candidate| present.is_none_or(|present| present.contains(&node.id));
    let nodes = image.nodes().filter(takes_more).map(candidate);
    let (there, away): (Vec<Candidate>, Vec<Candidate>) = nodes.partition(is_there);
    let wanted = usize::try_from(replication_factor).unwrap_or(0);
    let (first, count) = (partitions.start, partitions.len());
    let (on_there, on_away) = (wanted.min(there.len()), wanted.saturating_sub(there.len()));
    let refused = || too_few(replication_factor, there.len(), away.len());
    if on_there <= wanted / 2 {
        return Err(refused());
    }
    let place = |nodes: &[Candidate], replicas: usize| {
        placement::place(nodes, topic_id, first, count, replicas).ok_or_else(refused)
    };
    let mut chosen = place(&there, on_there)?;
    if on_away > 0 {
        for (replicas, more) in chosen.iter_mut().zip(place(&away, on_away)?) {
            replicas.extend(more);
        }
    }
    Ok(chosen)
}

/// Nodes that are away come back, and who was just cut off sees nobody: so that is to be tried
/// again, other than a cluster that has too few.
fn too_few(replication_factor: i16, there: usize, away: usize) -> Refusal {
    let registered = there + away;
    let wanted = usize::try_from(replication_factor).unwrap_or(0);
    let (error, why) = match wanted > registered {
        true => (
            ErrorCode::INVALID_REPLICATION_FACTOR,
            format!("only {registered} broker(s) are registered"),
        ),
        false => (
            ErrorCode::NOT_ENOUGH_REPLICAS,
            format!(
                "only {there} of {registered} broker(s) are there now, and partitions need a \
                 majority of their replicas"
            ),
        ),
    };
    let message = format!(
        "The target replication factor of {replication_factor} cannot be reached because {why}."
    );
    Refusal::new(error, message)
}

/// Partitions `first` and on of a topic, on the disks that the nodes have now.
pub(super) fn partition_records(
    image: &Image,
    topic_id: Uuid,
    first: i32,
    replicas: Vec<Vec<i32>>,
) -> impl Iterator<Item = Record> {
    (first..).zip(replicas).map(move |(index, node_ids)| {
        let disk = |node_id| image.node(node_id).and_then(|node| node.disks.first().copied());
        let replica = |node_id| Replica { node_id, disk_id: disk(node_id).unwrap_or(Uuid::ZERO) };
        let replicas = node_ids.into_iter().map(replica).collect();
        Record::Partition(PartitionId { topic_id, index }, Partition::new(replicas))
    })
}

/// More partitions than the cluster may have.
pub(super) fn too_many() -> Refusal {
    let message = format!("The cluster would have more than {PARTITIONS_MAX} partitions.");
    Refusal::new(ErrorCode::POLICY_VIOLATION, message)
}
