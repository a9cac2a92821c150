//! The live state as records, piece by piece: what a log must hold for a replay to give this state.

use std::ops::Bound;

use bytes::Bytes;
use vltava_protocol::types::Str;

use super::records::{self, Key};
use super::state::{State, StoredGroup, StoredMetadata};
use super::work::{RecordError, record_bytes};
use crate::machine::KeyValue;

/// Where a piece goes on, in the order that snapshots go in: each group's metadata, then its
/// offsets, group by group; then what is kept unread.
enum Position {
    /// At this group's first offset.
    Offsets(Str),
    /// Behind this offset.
    Offset(Str, Str, i32),
    /// Behind this unread record.
    Unread(Bytes),
}

struct Piece {
    records: Vec<KeyValue>,
    records_max: usize,
    bytes: usize,
    bytes_max: usize,
}

/// The records behind `after`, in the order of snapshots: at most `records_max`, and no more than
/// `bytes_max` but for a single record larger than that. None: that was all.
pub(super) fn piece(
    state: &State,
    after: Option<&Bytes>,
    records_max: usize,
    bytes_max: usize,
) -> Vec<KeyValue> {
    let mut piece = Piece { records: Vec::new(), records_max, bytes: 0, bytes_max };
    let unread_from = match after.map(position) {
        Some(Position::Unread(key)) => Bound::Excluded(key),
        other => {
            if !groups(state, other, &mut piece) {
                return piece.records;
            }
            Bound::Unbounded
        }
    };
    for (key, value) in state.unread().range((unread_from, Bound::Unbounded)) {
        let record = KeyValue { key: key.clone(), value: Some(value.clone()) };
        if !piece.take(Ok(record)) {
            break;
        }
    }
    piece.records
}

fn position(after: &Bytes) -> Position {
    match records::decode_key(after) {
        Ok(Key::Group { group }) => Position::Offsets(group),
        Ok(Key::Offset { group, topic, partition }) => Position::Offset(group, topic, partition),
        // The host hands back only keys that it was given, so one that is no longer ours to read is
        // one that never was.
        Ok(Key::Other) | Err(_) => Position::Unread(after.clone()),
    }
}

/// Adds groups from a position on. Whether all had room.
fn groups(state: &State, from: Option<Position>, piece: &mut Piece) -> bool {
    let (first, offsets_from) = match from {
        None => (Bound::Unbounded, None),
        Some(Position::Offsets(group)) => (Bound::Included(group), Some(Bound::Unbounded)),
        Some(Position::Offset(group, topic, partition)) => {
            let behind = Bound::Excluded((topic, partition));
            (Bound::Included(group), Some(behind))
        }
        // Handled by the caller: no group is left.
        Some(Position::Unread(_)) => return true,
    };
    let mut resumed = match (&first, offsets_from) {
        (Bound::Included(group), Some(from)) => Some((group.clone(), from)),
        _ => None,
    };
    for (id, group) in state.groups().range((first, Bound::Unbounded)) {
        let from = match resumed.take() {
            // The group of the piece before: its metadata is written.
            Some((resumed_id, from)) if resumed_id == *id => from,
            _ => {
                if needs_metadata(group) && !piece.take(records::group(id, &group.metadata)) {
                    return false;
                }
                Bound::Unbounded
            }
        };
        for ((topic, partition), committed) in group.offsets.range((from, Bound::Unbounded)) {
            if !piece.take(records::offset(id, topic, *partition, committed)) {
                return false;
            }
        }
    }
    true
}

/// A group that only stores offsets has no metadata record; its offsets bring it back.
fn needs_metadata(group: &StoredGroup) -> bool {
    group.offsets.is_empty() || group.metadata != StoredMetadata::default()
}

impl Piece {
    /// Adds a record where there is room for it; whether there was.
    fn take(&mut self, record: Result<KeyValue, RecordError>) -> bool {
        assert!(record.is_ok(), "what was decoded from a record fits into a record");
        let Ok(record) = record else {
            return false;
        };
        let bytes = record_bytes(&record);
        let is_full = self.records.len() >= self.records_max
            || (!self.records.is_empty() && self.bytes + bytes > self.bytes_max);
        if !is_full {
            self.bytes += bytes;
            self.records.push(record);
        }
        !is_full
    }
}
