//! Counters and histograms of one shard, and their sum when somebody looks.
//!
//! A shard counts into its own [`ShardMetrics`] without a lock; a scrape asks every shard for a
//! [`Snapshot`] and adds them up.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 2;

/// What one API came to.
#[derive(Clone, Debug)]
pub struct ApiSnapshot {
    /// Requests answered.
    pub requests: u64,
    /// Answers by error code, the first of each answer; without NONE.
    pub errors: BTreeMap<i16, u64>,
    /// From the complete request to its answer being ready, in microseconds.
    pub latency_us: Histogram<u64>,
    /// The sum of these, exactly.
    pub latency_us_sum: u64,
}

impl ApiSnapshot {
    fn new() -> Option<Self> {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS).ok()?;
        Some(Self { requests: 0, errors: BTreeMap::new(), latency_us, latency_us_sum: 0 })
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        for (error, count) in &other.errors {
            *self.errors.entry(*error).or_default() += count;
        }
        // Same bounds, so it cannot fail; a latency more or less would be no reason to stop.
        let _same_bounds = self.latency_us.add(&other.latency_us);
        self.latency_us_sum = self.latency_us_sum.saturating_add(other.latency_us_sum);
    }
}

/// Counters that only grow, of one shard or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes received from clients.
    pub received_bytes: u64,
    /// Bytes sent to clients.
    pub sent_bytes: u64,
    /// Connections accepted.
    pub connections_accepted: u64,
    /// Connections that were handed over to the shard of their partitions.
    pub connections_moved: u64,
    /// Connections closed because of a limit, of what they sent, or because they made no progress.
    pub connections_refused: u64,
    /// Bytes of record batches taken by partitions.
    pub appended_bytes: u64,
    /// Record batches taken by partitions.
    pub appended_batches: u64,
    /// Bytes of record batches read by fetches.
    pub fetched_bytes: u64,
    /// Partitions that went from one shard to another.
    pub partitions_moved: u64,
}

/// Memory that is counted, of one shard or of all, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Held by requests.
    pub request_bytes: u64,
    /// What requests may hold.
    pub request_bytes_max: u64,
    /// Held by the buffers of logs: those being filled, and the batch cache.
    pub buffer_bytes: u64,
    /// What the batch cache may hold.
    pub cache_bytes_max: u64,
}

/// What a shard counted, or all shards together.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By API key.
    pub apis: BTreeMap<i16, ApiSnapshot>,
    /// What only grows.
    pub counters: Counters,
    /// Connections open now.
    pub connections: u64,
    /// Memory now.
    pub memory: Memory,
}

impl Snapshot {
    /// Adds another shard's.
    pub fn add(&mut self, other: &Self) {
        for (key, theirs) in &other.apis {
            match self.apis.get_mut(key) {
                None => drop(self.apis.insert(*key, theirs.clone())),
                Some(ours) => ours.add(theirs),
            }
        }
        let (ours, theirs) = (&mut self.counters, &other.counters);
        ours.received_bytes += theirs.received_bytes;
        ours.sent_bytes += theirs.sent_bytes;
        ours.connections_accepted += theirs.connections_accepted;
        ours.connections_moved += theirs.connections_moved;
        ours.connections_refused += theirs.connections_refused;
        ours.appended_bytes += theirs.appended_bytes;
        ours.appended_batches += theirs.appended_batches;
        ours.fetched_bytes += theirs.fetched_bytes;
        ours.partitions_moved += theirs.partitions_moved;
        self.connections += other.connections;
        let (ours, theirs) = (&mut self.memory, &other.memory);
        ours.request_bytes += theirs.request_bytes;
        ours.request_bytes_max += theirs.request_bytes_max;
        ours.buffer_bytes += theirs.buffer_bytes;
        ours.cache_bytes_max += theirs.cache_bytes_max;
    }
}

/// One shard's counters.
#[derive(Debug, Default)]
pub struct ShardMetrics {
    apis: RefCell<BTreeMap<i16, ApiSnapshot>>,
    counters: Cell<Counters>,
    connections: Cell<u64>,
}

impl ShardMetrics {
    /// A request was answered: its API, how long that took, and the first error code in the answer
    /// (0: none).
    pub fn answered(&self, api_key: i16, latency: Duration, error_code: i16) {
        let mut apis = self.apis.borrow_mut();
        if !apis.contains_key(&api_key)
            && let Some(api) = ApiSnapshot::new()
        {
            apis.insert(api_key, api);
        }
        let Some(api) = apis.get_mut(&api_key) else {
            return;
        };
        api.requests += 1;
        if error_code != 0 {
            *api.errors.entry(error_code).or_default() += 1;
        }
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        api.latency_us.saturating_record(latency_us.max(1));
        api.latency_us_sum = api.latency_us_sum.saturating_add(latency_us);
    }

    /// Changes what only grows.
    pub fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    /// A connection was accepted, or taken over from another shard.
    pub fn connection_arrived(&self) {
        self.connections.set(self.connections.get() + 1);
    }

    /// A connection was closed, or handed over to another shard.
    pub fn connection_left(&self) {
        self.connections.set(self.connections.get().saturating_sub(1));
    }

    /// Everything as it stands; `memory` is what the caller found.
    pub fn snapshot(&self, memory: Memory) -> Snapshot {
        Snapshot {
            apis: self.apis.borrow().clone(),
            counters: self.counters.get(),
            connections: self.connections.get(),
            memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up() {
        let (first, second) = (ShardMetrics::default(), ShardMetrics::default());
        first.answered(0, Duration::from_millis(2), 0);
        second.answered(0, Duration::from_millis(4), 3);
        second.answered(1, Duration::from_secs(3600), 0);
        second.connection_arrived();
        first.count(|counters| counters.connections_moved += 1);
        let memory = |request_bytes| Memory {
            request_bytes,
            request_bytes_max: 10,
            buffer_bytes: 1,
            cache_bytes_max: 2,
        };
        let mut sum = first.snapshot(memory(5));
        sum.add(&second.snapshot(memory(6)));
        assert_eq!(sum.apis[&0].requests, 2);
        assert_eq!(sum.apis[&0].errors, BTreeMap::from([(3, 1)]));
        assert_eq!(sum.apis[&0].latency_us.len(), 2);
        assert_eq!(sum.apis[&0].latency_us_sum, 6000);
        assert_eq!(sum.apis[&1].requests, 1);
        assert_eq!(sum.connections, 1);
        let expected = Memory {
            request_bytes: 11,
            request_bytes_max: 20,
            buffer_bytes: 2,
            cache_bytes_max: 4,
        };
        assert_eq!(sum.memory, expected);
        assert_eq!(sum.counters.connections_moved, 1);
    }
}
