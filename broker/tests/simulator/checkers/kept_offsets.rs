//! A committed offset is what was committed last; one that was deleted does not come back.

use std::collections::BTreeSet;

use crate::promise;

/// What one group has committed for one partition, where nobody else commits. `None`: nothing.
#[derive(Default)]
pub struct KeptOffset {
    known: Option<i64>,
    /// Changes whose answers were lost: each may yet take effect, at any time.
    in_doubt: BTreeSet<Option<i64>>,
}

impl KeptOffset {
    /// A change was answered: so it stands now.
    pub fn set(&mut self, to: Option<i64>) {
        self.known = to;
    }

    /// A change may have happened, or may yet happen.
    pub fn doubt(&mut self, to: Option<i64>) {
        self.in_doubt.insert(to);
    }

    /// Changes that may have happened.
    pub fn doubts(&self) -> usize {
        self.in_doubt.len()
    }

    /// Whether there may be nothing.
    pub fn may_be_none(&self) -> bool {
        self.known.is_none() || self.in_doubt.contains(&None)
    }

    /// Somebody was told this.
    pub fn check_told(&self, whose: &str, told: Option<i64>) {
        promise!(
            told == self.known || self.in_doubt.contains(&told),
            "{whose}: the committed offset is {told:?}; it should be {:?}, or one of {:?}",
            self.known,
            self.in_doubt
        );
    }
}
