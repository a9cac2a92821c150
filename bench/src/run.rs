//! One run: connect, make topics, load, measure, verify, delete.

use std::path::PathBuf;

use thiserror::Error;
use vltava_client::blocking::{Address, Cluster, ClusterOptions};
use vltava_client::error::ClientError;
use vltava_protocol::types::Str;

use crate::result::{Interval, RunResult};
use crate::scenario::{Scenario, ScenarioError};
use crate::topics;

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
    let bootstrap = target.bootstrap.iter().map(|address| address.parse::<Address>());
    let options =
        ClusterOptions { client_id: Str::from_static("vltava-bench"), ..ClusterOptions::default() };
    let mut cluster = Cluster::connect(bootstrap.collect::<Result<_, _>>()?, options)?;
    observer.phase("making topics");
    let prefix = format!("vltava-bench-{}", std::process::id());
    let names = topics::create(&mut cluster, &scenario.topics, &prefix)?;
    topics::delete(&mut cluster, &names)?;
    Err(RunError::Unsupported("load"))
}
