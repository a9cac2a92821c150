//! One input's work: what it may read, and what it has come to so far.

use vltava_protocol::encode::EncodeError;
use vltava_protocol::types::Str;

use super::machine::{GroupMachine, Reply, Timer};
use super::options::Options;
use crate::machine::{KeyValue, Now, Outcome, Ticket, TimerChange};

/// A record takes this much beside its key and value, in bytes, at most: lengths, deltas, headers.
const RECORD_OVERHEAD_BYTES: usize = 32;
/// Records of one outcome whose work can go on in the next, at most: bounds the time of one step.
const STEP_RECORDS_MAX: usize = 1_000;
/// Groups and offsets that one step of a long task looks at, at most.
pub(super) const STEP_VISITS_MAX: usize = 2_000;
/// Time from one step to the next, in ms: others get their turn between.
pub(super) const NEXT_STEP_MS: u64 = 1;

/// Why a record cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordError {
    /// The batch would be larger than the log takes.
    TooLarge,
    /// A field does not fit its type on disk.
    Unencodable,
}

impl From<EncodeError> for RecordError {
    fn from(_: EncodeError) -> Self {
        Self::Unencodable
    }
}

/// Collects an outcome.
pub(super) struct Work<'a> {
    /// What the operator chose.
    pub(super) options: &'a Options,
    /// The moment of this input.
    pub(super) now: Now,
    /// What the groups of this shard hold, in bytes.
    held_bytes: usize,
    outcome: Outcome<GroupMachine>,
    record_bytes: usize,
}

impl<'a> Work<'a> {
    /// Work that has come to nothing yet.
    pub(super) fn new(options: &'a Options, now: Now, held_bytes: usize) -> Self {
        Self { options, now, held_bytes, outcome: Outcome::default(), record_bytes: 0 }
    }

    /// Whether there is memory for something new in a group; whoever reads the log hears where not.
    pub(super) fn has_memory(&mut self, group: &Str) -> bool {
        let has_memory = self.held_bytes < self.options.memory_bytes_max;
        if !has_memory {
            let held_bytes = self.held_bytes;
            self.note(group, format_args!("refused: groups hold {held_bytes} bytes already"));
        }
        has_memory
    }

    /// What it came to.
    pub(super) fn finish(self) -> Outcome<GroupMachine> {
        self.outcome
    }

    /// Answers a request.
    pub(super) fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.outcome.replies.push((ticket, reply));
    }

    /// Appends one record, where the batch has room for it.
    pub(super) fn record(&mut self, record: KeyValue) -> Result<(), RecordError> {
        self.records(vec![record])
    }

    /// The same of one that may not have come about.
    pub(super) fn try_record(
        &mut self,
        record: Result<KeyValue, RecordError>,
    ) -> Result<(), RecordError> {
        self.record(record?)
    }

    /// Appends one record that must be written, whatever its size.
    pub(super) fn record_always(&mut self, record: KeyValue) {
        self.record_bytes += record_bytes(&record);
        self.outcome.records.push(record);
    }

    /// Appends all of these or, where the batch has no room for all, none.
    pub(super) fn records(&mut self, records: Vec<KeyValue>) -> Result<(), RecordError> {
        let bytes: usize = records.iter().map(record_bytes).sum();
        if self.record_bytes.saturating_add(bytes) > self.options.batch_bytes_max {
            return Err(RecordError::TooLarge);
        }
        self.record_bytes += bytes;
        self.outcome.records.extend(records);
        Ok(())
    }

    /// Whether as much is done as one step of a long task may do. A first record is always taken.
    pub(super) fn is_step_full(&self) -> bool {
        self.outcome.records.len() >= STEP_RECORDS_MAX
            || self.record_bytes > self.options.batch_bytes_max / 2
    }

    /// Fires `timer` once, `after_ms` from now.
    pub(super) fn set_timer(&mut self, timer: Timer, after_ms: u64) {
        let at_ms = self.now.monotonic_ms.saturating_add(after_ms);
        self.outcome.timers.push(TimerChange::Set { key: timer, at_ms });
    }

    /// Does not fire it.
    pub(super) fn cancel_timer(&mut self, timer: Timer) {
        self.outcome.timers.push(TimerChange::Cancel { key: timer });
    }

    /// Tells whoever reads the log what happened to a group.
    pub(super) fn note(&mut self, group: &Str, what: impl std::fmt::Display) {
        self.outcome.notes.push(format!("group {group:?}: {what}"));
    }
}

/// What a record takes of a batch, in bytes, at most.
pub(super) fn record_bytes(record: &KeyValue) -> usize {
    record.key.len() + record.value.as_ref().map_or(0, |value| value.len()) + RECORD_OVERHEAD_BYTES
}

/// A client's word for why it does something, fit for a log line.
pub(super) fn reason_text(reason: Option<&Str>) -> String {
    const CHARS_MAX: usize = 255;
    match reason {
        Some(reason) => {
            let text: String = reason.chars().take(CHARS_MAX).collect();
            format!("client reason: {text:?}")
        }
        None => "client gave no reason".to_owned(),
    }
}
