//! What a process takes, as `/proc` tells it.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::observe::machine::{field, kilobytes};
use crate::result::ProcessUse;

/// Where the kernel tells the CPU time of a process: these fields of `stat`, behind its name.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;

/// A process to be watched.
#[derive(Clone, Debug)]
pub struct Process {
    directory: PathBuf,
    ticks_per_second: f64,
}

/// What it has taken since it began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// CPU time of all its threads, in seconds.
    pub cpu_s: f64,
    memory_peak_bytes: u64,
    /// Memory that it has resident now, in bytes.
    pub memory_bytes: u64,
    voluntary_switches: u64,
    involuntary_switches: u64,
    written_bytes: u64,
    read_bytes: u64,
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
        Self { directory, ticks_per_second: ticks as f64 }
    }

    /// What it has taken until now. What this user may not see is 0.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn sample(&self) -> io::Result<Sample> {
        let stat = fs::read_to_string(self.directory.join("stat"))?;
        let read = |name: &str| fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        let (status, io) = (read("status"), read("io"));
        let mut sample = Sample {
            cpu_s: ticks(&stat) as f64 / self.ticks_per_second,
            memory_peak_bytes: kilobytes(&status, "VmHWM"),
            memory_bytes: kilobytes(&status, "VmRSS"),
            written_bytes: number(&io, "write_bytes"),
            read_bytes: number(&io, "read_bytes"),
            ..Sample::default()
        };
        // Each thread has its own. Those of threads that have ended are gone.
        for thread in fs::read_dir(self.directory.join("task"))?.flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            sample.voluntary_switches += number(&status, "voluntary_ctxt_switches");
            sample.involuntary_switches += number(&status, "nonvoluntary_ctxt_switches");
        }
        Ok(sample)
    }

    /// The CPU time of one of its threads until now, in seconds.
    pub fn thread_cpu_s(&self, thread_id: u32) -> f64 {
        let path = self.directory.join(format!("task/{thread_id}/schedstat"));
        let text = fs::read_to_string(path).unwrap_or_default();
        let ran_ns = text.split_whitespace().next().and_then(|ran| ran.parse::<u64>().ok());
        ran_ns.map_or(0.0, |ran_ns| ran_ns as f64 / 1e9)
    }
}

impl Sample {
    /// What was taken since another sample.
    pub fn since(&self, before: &Self) -> ProcessUse {
        ProcessUse {
            cpu_s: self.cpu_s - before.cpu_s,
            memory_peak_bytes: self.memory_peak_bytes,
            memory_bytes: self.memory_bytes,
            voluntary_switches: self.voluntary_switches.saturating_sub(before.voluntary_switches),
            involuntary_switches: self
                .involuntary_switches
                .saturating_sub(before.involuntary_switches),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
            read_bytes: self.read_bytes.saturating_sub(before.read_bytes),
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

fn number(text: &str, name: &str) -> u64 {
    field(text, name).and_then(|value| value.parse().ok()).unwrap_or_default()
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
}
