//! Replication throttles (KIP-73): how fast a node sends, and takes, what replicas lack that are
//! not in sync. One rate for all shards of a node; what goes to replicas in sync is never held
//! back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::runtime::Monotonic;

/// The number of this question between nodes: whether so many bytes may be sent now.
pub const THROTTLE: u16 = 257;

/// Bytes of batches in one message to a throttled replica; a batch that is larger goes alone.
pub const THROTTLED_BYTES: usize = 128 << 10;

/// What was not used of the rate in so much time may be used later: timers come late.
const CREDIT_NS: u64 = 100_000_000;
/// How long it is waited where nothing may be sent at all.
const NOTHING_PAUSE: Duration = Duration::from_secs(1);

const NS_PER_S: u128 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// Bytes that may pass in a second, counted by all shards of a node.
#[derive(Debug)]
pub struct Bucket {
    /// `u64::MAX`: any.
    bytes_per_s: AtomicU64,
    /// The moment at which all that has passed is paid for.
    paid_ns: AtomicU64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { bytes_per_s: AtomicU64::new(u64::MAX), paid_ns: AtomicU64::new(0) }
    }
}

impl Bucket {
    /// Another rate; `None`: any.
    pub fn set_rate(&self, bytes_per_s: Option<u64>) {
        let rate = bytes_per_s.unwrap_or(u64::MAX);
        if self.bytes_per_s.swap(rate, Ordering::Relaxed) != rate {
            // What is owed was counted by the other rate.
            self.paid_ns.store(0, Ordering::Relaxed);
        }
    }

    /// Whether there is a rate.
    pub fn is_limited(&self) -> bool {
        self.bytes_per_s.load(Ordering::Relaxed) < u64::MAX
    }

    /// Lets so many bytes pass.
    ///
    /// # Errors
    /// Where it is too early: how long that lasts.
    pub fn take(&self, now: Monotonic, bytes: i64) -> Result<(), Duration> {
        let rate = self.bytes_per_s.load(Ordering::Relaxed);
        if rate == u64::MAX {
            return Ok(());
        }
        if rate == 0 {
            return Err(NOTHING_PAUSE);
        }
        let pay = |paid: u64| (paid <= now.0).then(|| moved(paid, now, cost_ns(bytes, rate)));
        let taken = self.paid_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
        taken.map(drop).map_err(|paid| Duration::from_nanos(paid - now.0))
    }

    /// So many bytes more have passed than were taken, or fewer.
    pub fn correct(&self, now: Monotonic, bytes: i64) {
        let rate = self.bytes_per_s.load(Ordering::Relaxed);
        if rate < u64::MAX && rate > 0 {
            let pay = |paid: u64| Some(moved(paid, now, cost_ns(bytes, rate)));
            let _ = self.paid_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
        }
    }
}

fn cost_ns(bytes: i64, rate: u64) -> i64 {
    let cost = u128::from(bytes.unsigned_abs()) * NS_PER_S / u128::from(rate);
    i64::try_from(cost).unwrap_or(i64::MAX).saturating_mul(bytes.signum())
}

fn moved(paid: u64, now: Monotonic, cost_ns: i64) -> u64 {
    paid.max(now.0.saturating_sub(CREDIT_NS)).saturating_add_signed(cost_ns)
}

/// The two throttles of a node.
#[derive(Debug, Default)]
pub struct Throttles {
    /// What its leaders send (`leader.replication.throttled.rate`).
    pub leader: Bucket,
    /// What its followers are sent (`follower.replication.throttled.rate`).
    pub follower: Bucket,
}

/// The throttles, as one shard uses them.
#[derive(Debug)]
pub struct ShardThrottles {
    /// Of this node.
    pub own: Arc<Throttles>,
    /// What other nodes were sent above what they were asked for.
    owed: RefCell<BTreeMap<i32, i64>>,
}

impl ShardThrottles {
    /// Over those of the node.
    pub fn new(own: Arc<Throttles>) -> Self {
        Self { own, owed: RefCell::default() }
    }

    /// What a node is asked for, for a message of so many bytes.
    pub(super) fn question(&self, node: i32, bytes: i64) -> (i64, Bytes) {
        let asked = self.owed.borrow().get(&node).copied().unwrap_or(0).saturating_add(bytes);
        let mut body = BytesMut::with_capacity(8);
        body.put_i64(asked);
        (asked, body.freeze())
    }

    /// It was taken there: of `asked`, so many bytes are to be sent.
    pub(super) fn taken(&self, node: i32, asked: i64, bytes: i64) {
        self.owe(node, bytes - asked);
    }

    /// A node was sent so many bytes more than it was asked for, or fewer.
    pub(super) fn owe(&self, node: i32, bytes: i64) {
        let mut owed = self.owed.borrow_mut();
        let sum = owed.get(&node).copied().unwrap_or(0).saturating_add(bytes);
        if sum == 0 {
            owed.remove(&node);
        } else {
            owed.insert(node, sum);
        }
    }

    /// Another node's question: how long it has to wait, in milliseconds.
    pub(super) fn answer(&self, now: Monotonic, mut question: Bytes) -> Bytes {
        let Ok(bytes) = question.try_get_i64() else { return Bytes::new() };
        let wait = self.own.follower.take(now, bytes).err().unwrap_or_default();
        let wait_ms = u64::try_from(wait.as_nanos().div_ceil(u128::from(NS_PER_MS)));
        let mut answer = BytesMut::with_capacity(8);
        answer.put_u64(wait_ms.unwrap_or(u64::MAX));
        answer.freeze()
    }
}

/// What was answered; a release that does not know the question lets all pass.
pub(super) fn answered(mut answer: Bytes) -> Duration {
    Duration::from_millis(answer.try_get_u64().unwrap_or(0))
}

/// Replicas of a partition, as `leader.replication.throttled.replicas` and its like name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Those on these nodes.
    Nodes(Vec<i32>),
    /// All.
    All,
}

impl Default for Listed {
    fn default() -> Self {
        Self::Nodes(Vec::new())
    }
}

impl Listed {
    /// Whether the one on this node is among them.
    pub fn has(&self, node: i32) -> bool {
        match self {
            Self::Nodes(nodes) => nodes.contains(&node),
            Self::All => true,
        }
    }
}

/// Which replicas of a partition are throttled while they are not in sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    /// Those that send while they lead.
    pub leaders: Listed,
    /// Those that are sent to.
    pub followers: Listed,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = NS_PER_MS;

    #[test]
    fn what_passes_is_the_rate() {
        let bucket = Bucket::default();
        assert!(!bucket.is_limited());
        assert_eq!(bucket.take(Monotonic(0), i64::MAX), Ok(()));
        bucket.set_rate(Some(1_000_000));
        assert!(bucket.is_limited());
        let (mut now, mut passed) = (Monotonic(5_000 * MS), 0_u64);
        let end = now.after(Duration::from_secs(10));
        while now < end {
            match bucket.take(now, 100_000) {
                // Each time it was more than was asked for.
                Ok(()) => {
                    bucket.correct(now, 50_000);
                    passed += 150_000;
                }
                // Timers come late.
                Err(wait) => now = now.after(wait).after(Duration::from_millis(3)),
            }
        }
        assert!((9_900_000..=10_400_000).contains(&passed), "{passed}");
    }

    #[test]
    fn another_rate_counts_from_now_on_and_none_lets_all_pass() {
        let bucket = Bucket::default();
        let now = Monotonic(5_000 * MS);
        bucket.set_rate(Some(1));
        assert_eq!(bucket.take(now, 1 << 20), Ok(()));
        assert!(bucket.take(now, 1).unwrap_err() > Duration::from_hours(24));
        bucket.set_rate(Some(1));
        assert!(bucket.take(now, 1).is_err(), "the same rate is no other");
        bucket.set_rate(Some(1 << 20));
        assert_eq!(bucket.take(now, 1 << 20), Ok(()));
        assert_eq!(bucket.take(now, 1), Err(Duration::from_millis(900)));
        bucket.set_rate(Some(0));
        assert_eq!(bucket.take(now, 1), Err(NOTHING_PAUSE));
        bucket.set_rate(None);
        assert_eq!(bucket.take(now, 1), Ok(()));
    }

    #[test]
    fn what_was_sent_above_what_was_asked_for_is_asked_for_the_next_time() {
        let leader = ShardThrottles::new(Arc::default());
        let follower = ShardThrottles::new(Arc::default());
        follower.own.follower.set_rate(Some(1000));
        let now = Monotonic(5_000 * MS);
        let ask = |bytes: i64| {
            let (asked, question) = leader.question(2, bytes);
            let wait = answered(follower.answer(now, question));
            if wait.is_zero() {
                leader.taken(2, asked, bytes);
            }
            (asked, wait)
        };
        assert_eq!(ask(100), (100, Duration::ZERO));
        leader.owe(2, 400);
        assert_eq!(ask(100), (500, Duration::ZERO), "credit");
        assert_eq!(ask(100), (100, Duration::from_millis(500)));
        assert_eq!(ask(100), (100, Duration::from_millis(500)), "what is refused stays");
        assert_eq!(answered(Bytes::new()), Duration::ZERO);
        assert_eq!(follower.answer(now, Bytes::new()), Bytes::new());
    }
}
