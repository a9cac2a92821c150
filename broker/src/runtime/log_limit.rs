//! Lines about what peers do are limited: no peer may fill a disk with the log.

use std::cell::Cell;
use std::time::Duration;

use super::Monotonic;

/// Lines of one shard in one period.
const LINES_MAX: u32 = 10;
/// The period.
const PERIOD: Duration = Duration::from_secs(1);

/// Counts the lines of one shard.
#[derive(Debug, Default)]
pub struct LogLimit {
    period_start: Cell<Monotonic>,
    lines: Cell<u32>,
    left_out: Cell<u64>,
}

impl LogLimit {
    /// Whether a line may be written now; if so, how many were left out since the last one, where
    /// there were any: a field of the line.
    pub fn admit(&self, now: Monotonic) -> Option<Option<u64>> {
        if now.since(self.period_start.get()) >= PERIOD {
            self.period_start.set(now);
            self.lines.set(0);
        }
        if self.lines.get() >= LINES_MAX {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.lines.set(self.lines.get() + 1);
        let left_out = self.left_out.replace(0);
        Some((left_out > 0).then_some(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_so_many_lines_and_the_next_says_what_was_left_out() {
        let limit = LogLimit::default();
        let start = Monotonic(5_000_000_000);
        let admitted = (0..25).filter(|_| limit.admit(start).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(limit.admit(start.after(PERIOD)), Some(Some(15)));
        assert_eq!(limit.admit(start.after(PERIOD)), Some(None));
    }
}
