//! What the records of one partition of `__consumer_offsets` say. Written by replay alone.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vltava_protocol::records::group::{GroupMetadataValue, MemberMetadata, OffsetCommitValue};
use vltava_protocol::types::{Str, Uuid};

use super::records::{self, Key};
use crate::machine::{KeyValue, ReplayError};

/// Groups and their committed offsets, as the log has them.
///
/// Keeps no reference into the buffers that records came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    groups: BTreeMap<Str, StoredGroup>,
    /// Which groups hold offsets of a topic: what the deletion of a topic asks for.
    groups_by_topic: BTreeMap<Str, BTreeSet<Str>>,
    /// Records of group types that this version does not run. Kept, so that a snapshot does not
    /// lose what another version wrote.
    unread: BTreeMap<Bytes, Bytes>,
    bytes: usize,
}

/// One group, as the log has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredGroup {
    /// The last generation that was written; the default for a group that only stores offsets.
    pub(super) metadata: StoredMetadata,
    /// By topic and partition.
    pub(super) offsets: BTreeMap<(Str, i32), CommittedOffset>,
}

/// One generation of a classic group: with members, one that was stable; without, an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredMetadata {
    pub(super) protocol_type: Option<Str>,
    pub(super) generation: i32,
    pub(super) protocol: Option<Str>,
    pub(super) leader: Option<Str>,
    /// Wall-clock time of the group's last change of phase, in ms; records before v2 have none.
    pub(super) changed_at_ms: Option<i64>,
    pub(super) members: Vec<StoredMember>,
}

/// A member of a stored generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredMember {
    pub(super) member_id: Str,
    pub(super) instance_id: Option<Str>,
    pub(super) client_id: Str,
    pub(super) client_host: Str,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) subscription: Bytes,
    pub(super) assignment: Bytes,
}

/// How far a group has read a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next record to read.
    pub offset: i64,
    /// Epoch of the leader that the last record read came from; -1: not told.
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: Str,
    /// Wall-clock time of the commit, in ms.
    pub committed_at_ms: i64,
    /// When it ends, in ms of wall-clock time, where the client chose that (OffsetCommit v2 to v4).
    pub expires_at_ms: Option<i64>,
    /// The topic it was committed for; zero where that is not known.
    pub topic_id: Uuid,
}

impl State {
    /// Memory it takes, in bytes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many groups are known here.
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Every committed offset: group, topic, partition, and what was committed.
    pub fn committed_offsets(&self) -> impl Iterator<Item = (&Str, &Str, i32, &CommittedOffset)> {
        self.groups.iter().flat_map(|(id, group)| {
            group
                .offsets
                .iter()
                .map(move |((topic, partition), committed)| (id, topic, *partition, committed))
        })
    }

    /// Names of the topics that offsets are kept of. Whoever starts to lead compares them with the
    /// topics there are: a topic may have been deleted while nobody led.
    pub fn topics(&self) -> impl Iterator<Item = &Str> {
        self.groups_by_topic.keys()
    }

    /// How many records are kept unread, because this version does not run groups of their type.
    #[cfg(test)]
    pub fn unread_count(&self) -> usize {
        self.unread.len()
    }

    pub(super) fn group(&self, id: &Str) -> Option<&StoredGroup> {
        self.groups.get(id)
    }

    pub(super) fn groups(&self) -> &BTreeMap<Str, StoredGroup> {
        &self.groups
    }

    pub(super) fn groups_of_topic(&self, topic: &Str) -> Option<&BTreeSet<Str>> {
        self.groups_by_topic.get(topic)
    }

    pub(super) fn unread(&self) -> &BTreeMap<Bytes, Bytes> {
        &self.unread
    }

    /// Applies one record.
    pub(super) fn apply(&mut self, record: &KeyValue) -> Result<(), ReplayError> {
        let value = record.value.as_ref();
        match records::decode_key(&record.key)? {
            Key::Offset { group, topic, partition } => match value {
                Some(value) => {
                    let value = records::decode_offset(value)?;
                    self.put_offset(group, topic, partition, value);
                }
                None => self.remove_offset(&group, topic, partition),
            },
            Key::Group { group } => match value {
                Some(value) => self.put_metadata(group, records::decode_metadata(value)?),
                None => self.remove_metadata(&group),
            },
            Key::Other => self.put_unread(&record.key, value),
        }
        Ok(())
    }

    fn put_offset(&mut self, group: Str, topic: Str, partition: i32, value: OffsetCommitValue) {
        let group = self.entry(group);
        let topic = match self.groups_by_topic.get_key_value(&topic) {
            Some((shared, _)) => shared.clone(),
            None => topic.detached(),
        };
        let committed = CommittedOffset::from(value);
        let added = committed.bytes();
        // The entry stands: it was made above.
        let stored = self.groups.entry(group.clone()).or_default();
        let previous = stored.offsets.insert((topic.clone(), partition), committed);
        self.groups_by_topic.entry(topic).or_default().insert(group);
        self.bytes += added;
        self.bytes -= previous.map_or(0, |previous| previous.bytes());
    }

    fn remove_offset(&mut self, group: &Str, topic: Str, partition: i32) {
        let Some(stored) = self.groups.get_mut(group) else {
            return;
        };
        let Some(removed) = stored.offsets.remove(&(topic.clone(), partition)) else {
            return;
        };
        self.bytes -= removed.bytes();
        let first = (topic.clone(), i32::MIN);
        let last = (topic.clone(), i32::MAX);
        if stored.offsets.range(first..=last).next().is_none()
            && let Some(groups) = self.groups_by_topic.get_mut(&topic)
        {
            groups.remove(group);
            if groups.is_empty() {
                self.groups_by_topic.remove(&topic);
            }
        }
    }

    fn put_metadata(&mut self, group: Str, value: GroupMetadataValue) {
        let group = self.entry(group);
        let metadata = StoredMetadata::from(value);
        let stored = self.groups.entry(group).or_default();
        self.bytes += metadata.bytes();
        self.bytes -= stored.metadata.bytes();
        stored.metadata = metadata;
    }

    /// A group without metadata is gone, unless it has offsets: then it only stores those.
    fn remove_metadata(&mut self, group: &Str) {
        let Some(stored) = self.groups.get_mut(group) else {
            return;
        };
        self.bytes -= stored.metadata.bytes();
        stored.metadata = StoredMetadata::default();
        self.bytes += stored.metadata.bytes();
        if stored.offsets.is_empty() {
            self.bytes -= group_bytes(group) + stored.metadata.bytes();
            self.groups.remove(group);
        }
    }

    fn put_unread(&mut self, key: &Bytes, value: Option<&Bytes>) {
        let cost = |key: &Bytes, value: &Bytes| 128 + key.len() + value.len();
        if let Some(previous) = self.unread.remove(key) {
            self.bytes -= cost(key, &previous);
        }
        if let Some(value) = value {
            self.bytes += cost(key, value);
            self.unread.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        }
    }

    /// The group's id as it is kept, after making an entry for a new one.
    fn entry(&mut self, group: Str) -> Str {
        if let Some((kept, _)) = self.groups.get_key_value(&group) {
            return kept.clone();
        }
        let kept = group.detached();
        let stored = StoredGroup::default();
        self.bytes += group_bytes(&kept) + stored.metadata.bytes();
        self.groups.insert(kept.clone(), stored);
        kept
    }
}

/// What a group's entry takes by itself, in bytes, about.
fn group_bytes(id: &Str) -> usize {
    const FIXED_BYTES: usize = 192;
    FIXED_BYTES + id.as_bytes().len()
}

impl StoredMetadata {
    fn bytes(&self) -> usize {
        const FIXED_BYTES: usize = 160;
        let text = |text: &Option<Str>| text.as_ref().map_or(0, |text| text.as_bytes().len());
        FIXED_BYTES
            + text(&self.protocol_type)
            + text(&self.protocol)
            + text(&self.leader)
            + self.members.iter().map(StoredMember::bytes).sum::<usize>()
    }
}

impl StoredMember {
    fn bytes(&self) -> usize {
        const FIXED_BYTES: usize = 256;
        FIXED_BYTES
            + self.member_id.as_bytes().len()
            + self.instance_id.as_ref().map_or(0, |id| id.as_bytes().len())
            + self.client_id.as_bytes().len()
            + self.client_host.as_bytes().len()
            + self.subscription.len()
            + self.assignment.len()
    }
}

impl CommittedOffset {
    fn bytes(&self) -> usize {
        const FIXED_BYTES: usize = 256;
        FIXED_BYTES + self.metadata.as_bytes().len()
    }
}

impl From<OffsetCommitValue> for CommittedOffset {
    fn from(value: OffsetCommitValue) -> Self {
        Self {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.detached(),
            committed_at_ms: value.commit_timestamp,
            expires_at_ms: (value.expire_timestamp != -1).then_some(value.expire_timestamp),
            topic_id: value.topic_id,
        }
    }
}

impl From<GroupMetadataValue> for StoredMetadata {
    fn from(value: GroupMetadataValue) -> Self {
        let not_empty = |text: Str| (!text.as_bytes().is_empty()).then(|| text.detached());
        Self {
            protocol_type: not_empty(value.protocol_type),
            generation: value.generation,
            protocol: value.protocol.map(|protocol| protocol.detached()),
            leader: value.leader.map(|leader| leader.detached()),
            changed_at_ms: (value.current_state_timestamp != -1)
                .then_some(value.current_state_timestamp),
            members: value.members.into_iter().map(StoredMember::from).collect(),
        }
    }
}

impl From<MemberMetadata> for StoredMember {
    fn from(value: MemberMetadata) -> Self {
        Self {
            member_id: value.member_id.detached(),
            instance_id: value.group_instance_id.map(|id| id.detached()),
            client_id: value.client_id.detached(),
            client_host: value.client_host.detached(),
            // Records before v1 have no rebalance timeout.
            rebalance_timeout_ms: if value.rebalance_timeout == -1 {
                value.session_timeout
            } else {
                value.rebalance_timeout
            },
            session_timeout_ms: value.session_timeout,
            subscription: Bytes::copy_from_slice(&value.subscription),
            assignment: Bytes::copy_from_slice(&value.assignment),
        }
    }
}
