//! One run: connect, make topics, load, measure, verify, delete.
//!
//! A scenario may have the broker started again in between: `restart`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use vltava_client::blocking::{Address, Cluster, ClusterOptions, Link};
use vltava_client::error::ClientError;
use vltava_client::offsets;
use vltava_protocol::types::Str;

use crate::engine::client::ClientPlan;
use crate::engine::clock::{Clock, nanoseconds};
use crate::engine::consumer::ConsumerPlan;
use crate::engine::crew::{Crew, CrewError};
use crate::engine::map::{Map, Node, dense, index};
use crate::interrupt::is_interrupted;
use crate::launch::{LaunchError, Launched};
use crate::observe::disk::DiskSample;
use crate::observe::family::Family;
use crate::observe::machine::machine;
use crate::result::{
    FORMAT, Footprint, HarnessUse, Interval, Latency, Preparation, Restarted, Round, RunResult,
    Verification,
};
use crate::scenario::{Consumers, Fill, From, Restart, Scenario, ScenarioError, Size};
use crate::{groups, topics};

mod deletion;
mod ledger;
mod limits;
mod measure;
mod plan;
mod restart;

use ledger::{Ledger, Reading};
use limits::Load;
use measure::{Measured, Meter};

/// What is to be told where a scenario is about the broker's start, or ends it and starts it again,
/// and it is not the harness's own.
pub const NEEDS_COMMAND: &str = "this scenario is about how a broker starts: it needs one that the \
                                 harness starts itself, by its command (--command, --data)";
/// Bytes of the one record that a broker gets first when it was started again.
const FIRST_RECORD_BYTES: u32 = 100;

/// Against whom a scenario is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// What to call it.
    pub label: String,
    /// Addresses, host:port.
    pub bootstrap: Vec<String>,
    /// The command that is the broker, as it was given, where the harness has started it.
    pub command: Option<String>,
    /// The broker's process, where it runs on this machine and is to be observed.
    pub broker_pid: Option<u32>,
    /// Where to sample the disk beside the run: a directory on the broker's disk.
    pub disk_sample_dir: Option<PathBuf>,
    /// Which turn it is, where brokers take turns.
    pub round: Option<Round>,
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
    #[error("{}", DiskSample::refusal(directory, source))]
    Disk {
        /// Where.
        directory: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The broker could not be ended, or started again.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Its files.
    #[error("having the page cache give up the broker's files: {0}")]
    Cache(io::Error),
    /// It is somebody else's.
    #[error("{NEEDS_COMMAND}")]
    NotOurs,
    /// Groups do not come to rest.
    #[error("the members of a group did not get their partitions in time")]
    Unsettled,
}

/// Runs a scenario. A result says by itself whether it is sound
/// ([`crate::result::Verification::is_sound`]). `launched`: the target, where it is the harness's
/// own.
///
/// # Errors
/// Where the run could not be made at all.
pub fn run(
    scenario: &Scenario,
    target: &Target,
    launched: Option<&mut Launched>,
    observer: &mut dyn Observer,
) -> Result<RunResult, RunError> {
    scenario.check()?;
    if scenario.needs_own_broker() && launched.is_none() {
        return Err(RunError::NotOurs);
    }
    allow_connections();
    let mut cluster = connect(target)?;
    let clock = Clock::start();
    let mut preparation = Preparation {
        started_s: launched.as_ref().map(|broker| broker.ready().as_secs_f64()),
        ..Preparation::default()
    };
    let broker = target.broker_pid.map(Family::new);
    let disk = target.disk_sample_dir.clone();
    let mut meter = Meter { clock, broker, disk, observer };
    let at_first_bytes = meter.broker_memory_bytes()?;
    meter.observer.phase("making topics");
    let prefix = format!("vltava-bench-{}-{}", std::process::id(), clock.wall_ms(0));
    let begun_ns = clock.now_ns();
    let names = topics::names(&scenario.topics, &prefix);
    if let Err(error) = topics::create(&mut cluster, &scenario.topics, &names) {
        // Some may be there.
        let _ = topics::delete(&mut cluster, &names);
        return Err(error.into());
    }
    preparation.topics_s = Some(clock.seconds_since(begun_ns));
    let with_topics_bytes = meter.broker_memory_bytes()?;
    preparation.memory = at_first_bytes.zip(with_topics_bytes).map(|(at_first, with_topics)| {
        let (at_first_bytes, with_topics_bytes) = (at_first, with_topics);
        Footprint { at_first_bytes, with_topics_bytes, ..Footprint::default() }
    });
    let is_ours = launched.is_some();
    let result =
        load(scenario, target, &mut cluster, &names, &mut meter, launched, &mut preparation);
    if is_ours && is_interrupted() {
        // It ends, too, and its data goes with it.
        return result;
    }
    meter.observer.phase("deleting topics");
    let deleted = once_more(|| topics::delete(&mut cluster, &names));
    let mut result = result?;
    result.preparation = preparation;
    if let Err(error) = deleted {
        result.verification.faults.push(format!("its topics could not be deleted: {error}"));
    }
    Ok(result)
}

/// Tries again where a connection was found lost: the broker may be back.
fn once_more<T>(mut attempt: impl FnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
    match attempt() {
        Err(error) if error.is_unreachable() => attempt(),
        done => done,
    }
}

fn connect(target: &Target) -> Result<Cluster, ClientError> {
    let bootstrap = target.bootstrap.iter().map(|address| address.parse::<Address>());
    let options =
        ClusterOptions { client_id: Str::from_static("vltava-bench"), ..ClusterOptions::default() };
    Cluster::connect(bootstrap.collect::<Result<_, _>>()?, options)
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
    launched: Option<&mut Launched>,
    preparation: &mut Preparation,
) -> Result<RunResult, RunError> {
    let map = Arc::new(Map::new(cluster.metadata(), names)?);
    let mut stage =
        Stage { scenario, map, ledger: Ledger::default(), fillers: 0, groups: Vec::new() };
    if let Some(fill) = &scenario.fill {
        meter.observer.phase("filling");
        stage.fill(fill, meter)?;
    }
    let is_ours = launched.is_some();
    if let (Some(spec), Some(launched)) = (&scenario.restart, launched) {
        meter.observer.phase("ending the broker, and starting it again");
        let restarted = stage.restart(spec, launched, target, names, cluster, meter)?;
        preparation.restart = Some(restarted);
    }
    let measured = stage.measure(cluster, meter, preparation);
    if measured.is_err() && !is_ours {
        // Their members leave when they hear that it is over.
        let _ = groups::delete(cluster, &stage.groups);
    }
    Ok(result(scenario, target, measured?, stage.ledger.close()))
}

/// What the parts of a run have in common.
struct Stage<'a> {
    scenario: &'a Scenario,
    map: Arc<Map>,
    ledger: Ledger,
    /// Producers have filled the topics; their numbers are below this.
    fillers: u32,
    /// Groups of its consumers.
    groups: Vec<Str>,
}

impl Stage<'_> {
    fn threads(&self) -> usize {
        match self.scenario.run.threads {
            0 => available_parallelism().map_or(1, |cores| cores.get()),
            threads => index(threads),
        }
    }

    fn hire(&self, clients: Vec<ClientPlan>, meter: &Meter<'_>) -> Result<Crew, RunError> {
        let retry_ns = nanoseconds(self.scenario.run.retry_s);
        let hands = plan::deal(clients, self.threads());
        Ok(Crew::hire(hands, meter.clock, &self.map, retry_ns)?)
    }

    /// Writes what is to be there beforehand. When the last of it was acknowledged.
    fn fill(&mut self, fill: &Fill, meter: &mut Meter<'_>) -> Result<u64, RunError> {
        let filler = plan::filler(fill, self.fillers, &self.map);
        self.fillers += 1;
        let mut crew = self.hire(vec![filler], meter)?;
        crew.begin_at_once(meter.clock);
        meter.wait_until(&mut crew, Crew::is_finished, &mut drop)?;
        let last_ns = crew.progress().last_acknowledgement_ns;
        self.ledger.take_in(crew.finish()?);
        Ok(last_ns)
    }

    /// Ends the broker, starts it again, and finds its partitions anew.
    fn restart(
        &mut self,
        spec: &Restart,
        launched: &mut Launched,
        target: &Target,
        names: &[Str],
        cluster: &mut Cluster,
        meter: &mut Meter<'_>,
    ) -> Result<Restarted, RunError> {
        let (started_ns, mut restarted) = restart::restart(launched, spec, meter.clock)?;
        meter.broker = target.broker_pid.map(|_| Family::new(launched.pid()));
        *cluster = connect(target)?;
        restart::await_leaders(cluster, names, meter.clock)?;
        restarted.led_s = meter.clock.seconds_since(started_ns);
        self.map = Arc::new(Map::new(cluster.metadata(), names)?);
        let (bytes, batch_bytes) = (FIRST_RECORD_BYTES.into(), FIRST_RECORD_BYTES);
        let record_bytes = Size::Fixed(FIRST_RECORD_BYTES);
        let fill = Fill { bytes, record_bytes, batch_bytes };
        let acknowledged_ns = self.fill(&fill, meter)?;
        restarted.acknowledged_s = acknowledged_ns.saturating_sub(started_ns) as f64 / 1e9;
        Ok(restarted)
    }

    /// The load, and whether all came back: with the broker as it is to be, and all that is to be
    /// written beforehand.
    fn measure(
        &mut self,
        cluster: &mut Cluster,
        meter: &mut Meter<'_>,
        preparation: &mut Preparation,
    ) -> Result<Measured, RunError> {
        let before_connections = meter.broker_memory_bytes()?;
        let idle = plan::idle(self.scenario.idle_connections, &self.map)?;
        if let Some(memory) = &mut preparation.memory {
            memory.before_connections_bytes = before_connections.unwrap_or_default();
            memory.with_connections_bytes = meter.broker_memory_bytes()?.unwrap_or_default();
        }
        let mut clients = plan::producers(cluster, self.scenario, &self.map, self.fillers)?;
        let producers = self.fillers + dense(clients.len());
        clients.extend(self.consumers(cluster, producers)?);
        let mut crew = self.hire(clients, meter)?;
        if !meter.wait_until(&mut crew, Crew::is_settled, &mut drop)? {
            return Err(RunError::Unsettled);
        }
        // Where nobody writes, the run is over when all there is has been read.
        let enough = self.scenario.only_reads().then(|| self.ledger.expected(0));
        let mut measured = meter.measure(&mut crew, &self.scenario.run, enough)?;
        meter.observer.phase("draining");
        let gather = &mut measured.gather;
        let mut hear = |delta| gather.add_rest(&delta);
        if meter.wait_until(&mut crew, Crew::is_finished, &mut hear)? {
            let expected = self.ledger.expected(crew.progress().acknowledged);
            let is_over = |crew: &Crew| {
                let progress = crew.progress();
                progress.received >= expected || progress.readers == 0
            };
            meter.wait_until(&mut crew, is_over, &mut hear)?;
        }
        let reports = crew.finish()?;
        reports.iter().for_each(|report| measured.gather.add_rest(&report.rest));
        self.ledger.take_in(reports);
        self.settle_up(cluster, producers, &idle, meter);
        if let Err(error) = once_more(|| groups::delete(cluster, &self.groups)) {
            self.ledger.fault(&format!("its groups could not be deleted: {error}"));
        }
        if is_interrupted() {
            // What was cut short looks like what went wrong.
            return Err(CrewError::Interrupted.into());
        }
        Ok(measured)
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
                if class.groups == 0 {
                    plans.push(ClientPlan::Consumer(plan));
                    continue;
                }
                let name = plan::group_name(&plan, &self.map);
                let coordinator = cluster.coordinator(&name)?;
                let metadata = Arc::new(cluster.metadata().clone());
                let node = Node::of(&metadata, coordinator)?;
                self.groups.push(name.clone());
                plans.extend(plan::members(plan, number, name, node, metadata));
            }
        }
        Ok(plans)
    }

    /// Looks whether all is as it should be when load is over. What was measured is not lost where
    /// it is not.
    fn settle_up(
        &mut self,
        cluster: &mut Cluster,
        producers: u32,
        idle: &[Link],
        meter: &mut Meter<'_>,
    ) {
        let closed = idle.iter().filter(|link| !link.is_open()).count();
        if closed > 0 {
            let all = idle.len();
            self.ledger.fault(&format!("{closed} of {all} idle connections were closed"));
        }
        let scenario = self.scenario;
        let has_written = !scenario.producers.is_empty() || scenario.restart.is_some();
        if scenario.consumers.is_empty()
            && has_written
            && let Err(error) = self.read_back(cluster, producers, meter)
        {
            self.ledger.fault(&format!("what was written could not be read back: {error}"));
        }
        if deletion::is_due(scenario, self.ledger.acknowledged()) {
            let begin = once_more(|| plan::offsets(cluster, &self.map, offsets::EARLIEST));
            match begin {
                Ok(begin) if begin.iter().all(|offset| *offset <= 0) => {
                    self.ledger.fault(deletion::NOTHING);
                }
                Ok(_) => {}
                Err(error) => self.ledger.fault(&format!("where logs begin is not known: {error}")),
            }
        }
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
        let may_begin_late = self.scenario.topics.may_lose_records();
        if let Some(begun) = begin.iter().find(|offset| **offset > 0).filter(|_| !may_begin_late) {
            let what = format!("a log begins at offset {begun}, though nothing is to be deleted");
            self.ledger.fault(&what);
        }
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
            plans.push(ClientPlan::Consumer(ConsumerPlan { may_begin_late, ends, ..plan }));
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
    let machine = machine();
    let cores = |cpu_s: f64| cpu_s / measured.load_s;
    let load = Load {
        busiest_thread: measured.busiest_thread,
        waited: measured.busiest_thread_waited,
        harness_cores: cores(measured.harness.cpu_s),
        broker_cores: measured.broker.as_ref().map(|broker| cores(broker.cpu_s)),
        cores: machine.cores,
        late: late_us.as_ref(),
        told: acknowledged_us.as_ref().or(end_to_end_us.as_ref()),
    };
    let bottleneck = load.limit();
    RunResult {
        format: FORMAT,
        scenario: scenario.clone(),
        label: target.label.clone(),
        round: target.round,
        bootstrap: target.bootstrap.first().cloned().unwrap_or_default(),
        addresses: match &target.command {
            Some(_) => Vec::new(),
            None => target.bootstrap.clone(),
        },
        command: target.command.clone(),
        began_ms: measured.began_ms,
        measured_s: seconds,
        machine,
        produced: total.produced.clone(),
        consumed: total.consumed.clone(),
        network: total.network.clone(),
        acknowledged_us,
        acknowledged_by_class_us: match scenario.producers.len() {
            0 | 1 => Vec::new(),
            _ => total.by_class.iter().map(Latency::of).collect(),
        },
        end_to_end_us,
        broker: measured.broker,
        harness: HarnessUse {
            process: measured.harness,
            busiest_thread: measured.busiest_thread,
            busiest_thread_waited: measured.busiest_thread_waited,
            late_us,
            bottleneck,
        },
        preparation: Preparation::default(),
        unsent: total.unsent,
        disk_sample_us: measured.disk.as_ref().and_then(Latency::of),
        timeline,
        verification,
    }
}
