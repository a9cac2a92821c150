//! Whether the figures of a run are the broker's, or something else held it back. Pure.

use crate::report::figures::some;
use crate::result::Latency;

/// A worker that runs, or waits for a core, a larger share of its time than this may be what holds
/// the run back: answers lie in its sockets meanwhile, which their latency does not tell apart.
const BUSY: f64 = 0.88;
/// So much of a machine's time is all of it: the rest goes to the kernel's own work.
const MACHINE_BUSY: f64 = 0.9;
/// A percentile of latency is the harness's own where this share of it passed before a record was
/// taken up.
const LATE: f64 = 0.2;

/// What is known of a run's load.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The busiest worker's share of its time.
    pub busiest_thread: f64,
    /// The share in which the same worker waited for a core.
    pub waited: f64,
    /// CPU seconds a second that the harness took, and the broker where it is on the same machine.
    pub harness_cores: f64,
    /// Likewise.
    pub broker_cores: Option<f64>,
    /// How many cores the machine has.
    pub cores: u32,
    /// How late records were taken up.
    pub late: Option<&'a Latency>,
    /// The latency that the run tells.
    pub told: Option<&'a Latency>,
}

impl Load<'_> {
    /// What else than the broker was the limit, in words; `None`: nothing.
    pub fn limit(&self) -> Option<String> {
        let shared = self.shared_cores();
        let told = self.busy_thread().or_else(|| self.lateness());
        match (told, shared) {
            // Whoever waits for a core is late, and whoever has one is busy.
            (Some(told), Some(shared)) => Some(format!("{shared}; {told}")),
            (Some(told), None) => Some(format!("the harness was the limit: {told}")),
            (None, shared) => shared,
        }
    }

    fn shared_cores(&self) -> Option<String> {
        let both = self.harness_cores + self.broker_cores?;
        (both > MACHINE_BUSY * f64::from(self.cores)).then(|| {
            format!(
                "broker and harness shared {}, all busy: {:.1} and {:.1} of it",
                some(self.cores.into(), "core"),
                self.broker_cores.unwrap_or_default(),
                self.harness_cores
            )
        })
    }

    fn busy_thread(&self) -> Option<String> {
        let (ran, waited) = (self.busiest_thread * 100.0, self.waited * 100.0);
        (self.busiest_thread + self.waited > BUSY).then(|| {
            format!(
                "a thread of it ran {ran:.0} % of its time, and waited for a core {waited:.0} %"
            )
        })
    }

    fn lateness(&self) -> Option<String> {
        let (late, told) = (self.late?, self.told?);
        ["50", "99"].into_iter().find_map(|name| {
            let (late_us, told_us) = (late.percentile(name), told.percentile(name));
            (late_us as f64 > LATE * told_us as f64).then(|| {
                format!("records were taken up {late_us} us late (p{name}), of {told_us} us told")
            })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test should say where")]

    use hdrhistogram::Histogram;

    use super::*;

    fn latency(p50_us: u64, p99_us: u64) -> Latency {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        histogram.record_n(p50_us, 90).unwrap();
        histogram.record_n(p99_us, 10).unwrap();
        Latency::of(&histogram).unwrap()
    }

    const IDLE: Load<'_> = Load {
        busiest_thread: 0.5,
        waited: 0.0,
        harness_cores: 0.5,
        broker_cores: Some(0.4),
        cores: 2,
        late: None,
        told: None,
    };

    #[test]
    fn a_share_of_the_same_percentile_is_what_lateness_is_held_against() {
        let told = latency(260, 890);
        let limit = |late: &Latency| Load { late: Some(late), told: Some(&told), ..IDLE }.limit();
        assert_eq!(limit(&latency(4, 94)), None, "a tenth of p99");
        assert!(limit(&latency(4, 190)).unwrap().contains("190 us late (p99)"));
        assert!(limit(&latency(60, 94)).unwrap().contains("60 us late (p50)"));
    }

    #[test]
    fn a_busy_thread_is_a_limit_and_busy_cores_are_nobodys_alone() {
        assert_eq!(IDLE.limit(), None);
        let busy = Load { busiest_thread: 0.93, ..IDLE };
        assert!(busy.limit().unwrap().starts_with("the harness was the limit: a thread"));
        let waiting = Load { busiest_thread: 0.6, waited: 0.3, ..IDLE };
        assert!(waiting.limit().unwrap().contains("waited for a core 30 %"));
        let shared = Load { harness_cores: 0.8, broker_cores: Some(1.1), ..IDLE };
        let told = shared.limit().unwrap();
        assert!(told.contains("shared 2 cores") && told.contains("1.1 and 0.8"), "{told}");
        let both = Load { busiest_thread: 0.93, ..shared };
        assert!(!both.limit().unwrap().contains("the harness was the limit"));
        let late = latency(4, 9);
        let (told, paced) = (latency(100, 900), Load { late: Some(&late), ..shared });
        let held = Load { told: Some(&told), ..paced }.limit().unwrap();
        assert!(held.contains("shared 2 cores") && !held.contains("late"), "{held}");
        assert_eq!(Load { broker_cores: None, ..shared }.limit(), None);
    }
}
