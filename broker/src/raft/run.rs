//! A part of a log, as a leader sends it.

use super::history::{Mark, What};
use super::position::Position;

/// What stands between two places of a log. Batches travel beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// Where it begins.
    pub from: Position,
    /// Where it ends.
    pub end: Position,
    /// The marks in it, in their order.
    pub marks: Vec<Mark>,
}

impl Run {
    /// Whether a log can go on like this, under a leader of this epoch: it comes from a peer.
    pub fn is_sound(&self, leader_epoch: i32) -> bool {
        if !self.from.is_sound() || !self.end.is_sound() {
            return false;
        }
        let mut at = self.from;
        for mark in &self.marks {
            let is_in_order = (at.index()..=self.end.index()).contains(&mark.index);
            if !is_in_order || !follows(&mut at, mark.index) {
                return false;
            }
            let is_start = mark.what.begins_epoch();
            if mark.epoch < at.epoch || is_start != (mark.epoch > at.epoch) {
                return false;
            }
            if matches!(mark.what, What::LogStart(start) if !(0..=at.offset).contains(&start)) {
                return false;
            }
            at = Position { epoch: mark.epoch, marks: at.marks + 1, ..at };
        }
        follows(&mut at, self.end.index()) && at == self.end && at.epoch <= leader_epoch
    }

    /// Each mark with the offset of the batch that would stand behind it.
    pub fn marks_with_offsets(&self) -> impl Iterator<Item = (i64, &Mark)> {
        let numbered = (self.from.marks..).zip(&self.marks);
        numbered.map(|(before, mark)| (mark.index - before, mark))
    }

    /// What of it stands at and behind this index, which lies in it; `from`: the place there.
    pub fn behind(&self, from: Position) -> Self {
        let marks = self.marks.iter().filter(|mark| mark.index >= from.index());
        Self { from, end: self.end, marks: marks.cloned().collect() }
    }
}

/// Goes on over batches up to an index; whether there can be such.
fn follows(at: &mut Position, index: i64) -> bool {
    let offsets = index - at.index();
    at.offset += offsets.max(0);
    offsets == 0 || offsets > 0 && at.epoch >= 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(from: (i32, i64, i64), marks: &[(i32, i64, What)], end: (i32, i64, i64)) -> Run {
        let at = |(epoch, offset, marks)| Position { epoch, offset, marks };
        let mark = |(epoch, index, what): &(_, _, What)| Mark {
            epoch: *epoch,
            index: *index,
            what: what.clone(),
        };
        Run { from: at(from), end: at(end), marks: marks.iter().map(mark).collect() }
    }

    #[test]
    fn only_what_a_log_can_hold_is_sound() {
        use What::{EpochStart, LogStart};
        let zero = (-1, 0, 0);
        let sound = [
            run(zero, &[], zero),
            run((3, 7, 2), &[], (3, 9, 2)),
            run(zero, &[(0, 0, EpochStart)], (0, 4, 1)),
            run((3, 7, 2), &[(3, 9, LogStart(1)), (5, 12, EpochStart)], (5, 10, 4)),
        ];
        for run in sound {
            assert!(run.is_sound(5), "{run:?}");
            assert!(run.from.epoch == 5 || run.end.epoch < 5 || !run.is_sound(4), "{run:?}");
        }
        let unsound = [
            // batches of no epoch
            run(zero, &[], (-1, 1, 0)),
            // ends before it begins
            run((3, 7, 2), &[], (3, 6, 2)),
            // marks that are not there, or are in another order, or outside
            run((3, 7, 2), &[], (3, 7, 3)),
            run((3, 7, 2), &[(3, 12, LogStart(0)), (3, 9, LogStart(0))], (3, 20, 4)),
            run((3, 7, 2), &[(3, 8, LogStart(0))], (3, 9, 3)),
            run((3, 7, 2), &[(3, 30, LogStart(0))], (3, 9, 3)),
            run((3, 7, 2), &[(3, i64::MIN, LogStart(0))], (3, 9, 3)),
            // an epoch without a start, a start without an epoch, an older epoch
            run((3, 7, 2), &[(4, 9, LogStart(0))], (4, 8, 3)),
            run((3, 7, 2), &[(3, 9, EpochStart)], (3, 8, 3)),
            run((3, 7, 2), &[(2, 9, EpochStart)], (2, 8, 3)),
            run((3, 7, 2), &[], (4, 8, 2)),
            // newer than its leader
            run((3, 7, 2), &[(6, 9, EpochStart)], (6, 8, 3)),
            // numbers that cannot be
            run((3, i64::MAX, 2), &[], (3, i64::MAX, 2)),
            run((-2, 0, 0), &[], (-2, 0, 0)),
            run((3, -7, 9), &[], (3, 9, 9)),
        ];
        for run in unsound {
            assert!(!run.is_sound(5), "{run:?}");
        }
    }
}
