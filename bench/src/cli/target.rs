//! Against whom a command runs: a broker that is there, or one that it starts.

use std::path::{Path, PathBuf};

use crate::compare::{Broker, Place, Side};
use crate::observe::disk::DiskSample;
use crate::scenario::Scenario;

/// One broker, or one cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct TargetArguments {
    /// Addresses of brokers, with commas between them
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:9092", value_delimiter = ',')]
    pub bootstrap: Vec<String>,
    /// The broker's process on this machine: its CPU, memory and I/O are told, too, with those of
    /// all that it has started
    #[arg(long, value_name = "PID")]
    pub broker_pid: Option<u32>,
    /// A command that is the broker, to be started for the run and stopped after it: `{port}`,
    /// `{port2}` to `{port9}` and `{data}` are replaced. In a script, `exec` the broker; one that
    /// stays, to start several nodes, ends them when it is told to end
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["bootstrap", "broker_pid"])]
    pub command: Option<String>,
    /// Where the data of a broker that is started stands, on a real disk; removed after the run
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub data: PathBuf,
    /// What to call the broker in results
    #[arg(long, default_value = "broker")]
    pub label: String,
    /// Overwrites 4 KiB of a file in this directory twenty times a second beside the run, and tells
    /// how long that took: a directory on the broker's disk
    #[arg(long, value_name = "DIR")]
    pub disk_sample: Option<PathBuf>,
}

impl TargetArguments {
    /// Whether a scenario can be run against it, beside a disk that can be sampled: before anything
    /// is started.
    ///
    /// # Errors
    /// Why it cannot, in words.
    pub fn check(&self, scenario: &Scenario) -> Result<(), String> {
        check(&self.side(), scenario, "--command")?;
        check_disk(self.disk_sample.as_deref())
    }

    /// How to reach it.
    pub fn side(&self) -> Side {
        let broker = match &self.command {
            Some(command) => Broker::Started { command: command.clone() },
            None => Broker::Running { bootstrap: self.bootstrap.clone(), pid: self.broker_pid },
        };
        Side { label: self.label.clone(), broker }
    }

    /// Where its data stands, if it is started.
    pub fn place(&self) -> Place {
        Place { data_parent: self.data.clone(), disk_sample_dir: self.disk_sample.clone() }
    }
}

/// Whether a scenario can be run against a broker; `option` is what names its command.
///
/// # Errors
/// Why it cannot, in words.
pub fn check(side: &Side, scenario: &Scenario, option: &str) -> Result<(), String> {
    if side.takes(scenario) {
        return Ok(());
    }
    let title = &scenario.title;
    Err(format!(
        "\"{title}\" is about how a broker starts: it needs one that the harness starts itself; \
         name its command ({option} 'COMMAND', and --data DIR on a real disk)"
    ))
}

/// Whether a disk can be sampled, if one is to be.
///
/// # Errors
/// Why it cannot, in words.
pub fn check_disk(directory: Option<&Path>) -> Result<(), String> {
    let tried = directory.map(|directory| (directory, DiskSample::try_at(directory)));
    match tried {
        Some((directory, Err(error))) => Err(DiskSample::refusal(directory, &error)),
        _ => Ok(()),
    }
}
