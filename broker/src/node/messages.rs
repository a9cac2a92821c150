//! What nodes tell each other about the cluster, as bytes.

use bytes::Bytes;
use vltava_protocol::decode::DecodeError;
use vltava_protocol::encode::EncodeError;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::message::{from_versioned_bytes, to_versioned_bytes};
use vltava_protocol::records::node as wire;
use vltava_protocol::types::Uuid;

use super::announce::Announced;
use super::form::Standing;
use super::identity::{Founder, Founding};
use super::presence::Presence;
use crate::metadata::image::PartitionId;
use crate::metadata::leaders::Leader;
use crate::partition::left::{Left, LogEnd};
use crate::raft::membership::{Membership, ReplicaId, Seat};

/// The version of these messages that this release writes.
const VERSION: i16 = 0;

/// Who a node is, with its number.
///
/// # Errors
/// More founders than a message can have.
pub fn standing_to_bytes(node_id: i32, standing: &Standing) -> Result<Bytes, EncodeError> {
    let Standing { disk_id, founding } = standing;
    let founder = |at: &Founder| wire::Founder { node_id: at.node_id, disk_id: at.disk_id };
    let founders = founding.as_ref().map(|of| of.founders.iter().map(founder).collect());
    let message = wire::Standing {
        node_id,
        disk_id: *disk_id,
        cluster_id: founding.as_ref().map_or(Uuid::ZERO, |founding| founding.cluster_id),
        founders: founders.unwrap_or_default(),
    };
    to_versioned_bytes(&message, VERSION)
}

/// What [`standing_to_bytes`] wrote.
///
/// # Errors
/// Other bytes.
pub fn standing_from_bytes(bytes: &Bytes) -> Result<(i32, Standing), DecodeError> {
    let message: wire::Standing = from_versioned_bytes(bytes)?;
    let founder = |at: wire::Founder| Founder { node_id: at.node_id, disk_id: at.disk_id };
    let founding = (!message.cluster_id.is_zero()).then(|| Founding {
        cluster_id: message.cluster_id,
        founders: message.founders.into_iter().map(founder).collect(),
    });
    Ok((message.node_id, Standing { disk_id: message.disk_id, founding }))
}

/// Who leads what.
///
/// # Errors
/// More leaders than a message can have.
pub fn leaders_to_bytes(announced: &Announced) -> Result<Bytes, EncodeError> {
    let leader = |(partition, leader): &(PartitionId, Leader)| wire::LeaderOf {
        topic_id: partition.topic_id,
        partition: partition.index,
        node_id: leader.node_id,
        epoch: leader.epoch,
        in_sync_version: leader.in_sync_version,
        in_sync: leader.in_sync.to_vec(),
    };
    let leaders = announced.iter().map(leader).collect();
    to_versioned_bytes(&wire::Leaders { leaders }, VERSION)
}

/// What [`leaders_to_bytes`] wrote.
///
/// # Errors
/// Other bytes.
pub fn leaders_from_bytes(bytes: &Bytes) -> Result<Announced, DecodeError> {
    let message: wire::Leaders = from_versioned_bytes(bytes)?;
    let leader = |of: wire::LeaderOf| {
        let partition = PartitionId { topic_id: of.topic_id, index: of.partition };
        let leader = Leader {
            node_id: of.node_id,
            epoch: of.epoch,
            in_sync_version: of.in_sync_version,
            in_sync: of.in_sync.into(),
        };
        (partition, leader)
    };
    Ok(message.leaders.into_iter().map(leader).collect())
}

/// Who is there.
///
/// # Errors
/// More nodes than a message can have.
pub fn presence_to_bytes(presence: &Presence) -> Result<Bytes, EncodeError> {
    let message = wire::Presence {
        node_id: presence.by,
        epoch: presence.epoch,
        version: presence.version,
        node_ids: presence.nodes.iter().copied().collect(),
    };
    to_versioned_bytes(&message, VERSION)
}

/// What [`presence_to_bytes`] wrote.
///
/// # Errors
/// Other bytes.
pub fn presence_from_bytes(bytes: &Bytes) -> Result<Presence, DecodeError> {
    let wire::Presence { node_id: by, epoch, version, node_ids } = from_versioned_bytes(bytes)?;
    Ok(Presence { by, epoch, version, nodes: node_ids.into_iter().collect() })
}

/// A leader is to give its place to a node, or to whichever can.
///
/// # Errors
/// None that can be.
pub fn hand_over_to_bytes(partition: PartitionId, to: Option<i32>) -> Result<Bytes, EncodeError> {
    let message = wire::HandOver {
        topic_id: partition.topic_id,
        partition: partition.index,
        node_id: to.unwrap_or(-1),
    };
    to_versioned_bytes(&message, VERSION)
}

/// What [`hand_over_to_bytes`] wrote.
///
/// # Errors
/// Other bytes.
pub fn hand_over_from_bytes(bytes: &Bytes) -> Result<(PartitionId, Option<i32>), DecodeError> {
    let message: wire::HandOver = from_versioned_bytes(bytes)?;
    let partition = PartitionId { topic_id: message.topic_id, index: message.partition };
    Ok((partition, Some(message.node_id).filter(|node| *node >= 0)))
}

/// What came of it.
///
/// # Errors
/// None that can be.
pub fn handed_over_to_bytes(error_code: ErrorCode) -> Result<Bytes, EncodeError> {
    to_versioned_bytes(&wire::HandedOver { error_code }, VERSION)
}

/// What [`handed_over_to_bytes`] wrote.
///
/// # Errors
/// Other bytes.
pub fn handed_over_from_bytes(bytes: &Bytes) -> Result<ErrorCode, DecodeError> {
    from_versioned_bytes::<wire::HandedOver>(bytes).map(|message| message.error_code)
}

/// What is left of these partitions?
///
/// # Errors
/// More partitions than a message can have.
pub fn who_is_left_to_bytes(partitions: &[PartitionId]) -> Result<Bytes, EncodeError> {
    let asked =
        |id: &PartitionId| wire::PartitionAsked { topic_id: id.topic_id, partition: id.index };
    let partitions = partitions.iter().map(asked).collect();
    to_versioned_bytes(&wire::WhoIsLeft { partitions }, VERSION)
}

/// What [`who_is_left_to_bytes`] wrote.
///
/// # Errors
/// Other bytes.
pub fn who_is_left_from_bytes(bytes: &Bytes) -> Result<Vec<PartitionId>, DecodeError> {
    let message: wire::WhoIsLeft = from_versioned_bytes(bytes)?;
    let id = |it: wire::PartitionAsked| PartitionId { topic_id: it.topic_id, index: it.partition };
    Ok(message.partitions.into_iter().map(id).collect())
}

/// The answer.
///
/// # Errors
/// More than a message can have.
pub fn left_to_bytes(left: &[(PartitionId, Left)]) -> Result<Bytes, EncodeError> {
    let member = |seat: &Seat| {
        let roles = seat.roles().cast_signed();
        wire::Member { node_id: seat.id.node, disk_id: seat.id.disk, roles }
    };
    let survivor = |(id, left): &(PartitionId, Left)| wire::SurvivorOf {
        topic_id: id.topic_id,
        partition: id.index,
        disk_id: left.id.disk,
        epoch: left.epoch,
        end_epoch: left.log_end.epoch,
        end_offset: left.log_end.offset,
        end_index: left.log_end.index,
        can_lead: left.can_lead,
        is_led: left.is_led,
        members: left.members.seats().iter().map(member).collect(),
    };
    let survivors = left.iter().map(survivor).collect();
    to_versioned_bytes(&wire::Left { survivors }, VERSION)
}

/// What [`left_to_bytes`] of this node wrote. What no replica can have said is left out.
///
/// # Errors
/// Other bytes.
pub fn left_from_bytes(node: i32, bytes: &Bytes) -> Result<Vec<(PartitionId, Left)>, DecodeError> {
    let message: wire::Left = from_versioned_bytes(bytes)?;
    let seat = |it: &wire::Member| {
        let id = ReplicaId { node: it.node_id, disk: it.disk_id };
        Seat::with_roles(id, it.roles.cast_unsigned())
    };
    let left = |it: wire::SurvivorOf| {
        let id = PartitionId { topic_id: it.topic_id, index: it.partition };
        let log_end = LogEnd { epoch: it.end_epoch, index: it.end_index, offset: it.end_offset };
        let members = Membership::from_seats(it.members.iter().map(seat).collect())?;
        let left = Left {
            id: ReplicaId { node, disk: it.disk_id },
            epoch: it.epoch,
            log_end,
            can_lead: it.can_lead,
            is_led: it.is_led,
            members,
        };
        Some((id, left))
    };
    Ok(message.survivors.into_iter().filter_map(left).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard() {
        let founder = Founder { node_id: 2, disk_id: Uuid(8) };
        let founding = Founding { cluster_id: Uuid(5), founders: vec![founder] };
        for founding in [None, Some(founding)] {
            let standing = Standing { disk_id: Uuid(7), founding };
            let bytes = standing_to_bytes(3, &standing).unwrap();
            assert_eq!(standing_from_bytes(&bytes), Ok((3, standing)));
            for len in 0..bytes.len() {
                assert!(standing_from_bytes(&bytes.slice(..len)).is_err());
            }
        }
        let leader =
            Leader { node_id: 3, epoch: 4, in_sync_version: 9, in_sync: Arc::from([3, 1]) };
        let announced = vec![(PartitionId { topic_id: Uuid(6), index: 2 }, leader)];
        let bytes = leaders_to_bytes(&announced).unwrap();
        assert_eq!(leaders_from_bytes(&bytes), Ok(announced));
        for len in 0..bytes.len() {
            assert!(leaders_from_bytes(&bytes.slice(..len)).is_err());
        }
        let partition = PartitionId { topic_id: Uuid(6), index: 2 };
        for to in [None, Some(0), Some(3)] {
            let bytes = hand_over_to_bytes(partition, to).unwrap();
            assert_eq!(hand_over_from_bytes(&bytes), Ok((partition, to)));
        }
        assert_eq!(
            who_is_left_from_bytes(&who_is_left_to_bytes(&[partition]).unwrap()),
            Ok(vec![partition])
        );
        let id = |node| ReplicaId { node, disk: Uuid(9) };
        let old = Membership::new([id(1), id(2)], [id(3)]);
        let left = Left {
            id: id(2),
            epoch: 7,
            log_end: LogEnd { epoch: 6, index: 8, offset: 5 },
            can_lead: true,
            is_led: false,
            members: old.entering(&Membership::new([id(2), id(4)], [])),
        };
        let bytes = left_to_bytes(&[(partition, left.clone())]).unwrap();
        assert_eq!(left_from_bytes(2, &bytes), Ok(vec![(partition, left)]));
        let bytes = handed_over_to_bytes(ErrorCode::NOT_CONTROLLER).unwrap();
        assert_eq!(handed_over_from_bytes(&bytes), Ok(ErrorCode::NOT_CONTROLLER));
    }
}
