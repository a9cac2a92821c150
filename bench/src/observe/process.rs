//! What a process takes, as `/proc` tells it.
//!
//! CPU time is the sum of what its threads ran, in nanoseconds (`schedstat`): `stat` counts in
//! ticks of 10 ms, which is much of a short run. What threads took that came and went between two
//! samples is in `stat` alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::observe::machine::{field, kilobytes};
use crate::result::ProcessUse;

/// Where the kernel tells the CPU time of a process: these fields of `stat`, behind its name.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
/// Each of the two is cut to whole ticks: a difference is off by less than this many.
const TICKS_OFF: f64 = 2.0;

/// A process to be watched.
#[derive(Clone, Debug)]
pub struct Process {
    directory: PathBuf,
    ticks_per_second: f64,
    threads: RefCell<Threads>,
}

/// What threads have run, in nanoseconds.
#[derive(Clone, Debug, Default)]
struct Threads {
    /// As they were last seen.
    ran_ns: BTreeMap<u32, u64>,
    /// Of those whose numbers others have now.
    before_ns: u64,
}

/// How one thread has spent its time, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ThreadTime {
    /// It ran.
    pub ran_s: f64,
    /// It could have run, and waited for a core.
    pub waited_s: f64,
}

/// What it has taken since it began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// CPU time of all its threads, in seconds; of those that have ended, as far as it was seen.
    pub cpu_s: f64,
    /// The same with all that have ended, to within [`TICKS_OFF`].
    stat_s: f64,
    tick_s: f64,
    memory_peak_bytes: u64,
    /// Memory that it has resident now, in bytes.
    pub memory_bytes: u64,
    voluntary_switches: u64,
    involuntary_switches: u64,
    written_bytes: Option<u64>,
    read_bytes: Option<u64>,
}

impl Process {
    /// A process by its number.
    pub fn new(pid: u32) -> Self {
        Self::at(PathBuf::from(format!("/proc/{pid}")))
    }

    /// This one.
    pub fn own() -> Self {
        Self::at(PathBuf::from("/proc/self"))
    }

    fn at(directory: PathBuf) -> Self {
        let ticks = rustix::param::clock_ticks_per_second();
        Self { directory, ticks_per_second: ticks as f64, threads: RefCell::default() }
    }

    /// What it has taken until now. What this user may not see is absent, or 0.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn sample(&self) -> io::Result<Sample> {
        let stat = fs::read_to_string(self.directory.join("stat"))?;
        let read = |name: &str| fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        let (status, io) = (read("status"), read("io"));
        let stat_s = ticks(&stat) as f64 / self.ticks_per_second;
        let mut sample = Sample {
            cpu_s: stat_s,
            stat_s,
            tick_s: 1.0 / self.ticks_per_second,
            memory_peak_bytes: kilobytes(&status, "VmHWM"),
            memory_bytes: kilobytes(&status, "VmRSS"),
            written_bytes: parsed(&io, "write_bytes"),
            read_bytes: parsed(&io, "read_bytes"),
            ..Sample::default()
        };
        // Each thread has its own. Those of threads that have ended are gone.
        let mut threads = self.threads.borrow_mut();
        for thread in fs::read_dir(self.directory.join("task"))?.flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            sample.voluntary_switches += number(&status, "voluntary_ctxt_switches");
            sample.involuntary_switches += number(&status, "nonvoluntary_ctxt_switches");
            let id = thread.file_name().to_str().and_then(|name| name.parse().ok());
            let spent = id.and_then(|id: u32| Some((id, self.schedstat(id)?)));
            if let Some((id, (ran_ns, _))) = spent {
                threads.saw(id, ran_ns);
            }
        }
        if let Some(ran_ns) = threads.sum_ns() {
            sample.cpu_s = ran_ns as f64 / 1e9;
        }
        Ok(sample)
    }

    /// How one of its threads has spent its time until now.
    pub fn thread_time(&self, thread_id: u32) -> ThreadTime {
        let (ran_ns, waited_ns) = self.schedstat(thread_id).unwrap_or_default();
        ThreadTime { ran_s: ran_ns as f64 / 1e9, waited_s: waited_ns as f64 / 1e9 }
    }

    /// For how long a thread has run, and waited for a core, in nanoseconds.
    fn schedstat(&self, thread_id: u32) -> Option<(u64, u64)> {
        let path = self.directory.join(format!("task/{thread_id}/schedstat"));
        let text = fs::read_to_string(path).ok()?;
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

impl Threads {
    fn saw(&mut self, id: u32, ran_ns: u64) {
        let known_ns = self.ran_ns.insert(id, ran_ns).unwrap_or_default();
        if known_ns > ran_ns {
            self.before_ns += known_ns;
        }
    }

    /// Of all that were ever seen; `None` where the kernel does not tell.
    fn sum_ns(&self) -> Option<u64> {
        let is_any = !self.ran_ns.is_empty();
        is_any.then(|| self.before_ns + self.ran_ns.values().sum::<u64>())
    }
}

impl Sample {
    /// What two processes have taken together.
    pub fn with(&self, other: &Self) -> Self {
        let both = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
        Self {
            cpu_s: self.cpu_s + other.cpu_s,
            stat_s: self.stat_s + other.stat_s,
            // Each is off by as many ticks.
            tick_s: self.tick_s + other.tick_s,
            memory_peak_bytes: self.memory_peak_bytes + other.memory_peak_bytes,
            memory_bytes: self.memory_bytes + other.memory_bytes,
            voluntary_switches: self.voluntary_switches + other.voluntary_switches,
            involuntary_switches: self.involuntary_switches + other.involuntary_switches,
            written_bytes: both(self.written_bytes, other.written_bytes),
            read_bytes: both(self.read_bytes, other.read_bytes),
        }
    }

    /// What is left of a process that has ended.
    pub fn without_memory(&self) -> Self {
        Self { memory_bytes: 0, ..self.clone() }
    }

    /// What was taken since another sample.
    pub fn since(&self, before: &Self) -> ProcessUse {
        let (seen_s, all_s) = (self.cpu_s - before.cpu_s, self.stat_s - before.stat_s);
        let more = |now: Option<u64>, then: Option<u64>| {
            now.zip(then).map(|(now, then)| now.saturating_sub(then))
        };
        ProcessUse {
            cpu_s: seen_s.max(all_s - TICKS_OFF * self.tick_s),
            memory_peak_bytes: self.memory_peak_bytes,
            memory_bytes: self.memory_bytes,
            voluntary_switches: self.voluntary_switches.saturating_sub(before.voluntary_switches),
            involuntary_switches: self
                .involuntary_switches
                .saturating_sub(before.involuntary_switches),
            written_bytes: more(self.written_bytes, before.written_bytes),
            read_bytes: more(self.read_bytes, before.read_bytes),
        }
    }
}

/// CPU time in ticks. The name in front may have spaces and parentheses of its own.
fn ticks(stat: &str) -> u64 {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let at = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok());
    at(USER_TICKS).unwrap_or_default() + at(SYSTEM_TICKS).unwrap_or_default()
}

fn parsed(text: &str, name: &str) -> Option<u64> {
    field(text, name).and_then(|value| value.parse().ok())
}

fn number(text: &str, name: &str) -> u64 {
    parsed(text, name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test should say where")]

    use super::*;

    #[test]
    fn ticks_stand_behind_a_name_that_may_be_anything() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 10 0 0 0 150 50 0 0 20 0 3 0 9";
        assert_eq!(ticks(stat), 200);
        assert_eq!(ticks(""), 0);
    }

    #[test]
    fn this_process_takes_what_it_takes() {
        let own = Process::own();
        let before = own.sample().unwrap();
        let started = std::time::Instant::now();
        let mut sum = 0_u64;
        while started.elapsed().as_millis() < 60 {
            sum = std::hint::black_box(sum + 1);
        }
        let used = own.sample().unwrap().since(&before);
        assert!(used.cpu_s > 0.0 && used.memory_bytes > 0, "{used:?}");
        assert!(Process::new(u32::MAX).sample().is_err());
    }

    #[test]
    fn less_than_a_tick_is_seen() {
        let own = Process::own();
        let id = fs::read_link("/proc/thread-self").unwrap();
        let id = id.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let before = own.sample().unwrap();
        // By what it ran: a machine that is busy with others lets it run for a part of the time.
        let ran = own.thread_time(id).ran_s;
        while own.thread_time(id).ran_s < ran + 0.003 {}
        let used = own.sample().unwrap().since(&before);
        assert!(used.cpu_s >= 0.003 && used.cpu_s * 100.0 % 1.0 != 0.0, "{used:?}");
    }

    #[test]
    fn threads_that_have_ended_still_count() {
        let mut threads = Threads::default();
        assert_eq!(threads.sum_ns(), None);
        threads.saw(7, 500);
        threads.saw(8, 10);
        // 7 is gone, and then somebody else.
        threads.saw(8, 20);
        assert_eq!(threads.sum_ns(), Some(520));
        threads.saw(7, 3);
        assert_eq!(threads.sum_ns(), Some(523));
        let sample = |cpu_s, stat_s, io| Sample {
            cpu_s,
            stat_s,
            tick_s: 0.01,
            read_bytes: io,
            ..Sample::default()
        };
        let used = sample(1.001, 2.01, None).since(&sample(1.0, 2.0, Some(1)));
        assert!((used.cpu_s - 0.001).abs() < 1e-9, "{used:?}");
        assert_eq!(used.read_bytes, None);
        let used = sample(1.001, 3.0, Some(5)).since(&sample(1.0, 2.0, Some(1)));
        assert!((used.cpu_s - 0.98).abs() < 1e-9, "one came and went: {used:?}");
        assert_eq!(used.read_bytes, Some(4));
    }
}
