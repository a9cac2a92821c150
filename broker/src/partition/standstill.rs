//! Whether this process has just stood still: stopped, swapped out, or its machine was.
//!
//! It goes on as the leader that it was, while another may lead by now: what it read of its own
//! state would be of before. So for a moment nothing is answered that a leader alone may say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::runtime::{Monotonic, Runtime};

/// How often the process notes that it goes on.
const BEAT: Duration = Duration::from_millis(100);
/// So long without a beat it has stood still: no shorter pause makes others take it for dead
/// (`peer/options.rs`).
const STILL: Duration = Duration::from_millis(220);
/// How long it takes at most until a leader hears that others have taken it for dead
/// (`replica/confirm.rs`).
pub const DOUBT: Duration = Duration::from_millis(500);

/// What the shards of a process know of that together. Times are those of [`Monotonic`].
#[derive(Debug)]
pub struct Standstill {
    beat_ns: AtomicU64,
    doubt_until_ns: AtomicU64,
}

impl Standstill {
    /// The process goes on.
    pub fn new(now: Monotonic) -> Self {
        Self { beat_ns: AtomicU64::new(now.0), doubt_until_ns: AtomicU64::new(0) }
    }

    /// Whether it stood still until just now.
    pub fn is_doubtful(&self, now: Monotonic) -> bool {
        let beat = Monotonic(self.beat_ns.load(Ordering::Acquire));
        now.since(beat) > STILL || now.0 < self.doubt_until_ns.load(Ordering::Acquire)
    }

    /// Notes that it goes on, for as long as it does. On one shard.
    pub async fn keep<R: Runtime>(self: Arc<Self>, runtime: R) {
        loop {
            runtime.sleep(BEAT).await;
            self.beat(runtime.now());
        }
    }

    fn beat(&self, now: Monotonic) {
        if now.since(Monotonic(self.beat_ns.load(Ordering::Relaxed))) > STILL {
            // Before the beat: whoever sees that one sees this.
            self.doubt_until_ns.store(now.after(DOUBT).0, Ordering::Release);
        }
        self.beat_ns.store(now.0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic(ms * 1_000_000)
    }

    #[test]
    fn a_beat_that_comes_late_is_doubted_before_it_and_for_a_while_after() {
        let standstill = Standstill::new(at(1_000));
        for beat in [1_100, 1_220] {
            assert!(!standstill.is_doubtful(at(beat)));
            standstill.beat(at(beat));
        }
        assert!(!standstill.is_doubtful(at(1_440)));
        assert!(standstill.is_doubtful(at(1_441)), "the beat is late");
        standstill.beat(at(3_000));
        assert!(standstill.is_doubtful(at(3_000)));
        for beat in (3_100..3_500).step_by(100) {
            standstill.beat(at(beat));
            assert!(standstill.is_doubtful(at(beat)));
        }
        standstill.beat(at(3_450));
        assert!(standstill.is_doubtful(at(3_499)));
        assert!(!standstill.is_doubtful(at(3_500)));
    }
}
