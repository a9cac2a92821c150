//! Whether this process has just stood still: stopped, swapped out, or its machine was.
//!
//! It goes on as the leader that it was, while another may lead by now: what it read of its own
//! state would be of before. So for a moment nothing is answered that a leader alone may say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::runtime::{Monotonic, Runtime};

/// How often the process notes that it goes on.
const BEAT: Duration = Duration::from_millis(100);
/// So long without a beat it has stood still: no shorter pause makes others take it for dead
/// (`peer/options.rs`).
const STILL: Duration = Duration::from_millis(220);
/// So many beats it takes at most until a leader hears that others have taken it for dead. Counted,
/// as those of sessions are (`peer/liveness.rs`), which are shorter and five: on a machine that has
/// no time for this process both take longer.
const DOUBT_BEATS: u32 = 6;
/// The same as a time, where there is time.
pub const DOUBT: Duration = BEAT.saturating_mul(DOUBT_BEATS);

/// What the shards of a process know of that together. Times are those of [`Monotonic`].
#[derive(Debug)]
pub struct Standstill {
    beat_ns: AtomicU64,
    beats_in_doubt: AtomicU32,
}

impl Standstill {
    /// The process goes on.
    pub fn new(now: Monotonic) -> Self {
        Self { beat_ns: AtomicU64::new(now.0), beats_in_doubt: AtomicU32::new(0) }
    }

    /// Whether it stood still until just now.
    pub fn is_doubtful(&self, now: Monotonic) -> bool {
        let beat = Monotonic(self.beat_ns.load(Ordering::Acquire));
        now.since(beat) > STILL || self.beats_in_doubt.load(Ordering::Acquire) > 0
    }

    /// Notes that it goes on, for as long as it does. On one shard.
    pub async fn keep<R: Runtime>(self: Arc<Self>, runtime: R) {
        loop {
            runtime.sleep(BEAT).await;
            self.beat(runtime.now());
        }
    }

    fn beat(&self, now: Monotonic) {
        let left = match now.since(Monotonic(self.beat_ns.load(Ordering::Relaxed))) > STILL {
            true => DOUBT_BEATS,
            false => self.beats_in_doubt.load(Ordering::Relaxed).saturating_sub(1),
        };
        // Before the beat: whoever sees that one sees this.
        self.beats_in_doubt.store(left, Ordering::Release);
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
        // As many beats, whatever time they take.
        for beat in (3_200..4_200).step_by(200) {
            assert!(standstill.is_doubtful(at(beat)), "{beat}");
            standstill.beat(at(beat));
        }
        assert!(standstill.is_doubtful(at(4_000)));
        standstill.beat(at(4_200));
        assert!(!standstill.is_doubtful(at(4_200)));
    }
}
