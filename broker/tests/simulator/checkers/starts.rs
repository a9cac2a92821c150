//! The start of a log never goes back, moves only where somebody asked for it or retention may, and
//! nothing below it is served.

use std::collections::BTreeMap;

use super::Partition;
use crate::promise;

#[derive(Default)]
struct Start {
    /// The highest that anybody was told.
    told: i64,
    /// The highest that anybody asked for, answered or not.
    asked: i64,
}

/// Where logs start.
#[derive(Default)]
pub struct Starts {
    starts: BTreeMap<Partition, Start>,
    /// Retention deletes in this run: starts move unasked.
    by_retention: bool,
}

impl Starts {
    /// From now on retention may move starts.
    pub fn retention_may_delete(&mut self) {
        self.by_retention = true;
    }

    /// What a request that is sent now must at least be told.
    pub fn floor(&self, partition: &Partition) -> i64 {
        self.starts.get(partition).map_or(0, |start| start.told)
    }

    /// A deletion up to `to` is about to be asked for.
    pub fn ask(&mut self, partition: &Partition, to: i64) {
        let start = self.starts.entry(partition.clone()).or_default();
        start.asked = start.asked.max(to);
    }

    /// An answer said this; `floor` is what [`Self::floor`] gave when it was asked.
    pub fn check_told(&mut self, partition: &Partition, floor: i64, told: i64) {
        promise!(told >= floor, "{partition:?}: the log start went back from {floor} to {told}");
        let start = self.starts.entry(partition.clone()).or_default();
        promise!(
            self.by_retention || told <= start.asked,
            "{partition:?}: the log starts at {told}, but nobody asked for more than {}",
            start.asked
        );
        start.told = start.told.max(told);
    }

    /// A deletion up to `to` was acknowledged, and the log said to start at `told`.
    pub fn check_deleted(&mut self, partition: &Partition, floor: i64, to: i64, told: i64) {
        promise!(told >= to, "{partition:?}: deleted up to {to}, but the log starts at {told}");
        self.check_told(partition, floor, told);
    }

    /// Records were served at `position`, which was asked for when `floor` was known.
    pub fn check_served(&self, partition: &Partition, floor: i64, position: i64) {
        promise!(
            position >= floor,
            "{partition:?}@{position} is served, but the log was known to start at {floor}"
        );
    }
}
