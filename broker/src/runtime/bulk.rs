//! Requests that move much: few of them are in the kernel's hands at a time.

use std::collections::VecDeque;
use std::time::Duration;

use super::Monotonic;

/// Requests that move much, in the kernel's hands at a time; and while something is written, which
/// would stand behind them at the disk.
const BULK_IN_FLIGHT_MAX: usize = 8;
const BULK_BESIDE_WRITES_MAX: usize = 1;
/// So long after a write others are expected.
const WRITES_EXPECTED: Duration = Duration::from_millis(20);

/// Requests that move much: so many that the disk is busy, so few that what is asked of it next
/// does not wait for long.
#[derive(Default)]
pub(super) struct Bulk {
    pub(super) queued: VecDeque<usize>,
    pub(super) in_flight: usize,
    /// When something was written last.
    pub(super) written: Option<Monotonic>,
    are_writes_expected: bool,
}

impl Bulk {
    /// It is as late as that.
    pub(super) fn advance(&mut self, now: Monotonic) {
        let is_recent = |written| now.since(written) < WRITES_EXPECTED;
        self.are_writes_expected = self.written.is_some_and(is_recent);
    }

    /// One that may go out now.
    pub(super) fn next(&mut self) -> Option<usize> {
        if self.is_waiting() { None } else { self.queued.pop_front() }
    }

    /// Whether nothing can go out before something comes back.
    pub(super) fn is_waiting(&self) -> bool {
        let few = BULK_BESIDE_WRITES_MAX;
        let in_flight_max = if self.are_writes_expected { few } else { BULK_IN_FLIGHT_MAX };
        self.queued.is_empty() || self.in_flight >= in_flight_max
    }
}
