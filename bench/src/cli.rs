//! The command line.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use thiserror::Error;

use crate::result::RunResult;
use crate::run::{RunError, Target, run};
use crate::scenario::{Scenario, ScenarioError};
use crate::shorthand::{Kind, Shorthand};

/// A load harness for brokers that speak Kafka's protocol
#[derive(Debug, Parser)]
#[command(name = "vltava-bench", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a scenario
    Run(RunArguments),
    /// Runs producers
    Produce(ShorthandArguments),
    /// Runs consumers of what is written beforehand
    Consume(ShorthandArguments),
    /// Runs producers, and consumers that keep up
    Both(ShorthandArguments),
    /// Measures how long records take from producers to consumers, at a fixed rate
    EndToEnd(ShorthandArguments),
}

#[derive(Debug, Args)]
struct ShorthandArguments {
    #[command(flatten)]
    shorthand: Shorthand,
    #[command(flatten)]
    target: TargetArguments,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// A scenario file; see bench/scenarios
    scenario: PathBuf,
    /// Changes a value of the scenario: `run.duration_s=30`, `producers.0.keys=100`
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    changes: Vec<String>,
    #[command(flatten)]
    target: TargetArguments,
}

/// Against whom, and where results go.
#[derive(Debug, Args)]
struct TargetArguments {
    /// Addresses of brokers, with commas between them
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:9092", value_delimiter = ',')]
    bootstrap: Vec<String>,
    /// The broker's process on this machine: its CPU, memory and I/O are told, too
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// What to call the broker in results
    #[arg(long, default_value = "")]
    label: String,
    /// Overwrites 4 KiB of a file in this directory twenty times a second beside the run, and tells
    /// how long that took: a directory on the broker's disk
    #[arg(long, value_name = "DIR")]
    disk_sample: Option<PathBuf>,
    /// Appends the result to a file, as a line of JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Why a command has failed.
#[derive(Debug, Error)]
pub enum CliError {
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// A scenario.
    #[error("{path}: {source}")]
    Scenario {
        /// Its file.
        path: String,
        /// What is wrong.
        source: ScenarioError,
    },
    /// The run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The terminal, or what stands in for it.
    #[error("writing the result: {0}")]
    Output(#[from] io::Error),
    /// A result that cannot be told.
    #[error("writing the result: {0}")]
    Json(#[from] serde_json::Error),
}

/// Does what the command line says. Whether all that was run is sound.
///
/// # Errors
/// Where it could not be done.
pub fn main(cli: Cli) -> Result<bool, CliError> {
    let (kind, ShorthandArguments { shorthand, target }) = match cli.command {
        Command::Run(arguments) => {
            let scenario = read(&arguments.scenario, &arguments.changes)?;
            return run_and_tell(&scenario, &arguments.target);
        }
        Command::Produce(arguments) => (Kind::Produce, arguments),
        Command::Consume(arguments) => (Kind::Consume, arguments),
        Command::Both(arguments) => (Kind::Both, arguments),
        Command::EndToEnd(arguments) => (Kind::EndToEnd, arguments),
    };
    run_and_tell(&shorthand.scenario(kind), &target)
}

/// Reads a scenario from a file, and changes it.
///
/// # Errors
/// Where there is none, or it makes no sense.
pub fn read(path: &Path, changes: &[String]) -> Result<Scenario, CliError> {
    let name = || path.display().to_string();
    let text =
        fs::read_to_string(path).map_err(|source| CliError::File { path: name(), source })?;
    let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
    Scenario::parse_changed(&text, &changes)
        .map_err(|source| CliError::Scenario { path: name(), source })
}

fn run_and_tell(scenario: &Scenario, arguments: &TargetArguments) -> Result<bool, CliError> {
    let target = Target {
        label: arguments.label.clone(),
        bootstrap: arguments.bootstrap.clone(),
        broker_pid: arguments.broker_pid,
        disk_sample_dir: arguments.disk_sample.clone(),
    };
    let result = run(scenario, &target, &mut ())?;
    tell(&result, arguments)?;
    Ok(result.verification.is_sound())
}

fn tell(result: &RunResult, arguments: &TargetArguments) -> Result<(), CliError> {
    let line = serde_json::to_string(result)?;
    match &arguments.json {
        None => writeln!(io::stdout().lock(), "{line}")?,
        Some(path) => {
            let opened = fs::OpenOptions::new().create(true).append(true).open(path);
            let written = opened.and_then(|mut file| writeln!(file, "{line}"));
            let path = path.display().to_string();
            written.map_err(|source| CliError::File { path, source })?;
        }
    }
    Ok(())
}
