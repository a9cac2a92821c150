//! The records of one producer that have not been sent: a queue of batches for each partition.

use std::collections::VecDeque;

use bytes::Bytes;
use vltava_protocol::batch::add_to_sequence;
use vltava_protocol::compression::{CompressionError, Compressor};

use crate::engine::batch::{BatchWriter, Identity, RECORD_OVERHEAD_BYTES};
use crate::engine::buffers::Buffers;
use crate::engine::map::index;
use crate::engine::payload::{SHORT_HEAD_BYTES, Value, Values};

/// What a batch's buffer has at first: many are sent with less.
const FIRST_BYTES: usize = 4 << 10;

/// What a record brings.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// When it was to be sent, in the clock's nanoseconds.
    pub intended_ns: u64,
    /// Its key, if any.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Value,
}

/// What is known of a batch while it is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Where it goes.
    pub partition: u32,
    /// Its number among those that went there.
    pub place: u64,
    /// Records that were to be sent at the same moment: the moment, and how many.
    pub intended: Vec<(u64, u64)>,
    /// How many records it has.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// The sequence behind the last of its records that carry one.
    pub sequence_end: u64,
    /// How many carry none.
    pub bare: u64,
    /// As it travels, for another try.
    pub batch: Bytes,
    /// When it was first refused, or lost with its connection.
    pub returned_ns: Option<u64>,
}

/// What was acknowledged of a producer in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// The sequence behind the last record that carries one.
    pub sequence_end: u64,
    /// How many records carry none.
    pub bare: u64,
}

/// Why a batch could not be closed.
#[derive(Debug, thiserror::Error)]
#[error("a batch cannot be compressed: {0}")]
pub struct CloseError(#[from] CompressionError);

#[derive(Debug)]
struct Open {
    writer: BatchWriter,
    sent: Sent,
    /// When it may leave although it is not full.
    due_ns: u64,
}

#[derive(Debug, Default)]
struct Partition {
    batches: VecDeque<Open>,
    /// Batches begun.
    begun: u64,
    /// The next record's sequence.
    sequence: u64,
    /// The next batch's, of an idempotent producer.
    base_sequence: i32,
    acknowledged: Acknowledged,
    /// Batches that are under way.
    in_flight: usize,
    /// Batches that were refused or lost, and are to be sent again before any other, one by one:
    /// in their order.
    returned: Vec<Sent>,
    /// How many records were given back so far, each as often as it was.
    resent: u64,
    /// Whether it stands in a queue of those that are ready.
    is_listed: bool,
}

/// The queues of one producer.
pub struct Queues {
    /// The producer's number.
    number: u32,
    batch_bytes: usize,
    /// Producer id and epoch, where it is idempotent.
    identity: Option<(i64, i16)>,
    compressor: Compressor,
    partitions: Vec<Partition>,
    /// Bytes and records in all of them.
    bytes: usize,
    records: u64,
    /// The length of the batch that was taken last: the next may be like it.
    last_len: usize,
}

impl Queues {
    /// Empty ones.
    pub fn new(
        number: u32,
        partition_count: usize,
        batch_bytes: u32,
        identity: Option<(i64, i16)>,
        compressor: Compressor,
    ) -> Self {
        Self {
            number,
            batch_bytes: index(batch_bytes),
            identity,
            compressor,
            partitions: (0..partition_count).map(|_| Partition::default()).collect(),
            bytes: 0,
            records: 0,
            last_len: 0,
        }
    }

    /// How many partitions there are.
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// Bytes of all batches that have not been taken.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records of them.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Whether a record would begin a batch behind one that is there.
    pub fn is_filled_by(&self, partition: u32, record_bytes: usize) -> bool {
        let last = self.partitions[index(partition)].batches.back();
        last.is_some_and(|open| !self.fits(open, record_bytes))
    }

    /// Appends a record. If it begins a batch, that may leave at `due_ns` though it is not full.
    /// Whether it has begun one.
    pub fn append(
        &mut self,
        partition: u32,
        record: Record<'_>,
        due_ns: u64,
        values: &Values,
        buffers: &mut Buffers,
    ) -> bool {
        let record_bytes = record.key.map_or(0, <[u8]>::len) + record.value.len;
        let last = self.partitions[index(partition)].batches.back();
        let begins = !last.is_some_and(|open| self.fits(open, record_bytes));
        let needed = RECORD_OVERHEAD_BYTES + record_bytes;
        let queue = &mut self.partitions[index(partition)];
        if begins {
            let likely = self.last_len.max(FIRST_BYTES).min(self.batch_bytes);
            let buffer = buffers.take(likely.max(BatchWriter::EMPTY_BYTES + needed));
            let sent = Sent { partition, place: queue.begun, ..Sent::default() };
            queue.begun += 1;
            queue.batches.push_back(Open { writer: BatchWriter::new(buffer), sent, due_ns });
        }
        let Some(Open { writer, sent, .. }) = queue.batches.back_mut() else {
            return begins;
        };
        let before = writer.len();
        if before + needed > writer.capacity() {
            writer.grow((4 * before).min(self.batch_bytes).max(before + needed), buffers);
        }
        let (number, sequence) = (self.number, queue.sequence);
        writer.append(record.timestamp, record.key, record.value.len, |out| {
            let key = record.key.unwrap_or_default();
            values.put(record.value, number, sequence, record.intended_ns, key, out);
        });
        self.bytes += writer.len() - before;
        self.records += 1;
        if record.value.len < SHORT_HEAD_BYTES {
            sent.bare += 1;
        } else {
            queue.sequence += 1;
        }
        sent.sequence_end = queue.sequence;
        sent.records += 1;
        sent.bytes += record_bytes as u64;
        match sent.intended.last_mut() {
            Some((moment, count)) if *moment == record.intended_ns => *count += 1,
            _ => sent.intended.push((record.intended_ns, 1)),
        }
        begins
    }

    /// The last batch of a partition may leave from now on.
    pub fn let_go(&mut self, partition: u32) {
        if let Some(open) = self.partitions[index(partition)].batches.back_mut() {
            open.due_ns = 0;
        }
    }

    /// Whether the oldest batch of a partition may leave, and nobody has been told yet: from now on
    /// somebody has.
    pub fn list_if_ready(&mut self, partition: u32, now_ns: u64) -> bool {
        let queue = &mut self.partitions[index(partition)];
        let may_leave = match queue.batches.front() {
            _ if !queue.returned.is_empty() => queue.in_flight == 0,
            Some(first) => first.due_ns <= now_ns || queue.batches.len() > 1,
            None => false,
        };
        may_leave && !std::mem::replace(&mut queue.is_listed, true)
    }

    /// How large the oldest batch of a partition is; 0 where there is none.
    pub fn first_len(&self, partition: u32) -> usize {
        let queue = &self.partitions[index(partition)];
        let returned = queue.returned.first().map(|sent| sent.batch.len());
        let open = || queue.batches.front().map(|open| open.writer.len());
        returned.or_else(open).unwrap_or_default()
    }

    /// Takes the oldest batch of a partition, as it travels. The partition is listed no more.
    ///
    /// # Errors
    /// What the codec says.
    pub fn take(
        &mut self,
        partition: u32,
        buffers: &mut Buffers,
    ) -> Result<Option<Sent>, CloseError> {
        let queue = &mut self.partitions[index(partition)];
        queue.is_listed = false;
        if !queue.returned.is_empty() {
            if queue.in_flight > 0 {
                return Ok(None);
            }
            let sent = queue.returned.remove(0);
            queue.in_flight += 1;
            self.bytes -= sent.batch.len();
            self.records -= sent.records;
            return Ok(Some(sent));
        }
        let Some(Open { writer, mut sent, .. }) = queue.batches.pop_front() else {
            return Ok(None);
        };
        self.bytes -= writer.len() - BatchWriter::EMPTY_BYTES;
        self.records -= sent.records;
        self.last_len = writer.len();
        let identity = match self.identity {
            None => Identity::NONE,
            Some((producer_id, epoch)) => {
                let base_sequence = queue.base_sequence;
                let count = i32::try_from(sent.records).unwrap_or(i32::MAX);
                queue.base_sequence = add_to_sequence(base_sequence, count);
                Identity { producer_id, epoch, base_sequence }
            }
        };
        let (bytes, left) = writer.close(identity, &mut self.compressor)?;
        if let Some(buffer) = left {
            buffers.keep(buffer);
        }
        queue.in_flight += 1;
        sent.batch = bytes;
        Ok(Some(sent))
    }

    /// A batch was refused, or its answer is lost: it is to be sent again, by [`Self::take`].
    pub fn give_back(&mut self, mut sent: Sent, now_ns: u64) {
        let queue = &mut self.partitions[index(sent.partition)];
        queue.in_flight -= 1;
        queue.resent += sent.records;
        sent.returned_ns.get_or_insert(now_ns);
        self.bytes += sent.batch.len();
        self.records += sent.records;
        let place = queue.returned.partition_point(|other| other.place < sent.place);
        queue.returned.insert(place, sent);
    }

    /// Whether batches of a partition are to be sent again.
    pub fn has_returned(&self, partition: u32) -> bool {
        !self.partitions[index(partition)].returned.is_empty()
    }

    /// A batch was refused for good.
    pub fn on_failed(&mut self, sent: &Sent) {
        self.partitions[index(sent.partition)].in_flight -= 1;
    }

    /// A batch was acknowledged.
    pub fn on_acknowledged(&mut self, sent: &Sent) {
        let queue = &mut self.partitions[index(sent.partition)];
        queue.in_flight -= 1;
        let acknowledged = &mut queue.acknowledged;
        acknowledged.sequence_end = acknowledged.sequence_end.max(sent.sequence_end);
        acknowledged.bare += sent.bare;
    }

    /// How many records were given back, by partition: those where any were.
    pub fn resent(&self) -> impl Iterator<Item = (u32, u64)> {
        let all = (0..).zip(&self.partitions).map(|(at, queue)| (at, queue.resent));
        all.filter(|(_, resent)| *resent > 0)
    }

    /// What was acknowledged, by partition: those where anything was.
    pub fn acknowledged(&self) -> impl Iterator<Item = (u32, Acknowledged)> {
        let all = (0..).zip(&self.partitions).map(|(at, queue)| (at, queue.acknowledged));
        all.filter(|(_, acknowledged)| *acknowledged != Acknowledged::default())
    }

    fn fits(&self, open: &Open, record_bytes: usize) -> bool {
        open.writer.len() + RECORD_OVERHEAD_BYTES + record_bytes <= self.batch_bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test should say where")]

    use std::sync::Arc;

    use vltava_protocol::batch::Batch;
    use vltava_protocol::compression::Codec;

    use super::*;
    use crate::engine::payload::Pool;
    use crate::scenario::Size;

    fn append(queues: &mut Queues, values: &mut Values, partition: u32, intended_ns: u64) -> bool {
        let record = Record { timestamp: 5, intended_ns, key: None, value: values.make() };
        queues.append(partition, record, 100, values, &mut Buffers::default())
    }

    #[test]
    fn a_batch_leaves_when_it_is_full_or_has_waited() {
        let compressor = Compressor::new(Codec::None, None).unwrap();
        let mut queues = Queues::new(1, 2, 1000, Some((9, 0)), compressor);
        let mut values = Values::new(&Arc::new(Pool::new(&Size::Fixed(300), 1.0, false, 1)), 1);
        assert!(append(&mut queues, &mut values, 1, 10));
        assert!(!append(&mut queues, &mut values, 1, 10));
        assert!(!queues.list_if_ready(1, 99));
        assert!(queues.is_filled_by(1, 300));
        assert!(append(&mut queues, &mut values, 1, 20), "the third does not fit");
        assert!(queues.list_if_ready(1, 99), "the first is full");
        assert!(!queues.list_if_ready(1, 99), "somebody has been told");
        assert_eq!((queues.records(), queues.first_len(0)), (3, 0));
        let sent = queues.take(1, &mut Buffers::default()).unwrap().unwrap();
        assert_eq!((sent.intended.clone(), sent.sequence_end), (vec![(10, 2)], 2));
        assert_eq!(Batch::parse(&sent.batch).unwrap().0.base_sequence(), 0);
        queues.on_acknowledged(&sent);
        assert!(!queues.list_if_ready(1, 99));
        assert!(queues.list_if_ready(1, 100));
        let sent = queues.take(1, &mut Buffers::default()).unwrap().unwrap();
        assert_eq!(Batch::parse(&sent.batch).unwrap().0.base_sequence(), 2);
        assert_eq!((queues.bytes(), queues.records()), (0, 0));
        let expected = Acknowledged { sequence_end: 2, bare: 0 };
        assert_eq!(queues.acknowledged().collect::<Vec<_>>(), [(1, expected)]);
    }

    #[test]
    fn batches_that_return_leave_again_before_others_one_by_one_in_their_order() {
        let compressor = Compressor::new(Codec::None, None).unwrap();
        let mut queues = Queues::new(1, 1, 1000, Some((9, 0)), compressor);
        let mut values = Values::new(&Arc::new(Pool::new(&Size::Fixed(600), 1.0, false, 1)), 1);
        let mut buffers = Buffers::default();
        (0..4).for_each(|at| assert!(append(&mut queues, &mut values, 0, at)));
        let mut take = |queues: &mut Queues| queues.take(0, &mut buffers).unwrap();
        let (mut first, second) = (take(&mut queues).unwrap(), take(&mut queues).unwrap());
        let mut third = take(&mut queues).unwrap();
        queues.give_back(third.clone(), 1);
        queues.give_back(first.clone(), 2);
        // When it was first refused is known from now on.
        (first.returned_ns, third.returned_ns) = (Some(2), Some(1));
        assert_eq!(queues.resent().collect::<Vec<_>>(), [(0, 2)]);
        assert!(queues.has_returned(0));
        assert_eq!(queues.records(), 3);
        assert!(!queues.list_if_ready(0, 200), "the second is under way");
        assert_eq!(take(&mut queues), None);
        queues.on_acknowledged(&second);
        assert!(queues.list_if_ready(0, 200));
        assert_eq!(take(&mut queues), Some(first.clone()));
        assert!(!queues.list_if_ready(0, 200), "one by one");
        queues.on_acknowledged(&first);
        assert_eq!(take(&mut queues), Some(third.clone()));
        assert!(!queues.has_returned(0));
        queues.on_acknowledged(&third);
        let fourth = take(&mut queues).unwrap();
        assert_eq!(Batch::parse(&fourth.batch).unwrap().0.base_sequence(), 3);
        assert_eq!((queues.bytes(), queues.records()), (0, 0));
    }
}
