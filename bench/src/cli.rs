//! The command line.

mod compare;
mod files;
mod report;
mod search;

use std::io::stderr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use thiserror::Error;

use self::compare::CompareCommand;
use self::files::{Outputs, Settings, read_scenario};
use self::report::{Report, is_sound};
use self::search::SearchCommand;
use crate::report::live::Live;
use crate::report::table::table;
use crate::run::{RunError, Target, run};
use crate::scenario::Scenario;
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
    /// Run a scenario
    Run(RunArguments),
    /// Run producers
    Produce(ShorthandArguments),
    /// Run consumers of what is written beforehand
    Consume(ShorthandArguments),
    /// Run producers, and consumers that keep up
    Both(ShorthandArguments),
    /// Measure how long records take from producers to consumers, at a fixed rate
    EndToEnd(ShorthandArguments),
    Search(SearchCommand),
    Compare(Box<CompareCommand>),
    Report(Report),
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
    #[command(flatten)]
    settings: Settings,
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
    #[arg(long, default_value = "broker")]
    label: String,
    /// Overwrites 4 KiB of a file in this directory twenty times a second beside the run, and tells
    /// how long that took: a directory on the broker's disk
    #[arg(long, value_name = "DIR")]
    disk_sample: Option<PathBuf>,
    #[command(flatten)]
    outputs: Outputs,
}

/// Why a command has failed.
#[derive(Debug, Error)]
pub enum CliError {
    /// The run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// What a command says by itself: a file that cannot be read or written, a wrong setting.
    #[error("{0}")]
    Told(String),
}

/// Does what the command line says. Whether all that was run is sound.
///
/// # Errors
/// Where it could not be done.
pub fn main(cli: Cli) -> Result<bool, CliError> {
    let (kind, ShorthandArguments { shorthand, target }) = match cli.command {
        Command::Run(arguments) => {
            let scenario = read_scenario(&arguments.scenario, &arguments.settings);
            return run_and_tell(&scenario.map_err(CliError::Told)?, &arguments.target);
        }
        Command::Produce(arguments) => (Kind::Produce, arguments),
        Command::Consume(arguments) => (Kind::Consume, arguments),
        Command::Both(arguments) => (Kind::Both, arguments),
        Command::EndToEnd(arguments) => (Kind::EndToEnd, arguments),
        Command::Search(command) => return command.run().map_err(CliError::Told),
        Command::Compare(command) => return command.run().map_err(CliError::Told),
        Command::Report(command) => return command.run().map_err(CliError::Told),
    };
    run_and_tell(&shorthand.scenario(kind), &target)
}

fn run_and_tell(scenario: &Scenario, arguments: &TargetArguments) -> Result<bool, CliError> {
    let target = Target {
        label: arguments.label.clone(),
        bootstrap: arguments.bootstrap.clone(),
        broker_pid: arguments.broker_pid,
        disk_sample_dir: arguments.disk_sample.clone(),
    };
    let result = run(scenario, &target, &mut Live::new(stderr(), &target.label))?;
    let outputs = &arguments.outputs;
    outputs.append(&result).map_err(CliError::Told)?;
    let results = [result];
    outputs.write_page(&results).map_err(CliError::Told)?;
    print!("{}", table(&results));
    Ok(is_sound(&results))
}
