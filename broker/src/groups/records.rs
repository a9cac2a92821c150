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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::fmt::Write;

    use vltava_protocol::types::Uuid;

    use super::*;

    fn committed(expires_at_ms: Option<i64>) -> CommittedOffset {
        CommittedOffset {
            offset: 1000,
            leader_epoch: 3,
            metadata: Str::from_static("m"),
            committed_at_ms: 1_700_000_000_000,
            expires_at_ms,
            topic_id: Uuid(7 << 64),
        }
    }

    fn generation() -> StoredMetadata {
        let member = StoredMember {
            member_id: Str::from_static("consumer-1-x"),
            instance_id: Some(Str::from_static("one")),
            client_id: Str::from_static("consumer-1"),
            client_host: Str::from_static("/127.0.0.1"),
            rebalance_timeout_ms: 300_000,
            session_timeout_ms: 45_000,
            subscription: Bytes::from_static(&[0, 1, 2]),
            assignment: Bytes::from_static(&[3, 4]),
        };
        StoredMetadata {
            protocol_type: Some(Str::from_static("consumer")),
            generation: 5,
            protocol: Some(Str::from_static("range")),
            leader: Some(Str::from_static("consumer-1-x")),
            changed_at_ms: Some(1_700_000_000_000),
            members: vec![member],
        }
    }

    fn hex(bytes: &Bytes) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Kafka's own format, in the versions that Kafka 4.4 writes.
    #[test]
    fn the_golden_records_are_written_and_read() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/golden/disk/v1/consumer-offsets-records"
        );
        let (group_id, topic) = (Str::from_static("billing"), Str::from_static("orders"));
        let records = [
            ("offset", offset(&group_id, &topic, 2, &committed(None)).unwrap()),
            ("offset-that-expires", offset(&group_id, &topic, 2, &committed(Some(9))).unwrap()),
            ("offset-gone", offset_tombstone(&group_id, &topic, 2).unwrap()),
            ("group", group(&group_id, &generation()).unwrap()),
            ("group-gone", group_tombstone(&group_id).unwrap()),
        ];
        let mut text = String::new();
        for (name, record) in &records {
            let value = record.value.as_ref().map_or("-".to_owned(), hex);
            writeln!(text, "{name} {} {value}", hex(&record.key)).unwrap();
        }
        if std::env::var("VLTAVA_GOLDEN").is_ok_and(|mode| mode == "rewrite") {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
        for (_, record) in &records[..3] {
            let expected =
                Key::Offset { group: group_id.clone(), topic: topic.clone(), partition: 2 };
            assert_eq!(decode_key(&record.key), Ok(expected));
        }
        let read = |nth: usize| decode_offset(records[nth].1.value.as_ref().unwrap()).unwrap();
        assert_eq!(
            (read(0).offset, read(0).leader_epoch, read(0).topic_id),
            (1000, 3, Uuid(7 << 64))
        );
        assert_eq!((read(1).offset, read(1).expire_timestamp), (1000, 9));
        let metadata = decode_metadata(records[3].1.value.as_ref().unwrap()).unwrap();
        assert_eq!((metadata.generation, metadata.members.len()), (5, 1));
        assert_eq!(metadata.members[0].assignment, generation().members[0].assignment);
        assert_eq!(decode_key(&records[4].1.key), Ok(Key::Group { group: group_id }));
    }
}
