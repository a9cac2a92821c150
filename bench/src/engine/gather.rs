//! Puts together what the workers say of each second.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::engine::stats::Delta;
use crate::result::{Interval, Throughput};

/// What has been heard so far.
#[derive(Debug)]
pub struct Gather {
    workers: usize,
    duration_s: f64,
    /// Seconds that not all have told of: how many have, and what.
    pending: BTreeMap<u32, (usize, Delta)>,
    total: Delta,
}

impl Gather {
    /// Nothing yet, of so many workers, of a measured part of so many seconds.
    pub fn new(workers: usize, duration_s: f64) -> Self {
        Self { workers, duration_s, pending: BTreeMap::new(), total: Delta::new(0) }
    }

    /// Takes in what a worker says of a second. If it is the last one to do so: that second.
    pub fn add(&mut self, delta: Delta) -> Option<Interval> {
        let second = delta.second;
        let (told, sum) = self.pending.entry(second).or_insert((0, Delta::new(second)));
        *told += 1;
        merge(sum, &delta);
        if *told < self.workers {
            return None;
        }
        let (_, whole) = self.pending.remove(&second)?;
        Some(self.close(&whole, (f64::from(second) + 1.0).min(self.duration_s)))
    }

    /// Takes in what a worker has left at its end.
    pub fn add_rest(&mut self, delta: &Delta) {
        let (_, sum) = self.pending.entry(u32::MAX).or_insert((0, Delta::new(u32::MAX)));
        merge(sum, delta);
    }

    /// All of it; and what was in the last second, which was not a whole one, if it ended then.
    pub fn finish(mut self, ended_at_s: Option<f64>) -> (Delta, Option<Interval>) {
        let mut last = Delta::new(0);
        for (_, delta) in std::mem::take(&mut self.pending).into_values() {
            merge(&mut last, &delta);
        }
        let interval = self.close(&last, ended_at_s.unwrap_or_default());
        (self.total, ended_at_s.map(|_| interval))
    }

    fn close(&mut self, delta: &Delta, at_s: f64) -> Interval {
        merge(&mut self.total, delta);
        let at = |histogram: &Histogram<u64>, percentile| {
            (!histogram.is_empty()).then(|| histogram.value_at_percentile(percentile))
        };
        Interval {
            at_s,
            produced: delta.produced.clone(),
            consumed: delta.consumed.clone(),
            acknowledged_p50_us: at(&delta.acknowledged, 50.0),
            acknowledged_p99_us: at(&delta.acknowledged, 99.0),
            end_to_end_p50_us: at(&delta.end_to_end, 50.0),
            end_to_end_p99_us: at(&delta.end_to_end, 99.0),
            broker_cpu_s: None,
        }
    }
}

fn merge(sum: &mut Delta, more: &Delta) {
    let add = |sum: &mut Throughput, more: &Throughput| {
        sum.records += more.records;
        sum.bytes += more.bytes;
    };
    add(&mut sum.produced, &more.produced);
    add(&mut sum.consumed, &more.consumed);
    sum.network.sent_bytes += more.network.sent_bytes;
    sum.network.received_bytes += more.network.received_bytes;
    sum.unsent += more.unsent;
    for (class, more) in more.by_class.iter().enumerate() {
        // All have the same bounds.
        let merged = sum.of_class(class).add(more);
        debug_assert!(merged.is_ok(), "{merged:?}");
    }
    for (sum, more) in [
        (&mut sum.acknowledged, &more.acknowledged),
        (&mut sum.end_to_end, &more.end_to_end),
        (&mut sum.late, &more.late),
    ] {
        let merged = sum.add(more);
        debug_assert!(merged.is_ok(), "{merged:?}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test should say where")]

    use super::*;

    fn told(second: u32, records: u64) -> Delta {
        let mut delta = Delta::new(second);
        delta.produced.records = records;
        delta.acknowledged.record_n(100 * records, records).unwrap();
        delta.of_class(1).record_n(100 * records, records).unwrap();
        delta
    }

    #[test]
    fn a_second_is_whole_when_all_have_told_of_it() {
        let mut gather = Gather::new(2, 1.5);
        assert_eq!(gather.add(told(0, 1)), None);
        assert_eq!(gather.add(told(1, 5)), None);
        let first = gather.add(told(0, 2)).unwrap();
        assert_eq!((first.at_s, first.produced.records), (1.0, 3));
        assert_eq!(first.acknowledged_p50_us, Some(200));
        assert_eq!(gather.add(told(1, 6)).unwrap().at_s, 1.5);
        gather.add_rest(&told(7, 10));
        let (total, last) = gather.finish(None);
        assert_eq!((total.produced.records, total.acknowledged.len()), (24, 24));
        let by_class = total.by_class.iter().map(|of| of.len());
        assert_eq!(by_class.collect::<Vec<_>>(), [0, 24]);
        assert_eq!(last, None);
    }

    #[test]
    fn a_run_that_ends_early_has_a_short_last_second() {
        let mut gather = Gather::new(1, 60.0);
        gather.add(told(0, 1)).unwrap();
        gather.add_rest(&told(1, 2));
        let (total, last) = gather.finish(Some(1.25));
        assert_eq!(total.produced.records, 3);
        let last = last.unwrap();
        assert_eq!((last.at_s, last.produced.records), (1.25, 2));
    }
}
