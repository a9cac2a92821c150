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
    pub(super) fn look_at(&mut self, now: Monotonic) {
        let is_recent = |written| now.since(written) < WRITES_EXPECTED;
        self.are_writes_expected = self.written.is_some_and(is_recent);
    }

    /// One that may go out now.
    pub(super) fn next(&mut self) -> Option<usize> {
        if self.has_nothing_to_send() { None } else { self.queued.pop_front() }
    }

    /// Whether nothing can go out before something comes back.
    pub(super) fn has_nothing_to_send(&self) -> bool {
        let few = BULK_BESIDE_WRITES_MAX;
        let in_flight_max = if self.are_writes_expected { few } else { BULK_IN_FLIGHT_MAX };
        self.queued.is_empty() || self.in_flight >= in_flight_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(bulk: &mut Bulk) -> usize {
        let before = bulk.in_flight;
        while bulk.next().is_some() {
            bulk.in_flight += 1;
        }
        bulk.in_flight - before
    }

    #[test]
    fn few_are_under_way_and_one_beside_writes() {
        let mut bulk = Bulk { queued: (0..40).collect(), ..Bulk::default() };
        let begin = Monotonic::default().after(Duration::from_secs(1));
        bulk.look_at(begin);
        assert_eq!((sent(&mut bulk), bulk.has_nothing_to_send()), (BULK_IN_FLIGHT_MAX, true));
        bulk.in_flight -= 2;
        bulk.written = Some(begin);
        bulk.look_at(begin.after(WRITES_EXPECTED / 2));
        assert_eq!(sent(&mut bulk), 0, "a write is to find the disk free");
        bulk.in_flight = 0;
        assert_eq!(sent(&mut bulk), BULK_BESIDE_WRITES_MAX);
        bulk.look_at(begin.after(WRITES_EXPECTED));
        assert_eq!(sent(&mut bulk), BULK_IN_FLIGHT_MAX - 1, "nobody writes any more");
        bulk.queued.clear();
        bulk.in_flight = 0;
        assert!(bulk.has_nothing_to_send());
    }
}
