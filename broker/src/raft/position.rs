//! Places in a group's log.

use std::cmp::Ordering;

/// No offset, and no number of marks, is larger: so sums of them are numbers.
const LARGEST: i64 = 1 << 60;

/// A place between two entries of a group's log.
///
/// A batch takes as many offsets as it has records, and a mark (an epoch's start, a change of
/// membership, a new log start) none: clients see offsets without gaps. Raft's index counts both,
/// so an entry's place is one number, and two logs that agree in (epoch, index) agree in all that
/// stands before (log matching).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// The epoch of the entry before; -1: nothing stands before.
    pub epoch: i32,
    /// The offset of the next batch.
    pub offset: i64,
    /// Marks before.
    pub marks: i64,
}

impl Position {
    /// The beginning of a log in which nothing ever was.
    pub const ZERO: Self = Self { epoch: -1, offset: 0, marks: 0 };

    /// Raft's index: how much stands before.
    pub fn index(&self) -> i64 {
        self.offset + self.marks
    }

    /// Whether a log that ends here holds at least what one that ends at `other` can hold of
    /// committed entries (Raft's "at least as up-to-date").
    pub fn is_up_to_date_with(&self, other: &Self) -> bool {
        (self.epoch, self.index()).cmp(&(other.epoch, other.index())) != Ordering::Less
    }

    /// Whether this can be a place at all: it may come from a peer, or from a disk.
    pub fn is_sound(&self) -> bool {
        let is_count = |count| (0..=LARGEST).contains(&count);
        self.epoch >= -1 && is_count(self.offset) && is_count(self.marks)
    }
}
