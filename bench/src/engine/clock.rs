//! The clock of a run.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since it was made, and what time that was.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// Since 1970.
    origin_ns: u64,
}

impl Clock {
    /// One that starts now.
    pub fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let origin_ns = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
        Self { origin: Instant::now(), origin_ns }
    }

    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Seconds since a moment of it.
    pub fn seconds_since(&self, at_ns: u64) -> f64 {
        self.now_ns().saturating_sub(at_ns) as f64 / 1e9
    }

    /// What a moment of this clock is in whole milliseconds since 1970: the timestamp of a record
    /// that is to be sent then.
    pub fn wall_ms(&self, at_ns: u64) -> i64 {
        i64::try_from(self.origin_ns.saturating_add(at_ns) / 1_000_000).unwrap_or(i64::MAX)
    }
}

/// Seconds as nanoseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "durations of a scenario: between 0 and a day"
)]
pub fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_millisecond_begins_where_the_worlds_does() {
        let clock = Clock { origin: Instant::now(), origin_ns: 1_700_000_000_000_900_000 };
        assert_eq!(clock.wall_ms(99_999), 1_700_000_000_000);
        assert_eq!(clock.wall_ms(100_000), 1_700_000_000_001);
        assert_eq!(clock.wall_ms(1_100_000), 1_700_000_000_002);
    }
}
