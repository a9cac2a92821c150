//! The command line.

mod compare;
mod files;
mod report;
mod search;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use thiserror::Error;

use self::compare::CompareCommand;
use self::report::Report;
use self::search::SearchCommand;
use crate::result::RunResult;
use crate::run::{RunError, Target, run};
use crate::scenario::{Scenario, ScenarioError};

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
    Search(SearchCommand),
    Compare(Box<CompareCommand>),
    Report(Report),
}

#[derive(Debug, Args)]
struct RunArguments {
    /// A scenario file; see bench/scenarios
    scenario: PathBuf,
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
    /// What a command says by itself.
    #[error("{0}")]
    Told(String),
}

/// Does what the command line says. Whether all that was run is sound.
///
/// # Errors
/// Where it could not be done.
pub fn main(cli: Cli) -> Result<bool, CliError> {
    match cli.command {
        Command::Run(arguments) => {
            let path = arguments.scenario.display().to_string();
            let text = fs::read_to_string(&arguments.scenario)
                .map_err(|source| CliError::File { path: path.clone(), source })?;
            let scenario =
                Scenario::parse(&text).map_err(|source| CliError::Scenario { path, source })?;
            run_and_tell(&scenario, &arguments.target)
        }
        Command::Search(command) => command.run().map_err(CliError::Told),
        Command::Compare(command) => command.run().map_err(CliError::Told),
        Command::Report(command) => command.run().map_err(CliError::Told),
    }
}

fn run_and_tell(scenario: &Scenario, arguments: &TargetArguments) -> Result<bool, CliError> {
    let target = Target {
        label: arguments.label.clone(),
        bootstrap: arguments.bootstrap.clone(),
        broker_pid: arguments.broker_pid,
        disk_sample_dir: None,
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
