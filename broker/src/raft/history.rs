//! What a group's log holds, but for its batches: its marks, and where it ends.

use super::membership::Membership;
use super::position::Position;
use super::run::Run;

/// So many marks are kept, though they are committed: most of those who are behind find where they
/// stand among them. For others there are snapshots.
pub const MARKS_KEPT: usize = 64;

/// An entry without an offset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The epoch of the leader that wrote it.
    pub epoch: i32,
    /// Raft's index of it: as many entries stand before.
    pub index: i64,
    /// What it says.
    pub what: What,
}

/// What a mark says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// An epoch begins: its leader's first entry, which commits what earlier ones left.
    EpochStart,
    /// The members, from here on: in force as soon as it stands in a log, committed or not.
    Membership(Box<Membership>),
    /// Offsets below this are gone, once this is committed.
    LogStart(i64),
    /// An epoch begins whose leader was named from outside, with these members, whoever belonged
    /// to the group before (see `forced`): a generation begins.
    Forced(Box<Membership>),
}

impl What {
    /// Whether it begins an epoch.
    pub fn begins_epoch(&self) -> bool {
        matches!(self, Self::EpochStart | Self::Forced(_))
    }

    /// The members that it names.
    pub fn members(&self) -> Option<&Membership> {
        match self {
            Self::Membership(members) | Self::Forced(members) => Some(members),
            Self::EpochStart | Self::LogStart(_) => None,
        }
    }
}

/// Where a log's marks begin, and what those before said: all of it is committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// The place.
    pub at: Position,
    /// The members there.
    pub members: Membership,
    /// The log's start there.
    pub log_start: i64,
}

/// What a log holds from its base on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct History {
    base: Base,
    marks: Vec<Mark>,
    end: Position,
    /// Which of the marks is the newest that names the members.
    members_mark: Option<usize>,
}

impl History {
    /// A log of which nothing is known but its base.
    pub fn new(base: Base) -> Self {
        let end = base.at;
        Self { base, marks: Vec::new(), end, members_mark: None }
    }

    /// A log of which no marks were kept: by its epochs, each with the offset of its first batch,
    /// and where it ends. What they name stands as if each epoch's start had been its only mark.
    pub fn of_epochs(members: Membership, epochs: &[(i32, i64)], end_offset: i64) -> Self {
        let offset = epochs.first().map_or(end_offset, |first| first.1);
        let at = Position { offset, ..Position::ZERO };
        let mut history = Self::new(Base { at, members, log_start: offset });
        for (epoch, offset) in epochs {
            history.append_batches_until(offset + history.end.marks);
            history.append_mark(*epoch, What::EpochStart);
        }
        history.append_batches_until(end_offset + history.end.marks);
        history
    }

    /// Where the log ends.
    pub fn end(&self) -> Position {
        self.end
    }

    /// From where on its marks are known.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The marks behind the base, in their order.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// The members by the newest mark that names them, committed or not.
    pub fn members(&self) -> &Membership {
        self.members_before(self.members_mark.map_or(0, |nth| nth + 1)).0
    }

    /// The index of the newest mark that names the members; `None`: the base does.
    pub fn members_written_at(&self) -> Option<i64> {
        self.members_mark.map(|nth| self.marks[nth].index)
    }

    /// The members by what stands before this index.
    pub fn members_at(&self, index: i64) -> &Membership {
        self.members_before(self.marks_before(index)).0
    }

    /// The members by the first so many marks, and which of them says so.
    fn members_before(&self, marks: usize) -> (&Membership, Option<usize>) {
        let named = self.marks[..marks]
            .iter()
            .enumerate()
            .rev()
            .find_map(|(nth, mark)| mark.what.members().map(|members| (members, Some(nth))));
        named.unwrap_or((&self.base.members, None))
    }

    /// The log's start by what stands before this index.
    pub fn log_start_at(&self, index: i64) -> i64 {
        let before = self.marks[..self.marks_before(index)].iter();
        let starts = before.filter_map(|mark| match mark.what {
            What::LogStart(offset) => Some(offset),
            _ => None,
        });
        starts.fold(self.base.log_start, i64::max)
    }

    /// The newest start of the log that stands between two indexes.
    pub fn log_start_between(&self, from: i64, until: i64) -> Option<i64> {
        let within = self.marks_before(from)..self.marks_before(until);
        let starts = self.marks.get(within)?.iter().filter_map(|mark| match mark.what {
            What::LogStart(offset) => Some(offset),
            _ => None,
        });
        starts.max()
    }

    /// How many of the marks stand before this index.
    fn marks_before(&self, index: i64) -> usize {
        self.marks.partition_point(|mark| mark.index < index)
    }

    /// The offset of the next batch, where the mark stands.
    fn offset_of_mark(&self, nth: usize) -> i64 {
        self.marks[nth].index - self.base.at.marks - count(nth)
    }

    /// The place at an index; `None` where it is not in the log.
    pub fn at(&self, index: i64) -> Option<Position> {
        if index == self.end.index() {
            return Some(self.end);
        }
        if index < self.base.at.index() || index > self.end.index() {
            return None;
        }
        let before = self.marks_before(index);
        let marks = self.base.at.marks + count(before);
        let last = before.checked_sub(1);
        let epoch = last.map_or(self.base.at.epoch, |last| self.marks[last].epoch);
        Some(Position { epoch, offset: index - marks, marks })
    }

    /// The index at which the batch with this offset stands, or would: behind all marks before it.
    pub fn index_of(&self, offset: i64) -> i64 {
        let mut before = self.marks.len();
        while before > 0 && self.offset_of_mark(before - 1) > offset {
            before -= 1;
        }
        offset + self.base.at.marks + count(before)
    }

    /// The index behind which the batch with this offset stands, and all marks beside it.
    pub fn index_before(&self, offset: i64) -> i64 {
        let mut before = self.marks.len();
        while before > 0 && self.offset_of_mark(before - 1) >= offset {
            before -= 1;
        }
        offset + self.base.at.marks + count(before)
    }

    /// Below which index nothing is missing where the first so many marks are there.
    pub fn index_behind_marks(&self, marks: i64) -> i64 {
        let nth = usize::try_from(marks - self.base.at.marks).ok();
        nth.and_then(|nth| self.marks.get(nth)).map_or(self.end.index(), |mark| mark.index)
    }

    /// The index behind so many marks from an index on, and all batches before the next mark.
    pub fn index_behind(&self, from: i64, marks: usize) -> i64 {
        let next = self.marks.get(self.marks_before(from).saturating_add(marks));
        next.map_or(self.end.index(), |mark| mark.index)
    }

    /// The newest epoch at or below `epoch` of which the log has something, and where it ends.
    pub fn end_of_epoch(&self, epoch: i32) -> Option<Position> {
        let behind = self.marks.iter().find(|mark| mark.epoch > epoch);
        match behind {
            _ if self.base.at.epoch > epoch => None,
            None => Some(self.end),
            Some(mark) => self.at(mark.index),
        }
    }

    /// Batches were appended, in the epoch of the last mark.
    pub fn append_batches(&mut self, offsets: i64) {
        assert!(offsets > 0 && self.end.epoch >= 0, "batches of no epoch");
        self.end.offset += offsets;
    }

    /// A mark is appended.
    pub fn append_mark(&mut self, epoch: i32, what: What) -> &Mark {
        assert!(epoch >= self.end.epoch, "epoch {epoch} behind {}", self.end.epoch);
        let is_start = what.begins_epoch();
        assert_eq!(is_start, epoch > self.end.epoch, "an epoch begins with its start");
        if what.members().is_some() {
            self.members_mark = Some(self.marks.len());
        }
        self.marks.push(Mark { epoch, index: self.end.index(), what });
        self.end = Position { epoch, marks: self.end.marks + 1, ..self.end };
        &self.marks[self.marks.len() - 1]
    }

    /// All at and behind this index is gone.
    pub fn truncate(&mut self, index: i64) {
        let end = self.at(index);
        assert!(end.is_some(), "cut at {index}, outside of the log");
        self.end = end.unwrap_or(self.end);
        self.marks.truncate(self.marks_before(index));
        self.members_mark = self.members_before(self.marks.len()).1;
    }

    /// What stands between two indexes of the log; `None` where one of them is not in it.
    pub fn run(&self, from: i64, end: i64) -> Option<Run> {
        let (from, end) = (self.at(from)?, self.at(end)?);
        let within = self.marks_before(from.index())..self.marks_before(end.index());
        Some(Run { from, end, marks: self.marks.get(within)?.to_vec() })
    }

    /// How far the log agrees with a run that begins in it: the end of the run, or of the log, or
    /// where they part.
    pub fn agrees_until(&self, run: &Run) -> i64 {
        let both_end = self.end.index().min(run.end.index());
        // Each piece of an epoch begins with a mark: logs part at one of them, or not at all.
        let mut own = self.marks[self.marks_before(run.from.index())..].iter();
        let mut theirs = run.marks.iter();
        loop {
            let next = |mark: Option<&Mark>| mark.map_or(both_end, |mark| mark.index).min(both_end);
            let (own, theirs) = (own.next(), theirs.next());
            let until = next(own).min(next(theirs));
            if until == both_end || own != theirs {
                return until;
            }
        }
    }

    /// Appends what a run holds behind this log's end, where it begins.
    pub fn extend(&mut self, run: &Run) {
        assert_eq!(run.from, self.end, "a run that does not begin at the end of the log");
        for mark in &run.marks {
            self.append_batches_until(mark.index);
            self.append_mark(mark.epoch, mark.what.clone());
        }
        self.append_batches_until(run.end.index());
        assert_eq!(run.end, self.end, "a run that does not end where it says");
    }

    fn append_batches_until(&mut self, index: i64) {
        let offsets = index - self.end.index();
        if offsets > 0 {
            self.append_batches(offsets);
        }
    }

    /// The index of the oldest mark that is kept, where there are more than enough.
    pub fn oldest_mark_to_keep(&self) -> Option<i64> {
        let more = self.marks.len().checked_sub(MARKS_KEPT + 1)?;
        Some(self.marks[more + 1].index)
    }

    /// What the base would be at this index, where that is in the log.
    pub fn base_at(&self, index: i64) -> Option<Base> {
        let at = self.at(index)?;
        let (members, log_start) = (self.members_at(index).clone(), self.log_start_at(index));
        Some(Base { at, members, log_start })
    }

    /// Marks before this index are known by their sum only. They are committed.
    pub fn compact(&mut self, index: i64) {
        if let Some(base) = self.base_at(index) {
            self.marks.drain(..self.marks_before(index));
            self.base = base;
            self.members_mark = self.members_before(self.marks.len()).1;
        }
    }
}

/// A number of marks.
fn count(marks: usize) -> i64 {
    i64::try_from(marks).unwrap_or(i64::MAX)
}
