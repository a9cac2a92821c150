//! High watermarks never go back, nothing above them is served, and offsets have no gaps.

use std::collections::BTreeMap;

use super::Partition;
use crate::promise;

/// The highest that anybody was told of each partition.
#[derive(Default)]
pub struct Offsets {
    high_watermarks: BTreeMap<Partition, i64>,
}

impl Offsets {
    /// What a request that is sent now must at least be told.
    pub fn high_watermark(&self, partition: &Partition) -> i64 {
        self.high_watermarks.get(partition).copied().unwrap_or(0)
    }

    /// An answer said this; `floor` is what [`Self::high_watermark`] gave when it was asked.
    pub fn check_high_watermark(&mut self, partition: &Partition, floor: i64, told: i64) {
        promise!(
            told >= floor,
            "{partition:?}: the high watermark went back from {floor} to {told}"
        );
        let known = self.high_watermarks.entry(partition.clone()).or_insert(0);
        *known = told.max(*known);
    }

    /// A batch was served where `expected` was asked for.
    pub fn check_batch(
        &self,
        partition: &Partition,
        expected: i64,
        (base_offset, next_offset): (i64, i64),
        high_watermark: i64,
    ) {
        promise!(
            base_offset <= expected && next_offset > expected,
            "{partition:?}: {base_offset}..{next_offset} is served where {expected} follows"
        );
        promise!(
            next_offset <= high_watermark,
            "{partition:?}: {base_offset}..{next_offset} is served, but only {high_watermark} \
             is committed"
        );
    }
}
