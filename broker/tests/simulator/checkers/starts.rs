//! The start of a log never goes back, as each client sees it, moves only where somebody asked for
//! it or retention may, and nothing below it is served. As of high watermarks, what one client was
//! told by a leader another may not be told by one that does not know yet that it leads no more.

use std::collections::BTreeMap;

use super::Partition;
use super::offsets::Viewer;
use crate::promise;

#[derive(Default)]
struct Start {
    /// The highest that each viewer was told.
    told: BTreeMap<Viewer, i64>,
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
    pub fn floor(&self, viewer: &Viewer, partition: &Partition) -> i64 {
        let told = self.starts.get(partition).and_then(|start| start.told.get(viewer));
        told.copied().unwrap_or(0)
    }

    /// A deletion up to `to` is about to be asked for.
    pub fn ask(&mut self, partition: &Partition, to: i64) {
        let start = self.starts.entry(partition.clone()).or_default();
        start.asked = start.asked.max(to);
    }

    /// An answer said this; `floor` is what [`Self::floor`] gave when it was asked.
    pub fn check_told(&mut self, viewer: &Viewer, partition: &Partition, floor: i64, told: i64) {
        promise!(told >= floor, "{partition:?}: the log start went back from {floor} to {told}");
        let start = self.starts.entry(partition.clone()).or_default();
        promise!(
            self.by_retention || told <= start.asked,
            "{partition:?}: the log starts at {told}, but nobody asked for more than {}",
            start.asked
        );
        let known = start.told.entry(viewer.clone()).or_insert(0);
        *known = told.max(*known);
    }

    /// A deletion up to `to` was acknowledged, and the log said to start at `told`.
    pub fn check_deleted(
        &mut self,
        viewer: &Viewer,
        partition: &Partition,
        (floor, to): (i64, i64),
        told: i64,
    ) {
        promise!(told >= to, "{partition:?}: deleted up to {to}, but the log starts at {told}");
        self.check_told(viewer, partition, floor, told);
    }

    /// Records were served at `position`, which was asked for when `floor` was known.
    pub fn check_served(&self, partition: &Partition, floor: i64, position: i64) {
        promise!(
            position >= floor,
            "{partition:?}@{position} is served, but the log was known to start at {floor}"
        );
    }
}
