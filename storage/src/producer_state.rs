//! What the log knows of its idempotent producers (KIP-98). Pure.
//!
//! For each producer id: its epoch, its last five batches, the start of its open transaction. A
//! batch is checked against that ([`ProducerStates::check`]) and, once it stands in the log's
//! queue, noted ([`ProducerStates::note`]). What is queued may yet be taken back: `note` returns
//! what restores the state before. Kafka's rules: `ProducerAppendInfo`, and what a 4.4 broker was
//! seen to answer.
//!
//! The snapshot is Kafka's file `<offset>.snapshot`, version 1, with the older four batches of each
//! producer behind what Kafka reads (it checksums them, and skips them): a retry of any of the last
//! five batches is known after a crash, too.

use std::collections::BTreeMap;

use vltava_protocol::batch::{NO_PRODUCER_EPOCH, NO_SEQUENCE, add_to_sequence};

use crate::checkpoint::{FieldReader, FieldWriter};

/// Batches remembered of each producer, as many as a client may have in flight.
const BATCHES_KEPT: usize = 5;
/// Version of Kafka's snapshot file.
const SNAPSHOT_VERSION: i16 = 1;
/// Begins what we add behind Kafka's part.
const OLDER_BATCHES_MAGIC: [u8; 4] = *b"VLT1";
/// Where the bytes under the snapshot's CRC begin.
const SNAPSHOT_CRC_END: usize = 6;
/// Version, CRC, how many producers, and our magic.
const SNAPSHOT_FIXED_BYTES: usize = 2 + 4 + 4 + 4;
/// A producer there: Kafka's part, and ours but for its batches.
const SNAPSHOT_ENTRY_BYTES: usize = (4 * 8 + 3 * 4 + 2) + (8 + 4);
/// And a batch.
const KEPT_BYTES: usize = 2 * 8 + 2 * 4;
/// No coordinator has written a marker.
const NO_COORDINATOR_EPOCH: i32 = -1;

/// A batch of an idempotent producer, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Its producer.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// Sequence number of its first record.
    pub base_sequence: i32,
    /// Last offset less first offset.
    pub last_offset_delta: i32,
    /// Its largest timestamp.
    pub timestamp: i64,
    /// Part of a transaction.
    pub is_transactional: bool,
    /// A transaction's marker: no data, no sequence.
    pub is_control: bool,
}

impl ProducerBatch {
    fn last_sequence(&self) -> i32 {
        add_to_sequence(self.base_sequence, self.last_offset_delta)
    }
}

/// A batch that stands in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptBatch {
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Last offset less first offset.
    pub offset_delta: i32,
    /// Its largest timestamp.
    pub timestamp: i64,
}

impl KeptBatch {
    /// Offset of its first record.
    pub fn base_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }

    fn base_sequence(&self) -> i32 {
        add_to_sequence(self.last_sequence, self.offset_delta.saturating_neg())
    }
}

/// What is known of one producer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    /// Its newest epoch.
    pub epoch: i16,
    /// Epoch of the coordinator that wrote its last marker; -1: none.
    pub coordinator_epoch: i32,
    /// When it last wrote, by its batches.
    pub last_timestamp: i64,
    /// First offset of its open transaction.
    pub transaction_start: Option<i64>,
    /// Offset of the last batch or marker it wrote: names its place in the order of age.
    last_offset: i64,
    kept: [KeptBatch; BATCHES_KEPT],
    kept_count: u8,
}

impl ProducerEntry {
    fn new(epoch: i16) -> Self {
        Self {
            epoch,
            coordinator_epoch: NO_COORDINATOR_EPOCH,
            last_timestamp: -1,
            transaction_start: None,
            last_offset: -1,
            kept: [KeptBatch::default(); BATCHES_KEPT],
            kept_count: 0,
        }
    }

    /// Its last batches, oldest first; none directly after a marker that raised its epoch.
    pub fn batches(&self) -> &[KeptBatch] {
        &self.kept[..usize::from(self.kept_count)]
    }

    /// Sequence number of its last record; -1 where it has none.
    pub fn last_sequence(&self) -> i32 {
        self.batches().last().map_or(NO_SEQUENCE, |b| b.last_sequence)
    }

    fn keep(&mut self, batch: KeptBatch) {
        if usize::from(self.kept_count) == BATCHES_KEPT {
            self.kept.rotate_left(1);
            self.kept[BATCHES_KEPT - 1] = batch;
        } else {
            self.kept[usize::from(self.kept_count)] = batch;
            self.kept_count += 1;
        }
    }
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// Append it.
    Append,
    /// It stands in the log, or in its queue, already. Answer with these once they are committed.
    Duplicate {
        /// Offset of its first record.
        base_offset: i64,
        /// Offset of its last record.
        last_offset: i64,
    },
    /// A gap, or too old to be known as a duplicate: OUT_OF_ORDER_SEQUENCE_NUMBER.
    OutOfOrder,
    /// A newer producer has this id: INVALID_PRODUCER_EPOCH.
    InvalidEpoch,
}

/// Takes back one [`ProducerStates::note`].
#[derive(Clone, Debug)]
pub struct ProducerUndo {
    producer_id: i64,
    before: Option<Box<ProducerEntry>>,
    evicted: Option<(i64, Box<ProducerEntry>)>,
}

/// All producers of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerStates {
    entries: BTreeMap<i64, ProducerEntry>,
    /// By the offset last written: the oldest is forgotten first.
    by_age: BTreeMap<i64, i64>,
    /// Producers with an open transaction, by its first offset.
    open: BTreeMap<i64, i64>,
}

impl ProducerStates {
    /// How many producer ids are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known of a producer id.
    pub fn get(&self, producer_id: i64) -> Option<&ProducerEntry> {
        self.entries.get(&producer_id)
    }

    /// All producer ids, rising.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// First offset of the oldest open transaction.
    pub fn first_open_transaction(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    /// What is to be done with a client's batch.
    pub fn check(&self, batch: &ProducerBatch) -> SequenceCheck {
        // An id that is not known may go on with any sequence: retention may have taken what it
        // wrote.
        let Some(entry) = self.entries.get(&batch.producer_id) else {
            return SequenceCheck::Append;
        };
        if batch.producer_epoch < entry.epoch {
            return SequenceCheck::InvalidEpoch;
        }
        if batch.producer_epoch > entry.epoch {
            return match (batch.base_sequence, entry.epoch) {
                (0, _) | (_, NO_PRODUCER_EPOCH) => SequenceCheck::Append,
                _ => SequenceCheck::OutOfOrder,
            };
        }
        let duplicate = entry.batches().iter().rev().find(|kept| {
            kept.last_sequence == batch.last_sequence()
                && kept.base_sequence() == batch.base_sequence
        });
        if let Some(kept) = duplicate {
            return SequenceCheck::Duplicate {
                base_offset: kept.base_offset(),
                last_offset: kept.last_offset,
            };
        }
        match entry.last_sequence() {
            // Directly after a marker that raised the epoch.
            NO_SEQUENCE if batch.base_sequence == 0 => SequenceCheck::Append,
            NO_SEQUENCE => SequenceCheck::OutOfOrder,
            last if batch.base_sequence == add_to_sequence(last, 1) => SequenceCheck::Append,
            _ => SequenceCheck::OutOfOrder,
        }
    }

    /// The batch stands at `base_offset`, behind all that was noted before. Where more than
    /// `ids_max` ids are known then, the one that has not written for longest is forgotten (never
    /// one with an open transaction).
    pub fn note(
        &mut self,
        batch: &ProducerBatch,
        base_offset: i64,
        ids_max: usize,
    ) -> ProducerUndo {
        let before = self.entries.get(&batch.producer_id).copied();
        let last_offset = base_offset + i64::from(batch.last_offset_delta);
        let mut entry = before.unwrap_or_else(|| ProducerEntry::new(batch.producer_epoch));
        if batch.producer_epoch != entry.epoch {
            entry.epoch = batch.producer_epoch;
            entry.kept_count = 0;
        }
        if batch.is_control {
            entry.transaction_start = None;
        } else {
            entry.keep(KeptBatch {
                last_sequence: batch.last_sequence(),
                last_offset,
                offset_delta: batch.last_offset_delta,
                timestamp: batch.timestamp,
            });
            if batch.is_transactional {
                entry.transaction_start.get_or_insert(base_offset);
            }
        }
        entry.last_timestamp = batch.timestamp;
        entry.last_offset = last_offset;
        self.put(batch.producer_id, Some(entry));
        let evicted = (before.is_none() && self.entries.len() > ids_max)
            .then(|| self.evict(batch.producer_id))
            .flatten();
        ProducerUndo { producer_id: batch.producer_id, before: before.map(Box::new), evicted }
    }

    /// Takes back the newest note that has not been taken back.
    pub fn undo(&mut self, undo: ProducerUndo) {
        self.put(undo.producer_id, undo.before.map(|entry| *entry));
        if let Some((producer_id, entry)) = undo.evicted {
            self.put(producer_id, Some(*entry));
        }
    }

    /// Forgets who wrote nothing for `expiration_ms` and has no open transaction. How many.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let before = self.entries.len();
        let (entries, by_age) = (&mut self.entries, &mut self.by_age);
        entries.retain(|_, entry| {
            let age = now_ms.saturating_sub(entry.last_timestamp);
            let stays = entry.transaction_start.is_some() || age < expiration_ms;
            if !stays {
                by_age.remove(&entry.last_offset);
            }
            stays
        });
        before - self.entries.len()
    }

    /// What a log needs to know that begins at `offset`: with the batches from there on it knows
    /// what is known here. Of producers that wrote since, what they wrote before that is still
    /// known.
    pub fn before(&self, offset: i64) -> Self {
        let mut states = Self::default();
        for (id, entry) in &self.entries {
            let mut then = *entry;
            then.kept_count = 0;
            let kept = entry.batches().iter().filter(|kept| kept.last_offset < offset);
            kept.for_each(|kept| then.keep(*kept));
            then.transaction_start = entry.transaction_start.filter(|start| *start < offset);
            if entry.last_offset >= offset {
                let last = then.batches().last().map(|kept| kept.last_offset);
                let Some(last) = last.max(then.transaction_start) else {
                    continue;
                };
                then.last_offset = last;
            }
            states.put(*id, Some(then));
        }
        states
    }

    fn put(&mut self, producer_id: i64, entry: Option<ProducerEntry>) {
        let old = match entry {
            Some(entry) => self.entries.insert(producer_id, entry),
            None => self.entries.remove(&producer_id),
        };
        if let Some(old) = old {
            self.by_age.remove(&old.last_offset);
            old.transaction_start.map(|start| self.open.remove(&start));
        }
        if let Some(entry) = entry {
            self.by_age.insert(entry.last_offset, producer_id);
            entry.transaction_start.map(|start| self.open.insert(start, producer_id));
        }
    }

    fn evict(&mut self, newest: i64) -> Option<(i64, Box<ProducerEntry>)> {
        let may_go = |id: &i64| {
            let entry = self.entries.get(id);
            *id != newest && entry.is_some_and(|e| e.transaction_start.is_none())
        };
        let oldest = *self.by_age.values().find(|id| may_go(id))?;
        let entry = *self.entries.get(&oldest)?;
        self.put(oldest, None);
        Some((oldest, Box::new(entry)))
    }

    /// How long [`ProducerStates::to_snapshot`] is; 0 where there is no producer: no snapshot is
    /// written then.
    pub(crate) fn snapshot_bytes(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        let batches: usize = self.entries.values().map(|entry| entry.batches().len()).sum();
        SNAPSHOT_FIXED_BYTES + self.entries.len() * SNAPSHOT_ENTRY_BYTES + batches * KEPT_BYTES
    }

    /// The file `<offset>.snapshot`.
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut fields = FieldWriter::default();
        fields.i16(SNAPSHOT_VERSION);
        fields.u32(0);
        fields.count(self.entries.len());
        for (id, entry) in &self.entries {
            let last = entry.batches().last().copied();
            fields.i64(*id);
            fields.i16(entry.epoch);
            fields.i32(entry.last_sequence());
            fields.i64(last.map_or(-1, |b| b.last_offset));
            fields.i32(last.map_or(0, |b| b.offset_delta));
            fields.i64(entry.last_timestamp);
            fields.i32(entry.coordinator_epoch);
            fields.i64(entry.transaction_start.unwrap_or(-1));
        }
        fields.bytes(&OLDER_BATCHES_MAGIC);
        for entry in self.entries.values() {
            fields.i64(entry.last_offset);
            fields.count(entry.batches().len());
            for kept in entry.batches() {
                fields.i32(kept.last_sequence);
                fields.i64(kept.last_offset);
                fields.i32(kept.offset_delta);
                fields.i64(kept.timestamp);
            }
        }
        let mut bytes = fields.0;
        let crc = crc32c::crc32c(&bytes[SNAPSHOT_CRC_END..]);
        bytes[2..SNAPSHOT_CRC_END].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// From a snapshot, ours or Kafka's; `None` where it is damaged, or of another version.
    pub fn from_snapshot(bytes: &[u8]) -> Option<Self> {
        let mut fields = FieldReader(bytes);
        let version = fields.i16()?;
        let crc = fields.u32()?;
        if version != SNAPSHOT_VERSION || crc != crc32c::crc32c(fields.0) {
            return None;
        }
        let entries = fields.list(read_entry)?;
        let has_older = fields.take(4) == Some(&OLDER_BATCHES_MAGIC);
        let mut states = Self::default();
        for (id, mut entry) in entries {
            if has_older {
                entry.last_offset = fields.i64()?;
                let kept = fields.list(read_kept)?;
                entry.kept_count = 0;
                kept.into_iter().for_each(|batch| entry.keep(batch));
            }
            states.put(id, Some(entry));
        }
        Some(states)
    }
}

fn read_entry(fields: &mut FieldReader<'_>) -> Option<(i64, ProducerEntry)> {
    let id = fields.i64()?;
    let mut entry = ProducerEntry::new(fields.i16()?);
    let (last_sequence, last_offset) = (fields.i32()?, fields.i64()?);
    let offset_delta = fields.i32()?;
    entry.last_timestamp = fields.i64()?;
    entry.coordinator_epoch = fields.i32()?;
    entry.transaction_start = Some(fields.i64()?).filter(|start| *start >= 0);
    entry.last_offset = last_offset;
    if last_sequence != NO_SEQUENCE {
        entry.keep(KeptBatch {
            last_sequence,
            last_offset,
            offset_delta,
            timestamp: entry.last_timestamp,
        });
    }
    Some((id, entry))
}

fn read_kept(fields: &mut FieldReader<'_>) -> Option<KeptBatch> {
    Some(KeptBatch {
        last_sequence: fields.i32()?,
        last_offset: fields.i64()?,
        offset_delta: fields.i32()?,
        timestamp: fields.i64()?,
    })
}

#[cfg(test)]
mod tests;
