//! One run: what the seed draws, a storm, then calm in which everything must finish.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use vltava::runtime::sim::{Crash, Executor, Purpose, Random, Stuck, TraceSink};

use crate::agreement::{self, Overdue};
use crate::checkers::{Checkers, Violation};
use crate::client::Client;
use crate::cluster::Cluster;
use crate::faults::storm;
use crate::swarm::Swarm;
use crate::workload::{ReadThrough, Workload, create_topics, read_through};

/// Virtual time that a run may take to set up, and to finish when nothing fails any more.
const CALM_NS_MAX: u64 = 600_000_000_000;

/// How a run failed. The exit code says which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something panicked.
    Crash(String),
    /// Something did not finish, or spun.
    Liveness(String),
    /// A promise was broken.
    Correctness(String),
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Crash(_) => 127,
            Self::Liveness(_) => 128,
            Self::Correctness(_) => 129,
        }
    }
}

/// What a run came to.
pub struct Outcome {
    /// Hash of everything that happened.
    pub hash: u64,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Virtual time that passed, in nanoseconds.
    pub virtual_ns: u64,
    /// Polls of tasks.
    pub polls: u64,
    /// Records that were acknowledged.
    pub acknowledged: u64,
    /// Starts of nodes.
    pub starts: u64,
    /// What was drawn for it.
    pub swarm: String,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// Runs what a seed draws, with so many nodes where that is given.
pub fn run_seed(seed: u64, nodes: Option<usize>, sink: Option<TraceSink>) -> Outcome {
    run_story(seed, Rc::new(Swarm::new(seed, nodes)), sink, |cluster, workload| async move {
        storm(&cluster, &workload).await
    })
}

/// Runs a story: sets up, starts the clients, lets `story` happen beside them, then has everything
/// finish and checks it.
pub fn run_story<F: Future<Output = ()> + 'static>(
    seed: u64,
    swarm: Rc<Swarm>,
    sink: Option<TraceSink>,
    story: impl FnOnce(Cluster, Workload) -> F,
) -> Outcome {
    let simulation = swarm.simulation(seed, sink);
    let executor = simulation.executor().clone();
    let checkers = Checkers::default();
    let cluster = Cluster::new(&simulation, &swarm, &checkers);
    let workload = Workload::new(&simulation, &swarm, &checkers, &cluster);
    let storm_ns = u64::try_from(swarm.storm.as_nanos()).unwrap_or(u64::MAX);
    let phase = Rc::new(Cell::new("setting up"));
    let root = whole_run(
        cluster.clone(),
        workload.clone(),
        Rc::clone(&phase),
        story(cluster.clone(), workload.clone()),
    );
    let limit_ns = storm_ns.saturating_mul(4) + CALM_NS_MAX;
    let ended = catch_unwind(AssertUnwindSafe(|| executor.run(limit_ns, root)));
    let failure = match ended {
        Ok(Ok(())) => None,
        Ok(Err(stuck)) => Some(stuck_failure(&stuck, phase.get(), &workload, &cluster)),
        Err(payload) => Some(panicked(payload.as_ref())),
    };
    let outcome = outcome(&executor, &checkers, &cluster, failure);
    // After a panic what is dropped may panic again: then the memory is left alone.
    match outcome.failure {
        None => simulation.close(),
        Some(_) => std::mem::forget((simulation, cluster, workload)),
    }
    outcome
}

fn stuck_failure(stuck: &Stuck, phase: &str, workload: &Workload, cluster: &Cluster) -> Failure {
    let waiting = workload.waiting_for();
    let missing = agreement::missing(cluster).unwrap_or_default();
    Failure::Liveness(format!("{stuck}; while {phase}; not finished: {waiting}; {missing}"))
}

fn outcome(
    executor: &Executor,
    checkers: &Checkers,
    cluster: &Cluster,
    failure: Option<Failure>,
) -> Outcome {
    Outcome {
        hash: executor.trace_hash(),
        nodes: cluster.nodes().len(),
        virtual_ns: executor.now_ns(),
        polls: executor.polls(),
        acknowledged: checkers.acks.try_borrow().map_or(0, |acks| acks.acknowledged()),
        starts: cluster.starts(),
        swarm: cluster.swarm.to_string(),
        failure,
    }
}

fn panicked(payload: &(dyn std::any::Any + Send)) -> Failure {
    if let Some(Violation(what)) = payload.downcast_ref::<Violation>() {
        return Failure::Correctness(what.clone());
    }
    if let Some(Overdue(what)) = payload.downcast_ref::<Overdue>() {
        return Failure::Liveness(what.clone());
    }
    let words = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|words| (*words).to_owned()));
    Failure::Crash(words.unwrap_or_else(|| "a panic without words".to_owned()))
}

async fn whole_run(
    cluster: Cluster,
    workload: Workload,
    phase: Rc<Cell<&'static str>>,
    story: impl Future<Output = ()>,
) {
    let mut random = Random::new(cluster.seed(), Purpose::Faults, 2);
    cluster.ensure_running(&mut random).await;
    agreement::watch(&cluster);
    let (_, mut client) = workload.client("harness");
    agreement::form(&cluster).await;
    create_topics(&workload, &mut client).await;
    phase.set("the storm rages");
    workload.start();
    story.await;
    cluster.ensure_running(&mut random).await;
    phase.set("clients finish");
    workload.finish().await;
    // What was acknowledged with acks=1 is read once it is committed.
    phase.set("agreeing");
    agreement::reach(&cluster).await;
    phase.set("reading everything");
    let before = read_and_check(&workload, &mut client).await;
    phase.set("restarting");
    for node in cluster.nodes() {
        cluster.restart(node, &mut random).await;
    }
    let after = read_and_check(&workload, &mut client).await;
    // Of what was sent and never answered, the last may have come in between.
    check_later(&before, &after, true);
    phase.set("recovering");
    let all: Vec<usize> = cluster.nodes().collect();
    cluster.crash_all(&all, Crash::Power, &mut random).await;
    check_later(&after, &read_and_check(&workload, &mut client).await, false);
    phase.set("agreeing again");
    agreement::reach(&cluster).await;
}

/// Reads everything and checks it.
async fn read_and_check(workload: &Workload, client: &mut Client) -> ReadThrough {
    let whole = read_through(workload, client).await;
    let acks = workload.checkers.acks.borrow();
    for (partition, log) in &whole {
        acks.check_whole(partition, log.start, &log.records);
    }
    whole
}

/// What was there is there still, but for what was deleted.
fn check_later(before: &ReadThrough, after: &ReadThrough, may_grow: bool) {
    for (partition, log) in before {
        log.check_later(partition, &after[partition], may_grow);
    }
}
