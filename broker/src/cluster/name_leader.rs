//! A partition whose majority is gone gets a leader by a decision: the replica that is left and has
//! most. What only others had is lost; so it is decided only where the topic allows it
//! (`unclean.leader.election.enable`), or an operator asks for it.
//!
//! The record names the leader and an epoch above all that anybody knows; that is what replicas act
//! on (`raft/forced.rs`), whenever they hear of it. It counts among the decisions about the
//! partition's replicas ([`super::reassign`]): the leader begins as its group's only voter, and all
//! others come, as if they were new. Which replica has most is found out by whoever asks
//! (`partition/left.rs`); the number of the newest decision that it knew says whether that still
//! counts.

use super::controller::{Decision, Reply};
use super::reassign::{NotTaken, partition_of, with_disks};
use crate::metadata::image::{Image, NamedLeader, Partition, PartitionId, Replica};
use crate::metadata::records::Record;

/// Who is to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nomination {
    /// Which partition.
    pub partition: PartitionId,
    /// The newest decision that who asks knows: [`Partition::changes`].
    pub changes: i32,
    /// The newest epoch that any replica knows that is left.
    pub newest_epoch: i32,
    /// Who.
    pub leader: Replica,
}

/// The partition with this leader.
///
/// # Errors
/// Where another decision was made meanwhile, or it is none of the partition's replicas.
pub fn name(partition: &Partition, nomination: &Nomination) -> Result<Partition, NotTaken> {
    let Nomination { changes, newest_epoch, leader, .. } = *nomination;
    if partition.changes != changes || !partition.replicas.contains(&leader) {
        return Err(NotTaken);
    }
    let former = partition.named.map_or(-1, |named| named.epoch);
    let newest = newest_epoch.max(partition.leader_epoch).max(former);
    let epoch = NamedLeader::epoch_above(newest).ok_or(NotTaken)?;
    let adding = partition.target().filter(|replica| **replica != leader).copied().collect();
    Ok(Partition {
        adding,
        before: None,
        changes: partition.changes.saturating_add(1),
        // Of the change that this begins only this leader is believed, and who comes after it.
        leader_epoch: epoch,
        named: Some(NamedLeader { epoch, replica: leader }),
        ..partition.clone()
    })
}

/// A leader is named.
pub(super) fn decide(image: &Image, nomination: &Nomination) -> Decision {
    let known = partition_of(image, nomination.partition).ok_or(NotTaken);
    let named = known.and_then(|partition| name(&with_disks(image, partition), nomination));
    let is_taken = named.is_ok();
    let record = named.ok().map(|named| Record::Partition(nomination.partition, named));
    (record.into_iter().collect(), Reply::Noted { is_taken })
}

/// What the broker's log says of it.
pub(super) fn note(topic: &str, index: i32, after: &Partition) -> Option<String> {
    let NamedLeader { epoch, replica } = after.named?;
    Some(format!(
        "partition {topic}-{index} is led by node {} from epoch {epoch} on, without a majority: \
         records that only other replicas had are lost",
        replica.node_id
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use vltava_protocol::types::Uuid;

    use super::*;

    fn replica(node_id: i32) -> Replica {
        Replica { node_id, disk_id: Uuid(7) }
    }

    #[test]
    fn a_named_leader_begins_alone_and_all_others_come() {
        let partition = Partition {
            changes: 4,
            leader_epoch: 9,
            ..Partition::new([1, 2, 3].map(replica).to_vec())
        };
        let partition_id = PartitionId { topic_id: Uuid(1), index: 0 };
        let nomination = |changes, node| Nomination {
            partition: partition_id,
            changes,
            newest_epoch: 6,
            leader: replica(node),
        };
        let named = name(&partition, &nomination(4, 2)).unwrap();
        assert_eq!(named.replicas, partition.replicas);
        assert_eq!(named.adding, [1, 3].map(replica));
        assert_eq!((named.changes, named.removing.len()), (5, 0));
        let NamedLeader { epoch, replica: leader } = named.named.unwrap();
        assert_eq!((leader, named.leader_epoch), (replica(2), epoch));
        assert!(epoch > 60_000, "nobody gets there who has not heard of it");
        // Who knew an older decision, or names a stranger, is not listened to.
        assert_eq!(name(&named, &nomination(4, 3)), Err(NotTaken));
        assert_eq!(name(&partition, &nomination(4, 7)), Err(NotTaken));
        // Again, before the others are back.
        let again = name(&named, &nomination(5, 3)).unwrap();
        assert_eq!(again.adding, [1, 2].map(replica));
        assert!(again.named.unwrap().epoch > epoch);
    }
}
