//! One run: connect, make topics, load, measure, verify, delete.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;

use thiserror::Error;
use vltava_client::blocking::{Address, Cluster, ClusterOptions};
use vltava_client::error::ClientError;
use vltava_protocol::types::Str;

use crate::engine::client::Outcome;
use crate::engine::clock::Clock;
use crate::engine::crew::{Crew, CrewError};
use crate::engine::map::Map;
use crate::engine::worker::WorkerReport;
use crate::observe::machine::machine;
use crate::observe::process::Process;
use crate::result::{FORMAT, HarnessUse, Interval, Latency, RunResult, Verification};
use crate::scenario::{Scenario, ScenarioError};
use crate::topics;

mod measure;
mod plan;

use measure::{Measured, Meter};

/// A worker that runs a larger share of its time than this may be what holds the run back.
const BUSY: f64 = 0.9;
/// Records may be taken up this much later than intended, by their 99th percentiles, before the
/// harness itself is what was measured.
const LATE: f64 = 0.1;

/// Against whom a scenario is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// What to call it.
    pub label: String,
    /// Addresses, host:port.
    pub bootstrap: Vec<String>,
    /// The broker's process, where it runs on this machine and is to be observed.
    pub broker_pid: Option<u32>,
    /// Where to sample the disk beside the run: a directory on the broker's disk.
    pub disk_sample_dir: Option<PathBuf>,
}

/// Who watches a run. Both are called from the thread that [`run`] was called on.
pub trait Observer {
    /// A second of the measured part is over.
    fn second(&mut self, _interval: &Interval) {}
    /// Something begins: "filling", "warming up", "measuring", "draining", ...
    fn phase(&mut self, _what: &str) {}
}

/// An observer that looks away.
impl Observer for () {}

/// Why there is no result.
#[derive(Debug, Error)]
pub enum RunError {
    /// The scenario makes no sense.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The cluster refuses, or cannot be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The harness's own threads.
    #[error(transparent)]
    Crew(#[from] CrewError),
    /// A process that is to be observed is not there.
    #[error("the process that is to be observed: {0}")]
    Process(io::Error),
    /// What this harness cannot do (yet).
    #[error("{0} cannot be run by this harness")]
    Unsupported(&'static str),
}

/// Runs a scenario. A result says by itself whether it is sound
/// ([`crate::result::Verification::is_sound`]).
///
/// # Errors
/// Where the run could not be made at all.
pub fn run(
    scenario: &Scenario,
    target: &Target,
    observer: &mut dyn Observer,
) -> Result<RunResult, RunError> {
    scenario.check()?;
    if !scenario.consumers.is_empty() {
        return Err(RunError::Unsupported("a scenario with consumers"));
    }
    let bootstrap = target.bootstrap.iter().map(|address| address.parse::<Address>());
    let options =
        ClusterOptions { client_id: Str::from_static("vltava-bench"), ..ClusterOptions::default() };
    let mut cluster = Cluster::connect(bootstrap.collect::<Result<_, _>>()?, options)?;
    let clock = Clock::start();
    observer.phase("making topics");
    let prefix = format!("vltava-bench-{}-{}", std::process::id(), clock.wall_ms(0));
    let names = topics::create(&mut cluster, &scenario.topics, &prefix)?;
    let broker = target.broker_pid.map(Process::new);
    let mut meter = Meter { clock, broker, observer };
    let result = load(scenario, target, &mut cluster, &names, &mut meter);
    meter.observer.phase("deleting topics");
    topics::delete(&mut cluster, &names)?;
    result
}

/// All that happens while the topics are there.
fn load(
    scenario: &Scenario,
    target: &Target,
    cluster: &mut Cluster,
    names: &[Str],
    meter: &mut Meter<'_>,
) -> Result<RunResult, RunError> {
    let map = Arc::new(Map::new(cluster.metadata(), names)?);
    let threads = match scenario.run.threads {
        0 => available_parallelism().map_or(1, |cores| cores.get()),
        threads => usize::try_from(threads).unwrap_or(1),
    };
    let mut verification = Verification::default();
    if let Some(fill) = &scenario.fill {
        meter.observer.phase("filling");
        let fillers = plan::fillers(fill.bytes, fill.record_bytes, 1);
        let mut crew = Crew::hire(plan::deal(fillers, threads), meter.clock, &map)?;
        crew.begin_at_once(meter.clock);
        meter.wait_until(&mut crew, |crew| crew.is_finished(), drop)?;
        for report in crew.finish()? {
            take_in(report, &mut verification);
        }
    }
    let producers = plan::producers(cluster, scenario, 1)?;
    let mut crew = Crew::hire(plan::deal(producers, threads), meter.clock, &map)?;
    let mut measured = meter.measure(&mut crew, &scenario.run, None)?;
    meter.observer.phase("draining");
    let gather = &mut measured.gather;
    meter.wait_until(&mut crew, Crew::is_finished, |delta| gather.add_rest(&delta))?;
    for report in crew.finish()? {
        measured.gather.add_rest(&report.rest);
        take_in(report, &mut verification);
    }
    Ok(result(scenario, target, measured, verification))
}

fn take_in(report: WorkerReport, verification: &mut Verification) {
    verification.faults.extend(report.faults);
    for outcome in report.outcomes {
        match outcome {
            Outcome::Producer(producer) => {
                verification.failed += producer.failed;
                let all = producer.acknowledged.iter();
                let sum: u64 = all.map(|(_, of)| of.sequence_end + of.bare).sum();
                verification.acknowledged += sum;
            }
        }
    }
}

fn result(
    scenario: &Scenario,
    target: &Target,
    measured: Measured,
    verification: Verification,
) -> RunResult {
    let Measured { gather, mut timeline, seconds, is_early, .. } = measured;
    let (total, last) = gather.finish(is_early.then_some(seconds));
    timeline.extend(last);
    let late_us = Latency::of(&total.late);
    let acknowledged_us = Latency::of(&total.acknowledged);
    let end_to_end_us = Latency::of(&total.end_to_end);
    let measured_us = acknowledged_us.as_ref().or(end_to_end_us.as_ref());
    let bottleneck = bottleneck(measured.busiest_thread, late_us.as_ref(), measured_us);
    RunResult {
        format: FORMAT,
        scenario: scenario.clone(),
        label: target.label.clone(),
        bootstrap: target.bootstrap.first().cloned().unwrap_or_default(),
        began_ms: measured.began_ms,
        measured_s: seconds,
        machine: machine(),
        produced: total.produced.clone(),
        consumed: total.consumed.clone(),
        acknowledged_us,
        end_to_end_us,
        broker: measured.broker,
        harness: HarnessUse {
            process: measured.harness,
            busiest_thread: measured.busiest_thread,
            late_us,
            bottleneck,
        },
        unsent: total.unsent,
        disk_sample_us: None,
        timeline,
        verification,
    }
}

/// Why the harness may have been the limit.
fn bottleneck(busiest: f64, late: Option<&Latency>, measured: Option<&Latency>) -> Option<String> {
    if busiest > BUSY {
        return Some(format!(
            "a thread of the harness was busy {:.0} % of the time",
            busiest * 100.0
        ));
    }
    let (late_us, measured_us) = (late?.percentile("99"), measured?.percentile("99"));
    let is_late = late_us as f64 > LATE * measured_us as f64;
    is_late.then(|| {
        format!("records were taken up {late_us} us late (p99), of {measured_us} us that count")
    })
}
