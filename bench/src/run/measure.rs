//! The measured part of a run: waits for it, and samples what processes take at its edges.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::engine::clock::{Clock, nanoseconds};
use crate::engine::crew::{Crew, CrewError};
use crate::engine::gather::Gather;
use crate::engine::stats::{Delta, Window};
use crate::observe::disk::DiskSample;
use crate::observe::family::Family;
use crate::observe::process::{Process, Sample, ThreadTime};
use crate::result::{Interval, ProcessUse};
use crate::run::{Observer, RunError};
use crate::scenario::RunTime;

/// From the word that load begins to its begin: every worker has heard it then.
const LEAD_NS: u64 = 100_000_000;
/// How long is waited for a worker's word before looking at other things.
const PATIENCE: Duration = Duration::from_millis(20);
/// So long nothing may change before what is missing counts as missing.
const STANDSTILL_NS: u64 = 30_000_000_000;

/// What was measured beside the load.
#[derive(Debug)]
pub struct Measured {
    /// The load's own.
    pub gather: Gather,
    /// Second by second.
    pub timeline: Vec<Interval>,
    /// The broker.
    pub broker: Option<ProcessUse>,
    /// The harness.
    pub harness: ProcessUse,
    /// The busiest worker's share of its time.
    pub busiest_thread: f64,
    /// The share of its time in which the same worker waited for a core.
    pub busiest_thread_waited: f64,
    /// When it began, in milliseconds since 1970.
    pub began_ms: i64,
    /// How long it took.
    pub seconds: f64,
    /// Over how long the processes' use was taken, in seconds.
    pub load_s: f64,
    /// Whether it ended before its time.
    pub is_early: bool,
    /// How long small synchronous writes took beside it, in microseconds.
    pub disk: Option<Histogram<u64>>,
}

/// What the processes had taken at a moment.
#[derive(Debug)]
struct Edge {
    at_ns: u64,
    broker: Option<Sample>,
    harness: Sample,
    threads: Vec<ThreadTime>,
}

/// Whoever measures.
pub struct Meter<'a> {
    /// The run's clock.
    pub clock: Clock,
    /// The broker, where its process is known.
    pub broker: Option<Family>,
    /// Where the disk is sampled, if anywhere.
    pub disk: Option<PathBuf>,
    /// Who is told.
    pub observer: &'a mut dyn Observer,
}

impl Meter<'_> {
    /// Has a crew work for the time that a scenario asks for; or until it has received so many
    /// records, if that is sooner.
    pub fn measure(
        &mut self,
        crew: &mut Crew,
        time: &RunTime,
        enough: Option<u64>,
    ) -> Result<Measured, RunError> {
        // Before anything is measured: making its file takes its time, too.
        let disk = self.disk.as_deref().map(DiskSample::start).transpose();
        let disk = disk.map_err(|error| self.disk_error(error))?;
        let start_ns = self.clock.now_ns() + LEAD_NS;
        let from_ns = start_ns + nanoseconds(time.warm_up_s);
        let window = Window { start_ns, from_ns, to_ns: from_ns + nanoseconds(time.duration_s) };
        crew.begin(window);
        if let Some(disk) = &disk {
            let from =
                Instant::now() + Duration::from_nanos(from_ns.saturating_sub(self.clock.now_ns()));
            disk.measure(from, from + Duration::from_nanos(window.to_ns - from_ns));
        }
        // What is read is soon over: nothing of it is missed. Until then nothing happens.
        let early = enough.map(|_| self.edge(crew)).transpose()?;
        let early = early.map(|edge| Edge { at_ns: from_ns, ..edge });
        self.observer.phase("warming up");
        while self.clock.now_ns() < from_ns {
            let left = Duration::from_nanos(from_ns.saturating_sub(self.clock.now_ns()));
            crew.wait(left.min(PATIENCE))?;
        }
        self.observer.phase("measuring");
        let before = match early {
            Some(before) => before,
            None => self.edge(crew)?,
        };
        let mut gather = Gather::new(crew.len(), time.duration_s);
        let (timeline, after) = self.watch(crew, &mut gather, &before, window, enough)?;
        let is_early = after.is_none();
        let mut after = match after {
            Some(after) => after,
            None => self.edge(crew)?,
        };
        let seconds = if is_early {
            let last_ns = crew.progress().last_receipt_ns.max(from_ns + 1);
            // Nothing happened since.
            after.at_ns = last_ns;
            last_ns.saturating_sub(from_ns) as f64 / 1e9
        } else {
            time.duration_s
        };
        let (busiest_thread, busiest_thread_waited) = busiest(&before, &after);
        let broker = after.broker.as_ref().zip(before.broker.as_ref());
        let broker = broker.map(|(after, before)| after.since(before));
        Ok(Measured {
            gather,
            timeline,
            broker,
            harness: after.harness.since(&before.harness),
            busiest_thread,
            busiest_thread_waited,
            began_ms: self.clock.wall_ms(from_ns),
            seconds,
            load_s: after.at_ns.saturating_sub(before.at_ns).max(1) as f64 / 1e9,
            is_early,
            disk: disk.map(DiskSample::stop).transpose().map_err(|error| self.disk_error(error))?,
        })
    }

    /// Follows a crew second by second to the window's end, or until it has received enough: what
    /// each second was, and how things stood at the window's end, where that came first.
    fn watch(
        &mut self,
        crew: &mut Crew,
        gather: &mut Gather,
        before: &Edge,
        window: Window,
        enough: Option<u64>,
    ) -> Result<(Vec<Interval>, Option<Edge>), RunError> {
        let (mut timeline, mut cpu_s) = (Vec::new(), before.broker.as_ref().map(|b| b.cpu_s));
        let mut after = None;
        let seconds = seconds_of((window.to_ns - window.from_ns) as f64 / 1e9);
        while timeline.len() < seconds {
            if after.is_none() && self.clock.now_ns() >= window.to_ns {
                after = Some(self.edge(crew)?);
            }
            if let Some(mut interval) = crew.wait(PATIENCE)?.and_then(|delta| gather.add(delta)) {
                let now_s = self.broker_cpu_s();
                interval.broker_cpu_s = now_s.zip(cpu_s).map(|(now_s, then_s)| now_s - then_s);
                cpu_s = now_s;
                self.observer.second(&interval);
                timeline.push(interval);
            }
            if after.is_none() && enough.is_some_and(|all| crew.progress().received >= all) {
                return Ok((timeline, None));
            }
        }
        let after = match after {
            Some(after) => after,
            None => self.edge(crew)?,
        };
        Ok((timeline, Some(after)))
    }

    /// Waits until a crew is where it is to be, as long as it makes headway: whether it is.
    pub fn wait_until(
        &mut self,
        crew: &mut Crew,
        is_there: impl Fn(&Crew) -> bool,
        hear: &mut dyn FnMut(Delta),
    ) -> Result<bool, CrewError> {
        let mut last = (crew.progress(), self.clock.now_ns());
        loop {
            if is_there(crew) {
                return Ok(true);
            }
            if let Some(delta) = crew.wait(PATIENCE)? {
                hear(delta);
            }
            let (progress, now_ns) = (crew.progress(), self.clock.now_ns());
            if progress != last.0 {
                last = (progress, now_ns);
            }
            if now_ns - last.1 > STANDSTILL_NS {
                return Ok(false);
            }
        }
    }

    /// What the broker has resident now, in bytes, where its process is known.
    pub fn broker_memory_bytes(&self) -> Result<Option<u64>, RunError> {
        let sample = self.broker.as_ref().map(Family::sample).transpose();
        Ok(sample.map_err(RunError::Process)?.map(|sample| sample.memory_bytes))
    }

    fn broker_cpu_s(&self) -> Option<f64> {
        Some(self.broker.as_ref()?.sample().ok()?.cpu_s)
    }

    fn disk_error(&self, source: io::Error) -> RunError {
        RunError::Disk { directory: self.disk.clone().unwrap_or_default(), source }
    }

    fn edge(&self, crew: &Crew) -> Result<Edge, RunError> {
        let own = Process::own();
        let broker = match &self.broker {
            Some(broker) => Some(broker.sample().map_err(RunError::Process)?),
            None => None,
        };
        let threads = crew.thread_ids().into_iter().map(|thread| own.thread_time(thread));
        Ok(Edge {
            threads: threads.collect(),
            broker,
            harness: own.sample().map_err(RunError::Process)?,
            at_ns: self.clock.now_ns(),
        })
    }
}

/// The shares of its time in which the worker with the least to spare ran, and waited for a core.
fn busiest(before: &Edge, after: &Edge) -> (f64, f64) {
    let elapsed_s = after.at_ns.saturating_sub(before.at_ns).max(1) as f64 / 1e9;
    let shares = before.threads.iter().zip(&after.threads).map(|(before, after)| {
        let ran_s = after.ran_s - before.ran_s;
        (ran_s / elapsed_s, (after.waited_s - before.waited_s) / elapsed_s)
    });
    let spent = |(ran, waited): &(f64, f64)| ran + waited;
    shares.max_by(|a, b| spent(a).total_cmp(&spent(b))).unwrap_or_default()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a day's")]
fn seconds_of(duration_s: f64) -> usize {
    duration_s.ceil() as usize
}
