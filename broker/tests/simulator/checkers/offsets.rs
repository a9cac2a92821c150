//! High watermarks never go back, nothing above them is served, and offsets have no gaps.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Partition;
use crate::promise;

/// Whoever sees high watermarks: those of one viewer never go back. Of a node alone all are one
/// viewer, since all that is told comes from there. With several nodes each client is one for
/// itself: a node that was paused, and does not know yet that another leads now, may tell somebody
/// else what was committed before.
pub type Viewer = Option<Rc<str>>;

/// The highest that each viewer was told of each partition.
#[derive(Default)]
pub struct Offsets {
    high_watermarks: BTreeMap<Partition, BTreeMap<Viewer, i64>>,
}

impl Offsets {
    /// The highest that anybody was told.
    pub fn high_watermark(&self, partition: &Partition) -> i64 {
        let told = self.high_watermarks.get(partition);
        told.and_then(|told| told.values().max()).copied().unwrap_or(0)
    }

    /// What a request that is sent now must at least be told.
    pub fn floor(&self, viewer: &Viewer, partition: &Partition) -> i64 {
        let told = self.high_watermarks.get(partition);
        told.and_then(|told| told.get(viewer)).copied().unwrap_or(0)
    }

    /// An answer said this; `floor` is what [`Self::floor`] gave when it was asked.
    pub fn check_high_watermark(
        &mut self,
        viewer: &Viewer,
        partition: &Partition,
        floor: i64,
        told: i64,
    ) {
        promise!(
            told >= floor,
            "{partition:?}: the high watermark went back from {floor} to {told} ({viewer:?})"
        );
        let viewers = self.high_watermarks.entry(partition.clone()).or_default();
        let known = viewers.entry(viewer.clone()).or_insert(0);
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
