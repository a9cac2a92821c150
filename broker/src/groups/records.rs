//! The records of `__consumer_offsets`, in Kafka's own format and in the versions that Kafka 4.4
//! writes: bytes in, values out, and back.

use bytes::Bytes;
use vltava_protocol::decode::{DecodeError, Reader};
use vltava_protocol::message::Message;
use vltava_protocol::records::group::{
    GroupMetadataKey, GroupMetadataValue, MemberMetadata, OffsetCommitKey, OffsetCommitValue,
};
use vltava_protocol::types::Str;

use super::state::{CommittedOffset, StoredMember, StoredMetadata};
use super::work::RecordError;
use crate::machine::{KeyValue, ReplayError};

/// Kafka 4.4 writes version 4, the first with a topic id...
const OFFSET_VERSION: i16 = 4;
/// ...except where a client chose how long its offset is kept: only version 1 has a field for that.
const OFFSET_VERSION_WITH_EXPIRY: i16 = 1;
const GROUP_VERSION: i16 = 3;

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A committed offset (key versions 0 and 1, which differ in nothing).
    Offset { group: Str, topic: Str, partition: i32 },
    /// A generation of a classic group (key version 2).
    Group { group: Str },
    /// Something of a group type that this version does not run.
    Other,
}

/// Reads a key.
pub(super) fn decode_key(bytes: &Bytes) -> Result<Key, ReplayError> {
    // Keys have no versions: the number in front says which record it is.
    const VERSION: i16 = 0;
    let mut reader = Reader::new(bytes.clone());
    Ok(match reader.i16().map_err(damaged)? {
        0 | 1 => {
            let key = OffsetCommitKey::decode(&mut reader, VERSION).map_err(damaged)?;
            Key::Offset { group: key.group, topic: key.topic, partition: key.partition }
        }
        2 => {
            let key = GroupMetadataKey::decode(&mut reader, VERSION).map_err(damaged)?;
            Key::Group { group: key.group }
        }
        _ => Key::Other,
    })
}

/// Reads the value of a committed offset, of any version.
pub(super) fn decode_offset(bytes: &Bytes) -> Result<OffsetCommitValue, ReplayError> {
    OffsetCommitValue::from_value_bytes(bytes).map_err(damaged)
}

/// Reads the value of a group's generation, of any version.
pub(super) fn decode_metadata(bytes: &Bytes) -> Result<GroupMetadataValue, ReplayError> {
    GroupMetadataValue::from_value_bytes(bytes).map_err(damaged)
}

fn damaged(error: DecodeError) -> ReplayError {
    ReplayError(format!("a record of groups or offsets: {error}"))
}

/// A committed offset.
pub(super) fn offset(
    group: &Str,
    topic: &Str,
    partition: i32,
    committed: &CommittedOffset,
) -> Result<KeyValue, RecordError> {
    let value = OffsetCommitValue {
        offset: committed.offset,
        leader_epoch: committed.leader_epoch,
        metadata: committed.metadata.clone(),
        commit_timestamp: committed.committed_at_ms,
        expire_timestamp: committed.expires_at_ms.unwrap_or(-1),
        topic_id: committed.topic_id,
    };
    let version = match committed.expires_at_ms {
        Some(_) => OFFSET_VERSION_WITH_EXPIRY,
        None => OFFSET_VERSION,
    };
    Ok(KeyValue {
        key: offset_key(group, topic, partition)?,
        value: Some(value.to_value_bytes(version)?),
    })
}

/// The end of a committed offset.
pub(super) fn offset_tombstone(
    group: &Str,
    topic: &Str,
    partition: i32,
) -> Result<KeyValue, RecordError> {
    Ok(KeyValue { key: offset_key(group, topic, partition)?, value: None })
}

/// A generation of a group.
pub(super) fn group(id: &Str, metadata: &StoredMetadata) -> Result<KeyValue, RecordError> {
    let value = GroupMetadataValue {
        protocol_type: metadata.protocol_type.clone().unwrap_or_default(),
        generation: metadata.generation,
        protocol: metadata.protocol.clone(),
        leader: metadata.leader.clone(),
        current_state_timestamp: metadata.changed_at_ms.unwrap_or(-1),
        members: metadata.members.iter().map(member).collect(),
    };
    Ok(KeyValue { key: group_key(id)?, value: Some(value.to_value_bytes(GROUP_VERSION)?) })
}

/// The end of a group.
pub(super) fn group_tombstone(id: &Str) -> Result<KeyValue, RecordError> {
    Ok(KeyValue { key: group_key(id)?, value: None })
}

fn member(member: &StoredMember) -> MemberMetadata {
    MemberMetadata {
        member_id: member.member_id.clone(),
        group_instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        rebalance_timeout: member.rebalance_timeout_ms,
        session_timeout: member.session_timeout_ms,
        subscription: member.subscription.clone(),
        assignment: member.assignment.clone(),
    }
}

fn offset_key(group: &Str, topic: &Str, partition: i32) -> Result<Bytes, RecordError> {
    let key = OffsetCommitKey { group: group.clone(), topic: topic.clone(), partition };
    Ok(key.to_key_bytes()?)
}

fn group_key(group: &Str) -> Result<Bytes, RecordError> {
    let key = GroupMetadataKey { group: group.clone() };
    Ok(key.to_key_bytes()?)
}
