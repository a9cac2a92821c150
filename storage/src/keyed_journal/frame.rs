//! Frames of the journal: what stands in them, and what can be read of one that is damaged.
//!
//! The payload, under the frame's CRC, and in parts under CRCs of their own, so that of a damaged
//! frame all is known but what stood in the damaged part:
//!
//! | field | bytes |
//! |---|---|
//! | number; part, and parts, of a base (0 and 0: a change) | 8, 4, 4 |
//! | highest sequence; doubt; count; CRC | 8, 8, 4, 4 |
//! | of each entry: topic id, partition, sequence | 16, 4, 8 |
//! | its kind, the length of its value, CRC | 1, 4, 4 |
//! | its value, CRC | length, 4 |

use bytes::Bytes;
use vltava_protocol::types::Uuid;

use crate::checkpoint::{FieldReader, FieldWriter, FrameKind, frame};
use crate::group_key::GroupKey;

/// The most bytes of a value.
pub const VALUE_BYTES_MAX: usize = 64 << 10;

pub(super) const FRAMES: FrameKind = FrameKind { magic: *b"VLTV", version: 1 };
/// A frame takes no more entries once they have so many bytes.
const ENTRIES_BYTES_MAX: usize = 1 << 20;
/// What a payload can have: the last entry may go over.
pub(super) const PAYLOAD_BYTES_MAX: usize = 2 << 20;
const HEAD_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 4;
const ENTRY_HEAD_BYTES: usize = 16 + 4 + 8 + 1 + 4;
const CRC_BYTES: usize = 4;

/// What stands for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Removed,
    Value(Bytes),
    /// There was something, which is damaged in both files.
    Lost,
}

/// What was set for a key, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) content: Content,
}

impl Entry {
    fn value(&self) -> &[u8] {
        match &self.content {
            Content::Value(value) => value,
            Content::Removed | Content::Lost => &[],
        }
    }
}

/// Which frame this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FrameId {
    /// Of a change: its number. Of a base: that of the last change it holds.
    pub(super) number: u64,
    /// Of a base: how many frames it has; 0: a change.
    pub(super) parts: u32,
    pub(super) part: u32,
}

impl FrameId {
    pub(super) fn change(number: u64) -> Self {
        Self { number, parts: 0, part: 0 }
    }

    pub(super) fn is_base(&self) -> bool {
        self.parts > 0
    }
}

/// What a frame says beside its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: FrameId,
    /// The highest sequence number that was given, or seen, when this was written.
    pub(super) sequence: u64,
    /// Something was lost, nobody knows whose: what is not newer than this is not known; 0: no.
    pub(super) doubt: u64,
}

/// What was read of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) head: Head,
    pub(super) entries: Vec<(GroupKey, Entry)>,
    /// No entry is missing; one may be lost.
    pub(super) is_complete: bool,
}

/// A frame of these entries.
pub(super) fn encode<'a>(
    head: Head,
    entries: impl ExactSizeIterator<Item = (&'a GroupKey, &'a Entry)>,
) -> Vec<u8> {
    let mut fields = FieldWriter::default();
    fields.u64(head.id.number);
    fields.u32(head.id.part);
    fields.u32(head.id.parts);
    fields.u64(head.sequence);
    fields.u64(head.doubt);
    fields.count(entries.len());
    seal(&mut fields, 0);
    for (key, entry) in entries {
        let start = fields.0.len();
        fields.u128(key.topic_id.0);
        fields.i32(key.partition);
        fields.u64(entry.sequence);
        fields.u8(match entry.content {
            Content::Removed => 0,
            Content::Value(_) => 1,
            Content::Lost => 2,
        });
        let value = entry.value();
        fields.count(value.len());
        seal(&mut fields, start);
        let start = fields.0.len();
        fields.bytes(value);
        seal(&mut fields, start);
    }
    frame(FRAMES, &fields.0)
}

fn seal(fields: &mut FieldWriter, start: usize) {
    let crc = crc32c::crc32c(&fields.0[start..]);
    fields.u32(crc);
}

/// How many of the first entries go into one frame.
pub(super) fn fitting<'a>(entries: impl Iterator<Item = &'a Entry>) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        let before = bytes;
        bytes += ENTRY_HEAD_BYTES + 2 * CRC_BYTES + entry.value().len();
        before < ENTRIES_BYTES_MAX
    };
    entries.take_while(fits).count()
}

/// Reads a payload, also a damaged one; `None` where not even the head can be read.
pub(super) fn decode(payload: &[u8]) -> Option<Contents> {
    let mut fields = FieldReader(payload);
    let mut head = FieldReader(checked(&mut fields, HEAD_BYTES)??);
    let (number, part, parts) = (head.u64()?, head.u32()?, head.u32()?);
    let (sequence, doubt) = (head.u64()?, head.u64()?);
    let count = head.u32()?;
    let head = Head { id: FrameId { number, parts, part }, sequence, doubt };
    let mut entries = Vec::new();
    for _ in 0..count {
        let Some(entry) = decode_entry(&mut fields) else {
            return Some(Contents { head, entries, is_complete: false });
        };
        entries.push(entry);
    }
    Some(Contents { head, entries, is_complete: true })
}

/// An entry; `None` where not even whose it is can be read.
fn decode_entry(fields: &mut FieldReader<'_>) -> Option<(GroupKey, Entry)> {
    let mut head = FieldReader(checked(fields, ENTRY_HEAD_BYTES)??);
    let topic_id = Uuid(head.u128()?);
    let key = GroupKey { topic_id, partition: head.i32()? };
    let (sequence, kind) = (head.u64()?, head.u8()?);
    let len = usize::try_from(head.u32()?).ok()?;
    let value = checked(fields, len);
    let content = match (kind, value.flatten()) {
        (0, _) => Content::Removed,
        (1, Some(value)) => Content::Value(Bytes::copy_from_slice(value)),
        _ => Content::Lost,
    };
    Some((key, Entry { sequence, content }))
}

/// So many bytes, and the CRC behind them. `None`: so many are not there; the inner one: they are
/// not what was written.
fn checked<'a>(fields: &mut FieldReader<'a>, len: usize) -> Option<Option<&'a [u8]>> {
    let (bytes, crc) = (fields.take(len)?, fields.u32()?);
    Some((crc == crc32c::crc32c(bytes)).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{FRAME_HEADER_BYTES, unframe};

    fn key(partition: i32) -> GroupKey {
        GroupKey { topic_id: Uuid(7), partition }
    }

    fn entries() -> Vec<(GroupKey, Entry)> {
        let value = |byte, len| Content::Value(Bytes::from(vec![byte; len]));
        let contents = [value(1, 10), Content::Removed, value(2, 0), Content::Lost, value(3, 40)];
        let entries = (0..).zip(contents).map(|(n, content)| {
            (key(n), Entry { sequence: u64::try_from(n).unwrap() + 10, content })
        });
        entries.collect()
    }

    fn encoded() -> (Head, Vec<u8>) {
        let id = FrameId { number: 5, parts: 3, part: 1 };
        let head = Head { id, sequence: 99, doubt: 4 };
        let entries = entries();
        (head, encode(head, entries.iter().map(|(key, entry)| (key, entry))))
    }

    #[test]
    fn frames_come_back() {
        let (head, bytes) = encoded();
        let payload = unframe(FRAMES, &bytes).unwrap();
        let contents = Contents { head, entries: entries(), is_complete: true };
        assert_eq!(decode(payload), Some(contents));
    }

    /// Whatever bit is flipped: nothing is read that was not written, and what is lost is known by
    /// its key, or as missing.
    #[test]
    fn of_a_damaged_frame_the_rest_is_read() {
        let (head, bytes) = encoded();
        let (mut headless, mut cut, mut lost) = (0, 0, 0);
        for bit in 8 * FRAME_HEADER_BYTES..8 * bytes.len() {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(unframe(FRAMES, &bytes).is_err());
            let Some(found) = decode(&bytes[FRAME_HEADER_BYTES..]) else {
                headless += 1;
                continue;
            };
            assert_eq!(found.head, head);
            let mut differing = 0;
            for (found, written) in found.entries.iter().zip(entries()) {
                if *found != written {
                    let expected = Entry { content: Content::Lost, ..written.1 };
                    assert_eq!(*found, (written.0, expected));
                    differing += 1;
                }
            }
            assert_eq!(found.is_complete, found.entries.len() == entries().len());
            assert!(differing <= 1);
            cut += usize::from(!found.is_complete);
            lost += differing;
        }
        assert_eq!(headless, 8 * (HEAD_BYTES + CRC_BYTES));
        assert!(cut > 500 && lost > 300, "{cut} {lost}");
        for len in FRAME_HEADER_BYTES..bytes.len() {
            assert!(decode(&bytes[FRAME_HEADER_BYTES..len]).is_none_or(|found| {
                !found.is_complete || found.entries[4].1.content == Content::Lost
            }));
        }
    }

    #[test]
    fn a_frame_takes_what_fits() {
        let large = Content::Value(Bytes::from(vec![0; VALUE_BYTES_MAX]));
        let entries = vec![Entry { sequence: 1, content: large }; 40];
        let fits = fitting(entries.iter());
        assert_eq!(fits, 16);
        let keys: Vec<GroupKey> = (0..16).map(key).collect();
        let (head, _) = encoded();
        let bytes = encode(head, keys.iter().zip(&entries[..fits]));
        assert!(bytes.len() <= PAYLOAD_BYTES_MAX);
        assert_eq!(fitting([].into_iter()), 0);
    }
}
