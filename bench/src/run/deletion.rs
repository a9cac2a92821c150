//! Whether a run was to see old records deleted. Pure.
//!
//! A broker that looks every five minutes deletes nothing in two: whoever measures what deleting
//! costs is to know.

use crate::scenario::{Codec, Scenario};

/// The segments of a log are this large unless its topic says otherwise, as Kafka's.
const SEGMENT_BYTES: f64 = 1_073_741_824.0;
/// What is to be told where nothing was deleted that should have been.
pub const NOTHING: &str = "nothing was deleted, though partitions grew well past retention.bytes: \
                           does the broker look often enough (log.retention.check.interval.ms)?";

/// Whether so many records are so much more than `retention.bytes` that some must be gone by now:
/// two segments more in the partition that has the mean.
pub fn is_due(scenario: &Scenario, records: u64) -> bool {
    let topics = &scenario.topics;
    let number = |name: &str| topics.configs.get(name)?.parse::<f64>().ok();
    let Some(kept_bytes) = number("retention.bytes").filter(|bytes| *bytes >= 0.0) else {
        return false;
    };
    // What is compressed takes nobody knows how much.
    if scenario.producers.iter().any(|class| class.codec != Codec::None) {
        return false;
    }
    let sizes = scenario.producers.iter().map(|class| class.record_bytes.mean());
    let sizes = sizes.chain(scenario.fill.iter().map(|fill| fill.record_bytes.mean()));
    let least = sizes.fold(f64::INFINITY, f64::min);
    let partitions = f64::from(topics.count) * f64::from(topics.partitions);
    let segment_bytes = number("segment.bytes").unwrap_or(SEGMENT_BYTES);
    let is_any = records > 0;
    is_any && records as f64 * least / partitions > kept_bytes + 2.0 * segment_bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use super::*;

    #[test]
    fn deletion_is_due_two_segments_past_what_is_kept() {
        let text = "title = 'x'\n[topics]\npartitions = 4\n\
                    configs = { 'retention.bytes' = '1000000', 'segment.bytes' = '100000' }\n\
                    [[producers]]\nrecord_bytes = 1000\n";
        let scenario = Scenario::parse(text).unwrap();
        assert!(!is_due(&scenario, 0));
        assert!(!is_due(&scenario, 4 * 1200));
        assert!(is_due(&scenario, 4 * 1201));
        let mut compressed = scenario.clone();
        compressed.producers[0].codec = Codec::Lz4;
        assert!(!is_due(&compressed, 1 << 30));
        let mut forever = scenario;
        forever.topics.configs.clear();
        assert!(!is_due(&forever, 1 << 30));
    }
}
