//! A log that is to begin anew: the file `vltava-reset` of a partition.
//!
//! One frame (see `checkpoint`). Once it stands, durably, nothing else in the directory counts: the
//! log is empty, and begins where this says. It goes when the other files say the same.

use vltava_protocol::types::Uuid;

use crate::checkpoint::{FieldReader, FieldWriter, FrameKind, Tail, frame, read_frame, replace};
use crate::error::{Corruption, StorageError, StorageResult};
use crate::io::{Disk, IoResult};
use crate::layout::RESET;
use crate::leader_epochs::LeaderEpochs;
use crate::log_checkpoint::LogCheckpoint;
use crate::producer_state::ProducerStates;
use crate::segment::SegmentCursor;

const RESET_RECORD: FrameKind = FrameKind { magic: *b"VLTR", version: 1 };
/// The most bytes of producers: a frame holds no more.
const PRODUCERS_BYTES_MAX: usize = 48 << 20;

/// What a log begins with that has no batch yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogBeginning {
    pub(crate) base_offset: i64,
    pub(crate) epochs: LeaderEpochs,
    /// As in a snapshot file; empty: no producer is known.
    pub(crate) producers: Vec<u8>,
}

impl LogBeginning {
    /// # Errors
    /// [`StorageError::InvalidBeginning`].
    pub(crate) fn check(
        base_offset: i64,
        producers: &[u8],
        epochs: &[(i32, i64)],
    ) -> StorageResult<Self> {
        let invalid = |what| Err(StorageError::InvalidBeginning(what));
        if base_offset < 0 {
            return invalid("its first offset is negative");
        }
        let is_behind = epochs.iter().any(|(epoch, start)| *epoch < 0 || *start > base_offset);
        let epochs = LeaderEpochs::from_entries(epochs.to_vec());
        let Some(mut epochs) = epochs.filter(|_| !is_behind) else {
            return invalid("its epochs do not rise, or begin behind it");
        };
        epochs.cut_front(base_offset);
        if producers.len() > PRODUCERS_BYTES_MAX {
            return invalid("it has too many producers");
        }
        let is_snapshot =
            |bytes| ProducerStates::from_snapshot(bytes).is_some_and(|states| !states.is_empty());
        if !producers.is_empty() && !is_snapshot(producers) {
            return invalid("its producers are no snapshot");
        }
        Ok(Self { base_offset, epochs, producers: producers.to_vec() })
    }
}

/// A log that begins anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResetRecord {
    pub(crate) topic_id: Uuid,
    /// Above that of the log that was: notes of it do not count.
    pub(crate) generation: u32,
    pub(crate) write_bytes_max: u64,
    pub(crate) beginning: LogBeginning,
}

impl ResetRecord {
    fn encode(&self) -> Vec<u8> {
        let mut fields = FieldWriter::default();
        fields.u128(self.topic_id.0);
        fields.u32(self.generation);
        fields.u64(self.write_bytes_max);
        fields.i64(self.beginning.base_offset);
        let epochs = self.beginning.epochs.entries();
        fields.count(epochs.len());
        for (epoch, start) in epochs {
            fields.i32(*epoch);
            fields.i64(*start);
        }
        fields.count(self.beginning.producers.len());
        fields.bytes(&self.beginning.producers);
        frame(RESET_RECORD, &fields.0)
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let mut fields = FieldReader(payload);
        let topic_id = Uuid(fields.u128()?);
        let (generation, write_bytes_max) = (fields.u32()?, fields.u64()?);
        let base_offset = fields.i64()?;
        let epochs = fields.list(|entry| Some((entry.i32()?, entry.i64()?)))?;
        let len = usize::try_from(fields.u32()?).ok()?;
        let producers = fields.take(len)?;
        let beginning = LogBeginning::check(base_offset, producers, &epochs).ok()?;
        Some(Self { topic_id, generation, write_bytes_max, beginning })
    }

    /// Reads a partition's.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] where it is damaged, or is not there.
    pub(crate) async fn read<D: Disk>(disk: &D, directory: &str) -> StorageResult<Self> {
        let path = format!("{directory}/{RESET}");
        let payload = read_frame(disk, &path, RESET_RECORD).await?;
        let record = payload.as_deref().and_then(Self::decode);
        record.ok_or_else(|| {
            let what = "its content makes no sense".to_owned();
            StorageError::Corrupt(Corruption { path, position: 0, offset: -1, what })
        })
    }

    /// From here on the log that was is gone: durable once this returns.
    pub(crate) async fn write<D: Disk>(&self, disk: &D, directory: &str) -> IoResult<()> {
        replace(disk, directory, RESET, &self.encode(), Tail::Padded).await
    }

    /// The checkpoint of the empty log.
    pub(crate) fn to_checkpoint(&self) -> LogCheckpoint {
        let base_offset = self.beginning.base_offset;
        LogCheckpoint {
            topic_id: self.topic_id,
            generation: self.generation,
            log_start: base_offset,
            write_bytes_max: self.write_bytes_max,
            snapshot: (!self.beginning.producers.is_empty()).then_some(base_offset),
            epochs: self.beginning.epochs.clone(),
            segments: vec![SegmentCursor::new(base_offset, 0)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::unframe;
    use crate::producer_state::ProducerBatch;

    fn producers() -> Vec<u8> {
        let mut states = ProducerStates::default();
        let batch = ProducerBatch {
            producer_id: 7,
            producer_epoch: 1,
            base_sequence: 3,
            last_offset_delta: 1,
            timestamp: 9,
            is_transactional: false,
            is_control: false,
        };
        states.note(&batch, 40, 10);
        states.to_snapshot()
    }

    #[test]
    fn it_comes_back_as_it_was() {
        let beginning = LogBeginning::check(50, &producers(), &[(1, 0), (4, 30)]).unwrap();
        assert_eq!(beginning.epochs.entries(), &[(4, 50)]);
        let topic_id = Uuid(5);
        let record = ResetRecord { topic_id, generation: 3, write_bytes_max: 4096, beginning };
        let bytes = record.encode();
        let payload = unframe(RESET_RECORD, &bytes).unwrap();
        assert_eq!(ResetRecord::decode(payload), Some(record));
        for len in 0..payload.len() {
            assert_eq!(ResetRecord::decode(&payload[..len]), None);
        }
    }

    #[test]
    fn what_no_log_begins_with_is_refused() {
        let check = |base, producers: &[u8], epochs: &[(i32, i64)]| {
            LogBeginning::check(base, producers, epochs).is_ok()
        };
        let producers = producers();
        assert!(check(0, &[], &[]) && check(9, &producers, &[(0, 9)]));
        assert!(!check(-1, &[], &[]));
        assert!(!check(9, &producers[..producers.len() - 1], &[]));
        assert!(!check(9, &ProducerStates::default().to_snapshot(), &[]));
        for epochs in [[(0, 0), (0, 5)], [(0, 5), (1, 5)], [(0, 5), (1, 10)], [(-1, 0), (1, 5)]] {
            assert!(!check(9, &[], &epochs), "{epochs:?}");
        }
    }
}
