//! What a log writes down so that recovery can start from it: the file `vltava-checkpoint` of a
//! partition.
//!
//! One frame (see `checkpoint`), replaced as a whole when a segment is closed, when the log's start
//! moves, when it is cut, when it is closed in good order, and now and then while it grows.
//! Everything below its last cursor needs no walk.

use vltava_protocol::types::Uuid;

use crate::checkpoint::{
    FRAME_HEADER_BYTES, FieldReader, FieldWriter, FrameKind, Tail, frame, read_frame, replace,
};
use crate::error::{Corruption, StorageError, StorageResult};
use crate::io::{Disk, IoResult};
use crate::layout::CHECKPOINT;
use crate::leader_epochs::LeaderEpochs;
use crate::segment::SegmentCursor;

const LOG_CHECKPOINT: FrameKind = FrameKind { magic: *b"VLTC", version: 1 };
/// Its frame, what there is one of, and the counts of the lists.
const FIXED_BYTES: usize = FRAME_HEADER_BYTES + 16 + 4 + 3 * 8 + 2 * 4;
/// An epoch and its start.
const EPOCH_BYTES: usize = 4 + 8;

/// A log as far as it was proved when this was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogCheckpoint {
    pub(crate) topic_id: Uuid,
    /// Counts truncations.
    pub(crate) generation: u32,
    pub(crate) log_start: i64,
    /// The most bytes of one write since: how far behind a torn batch another may stand.
    pub(crate) write_bytes_max: u64,
    /// The snapshot of producers at or below the last cursor's end; `None`: none was known there.
    pub(crate) snapshot: Option<i64>,
    pub(crate) epochs: LeaderEpochs,
    /// All segments, oldest first. The last one is proved up to where its cursor stands, the others
    /// are whole.
    pub(crate) segments: Vec<SegmentCursor>,
}

impl LogCheckpoint {
    /// The cursor up to which no walk is needed.
    pub(crate) fn proved(&self) -> Option<&SegmentCursor> {
        self.segments.last()
    }

    /// The segment with this number is not what it was: everything from its start on is to be
    /// walked.
    pub(crate) fn distrust_from(&mut self, at: usize) {
        let cursor = self.segments[at];
        self.segments.truncate(at);
        self.segments.push(SegmentCursor::new(cursor.base_offset, cursor.created_ms));
        self.epochs.truncate(cursor.base_offset, self.log_start);
        self.snapshot = Some(cursor.base_offset);
    }

    /// How long the file is of a log with so many epochs and segments.
    pub(crate) fn bytes(epochs: usize, segments: usize) -> usize {
        FIXED_BYTES + epochs * EPOCH_BYTES + segments * SegmentCursor::BYTES
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = FieldWriter::default();
        fields.u128(self.topic_id.0);
        fields.u32(self.generation);
        fields.i64(self.log_start);
        fields.u64(self.write_bytes_max);
        fields.i64(self.snapshot.unwrap_or(-1));
        fields.count(self.epochs.entries().len());
        for (epoch, start) in self.epochs.entries() {
            fields.i32(*epoch);
            fields.i64(*start);
        }
        fields.count(self.segments.len());
        for segment in &self.segments {
            segment.encode(&mut fields);
        }
        frame(LOG_CHECKPOINT, &fields.0)
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let mut fields = FieldReader(payload);
        let checkpoint = Self {
            topic_id: Uuid(fields.u128()?),
            generation: fields.u32()?,
            log_start: fields.i64()?,
            write_bytes_max: fields.u64()?,
            snapshot: Some(fields.i64()?).filter(|offset| *offset >= 0),
            epochs: LeaderEpochs::from_entries(
                fields.list(|entry| Some((entry.i32()?, entry.i64()?)))?,
            )?,
            segments: fields.list(SegmentCursor::decode)?,
        };
        let joined =
            checkpoint.segments.windows(2).all(|pair| pair[0].next_offset == pair[1].base_offset);
        (joined && !checkpoint.segments.is_empty()).then_some(checkpoint)
    }

    /// Reads a partition's checkpoint. Without one, or with a damaged one, nothing can be proved:
    /// [`StorageError::Corrupt`].
    pub(crate) async fn read<D: Disk>(disk: &D, directory: &str) -> StorageResult<Self> {
        let path = format!("{directory}/{CHECKPOINT}");
        let payload = read_frame(disk, &path, LOG_CHECKPOINT).await?;
        let checkpoint = payload.as_deref().map(Self::decode);
        let what = match checkpoint {
            Some(Some(checkpoint)) => return Ok(checkpoint),
            Some(None) => "its content makes no sense",
            None => "it is missing",
        };
        Err(StorageError::Corrupt(Corruption {
            path,
            position: 0,
            offset: -1,
            what: what.to_owned(),
        }))
    }

    /// Replaces a partition's checkpoint, durably.
    pub(crate) async fn write<D: Disk>(&self, disk: &D, directory: &str) -> IoResult<()> {
        replace(disk, directory, CHECKPOINT, &self.encode(), Tail::Padded).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::unframe;

    #[test]
    fn it_comes_back_as_it_was() {
        let mut closed = SegmentCursor::new(5, 1);
        closed.next_offset = 9;
        closed.position = 1000;
        let checkpoint = LogCheckpoint {
            topic_id: Uuid(77),
            generation: 3,
            log_start: 6,
            write_bytes_max: 4096,
            snapshot: Some(9),
            epochs: LeaderEpochs::from_entries(vec![(0, 5), (2, 8)]).unwrap(),
            segments: vec![closed, SegmentCursor::new(9, 2)],
        };
        let bytes = checkpoint.encode();
        assert_eq!(bytes.len(), LogCheckpoint::bytes(2, 2));
        let payload = unframe(LOG_CHECKPOINT, &bytes).unwrap();
        assert_eq!(LogCheckpoint::decode(payload), Some(checkpoint.clone()));
        for len in 0..payload.len() {
            assert_eq!(LogCheckpoint::decode(&payload[..len]), None);
        }
        let mut gap = checkpoint;
        gap.segments[1].base_offset = 10;
        gap.segments[1].next_offset = 10;
        let bytes = gap.encode();
        assert_eq!(LogCheckpoint::decode(unframe(LOG_CHECKPOINT, &bytes).unwrap()), None);
    }
}
