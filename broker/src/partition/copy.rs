//! A part of a leader's log, asked for by a replica that lacks what stands before the leader's
//! marks: where the log begins, and batches, in pieces. Everything asked for is committed.

use std::rc::Rc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use vltava_protocol::types::Uuid;

use super::client::Partitions;
use super::error::PartitionError;
use super::replica::Replica;
use super::request::PartitionId;
use crate::runtime::Runtime;

/// The number of this question between nodes.
pub const COPY: u16 = 256;

/// Bytes of batches in one answer; a batch that is larger comes alone.
const PIECE_BYTES: usize = 1 << 20;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// How the log begins.
    Beginning,
    /// Batches between two offsets, as many from the first on as fit.
    Batches {
        /// The first.
        from: i64,
        /// None at or above this one.
        until: i64,
    },
    /// The same, of a replica that need not lead: what is committed is the same in all.
    Same {
        /// The first.
        from: i64,
        /// None at or above this one.
        until: i64,
    },
    /// What was sent from this offset on is not what was written. Nothing is answered.
    Rotten {
        /// Where it began.
        from: i64,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of [`Question::Beginning`].
    Beginning {
        /// Where its first batch begins: the log's start may be inside it.
        first_batch: i64,
        /// Epochs up to there, each with the offset of its first batch.
        epochs: Vec<(i32, i64)>,
        /// What the log knows of producers before (`Log::producers_before`).
        producers: Bytes,
    },
    /// Of [`Question::Batches`].
    Batches(Bytes),
    /// The log begins behind what was asked for.
    Gone,
    /// A throttle lets nothing pass now: to be asked again after so many milliseconds.
    Later(u32),
}

const BEGINNING: u8 = 1;
const BATCHES: u8 = 2;
const GONE: u8 = 3;
const LATER: u8 = 4;
const SAME: u8 = 5;
const ROTTEN: u8 = 6;

impl Question {
    /// As bytes.
    pub fn to_bytes(self, partition: PartitionId) -> Bytes {
        let mut bytes = BytesMut::with_capacity(37);
        bytes.put_u128(partition.topic_id.0);
        bytes.put_i32(partition.index);
        match self {
            Self::Beginning => bytes.put_u8(BEGINNING),
            Self::Batches { from, until } => {
                bytes.put_u8(BATCHES);
                bytes.put_i64(from);
                bytes.put_i64(until);
            }
            Self::Same { from, until } => {
                bytes.put_u8(SAME);
                bytes.put_i64(from);
                bytes.put_i64(until);
            }
            Self::Rotten { from } => {
                bytes.put_u8(ROTTEN);
                bytes.put_i64(from);
            }
        }
        bytes.freeze()
    }

    fn from_bytes(mut bytes: Bytes) -> Option<(PartitionId, Self)> {
        let topic_id = Uuid(bytes.try_get_u128().ok()?);
        let index = bytes.try_get_i32().ok()?;
        let question = match bytes.try_get_u8().ok()? {
            BEGINNING => Self::Beginning,
            BATCHES => {
                let (from, until) = (bytes.try_get_i64().ok()?, bytes.try_get_i64().ok()?);
                Self::Batches { from, until }
            }
            SAME => {
                let (from, until) = (bytes.try_get_i64().ok()?, bytes.try_get_i64().ok()?);
                Self::Same { from, until }
            }
            ROTTEN => Self::Rotten { from: bytes.try_get_i64().ok()? },
            _ => return None,
        };
        Some((PartitionId { topic_id, index }, question))
    }
}

impl Answer {
    fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Self::Beginning { first_batch, epochs, producers } => {
                bytes.put_u8(BEGINNING);
                bytes.put_i64(*first_batch);
                bytes.put_u32(u32::try_from(epochs.len()).unwrap_or(u32::MAX));
                for (epoch, offset) in epochs {
                    bytes.put_i32(*epoch);
                    bytes.put_i64(*offset);
                }
                bytes.put_slice(producers);
            }
            Self::Batches(batches) => {
                bytes.reserve(1 + batches.len());
                bytes.put_u8(BATCHES);
                bytes.put_slice(batches);
            }
            Self::Gone => bytes.put_u8(GONE),
            Self::Later(wait_ms) => {
                bytes.put_u8(LATER);
                bytes.put_u32(*wait_ms);
            }
        }
        bytes.freeze()
    }

    /// What a node answered; `None` where it could not, or what it said is none of these.
    pub fn from_bytes(mut bytes: Bytes) -> Option<Self> {
        match bytes.try_get_u8().ok()? {
            BEGINNING => {
                let first_batch = bytes.try_get_i64().ok()?;
                let count = bytes.try_get_u32().ok()?;
                let mut epochs = Vec::new();
                for _ in 0..count {
                    epochs.push((bytes.try_get_i32().ok()?, bytes.try_get_i64().ok()?));
                }
                Some(Self::Beginning { first_batch, epochs, producers: bytes })
            }
            BATCHES => Some(Self::Batches(bytes)),
            GONE => Some(Self::Gone),
            LATER => Some(Self::Later(bytes.try_get_u32().ok()?)),
            _ => None,
        }
    }
}

/// What another node is answered; nothing where this one cannot.
pub async fn answer<R: Runtime>(partitions: &Rc<Partitions<R>>, from: i32, body: Bytes) -> Bytes {
    let Some((partition, question)) = Question::from_bytes(body) else {
        return Bytes::new();
    };
    let work = move |replica: Rc<Replica<R>>| async move { replica.answer(from, question).await };
    let answered = partitions.on_owner(partition, work).await.await;
    answered.map_or(Bytes::new(), |answer| answer.to_bytes())
}

impl<R: Runtime> Replica<R> {
    async fn answer(&self, node: i32, question: Question) -> Result<Answer, PartitionError> {
        match question {
            Question::Beginning => self.beginning(),
            Question::Batches { from, until } => self.copy(node, from, until).await,
            Question::Same { from, until } => self.same(from, until).await,
            Question::Rotten { from } => {
                self.suspect(from);
                Ok(Answer::Batches(Bytes::new()))
            }
        }
    }

    fn beginning(&self) -> Result<Answer, PartitionError> {
        self.check_leads()?;
        let first_batch = self.log.first_batch();
        let epochs = self.log.epochs().into_iter().filter(|(_, from)| *from <= first_batch);
        let producers = self.log.producers_before(first_batch).into();
        Ok(Answer::Beginning { first_batch, epochs: epochs.collect(), producers })
    }

    async fn copy(&self, node: i32, from: i64, until: i64) -> Result<Answer, PartitionError> {
        self.check_leads()?;
        if from < self.log.first_batch() {
            return Ok(Answer::Gone);
        }
        // What stands before a base is chosen. Clients may not have seen it: with a large
        // `min.insync.replicas` that waits for whoever asks here.
        let until = until.min(self.log.flushed_end()).min(self.sound_until(from)?);
        let allowance = match self.may_send_to_node(node).await {
            Ok(allowance) => allowance,
            Err(wait) => {
                let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
                return Ok(Answer::Later(wait_ms));
            }
        };
        let bytes_max = allowance.bytes.unwrap_or(PIECE_BYTES);
        let read = self.log_to_read().read_in_memory(from, until, bytes_max).await;
        self.has_sent(allowance, read.as_ref().map_or(0, Bytes::len));
        let read = read.inspect_err(|error| self.note_unread(from, error));
        Ok(Answer::Batches(read?))
    }

    async fn same(&self, from: i64, until: i64) -> Result<Answer, PartitionError> {
        let committed = self.high_watermark().min(self.log.flushed_end());
        let until = until.min(committed).min(self.sound_until(from)?);
        let read = self.log_to_read().read_to_mend(from, until, PIECE_BYTES).await;
        let read = read.inspect_err(|error| self.note_unread(from, error));
        Ok(Answer::Batches(read?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn what_is_asked_and_answered_is_what_arrives() {
        let partition = PartitionId { topic_id: Uuid(7), index: 3 };
        for question in [
            Question::Beginning,
            Question::Batches { from: 5, until: i64::MAX },
            Question::Same { from: 7, until: 9 },
            Question::Rotten { from: 3 },
        ] {
            let bytes = question.to_bytes(partition);
            assert_eq!(Question::from_bytes(bytes.clone()), Some((partition, question)));
            for len in 0..bytes.len() {
                assert_eq!(Question::from_bytes(bytes.slice(..len)), None);
            }
        }
        let epochs = vec![(1, 0), (4, 17)];
        let producers = Bytes::from_static(b"producers");
        for answer in [
            Answer::Beginning { first_batch: 17, epochs, producers },
            Answer::Batches(Bytes::from_static(b"batches")),
            Answer::Gone,
            Answer::Later(77),
        ] {
            assert_eq!(Answer::from_bytes(answer.to_bytes()), Some(answer));
        }
        let lies = [&[BEGINNING][..], &[0; 8], &[255; 4], &[0; 30]].concat();
        assert_eq!(Answer::from_bytes(lies.into()), None);
        assert_eq!(Answer::from_bytes(Bytes::new()), None);
    }
}
