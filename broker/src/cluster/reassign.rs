//! Changes of a partition's replicas: what is decided, and when it is done.
//!
//! A decision is a record of the partition: all replicas while the change is under way, and which
//! of them come and go. The partition's leader brings its group there, whichever node that is, and
//! says so; then the record names those that stay. A cancel is a decision like any other, back to
//! what was before.
//!
//! Nodes remove what the record no longer names, so a change must not be taken for done when it is
//! not. Two numbers see to that: `changes` counts decisions, and who reports one that was replaced
//! is not listened to; `leader_epoch` is the newest leader that has said it works on the change
//! ([`lead`]), and what an older one reports is not listened to either. A leader may change its
//! group's members only by a record that holds its own epoch: then no other can have got further,
//! by a newer decision, before it.

use std::collections::{BTreeMap, BTreeSet};

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use vltava_protocol::types::Uuid;

use super::controller::{Decision, PARTITIONS_PER_REQUEST_MAX, Reply, refused};
use super::new_partitions::check_assignment;
use super::refusal::Refusal;
use crate::metadata::image::{Image, Partition, PartitionId, Replica};
use crate::metadata::records::Record;

/// Most replicas of a partition, with those that come and those that go: as many as a group has
/// members.
const REPLICAS_MAX: usize = 64;

/// What a leader says of the change that it works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The partition.
    pub partition: PartitionId,
    /// The decision: [`Partition::changes`].
    pub changes: i32,
    /// The leader's epoch.
    pub leader_epoch: i32,
}

/// Where each replica that a client names is, or will be: where the partition has one on that node,
/// on a disk that is still there, that one.
pub fn on_disks(image: &Image, partition: &Partition, node_ids: &[i32]) -> Vec<Replica> {
    let place = |node_id: &i32| {
        let disks = image.node(*node_id).map_or(&[][..], |node| &node.disks[..]);
        let known = |it: &&Replica| it.node_id == *node_id && disks.contains(&it.disk_id);
        let known = partition.replicas.iter().find(known).copied();
        let disk_id = disks.first().copied().unwrap_or(Uuid::ZERO);
        known.unwrap_or(Replica { node_id: *node_id, disk_id })
    };
    node_ids.iter().map(place).collect()
}

/// The partition as it is, with the disks that records of before there were clusters do not name.
pub(super) fn with_disks(image: &Image, partition: &Partition) -> Partition {
    let named = |replica: &Replica| {
        let disk = image.node(replica.node_id).and_then(|node| node.disks.first().copied());
        let disk_id = disk.filter(|_| replica.disk_id.is_zero()).unwrap_or(replica.disk_id);
        Replica { disk_id, ..*replica }
    };
    let all = |replicas: &[Replica]| replicas.iter().map(named).collect::<Vec<_>>();
    Partition {
        replicas: all(&partition.replicas),
        adding: all(&partition.adding),
        removing: all(&partition.removing),
        founders: partition.founders.as_deref().map(all),
        before: partition.before.as_deref().map(all),
        ..*partition
    }
}

/// The partition on its way to these replicas, in this order of preference; `None` where it is
/// there, or on its way there. The target names each replica once, and at least one.
pub fn begin(partition: &Partition, target: Vec<Replica>) -> Option<Partition> {
    assert!(!target.is_empty(), "a partition without replicas is asked for");
    if partition.target().eq(&target) {
        return None;
    }
    let before = match &partition.before {
        Some(before) => before.clone(),
        None => partition.target().copied().collect(),
    };
    Some(Partition { before: Some(before), ..toward(partition, target) }.settled())
}

/// The partition on its way back to where it was before the change that is under way. `None`: it is
/// on its way back already.
///
/// # Errors
/// Where none is under way.
pub fn cancel(partition: &Partition) -> Result<Option<Partition>, NotChanging> {
    match &partition.before {
        _ if !partition.is_changing() => Err(NotChanging),
        None => Ok(None),
        Some(before) => {
            let back = toward(partition, before.clone());
            Ok(Some(Partition { before: None, ..back }.settled()))
        }
    }
}

/// No change is under way that could be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotChanging;

/// All that are or may be members stay named until their group is what it is to be.
fn toward(partition: &Partition, target: Vec<Replica>) -> Partition {
    let comes_or_goes =
        |it: &Replica| partition.adding.contains(it) || partition.removing.contains(it);
    let stays = |it: &Replica| partition.replicas.contains(it) && !comes_or_goes(it);
    let adding = target.iter().filter(|it| !stays(it)).copied().collect();
    let goes = |it: &&Replica| !target.contains(it);
    let removing: Vec<_> = partition.replicas.iter().filter(goes).copied().collect();
    let founders = Some(partition.founders().to_vec());
    let replicas = [target, removing.clone()].concat();
    let changes = partition.changes.saturating_add(1);
    Partition { replicas, adding, removing, founders, changes, ..partition.clone() }
}

/// The partition with this leader at work on it; `None` where that is known.
///
/// # Errors
/// Where another decision was made, or another leader is newer.
pub fn lead(partition: &Partition, report: &Report) -> Result<Option<Partition>, NotTaken> {
    let Report { changes, leader_epoch, .. } = *report;
    if !partition.is_changing() || partition.changes != changes {
        return Err(NotTaken);
    }
    match leader_epoch.cmp(&partition.leader_epoch) {
        std::cmp::Ordering::Less => Err(NotTaken),
        std::cmp::Ordering::Equal => Ok(None),
        std::cmp::Ordering::Greater => Ok(Some(Partition { leader_epoch, ..partition.clone() })),
    }
}

/// The partition once its group has these members.
///
/// # Errors
/// Where they are not those that were decided, or whoever says it does not work on that.
pub fn complete(
    partition: &Partition,
    report: &Report,
    voters: &[Replica],
) -> Result<Partition, NotTaken> {
    let is_current = partition.is_changing()
        && partition.changes == report.changes
        && partition.leader_epoch == report.leader_epoch;
    let target: BTreeSet<&Replica> = partition.target().collect();
    if !is_current || voters.iter().collect::<BTreeSet<_>>() != target {
        return Err(NotTaken);
    }
    let replicas = partition.target().copied().collect();
    let changes = partition.changes.saturating_add(1);
    let (adding, removing) = (Vec::new(), Vec::new());
    // The leader stays known: of the next change an older one must not be believed either.
    Ok(Partition { replicas, adding, removing, before: None, changes, ..partition.clone() })
}

/// What a leader says counts no more: it hears of something newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotTaken;

impl Partition {
    /// Where nobody comes or goes there is nothing to be cancelled.
    fn settled(self) -> Self {
        if self.is_changing() { self } else { Self { before: None, ..self } }
    }
}

/// A leader begins to work on a change.
pub(super) fn decide_lead(image: &Image, report: &Report) -> Decision {
    let known = partition_of(image, report.partition);
    let led = known.ok_or(NotTaken).and_then(|partition| lead(partition, report));
    let is_taken = led.is_ok();
    let record = led.ok().flatten().map(|led| Record::Partition(report.partition, led));
    (record.into_iter().collect(), Reply::Noted { is_taken })
}

/// A leader has brought its group to where it is to be.
pub(super) fn decide_complete(image: &Image, report: &Report, voters: &[Replica]) -> Decision {
    let known = partition_of(image, report.partition);
    let done = known.ok_or(NotTaken).and_then(|partition| complete(partition, report, voters));
    let is_taken = done.is_ok();
    let record = done.ok().map(|done| Record::Partition(report.partition, done));
    (record.into_iter().collect(), Reply::Noted { is_taken })
}

pub(super) fn partition_of(image: &Image, id: PartitionId) -> Option<&Partition> {
    image.topic_by_id(id.topic_id)?.partition(id.index)
}

/// Decides a request: each partition for itself.
pub(super) fn decide(image: &Image, request: AlterPartitionReassignmentsRequest) -> Decision {
    let asked = request.topics.iter().map(|topic| topic.partitions.len());
    if asked.fold(0, usize::saturating_add) > PARTITIONS_PER_REQUEST_MAX {
        let message = "Excessively large number of partitions per request.";
        return refused(ErrorCode::POLICY_VIOLATION, message);
    }
    let keeps_factor = !request.allow_replication_factor_change;
    // By partition: a request may name one twice.
    let mut decided: BTreeMap<PartitionId, Partition> = BTreeMap::new();
    let mut responses = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for asked in topic.partitions {
            let altered = alter(image, &mut decided, &topic.name, &asked, keeps_factor);
            let (error_code, error_message) = match altered {
                Ok(()) => (ErrorCode::NONE, None),
                Err(Refusal { error, message }) => (error, Some(message)),
            };
            let partition_index = asked.partition_index;
            let response =
                ReassignablePartitionResponse { partition_index, error_code, error_message };
            partitions.push(response);
        }
        responses.push(ReassignableTopicResponse { name: topic.name, partitions });
    }
    let records = decided.into_iter().map(|(id, partition)| Record::Partition(id, partition));
    let response = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        responses,
        ..AlterPartitionReassignmentsResponse::default()
    };
    (records.collect(), Reply::AlterReassignments(response))
}

fn alter(
    image: &Image,
    decided: &mut BTreeMap<PartitionId, Partition>,
    topic_name: &str,
    asked: &ReassignablePartition,
    keeps_factor: bool,
) -> Result<(), Refusal> {
    let unknown = |message| Refusal::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message);
    let index = asked.partition_index;
    let topic = image
        .topic(topic_name)
        .ok_or_else(|| unknown(format!("Unable to find a topic named {topic_name}.")))?;
    let known = topic
        .partition(index)
        .ok_or_else(|| unknown(format!("Unable to find partition {topic_name}:{index}.")))?;
    let id = topic.partition_id(index);
    let known = decided.get(&id).cloned().unwrap_or_else(|| with_disks(image, known));
    let next = match &asked.replicas {
        None => cancel(&known)
            .map_err(|NotChanging| Refusal::plain(ErrorCode::NO_REASSIGNMENT_IN_PROGRESS))?,
        Some(node_ids) => {
            let present: Vec<i32> = known.target().map(|replica| replica.node_id).collect();
            check_assignment(image, node_ids, &present, None)?;
            let next = begin(&known, on_disks(image, &known, node_ids));
            let count = next.as_ref().map_or(0, |next| next.replicas.len());
            if count > REPLICAS_MAX {
                return Err(Refusal::invalid_assignment(format!(
                    "The partition would have {count} replicas while it changes; at most \
                     {REPLICAS_MAX} are possible."
                )));
            }
            let (is, wanted) = (known.target().count(), node_ids.len());
            if keeps_factor && is != wanted {
                return Err(Refusal::new(
                    ErrorCode::INVALID_REPLICATION_FACTOR,
                    format!("The replication factor is changed from {is} to {wanted}"),
                ));
            }
            next
        }
    };
    if let Some(next) = next {
        decided.insert(id, next);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
