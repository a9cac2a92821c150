#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

use proptest::prelude::*;

use super::*;
use crate::raft::history::{Base, What};
use crate::raft::membership::Membership;

/// A disk as a driver writes it, one durable step at a time.
#[derive(Clone, Debug)]
struct Disk {
    kept: Persisted,
    /// The epoch of each record's batch, from the first offset of the log on.
    batches: Vec<i32>,
    log_start: i64,
}

impl Disk {
    fn new() -> Self {
        let base = Base { at: Position::ZERO, members: Membership::default(), log_start: 0 };
        let kept = Persisted::of(-1, None, false, &History::new(base));
        Self { kept, batches: Vec::new(), log_start: 0 }
    }

    fn log_end(&self) -> i64 {
        self.log_start + self.batches.len() as i64
    }

    fn recovered(&self) -> Recovered {
        let mut epochs: Vec<(i32, i64)> = Vec::new();
        for (offset, epoch) in (self.log_start..).zip(&self.batches) {
            if epochs.last().is_none_or(|last| last.0 < *epoch) {
                epochs.push((*epoch, offset));
            }
        }
        recovered(self.kept.clone(), self.log_end(), &epochs)
    }

    fn keep(&mut self, history: &History) {
        self.kept = Persisted::of(self.kept.epoch, None, false, history);
    }

    fn cut(&mut self, offset: i64) {
        self.batches.truncate((offset - self.log_start).max(0) as usize);
    }

    /// Batches up to where the log may be, by what a history says of their epochs.
    fn fill(&mut self, history: &History, until: i64) {
        while self.log_end() < until {
            let behind = history.at(history.index_of(self.log_end()) + 1).unwrap();
            self.batches.push(behind.epoch);
        }
    }
}

/// What a leader, or a follower, does to its log.
#[derive(Clone, Debug)]
enum Change {
    Batches(i64),
    Epoch,
    LogStart,
    /// Cut so far from the end, in entries.
    Truncate(i64),
    /// So many offsets behind the end is the base of a snapshot of another log.
    Restore(i64),
    /// These are under way at once: their marks are durable before the batches in front of them.
    AtOnce(Vec<Change>),
    Compact(i64),
}

fn append() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (1_i64..4).prop_map(Change::Batches),
        3 => Just(Change::Epoch),
        1 => Just(Change::LogStart),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => append(),
        4 => proptest::collection::vec(append(), 2..6).prop_map(Change::AtOnce),
        2 => (1_i64..8).prop_map(Change::Truncate),
        1 => (-8_i64..8).prop_map(Change::Restore),
        1 => (0_i64..4).prop_map(Change::Compact),
    ]
}

/// What is appended, in memory.
fn append_to(history: &mut History, change: &Change, epoch: &mut i32) {
    match change {
        Change::Batches(count) if history.end().epoch >= 0 => history.append_batches(*count),
        Change::Epoch => {
            *epoch += 1;
            history.append_mark(*epoch, What::EpochStart);
        }
        Change::LogStart if history.end().epoch >= 0 => {
            history.append_mark(history.end().epoch, What::LogStart(0));
        }
        _ => {}
    }
}

/// The disk after each step by which a change becomes durable; the last is with all of it.
fn steps(disk: &Disk, history: &mut History, change: &Change, epoch: &mut i32) -> Vec<Disk> {
    let (mut disk, mut steps) = (disk.clone(), Vec::new());
    let mut step = |disk: &Disk| steps.push(disk.clone());
    match change {
        Change::AtOnce(changes) => {
            changes.iter().for_each(|change| append_to(history, change, epoch));
        }
        Change::Truncate(entries) => {
            let base = history.base().at.index();
            history.truncate((history.end().index() - entries).max(base));
            disk.cut(history.end().offset);
            step(&disk);
        }
        Change::Restore(entries) => {
            *epoch += 1;
            let end = history.end();
            // What stands below another base is another log's.
            let (offset, marks) = ((end.offset + entries).max(0), end.marks + 1);
            let at = Position { epoch: *epoch, offset, marks };
            *history = History::new(Base { at, ..history.base().clone() });
            disk.keep(history);
            disk.kept.is_restoring = true;
            step(&disk);
            disk.cut(0);
            step(&disk);
            while disk.log_end() < offset {
                disk.batches.push(*epoch);
                step(&disk);
            }
        }
        Change::Compact(entries) => {
            history.compact((history.end().index() - entries).max(history.base().at.index()));
        }
        Change::Batches(_) | Change::LogStart | Change::Epoch => {
            append_to(history, change, epoch);
        }
    }
    // Marks, then batches, those behind them among these.
    disk.keep(history);
    step(&disk);
    while disk.log_end() < history.end().offset {
        let next = disk.log_end() + 1;
        disk.fill(history, next);
        step(&disk);
    }
    steps
}

/// Whether a log that was recovered is a beginning of this one.
fn is_beginning(recovered: &History, of: &History) -> bool {
    let end = recovered.end().index();
    let base = of.base().at.index();
    end >= base && of.at(end) == Some(recovered.end()) && {
        let theirs = |history: &History| -> Vec<_> {
            let marks = history.marks().iter();
            marks.filter(|mark| (base..end).contains(&mark.index)).cloned().collect()
        };
        theirs(recovered) == theirs(of)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A crash at any step leaves a beginning of the log as it was before a change, or after it.
    #[test]
    fn a_crash_leaves_a_beginning(changes in proptest::collection::vec(change(), 1..25)) {
        let mut disk = Disk::new();
        let base = disk.kept.base.clone();
        let (mut history, mut epoch) = (History::new(base), 0);
        for change in &changes {
            let before = history.clone();
            let steps = steps(&disk, &mut history, change, &mut epoch);
            let all = steps.len();
            let after = steps[all - 1].clone();
            for (nth, crashed) in steps.into_iter().enumerate() {
                let found = crashed.recovered();
                let own = &found.found.history;
                prop_assert!(
                    is_beginning(own, &before) || is_beginning(own, &history),
                    "{change:?}, step {nth}: {own:?} of {before:?} and {history:?}",
                );
                let is_append = !matches!(
                    change,
                    Change::Truncate(_) | Change::Restore(_) | Change::Compact(_)
                );
                if is_append {
                    // What was acknowledged is there.
                    prop_assert!(own.end().index() >= before.end().index());
                }
                prop_assert!(found.found.end_offset <= crashed.log_end());
                let base = own.base().at.offset;
                let is_whole = found.found.end_offset >= base;
                if is_whole && own.base() == history.base() {
                    let below = ..(base - crashed.log_start) as usize;
                    prop_assert_eq!(&crashed.batches[below], &after.batches[below]);
                }
                prop_assert!(!is_whole || own.end().offset == found.found.end_offset);
                // It is the same the second time.
                let mut again = crashed.clone();
                found.cut_to.into_iter().for_each(|offset| again.cut(offset));
                again.kept = Persisted::of(epoch, None, again.kept.is_restoring, own);
                prop_assert_eq!(&again.recovered().found.history, own);
                if nth + 1 == all {
                    prop_assert_eq!(own, &history);
                    prop_assert_eq!((found.cut_to, found.is_shorter), (None, false));
                    disk = crashed;
                }
            }
        }
    }
}

/// The order the other way round is found out: batches whose epoch has no mark go.
#[test]
fn batches_of_an_epoch_without_a_mark_are_cut() {
    let mut disk = Disk::new();
    let mut history = History::new(disk.kept.base.clone());
    history.append_mark(1, What::EpochStart);
    history.append_batches(3);
    disk.keep(&history);
    disk.batches = vec![1, 1, 1, 2, 2];
    let found = disk.recovered();
    assert_eq!((found.cut_to, found.found.history.end().offset), (Some(3), 3));
    // Also where the marks say that another epoch began before.
    history.append_mark(4, What::EpochStart);
    history.append_batches(1);
    disk.keep(&history);
    assert_eq!(disk.recovered().cut_to, Some(3));
}

/// A log that ends before its base lacks what was chosen: it may vote, and fetches the rest.
#[test]
fn a_log_that_ends_before_its_base_is_not_whole() {
    let mut disk = Disk::new();
    let at = Position { epoch: 3, offset: 10, marks: 2 };
    disk.keep(&History::new(Base { at, ..disk.kept.base.clone() }));
    disk.batches = vec![3; 4];
    let found = disk.recovered();
    assert_eq!((found.found.end_offset, found.found.history.end()), (4, at));
}
