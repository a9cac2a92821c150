//! Committed offsets never go back and never pass what was delivered; in one generation a partition
//! has one owner.

use std::collections::{BTreeMap, BTreeSet};

use super::Partition;
use crate::promise;

#[derive(Default)]
struct Progress {
    /// The end of what members were given.
    delivered: i64,
    /// The last commit that was acknowledged.
    committed: i64,
    /// Commits whose answer was lost: each may yet take effect.
    in_doubt: BTreeSet<i64>,
}

/// What groups own, were given and committed.
#[derive(Default)]
pub struct Groups {
    progress: BTreeMap<(String, Partition), Progress>,
    owners: BTreeMap<(String, i32, Partition), String>,
}

impl Groups {
    fn of(&mut self, group: &str, partition: &Partition) -> &mut Progress {
        let key = (group.to_owned(), partition.clone());
        self.progress.entry(key).or_default()
    }

    /// A member was given a partition in a generation.
    pub fn check_owner(&mut self, group: &str, generation: i32, partition: &Partition, who: &str) {
        let key = (group.to_owned(), generation, partition.clone());
        let owner = self.owners.entry(key).or_insert_with(|| who.to_owned());
        promise!(
            owner == who,
            "{group}: {partition:?} belongs to {owner} and to {who} in generation {generation}"
        );
    }

    /// Records up to `end` were given to a member.
    pub fn delivered(&mut self, group: &str, partition: &Partition, end: i64) {
        let progress = self.of(group, partition);
        progress.delivered = progress.delivered.max(end);
    }

    /// A commit is about to be sent.
    pub fn commit_sent(&mut self, group: &str, partition: &Partition, offset: i64) {
        self.of(group, partition).in_doubt.insert(offset);
    }

    /// It was acknowledged.
    pub fn commit_acknowledged(&mut self, group: &str, partition: &Partition, offset: i64) {
        let progress = self.of(group, partition);
        progress.in_doubt.remove(&offset);
        progress.committed = progress.committed.max(offset);
    }

    /// It was refused, and had no effect.
    pub fn commit_refused(&mut self, group: &str, partition: &Partition, offset: i64) {
        self.of(group, partition).in_doubt.remove(&offset);
    }

    /// What an offset fetch that is sent now must at least be told.
    pub fn committed(&mut self, group: &str, partition: &Partition) -> i64 {
        self.of(group, partition).committed
    }

    /// An offset fetch was answered; `floor` is what [`Self::committed`] gave when it was asked.
    /// -1: nothing is committed.
    pub fn check_fetched(&mut self, group: &str, partition: &Partition, floor: i64, told: i64) {
        let progress = self.of(group, partition);
        // A commit whose answer was lost may be late, and then goes back: Kafka's does, too.
        promise!(
            told.max(0) >= floor || progress.in_doubt.contains(&told),
            "{group}: the committed offset of {partition:?} went back from {floor} to {told}"
        );
        promise!(
            told <= progress.delivered,
            "{group}: {told} is committed for {partition:?}, but only {} was delivered",
            progress.delivered
        );
    }
}
