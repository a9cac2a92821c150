//! Nothing acknowledged is lost, doubled or reordered; no record comes from nowhere.

use std::collections::{BTreeMap, BTreeSet};

use super::{Partition, violation};
use crate::promise;

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// acks=all: it survives everything.
    Flushed,
    /// acks=1: it survives the process, not the power, nor a disk that fails to write it.
    Written,
    /// acks=1, where there are several replicas: another may lead at any time, and lack it.
    Led,
}

/// Names a record: stands in its value, once in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordId(pub u64);

/// Who wrote a record, and as which of its records for the partition.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// One life of a producer: a producer that starts anew is another.
    pub producer: u64,
    /// Counts the producer's records of the partition, if they are ordered and without holes.
    pub sequence: Option<u64>,
    /// What its acknowledgement means.
    pub promise: Promise,
}

struct Sent {
    written: Written,
    /// Where it was acknowledged to stand.
    acknowledged: Option<i64>,
    /// The promise did not cover what has happened since.
    may_be_lost: bool,
    /// It was gone, as whatever was said of it before: it may come again, elsewhere.
    is_void: bool,
}

/// Everything that producers sent.
#[derive(Default)]
pub struct Acks {
    sent: BTreeMap<Partition, BTreeMap<RecordId, Sent>>,
    made: u64,
    acknowledged: u64,
}

impl Acks {
    /// A record that is about to be sent to a partition.
    pub fn send(&mut self, partition: &Partition, written: Written) -> RecordId {
        let id = RecordId(self.made);
        self.made += 1;
        let may_be_lost = written.promise == Promise::Led;
        let sent = Sent { written, acknowledged: None, may_be_lost, is_void: false };
        self.sent.entry(partition.clone()).or_default().insert(id, sent);
        id
    }

    /// Its batch was acknowledged; the record stands at `offset`.
    pub fn acknowledge(&mut self, partition: &Partition, id: RecordId, offset: i64) {
        let sent = self.sent.get_mut(partition).and_then(|ids| ids.get_mut(&id));
        let Some(sent) = sent else {
            violation(format!("{partition:?}: {id:?} is acknowledged, but was not sent"))
        };
        promise!(offset >= 0, "{partition:?}: {id:?} is acknowledged at {offset}");
        sent.acknowledged = Some(offset);
        self.acknowledged += 1;
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The power failed, or a disk failed a write: what was only written may be lost from here on,
    /// where no reader has seen it to be committed (`high_watermark`).
    pub fn written_may_be_lost(&mut self, high_watermark: impl Fn(&Partition) -> i64) {
        for (partition, ids) in &mut self.sent {
            let committed = high_watermark(partition);
            for sent in ids.values_mut() {
                let exposed = sent.acknowledged.is_none_or(|offset| offset >= committed);
                sent.may_be_lost |= sent.written.promise == Promise::Written && exposed;
            }
        }
    }

    /// Those that had the rest are gone for good: of all that was sent so far, nothing is left but
    /// these, where they stand. How many acknowledged ones are not.
    pub fn lose_all_but(&mut self, partition: &Partition, kept: &BTreeMap<RecordId, i64>) -> usize {
        let mut lost = 0;
        for (id, sent) in self.sent.get_mut(partition).into_iter().flatten() {
            let offset = kept.get(id);
            let is_kept =
                offset.is_some_and(|offset| sent.acknowledged.is_none_or(|at| at == *offset));
            if !is_kept {
                (sent.may_be_lost, sent.is_void) = (true, true);
                lost += usize::from(sent.acknowledged.is_some());
            }
        }
        lost
    }

    /// Whether an idempotent producer may find that the broker has forgotten records of its own.
    pub fn may_have_lost(&self, partition: &Partition, producer: u64) -> bool {
        let ids = self.sent.get(partition);
        ids.is_some_and(|ids| {
            ids.values().any(|sent| sent.written.producer == producer && sent.may_be_lost)
        })
    }

    /// A reader has seen this record there.
    pub fn check_seen(&self, partition: &Partition, offset: i64, id: RecordId) {
        let sent = self.sent.get(partition).and_then(|ids| ids.get(&id));
        let Some(sent) = sent else {
            violation(format!("{partition:?}@{offset}: {id:?} comes from nowhere"))
        };
        if let Some(acknowledged) = sent.acknowledged.filter(|_| !sent.is_void) {
            promise!(
                acknowledged == offset,
                "{partition:?}@{offset}: {id:?} was acknowledged at {acknowledged}"
            );
        }
    }

    /// The whole of a partition from the log's `start` on, once everything has ended.
    pub fn check_whole(&self, partition: &Partition, start: i64, log: &[(i64, RecordId)]) {
        let mut seen = BTreeMap::new();
        let mut last = BTreeMap::new();
        let empty = BTreeMap::new();
        let ids = self.sent.get(partition).unwrap_or(&empty);
        let void = ids.values().filter(|sent| sent.is_void).map(|sent| sent.written);
        let void: BTreeSet<(u64, Option<u64>)> =
            void.map(|written| (written.producer, written.sequence)).collect();
        for &(offset, id) in log {
            self.check_seen(partition, offset, id);
            let earlier = seen.insert(id, offset);
            promise!(
                earlier.is_none(),
                "{partition:?}@{offset}: {id:?} is doubled, it stands at {earlier:?}, too"
            );
            let Some(Written { producer, sequence: Some(sequence), promise }) =
                ids.get(&id).map(|sent| sent.written)
            else {
                continue;
            };
            // What was deleted may have held its first ones; and a new leader that has none of a
            // producer's records takes any of them for the first.
            let first = match promise {
                Promise::Flushed | Promise::Written if start == 0 => 0,
                _ => sequence,
            };
            let next = last.insert(producer, sequence).map_or(first, |last: u64| last + 1);
            let mut expected = next..;
            let expected = expected.find(|next| !void.contains(&(producer, Some(*next))));
            let is_next = sequence >= next && expected.is_none_or(|expected| sequence <= expected);
            promise!(
                is_next,
                "{partition:?}@{offset}: producer {producer}'s record {sequence} ({id:?}) \
                 stands where its {next} should: reordered, or lost between"
            );
        }
        let seen: BTreeSet<RecordId> = seen.into_keys().collect();
        for (id, sent) in ids {
            if let Some(offset) = sent.acknowledged {
                promise!(
                    offset < start || sent.may_be_lost || seen.contains(id),
                    "{partition:?}: {id:?} of producer {} was acknowledged at {offset} \
                     ({:?}) and is lost",
                    sent.written.producer,
                    sent.written.promise
                );
            }
        }
    }
}
