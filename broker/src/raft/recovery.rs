//! What a log and the marks kept beside it are together after a crash.
//!
//! Batches stand in the log, marks in the value of `persisted`; one of the two is always written
//! first. What makes each moment safe is the order:
//! 1. A mark is durable before batches behind it are written. So batches of an epoch whose start is
//!    not known were never acknowledged: they are cut.
//! 2. A mark may be durable before batches in front of it. A mark beyond the log's end is dropped:
//!    nothing behind it was written either, and it was never acknowledged.
//! 3. A truncation cuts batches first, durably, then marks. Between, marks at the cut stand alone:
//!    a beginning of the log as it was before. Batches without their marks would be taken for
//!    those of another epoch.
//! 4. A restore is noted first (the base, and that it is being fetched), then the log is cut, then
//!    filled, and then the note is taken back. Between, the log counts for nothing, and the node
//!    fetches anew: what is below the base is chosen, so whoever leads has it. Before the note
//!    nothing else may keep that base, though the group goes by it already: without the note, the
//!    log would be taken for what stands before it.
//! 5. A log that is lost or damaged is noted as such first, then begun anew, empty: rules 2 and 4
//!    say what that is. The note stays until the loss is made good (`Node::regain`).
//!
//! What was acknowledged is a beginning of both, so it is a beginning of what is found.

use super::history::History;
use super::node::Found;
use super::persisted::Persisted;
use super::position::Position;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// For the node.
    pub found: Found,
    /// Where the log is to be cut, durably, before the node is started.
    pub cut_to: Option<i64>,
    /// Marks were dropped: what is kept is to be written anew before the node is started.
    pub is_shorter: bool,
}

/// Makes one history of the marks that were kept and of the log: where it ends (all of it durable),
/// and its epochs, each with the offset of its first batch, rising.
pub fn recovered(persisted: Persisted, log_end: i64, leader_epochs: &[(i32, i64)]) -> Recovered {
    let Persisted { epoch, vote, is_restoring, is_lost, generation, base, marks, .. } = persisted;
    let at = base.at;
    let mut history = History::new(base);
    if is_restoring || log_end < at.offset {
        // The log's end says how much of it is there: nothing, where it is to be fetched anew.
        let cut_to = is_restoring.then_some(0).filter(|cut_to| *cut_to < log_end);
        let end_offset = cut_to.unwrap_or(log_end);
        let is_shorter = !marks.is_empty();
        let found = Found { epoch, vote, history, end_offset, is_lost, generation };
        return Recovered { found, cut_to, is_shorter };
    }
    let kept = log_end.min(first_strange(&marks_with_offsets(at, &marks), at, leader_epochs));
    for mark in &marks {
        let offset = mark.index - history.end().marks;
        if offset > kept {
            break;
        }
        if offset > history.end().offset {
            history.append_batches(offset - history.end().offset);
        }
        history.append_mark(mark.epoch, mark.what.clone());
    }
    let rest = kept - history.end().offset;
    if rest > 0 && history.end().epoch >= 0 {
        history.append_batches(rest);
    }
    let end_offset = history.end().offset;
    let cut_to = (end_offset < log_end).then_some(end_offset);
    let is_shorter = history.marks().len() < marks.len();
    let found = Found { epoch, vote, history, end_offset, is_lost, generation };
    Recovered { found, cut_to, is_shorter }
}

/// Each mark's epoch, and the offset of the batch behind it.
fn marks_with_offsets(base: Position, marks: &[super::history::Mark]) -> Vec<(i32, i64)> {
    let numbered = (base.marks..).zip(marks);
    numbered.map(|(before, mark)| (mark.epoch, mark.index - before)).collect()
}

/// The first offset at or behind the base at which the log says another epoch than the marks do.
fn first_strange(marks: &[(i32, i64)], base: Position, leader_epochs: &[(i32, i64)]) -> i64 {
    let by_marks = |offset: i64| {
        let before = marks.iter().rev().find(|mark| mark.1 <= offset);
        before.map_or(base.epoch, |mark| mark.0)
    };
    let by_log = |offset: i64| {
        let before = leader_epochs.iter().rev().find(|epoch| epoch.1 <= offset);
        before.map_or(-1, |epoch| epoch.0)
    };
    // Epochs change at these places only. Of what was deleted, the log says nothing.
    let places = leader_epochs.iter().chain(marks).map(|place| place.1);
    let first = leader_epochs.first().map_or(base.offset, |first| first.1.max(base.offset));
    let behind_first = places.chain([first]).filter(|offset| *offset >= first);
    let strange = behind_first.filter(|offset| by_marks(*offset) != by_log(*offset));
    // A log may end before a mark: there it says nothing of that.
    strange.min().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
