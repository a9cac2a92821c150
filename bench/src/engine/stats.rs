//! What a worker counts, second by second.

use hdrhistogram::Histogram;

use crate::result::{Network, Throughput};

/// Ten minutes: what takes longer counts as that.
const LATENCY_US_MAX: u64 = 600_000_000;
/// How many different faults a worker remembers.
const FAULTS_MAX: usize = 8;

/// The measured part of a run, in the clock's nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// When load begins.
    pub start_ns: u64,
    /// When measuring begins.
    pub from_ns: u64,
    /// When both end.
    pub to_ns: u64,
}

impl Window {
    /// Whether a moment is measured.
    pub fn holds(&self, at_ns: u64) -> bool {
        self.from_ns <= at_ns && at_ns < self.to_ns
    }
}

/// What happened since it was last handed over.
#[derive(Clone, Debug)]
pub struct Delta {
    /// Which second of the measured part; one more than the last for what came behind it.
    pub second: u32,
    /// Acknowledged in the measured part.
    pub produced: Throughput,
    /// Received in it.
    pub consumed: Throughput,
    /// Bytes on connections in it.
    pub network: Network,
    /// Acknowledged records that were to be sent in it, in microseconds.
    pub acknowledged: Histogram<u64>,
    /// The same for each class of producers, by its number; those behind the last that has any are
    /// left out.
    pub by_class: Vec<Histogram<u64>>,
    /// Received ones, likewise.
    pub end_to_end: Histogram<u64>,
    /// How late records that were to be sent in it were taken up.
    pub late: Histogram<u64>,
    /// Records that were to be sent in it and never were, for lack of room.
    pub unsent: u64,
}

impl Delta {
    /// Nothing yet.
    pub fn new(second: u32) -> Self {
        Self {
            second,
            produced: Throughput::default(),
            consumed: Throughput::default(),
            network: Network::default(),
            acknowledged: histogram(),
            by_class: Vec::new(),
            end_to_end: histogram(),
            late: histogram(),
            unsent: 0,
        }
    }

    /// The histogram of a class.
    pub fn of_class(&mut self, class: usize) -> &mut Histogram<u64> {
        if self.by_class.len() <= class {
            self.by_class.resize_with(class + 1, histogram);
        }
        &mut self.by_class[class]
    }

    fn acknowledged(&mut self, class: usize, from_ns: u64, to_ns: u64, records: u64) {
        record(&mut self.acknowledged, from_ns, to_ns, records);
        record(self.of_class(class), from_ns, to_ns, records);
    }
}

/// A histogram of microseconds.
pub fn histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LATENCY_US_MAX, 3) {
        Ok(histogram) => histogram,
        Err(error) => panic!("bounds that no histogram has: {error}"),
    }
}

/// Counts of one worker.
#[derive(Debug)]
pub struct Stats {
    /// What is measured.
    pub window: Window,
    /// Since the last second.
    pub delta: Delta,
    /// Records acknowledged, in all.
    pub acknowledged: u64,
    /// When the last ones were.
    pub last_acknowledgement_ns: u64,
    /// Records received, in all.
    pub received: u64,
    /// When the last one was.
    pub last_receipt_ns: u64,
    /// Connections that were lost, in all.
    pub reconnects: u64,
    faults: Vec<String>,
}

impl Stats {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            window: Window { start_ns: u64::MAX, from_ns: u64::MAX, to_ns: u64::MAX },
            delta: Delta::new(0),
            acknowledged: 0,
            last_acknowledgement_ns: 0,
            received: 0,
            last_receipt_ns: 0,
            reconnects: 0,
            faults: Vec::new(),
        }
    }

    /// Records were acknowledged.
    pub fn on_acknowledged(&mut self, now_ns: u64, records: u64, bytes: u64) {
        self.acknowledged += records;
        self.last_acknowledgement_ns = now_ns;
        if self.window.holds(now_ns) {
            self.delta.produced.records += records;
            self.delta.produced.bytes += bytes;
        }
    }

    /// Records were received.
    pub fn on_received(&mut self, now_ns: u64, records: u64, bytes: u64) {
        self.received += records;
        self.last_receipt_ns = now_ns;
        if self.window.holds(now_ns) {
            self.delta.consumed.records += records;
            self.delta.consumed.bytes += bytes;
        }
    }

    /// Bytes have left, or come.
    pub fn on_network(&mut self, now_ns: u64, sent_bytes: u64, received_bytes: u64) {
        if self.window.holds(now_ns) {
            self.delta.network.sent_bytes += sent_bytes;
            self.delta.network.received_bytes += received_bytes;
        }
    }

    /// How long it took from the intended moment of records of a class of producers to their
    /// acknowledgement.
    pub fn acknowledged_after(
        &mut self,
        class: usize,
        intended_ns: u64,
        now_ns: u64,
        records: u64,
    ) {
        if self.window.holds(intended_ns) {
            self.delta.acknowledged(class, intended_ns, now_ns, records);
        }
    }

    /// To the receipt of one.
    pub fn received_after(&mut self, intended_ns: u64, now_ns: u64) {
        if self.window.holds(intended_ns) {
            record(&mut self.delta.end_to_end, intended_ns, now_ns, 1);
        }
    }

    /// To the moment when the harness took it up; `free_ns`: before that, it could not have left.
    pub fn taken_up_after(&mut self, intended_ns: u64, free_ns: u64, now_ns: u64) {
        if self.window.holds(intended_ns) {
            record(&mut self.delta.late, intended_ns.max(free_ns), now_ns, 1);
        }
    }

    /// A record was never sent: it has waited until now, at least.
    pub fn never_sent(&mut self, class: usize, intended_ns: u64, now_ns: u64) {
        if self.window.holds(intended_ns) {
            self.delta.unsent += 1;
            self.delta.acknowledged(class, intended_ns, now_ns, 1);
        }
    }

    /// Something went wrong. The same is remembered once.
    pub fn fault(&mut self, what: String) {
        if self.faults.len() < FAULTS_MAX && !self.faults.contains(&what) {
            self.faults.push(what);
        }
    }

    /// All that went wrong.
    pub fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    /// What happened until now, which is the second before the one given.
    pub fn turn_over(&mut self, second: u32) -> Delta {
        std::mem::replace(&mut self.delta, Delta::new(second))
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

fn record(histogram: &mut Histogram<u64>, from_ns: u64, to_ns: u64, count: u64) {
    let latency_us = to_ns.saturating_sub(from_ns) / 1000;
    histogram.saturating_record_n(latency_us.max(1), count);
}
