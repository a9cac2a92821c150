//! One run: connect, make topics, load, measure, verify, delete.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use vltava_client::blocking::{Address, Cluster, ClusterOptions};
use vltava_client::error::ClientError;
use vltava_client::offsets;
use vltava_protocol::types::Str;

use crate::engine::client::ClientPlan;
use crate::engine::clock::Clock;
use crate::engine::consumer::ConsumerPlan;
use crate::engine::crew::{Crew, CrewError};
use crate::engine::map::{Map, dense, index};
use crate::observe::machine::machine;
use crate::observe::process::Process;
use crate::result::{FORMAT, HarnessUse, Interval, Latency, RunResult, Verification};
use crate::scenario::{Consumers, Fill, From, Scenario, ScenarioError};
use crate::topics;

mod ledger;
mod measure;
mod plan;

use ledger::{Ledger, Reading};
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
    /// The disk that is to be sampled.
    #[error("sampling the disk: {0}")]
    Disk(io::Error),
    /// Groups do not come to rest.
    #[error("the members of a group did not get their partitions in time")]
    Unsettled,
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
    allow_connections();
    let bootstrap = target.bootstrap.iter().map(|address| address.parse::<Address>());
    let options =
        ClusterOptions { client_id: Str::from_static("vltava-bench"), ..ClusterOptions::default() };
    let mut cluster = Cluster::connect(bootstrap.collect::<Result<_, _>>()?, options)?;
    let clock = Clock::start();
    observer.phase("making topics");
    let prefix = format!("vltava-bench-{}-{}", std::process::id(), clock.wall_ms(0));
    let names = topics::create(&mut cluster, &scenario.topics, &prefix)?;
    let broker = target.broker_pid.map(Process::new);
    let disk = target.disk_sample_dir.clone();
    let mut meter = Meter { clock, broker, disk, observer };
    let result = load(scenario, target, &mut cluster, &names, &mut meter);
    meter.observer.phase("deleting topics");
    let deleted = topics::delete(&mut cluster, &names);
    let mut result = result?;
    if let Err(error) = deleted {
        result.verification.faults.push(format!("its topics could not be deleted: {error}"));
    }
    Ok(result)
}

/// As many as the system lets this process have without asking anybody; 1,024 is what it has at
/// first on most. Where that is not enough, the connection that fails says so.
fn allow_connections() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
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
    let mut stage = Stage { scenario, map, ledger: Ledger::default(), fillers: 0 };
    if let Some(fill) = &scenario.fill {
        stage.fill(fill, meter)?;
    }
    let _idle = plan::idle(scenario.idle_connections, &stage.map)?;
    let mut clients = plan::producers(cluster, scenario, &stage.map, stage.fillers)?;
    let producers = stage.fillers + dense(clients.len());
    clients.extend(stage.consumers(cluster, producers)?);
    let mut crew = stage.hire(clients, meter)?;
    if !meter.wait_until(&mut crew, Crew::is_settled, &mut drop)? {
        return Err(RunError::Unsettled);
    }
    // Where nobody writes, the run is over when all there is has been read.
    let only_reads = scenario.producers.is_empty() && !scenario.consumers.is_empty();
    let enough = only_reads.then(|| stage.ledger.expected(0));
    let mut measured = meter.measure(&mut crew, &scenario.run, enough)?;
    meter.observer.phase("draining");
    let gather = &mut measured.gather;
    let mut hear = |delta| gather.add_rest(&delta);
    if meter.wait_until(&mut crew, Crew::is_finished, &mut hear)? {
        let expected = stage.ledger.expected(crew.progress().acknowledged);
        meter.wait_until(&mut crew, |crew| crew.progress().received >= expected, &mut hear)?;
    }
    let reports = crew.finish()?;
    reports.iter().for_each(|report| measured.gather.add_rest(&report.rest));
    stage.ledger.take_in(reports);
    if scenario.consumers.is_empty() && !scenario.producers.is_empty() {
        // What was measured is not lost for that.
        if let Err(error) = stage.read_back(cluster, producers, meter) {
            stage.ledger.fault(&format!("what was written could not be read back: {error}"));
        }
    }
    Ok(result(scenario, target, measured, stage.ledger.close()))
}

/// What the parts of a run have in common.
struct Stage<'a> {
    scenario: &'a Scenario,
    map: Arc<Map>,
    ledger: Ledger,
    /// Producers have filled the topics; their numbers are below this.
    fillers: u32,
}

impl Stage<'_> {
    fn threads(&self) -> usize {
        match self.scenario.run.threads {
            0 => available_parallelism().map_or(1, |cores| cores.get()),
            threads => index(threads),
        }
    }

    fn hire(&self, clients: Vec<ClientPlan>, meter: &Meter<'_>) -> Result<Crew, RunError> {
        Ok(Crew::hire(plan::deal(clients, self.threads()), meter.clock, &self.map)?)
    }

    fn fill(&mut self, fill: &Fill, meter: &mut Meter<'_>) -> Result<(), RunError> {
        meter.observer.phase("filling");
        self.fillers = 1;
        let fillers = plan::fillers(fill.bytes, fill.record_bytes, self.fillers, &self.map);
        let mut crew = self.hire(fillers, meter)?;
        crew.begin_at_once(meter.clock);
        meter.wait_until(&mut crew, Crew::is_finished, &mut drop)?;
        self.ledger.take_in(crew.finish()?);
        Ok(())
    }

    /// The scenario's consumers, where producers have numbers below `producers`.
    fn consumers(
        &mut self,
        cluster: &mut Cluster,
        producers: u32,
    ) -> Result<Vec<ClientPlan>, ClientError> {
        let mut plans = Vec::new();
        for class in &self.scenario.consumers {
            let class = Arc::new(class.clone());
            let (timestamp, first_producer) = match class.from {
                From::Beginning => (offsets::EARLIEST, 0),
                From::End => (offsets::LATEST, self.fillers),
            };
            let begin = plan::offsets(cluster, &self.map, timestamp)?;
            let readers = if class.groups == 0 { class.count } else { class.groups };
            for number in 0..readers {
                let reading = Reading { first_producer, partitions: None };
                let reader = self.ledger.add_reading(reading);
                let all = (0..dense(self.map.partitions.len())).collect();
                let plan = plan::consumer(&class, reader, all, &begin, producers);
                plans.push(match class.groups {
                    0 => ClientPlan::Consumer(plan),
                    _ => ClientPlan::Group(plan::group(cluster, plan, number, &self.map)?),
                });
            }
        }
        Ok(plans)
    }

    /// Where nobody has read, reads all that was written: each worker a share of the partitions.
    fn read_back(
        &mut self,
        cluster: &mut Cluster,
        producers: u32,
        meter: &mut Meter<'_>,
    ) -> Result<(), RunError> {
        meter.observer.phase("reading back");
        let begin = plan::offsets(cluster, &self.map, offsets::EARLIEST)?;
        let ends = plan::offsets(cluster, &self.map, offsets::LATEST)?;
        let count = dense(self.map.partitions.len());
        let class = Arc::new(Consumers::default());
        let threads = dense(self.threads().min(self.map.partitions.len()));
        let mut plans = Vec::new();
        for thread in 0..threads {
            let partitions: Vec<u32> = (0..count).filter(|at| at % threads == thread).collect();
            let share = Some(partitions.clone());
            let reading = Reading { first_producer: 0, partitions: share };
            let reader = self.ledger.add_reading(reading);
            let plan = plan::consumer(&class, reader, partitions, &begin, producers);
            let ends = Some(Arc::clone(&ends));
            plans.push(ClientPlan::Consumer(ConsumerPlan { may_begin_late: true, ends, ..plan }));
        }
        let mut crew = self.hire(plans, meter)?;
        crew.begin_at_once(meter.clock);
        if !meter.wait_until(&mut crew, Crew::is_finished, &mut drop)? {
            self.ledger.fault("what was written could not be read back in time");
        }
        self.ledger.take_in(crew.finish()?);
        Ok(())
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
        disk_sample_us: measured.disk.as_ref().and_then(Latency::of),
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
