//! How a shard stands, and the node: plain values that travel between shards.

use vltava_protocol::types::Str;

use crate::metadata::image::PartitionId;
use crate::metrics::Snapshot;
use crate::node::tally::Tally;
use crate::runtime::ProcessFacts;

/// Above so many partitions of a node, none has lines of its own.
pub const PARTITIONS_SHOWN_MAX: usize = 5_000;
/// Above so many committed offsets of a node, none has lines of its own.
pub const OFFSETS_SHOWN_MAX: usize = 10_000;
/// Partitions out of service that are named.
pub const OUT_OF_SERVICE_NAMED_MAX: usize = 100;

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionFacts {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// Bytes of all segments.
    pub size_bytes: u64,
    /// The first offset.
    pub log_start: i64,
    /// The offset that the next record gets.
    pub log_end: i64,
    /// The first offset that is not committed.
    pub high_watermark: i64,
}

/// How far a group has read a partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupOffset {
    /// Which group.
    pub group: Str,
    /// Which topic.
    pub topic: Str,
    /// Which partition.
    pub partition: i32,
    /// The same, where the topic still exists.
    pub id: Option<PartitionId>,
    /// The next offset it will read.
    pub committed: i64,
    /// The partition's high watermark, where that could be learned.
    pub high_watermark: Option<i64>,
}

impl GroupOffset {
    /// Records that are committed and not read yet. A group that committed beyond the end (of a
    /// topic that was made anew) lags by none.
    pub fn lag(&self) -> Option<i64> {
        Some(self.high_watermark?.saturating_sub(self.committed).max(0))
    }
}

/// A list that is given whole, or where it would be too long, not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounded<T> {
    /// Everything, or nothing.
    pub items: Vec<T>,
    /// How many there are.
    pub count: usize,
}

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Self { items: Vec::new(), count: 0 }
    }
}

impl<T> Bounded<T> {
    /// Collects what fits.
    pub fn collect(from: impl Iterator<Item = T>, max: usize) -> Self {
        let mut bounded = Self::default();
        for item in from {
            bounded.count += 1;
            if bounded.count <= max {
                bounded.items.push(item);
            }
        }
        bounded.or_nothing(max)
    }

    /// Adds another shard's.
    pub fn add(&mut self, other: Self, max: usize) {
        let was_whole = self.is_whole() && other.is_whole();
        self.items.extend(other.items);
        self.count += other.count;
        if !was_whole || self.count > max {
            self.items = Vec::new();
        }
    }

    /// How many are not in the list.
    pub fn left_out(&self) -> usize {
        self.count - self.items.len()
    }

    fn is_whole(&self) -> bool {
        self.left_out() == 0
    }

    fn or_nothing(mut self, max: usize) -> Self {
        if self.count > max {
            self.items = Vec::new();
        }
        self
    }
}

/// What stands in the way of serving.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Shards that do not accept connections yet, by number.
    pub not_serving: Vec<usize>,
    /// Logs that are out of service: `topic-partition: why`; some of them.
    pub out_of_service: Vec<String>,
    /// How many there are.
    pub out_of_service_count: usize,
    /// The broker has been told to stop.
    pub is_stopping: bool,
}

impl Readiness {
    /// Whether nothing stands in the way.
    pub fn is_ready(&self) -> bool {
        *self == Self::default()
    }

    /// Adds another shard's.
    pub fn add(&mut self, other: Self) {
        self.not_serving.extend(other.not_serving);
        self.out_of_service.extend(other.out_of_service);
        self.out_of_service.truncate(OUT_OF_SERVICE_NAMED_MAX);
        self.out_of_service_count += other.out_of_service_count;
        self.is_stopping |= other.is_stopping;
    }

    /// A line for each reason; none where it is ready.
    pub fn reasons(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.is_stopping {
            lines.push("the broker is stopping".to_owned());
        }
        for shard in &self.not_serving {
            lines.push(format!("shard {shard} is still opening its logs"));
        }
        lines.extend(self.out_of_service.iter().cloned());
        let unnamed = self.out_of_service_count - self.out_of_service.len();
        if unnamed > 0 {
            lines.push(format!("{unnamed} more logs are out of service"));
        }
        lines
    }
}

/// How a shard stands, or all of them together.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Counters, latencies, memory.
    pub metrics: Snapshot,
    /// Partitions whose logs are open.
    pub partitions: Bounded<PartitionFacts>,
    /// Partitions in which the background check found damage.
    pub damaged_partitions: usize,
    /// Consumer groups coordinated here.
    pub groups: usize,
    /// What they have committed.
    pub offsets: Bounded<GroupOffset>,
    /// Whether the cluster's controller is here.
    pub is_controller: bool,
    /// How the cluster stands, as far as is known here.
    pub tally: Tally,
    /// Whether it serves.
    pub readiness: Readiness,
}

impl Report {
    /// Adds another shard's.
    pub fn add(&mut self, other: Self) {
        self.metrics.add(&other.metrics);
        self.partitions.add(other.partitions, PARTITIONS_SHOWN_MAX);
        self.damaged_partitions += other.damaged_partitions;
        self.groups += other.groups;
        self.offsets.add(other.offsets, OFFSETS_SHOWN_MAX);
        self.is_controller |= other.is_controller;
        self.tally.add(other.tally);
        self.readiness.add(other.readiness);
    }
}

/// How the node stands.
#[derive(Clone, Debug, Default)]
pub struct NodeReport {
    /// How many shards there are.
    pub shards: usize,
    /// All of them together.
    pub sum: Report,
    /// The process.
    pub process: ProcessFacts,
    /// Free and total bytes of the data directory's file system, where it says so.
    pub disk: Option<(u64, u64)>,
    /// `disk.reserve.bytes`.
    pub disk_reserve_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_whole_or_empty() {
        let mut sum = Bounded::collect(0..3, 5);
        assert_eq!((sum.items.len(), sum.left_out()), (3, 0));
        sum.add(Bounded::collect(0..2, 5), 5);
        assert_eq!((sum.items.len(), sum.left_out()), (5, 0));
        sum.add(Bounded::collect(0..1, 5), 5);
        assert_eq!((sum.items.len(), sum.left_out()), (0, 6));
        sum.add(Bounded::collect(0..1, 5), 50);
        assert_eq!((sum.items.len(), sum.left_out()), (0, 7));
        assert_eq!(Bounded::collect(0..6, 5).left_out(), 6);
    }

    #[test]
    fn every_reason_has_a_line_and_their_number_is_bounded() {
        let mut sum = Readiness::default();
        assert!(sum.is_ready() && sum.reasons().is_empty());
        for shard in 0..2 {
            sum.add(Readiness {
                not_serving: vec![shard],
                out_of_service: vec!["t-0: damaged".to_owned(); OUT_OF_SERVICE_NAMED_MAX],
                out_of_service_count: 1_000,
                is_stopping: false,
            });
        }
        assert!(!sum.is_ready());
        let reasons = sum.reasons();
        assert_eq!(reasons[1], "shard 1 is still opening its logs");
        assert_eq!(reasons[2], "t-0: damaged");
        assert_eq!(reasons.len(), 2 + OUT_OF_SERVICE_NAMED_MAX + 1);
        assert_eq!(reasons[102], "1900 more logs are out of service");
    }

    #[test]
    fn a_group_ahead_of_its_log_lags_by_none() {
        let offset = |committed, high_watermark| GroupOffset {
            group: "g".into(),
            topic: "t".into(),
            partition: 0,
            id: None,
            committed,
            high_watermark,
        };
        assert_eq!(offset(3, Some(10)).lag(), Some(7));
        assert_eq!(offset(30, Some(10)).lag(), Some(0));
        assert_eq!(offset(3, None).lag(), None);
    }
}
