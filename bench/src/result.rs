//! What a run found: one JSON line, and what tables and pages are made of.
//!
//! Times are in microseconds where they are latencies and in seconds where they are moments or
//! durations; a moment counts from the begin of the measured part.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;

/// The format of [`RunResult`]; grows where a reader of the old one would misread the new one.
pub const FORMAT: u32 = 1;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct RunResult {
    /// [`FORMAT`].
    pub format: u32,
    /// What was run.
    pub scenario: Scenario,
    /// Which broker, as the caller names it.
    pub label: String,
    /// Which turn it was, where brokers took turns.
    #[serde(default)]
    pub round: Option<Round>,
    /// Its first address.
    pub bootstrap: String,
    /// All addresses that were given, where it ran already.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The command that was it, as it was given, where the harness started it.
    #[serde(default)]
    pub command: Option<String>,
    /// When measuring began, in milliseconds since 1970.
    pub began_ms: i64,
    /// How long it was measured, in seconds.
    pub measured_s: f64,
    /// The machine that the harness ran on.
    pub machine: Machine,
    /// What was acknowledged.
    pub produced: Throughput,
    /// What was received.
    pub consumed: Throughput,
    /// Bytes on the harness's connections to the broker, frames and all.
    #[serde(default)]
    pub network: Network,
    /// From the intended send of a record to the acknowledgement of its batch.
    pub acknowledged_us: Option<Latency>,
    /// The same for each class of producers, in the scenario's order, where it has several.
    #[serde(default)]
    pub acknowledged_by_class_us: Vec<Option<Latency>>,
    /// From the intended send of a record to its receipt.
    pub end_to_end_us: Option<Latency>,
    /// The broker's process, where it was named.
    pub broker: Option<ProcessUse>,
    /// The harness's own process.
    pub harness: HarnessUse,
    /// What came before it.
    #[serde(default)]
    pub preparation: Preparation,
    /// Records whose time came and that were never sent, because the broker left no room for them:
    /// they count as if they had been acknowledged at the end.
    #[serde(default)]
    pub unsent: u64,
    /// A 4 KiB data-sync overwrite beside the run, where a directory for it was named.
    pub disk_sample_us: Option<Latency>,
    /// Second by second.
    pub timeline: Vec<Interval>,
    /// Whether what came back is what was sent.
    pub verification: Verification,
}

/// A turn of brokers that took turns: what ran in the same one is compared.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Round {
    /// When the comparison began, in milliseconds since 1970.
    pub comparison_ms: i64,
    /// Which of its rounds, from 1 on.
    pub number: u32,
}

/// A machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Machine {
    /// Its processor, as it calls itself.
    pub processor: String,
    /// Cores that the harness may use.
    pub cores: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// The kernel's name and version.
    pub kernel: String,
}

/// How much went through in the measured part.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Throughput {
    /// Records.
    pub records: u64,
    /// Bytes of their keys and values, before compression.
    pub bytes: u64,
}

/// Bytes that went over sockets in the measured part.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Network {
    /// To the broker.
    pub sent_bytes: u64,
    /// From it.
    pub received_bytes: u64,
}

/// A distribution of latencies, in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Latency {
    /// How many were recorded.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// The largest.
    pub max: u64,
    /// By percentile: "50", "90", "99", "99.9", "99.99".
    pub percentiles: BTreeMap<String, u64>,
    /// Points of the whole distribution: percentile and latency.
    pub curve: Vec<(f64, u64)>,
}

/// The percentiles that tables show.
pub const PERCENTILES: [&str; 5] = ["50", "90", "99", "99.9", "99.99"];

impl Latency {
    /// What a histogram of microseconds holds; `None` where that is nothing.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |percentile: f64| histogram.value_at_percentile(percentile);
        let percentile = |name: &&str| Some(((*name).to_owned(), at(name.parse().ok()?)));
        let points = histogram.iter_quantiles(5);
        let curve = points.map(|point| (point.percentile(), point.value_iterated_to()));
        Some(Self {
            count: histogram.len(),
            mean: histogram.mean(),
            max: histogram.max(),
            percentiles: PERCENTILES.iter().filter_map(percentile).collect(),
            curve: curve.collect(),
        })
    }

    /// One of [`PERCENTILES`], in microseconds.
    pub fn percentile(&self, name: &str) -> u64 {
        self.percentiles.get(name).copied().unwrap_or_default()
    }
}

/// What a process took in the measured part.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct ProcessUse {
    /// CPU time of all its threads, in seconds.
    pub cpu_s: f64,
    /// The most memory it had resident since it began, in bytes.
    pub memory_peak_bytes: u64,
    /// The memory it has resident at the end, in bytes.
    pub memory_bytes: u64,
    /// Times that a thread waited.
    pub voluntary_switches: u64,
    /// Times that a thread was made to wait.
    pub involuntary_switches: u64,
    /// Bytes it had written to storage, where the kernel lets the harness see.
    #[serde(default)]
    pub written_bytes: Option<u64>,
    /// Bytes it had read from storage.
    #[serde(default)]
    pub read_bytes: Option<u64>,
}

/// What came before the measured part. Durations are in seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Preparation {
    /// From the broker's start on an empty directory to its first answer, where the harness started
    /// it.
    pub started_s: Option<f64>,
    /// From the request for the run's topics to a leader of each of their partitions.
    pub topics_s: Option<f64>,
    /// Where it was ended and started again.
    pub restart: Option<Restarted>,
    /// What the broker's memory was meanwhile, where its process was named.
    pub memory: Option<Footprint>,
}

/// How a broker came back on the data of its last life. Each counts from its start.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Restarted {
    /// To its first answer, in seconds.
    pub answered_s: f64,
    /// To a leader of each of the run's partitions.
    pub led_s: f64,
    /// To the acknowledgement of the first record.
    pub acknowledged_s: f64,
    /// How fast its data was read from the disk before that, in megabytes (10^6) a second, where
    /// the page cache was dropped.
    pub disk_read_mb_s: Option<f64>,
}

/// Memory that a broker had resident before anything was measured, in bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Footprint {
    /// Before the topics were made.
    pub at_first_bytes: u64,
    /// When they were there.
    pub with_topics_bytes: u64,
    /// Before the idle connections were opened.
    pub before_connections_bytes: u64,
    /// When they were there.
    pub with_connections_bytes: u64,
}

/// What the harness took, and whether it held the run back.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct HarnessUse {
    /// Its process.
    pub process: ProcessUse,
    /// The share of its time that its busiest thread ran, from 0 to 1.
    pub busiest_thread: f64,
    /// The share of its time that the same thread could have run, and waited for a core.
    #[serde(default)]
    pub busiest_thread_waited: f64,
    /// How late records were handed to their connection, by their intended time.
    pub late_us: Option<Latency>,
    /// What else than the broker was the limit: the harness, or cores that both shared; none:
    /// nothing was.
    pub bottleneck: Option<String>,
}

/// A part of the run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Interval {
    /// When it ended, in seconds.
    pub at_s: f64,
    /// Acknowledged in it.
    pub produced: Throughput,
    /// Received in it.
    pub consumed: Throughput,
    /// Of acknowledgements in it: the median.
    pub acknowledged_p50_us: Option<u64>,
    /// The 99th percentile.
    pub acknowledged_p99_us: Option<u64>,
    /// Of receipts in it: the median.
    pub end_to_end_p50_us: Option<u64>,
    /// The 99th percentile.
    pub end_to_end_p99_us: Option<u64>,
    /// CPU time of the broker in it, in seconds.
    pub broker_cpu_s: Option<f64>,
}

/// Whether what came back is what was sent, over the whole run, warm-up and fill included.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Verification {
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Records refused, or not answered in time.
    pub failed: u64,
    /// Records that were to be received: each as often as there are readers of everything.
    pub expected: u64,
    /// Records received.
    pub received: u64,
    /// Records that never came.
    pub missing: u64,
    /// Records that came again.
    pub repeated: u64,
    /// Records that came before an earlier one of the same producer and partition.
    pub out_of_order: u64,
    /// Records that are not what was sent.
    pub corrupt: u64,
    /// Records that came with another timestamp than they were sent with, though the broker does
    /// not say that it gives timestamps.
    #[serde(default)]
    pub restamped: u64,
    /// Records that were sent again: refused for now, or lost with a connection.
    #[serde(default)]
    pub resent: u64,
    /// So many may have come again or late for that, as their producers do not number batches:
    /// each once for each reader.
    #[serde(default)]
    pub may_repeat: u64,
    /// Connections that were lost, and made anew.
    #[serde(default)]
    pub reconnects: u64,
    /// What else went wrong, in words.
    pub faults: Vec<String>,
}

impl Verification {
    /// Whether this run is a result.
    pub fn is_sound(&self) -> bool {
        self.failed == 0 && self.is_intact() && self.faults.is_empty()
    }

    /// Whether all that was acknowledged came back as it was sent.
    pub fn is_intact(&self) -> bool {
        let is_whole = self.missing == 0 && self.corrupt == 0 && self.restamped == 0;
        is_whole && self.repeated + self.out_of_order <= self.may_repeat
    }
}

impl RunResult {
    /// How it was reached: the command that was it, or its addresses.
    pub fn reached_by(&self) -> String {
        match &self.command {
            Some(command) => command.clone(),
            None if self.addresses.is_empty() => self.bootstrap.clone(),
            None => self.addresses.join(","),
        }
    }

    /// Whether it was over before the time that its scenario gives it.
    pub fn is_short(&self) -> bool {
        self.measured_s < 0.99 * self.scenario.run.duration_s
    }

    /// Whether somebody writes, and nobody at a rate: what is timed then is how long the queues are
    /// that the harness itself makes, no latency.
    pub fn is_closed_loop(&self) -> bool {
        let producers = &self.scenario.producers;
        !producers.is_empty() && producers.iter().all(|class| class.records_per_second.is_none())
    }

    /// Whether the broker took less than it was to: latencies are at least what was counted.
    pub fn is_overloaded(&self) -> bool {
        self.unsent > 0
    }

    /// Acknowledged, in megabytes (10^6) a second.
    pub fn produced_mb_s(&self) -> f64 {
        self.produced.bytes as f64 / 1e6 / self.measured_s
    }

    /// Received, likewise.
    pub fn consumed_mb_s(&self) -> f64 {
        self.consumed.bytes as f64 / 1e6 / self.measured_s
    }

    /// CPU seconds of the broker for each gigabyte (10^9) that went through it, in or out.
    pub fn broker_cpu_s_per_gb(&self) -> Option<f64> {
        let bytes = self.produced.bytes + self.consumed.bytes;
        self.broker.as_ref().filter(|_| bytes > 0).map(|broker| broker.cpu_s * 1e9 / bytes as f64)
    }

    /// The same for each million records.
    pub fn broker_cpu_s_per_million(&self) -> Option<f64> {
        let records = self.produced.records + self.consumed.records;
        let broker = self.broker.as_ref().filter(|_| records > 0);
        broker.map(|broker| broker.cpu_s * 1e6 / records as f64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use super::*;

    #[test]
    fn a_distribution_is_told_by_its_percentiles() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        assert_eq!(Latency::of(&histogram), None);
        (1..=1000u64).for_each(|value| histogram.record(value).unwrap());
        let latency = Latency::of(&histogram).unwrap();
        assert_eq!((latency.count, latency.max), (1000, 1000));
        assert_eq!((latency.percentile("50"), latency.percentile("99")), (500, 990));
        assert!(latency.curve.is_sorted(), "{:?}", latency.curve);
        assert_eq!(latency.curve.last().unwrap().0, 100.0);
    }

    #[test]
    fn whatever_is_not_as_sent_spoils_a_run() {
        assert!(Verification { acknowledged: 5, received: 5, ..Default::default() }.is_sound());
        assert!(!Verification { failed: 1, ..Default::default() }.is_sound());
        assert!(!Verification { missing: 1, ..Default::default() }.is_sound());
        assert!(!Verification { repeated: 1, ..Default::default() }.is_sound());
        assert!(!Verification { out_of_order: 1, ..Default::default() }.is_sound());
        assert!(!Verification { corrupt: 1, ..Default::default() }.is_sound());
        assert!(!Verification { restamped: 1, ..Default::default() }.is_sound());
        let again = Verification { repeated: 3, out_of_order: 2, ..Default::default() };
        assert!(Verification { may_repeat: 5, ..again.clone() }.is_sound());
        assert!(!Verification { may_repeat: 4, ..again }.is_sound());
        let faults = vec!["a topic was gone".to_owned()];
        assert!(!Verification { faults, ..Default::default() }.is_sound());
    }
}
