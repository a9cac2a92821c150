//! When each record of an open loop is to be sent. Nothing that the broker does changes it.

/// Evenly spaced moments.
#[derive(Clone, Debug)]
pub struct Pacer {
    start_ns: u64,
    end_ns: u64,
    interval_ns: f64,
    /// By what share of the interval the first moment is later than the start.
    phase: f64,
    next: u64,
    next_ns: u64,
}

impl Pacer {
    /// `rate` moments a second from `start_ns` on, before `end_ns`. `phase`, from 0 to 1, sets
    /// producers apart that are paced alike.
    pub fn new(rate: f64, phase: f64, start_ns: u64, end_ns: u64) -> Self {
        let interval_ns = 1e9 / rate;
        let mut pacer = Self { start_ns, end_ns, interval_ns, phase, next: 0, next_ns: 0 };
        pacer.next_ns = pacer.moment(0);
        pacer
    }

    /// The next moment; `None`: there is none before the end.
    pub fn next_ns(&self) -> Option<u64> {
        (self.next_ns < self.end_ns).then_some(self.next_ns)
    }

    /// When to look again, if the next moment is not to be missed by more than `tick_ns`; the end,
    /// where there is none.
    pub fn wake_ns(&self, now_ns: u64, tick_ns: u64) -> u64 {
        match self.next_ns() {
            Some(next_ns) => next_ns.max(now_ns + tick_ns).min(next_ns + tick_ns),
            None => self.end_ns,
        }
    }

    /// Takes the next moment if it has come.
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        let moment = self.next_ns().filter(|moment| *moment <= now_ns)?;
        self.next += 1;
        self.next_ns = self.moment(self.next);
        Some(moment)
    }

    /// Computed anew for each: an error does not add up.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "both are positive, and a run's nanoseconds fit"
    )]
    fn moment(&self, index: u64) -> u64 {
        self.start_ns + ((index as f64 + self.phase) * self.interval_ns) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pacer: &mut Pacer, now_ns: u64) -> Vec<u64> {
        std::iter::from_fn(|| pacer.take(now_ns)).collect()
    }

    #[test]
    fn records_come_when_their_time_has_come_and_not_before() {
        let mut pacer = Pacer::new(1000.0, 0.0, 5_000_000, 10_000_000);
        assert_eq!(pacer.take(4_999_999), None);
        assert_eq!(all(&mut pacer, 5_000_000), [5_000_000]);
        // Whoever is late finds all that were due, each with its own moment.
        assert_eq!(all(&mut pacer, 7_500_000), [6_000_000, 7_000_000]);
        assert_eq!(pacer.next_ns(), Some(8_000_000));
        assert_eq!(all(&mut pacer, 50_000_000), [8_000_000, 9_000_000]);
        assert_eq!(pacer.next_ns(), None);
    }

    #[test]
    fn whoever_may_be_late_by_a_tick_wakes_once_a_tick() {
        let pacer = Pacer::new(1_000_000.0, 0.0, 0, 1_000_000_000);
        let (mut now_ns, mut wakes, mut paced) = (0, 0, pacer.clone());
        while now_ns < 1_000_000_000 {
            all(&mut paced, now_ns);
            now_ns = paced.wake_ns(now_ns, 500_000);
            wakes += 1;
        }
        assert!((1990..=2010).contains(&wakes), "{wakes} of a million");
        let rare = Pacer::new(1.0, 0.5, 0, 1_000_000_000);
        assert_eq!(rare.wake_ns(0, 500_000), 500_000_000, "not before there is something");
        assert_eq!(rare.wake_ns(0, 0), 500_000_000);
    }

    #[test]
    fn a_phase_sets_producers_apart_and_rates_do_not_drift() {
        let mut pacer = Pacer::new(3.0, 0.5, 0, 100_000_000_000);
        let moments = all(&mut pacer, u64::MAX);
        assert_eq!(moments.len(), 300);
        assert_eq!(moments[0], 166_666_666);
        assert_eq!(moments[299], 99_833_333_333);
    }
}
