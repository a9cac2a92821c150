//! The command line.

mod compare;
mod disk;
mod files;
mod report;
mod search;
mod target;

use std::io::stderr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use thiserror::Error;

use self::compare::CompareCommand;
use self::disk::DiskCommand;
use self::files::{Outputs, Settings, read_scenario};
use self::report::{Report, is_sound};
use self::search::SearchCommand;
use self::target::TargetArguments;
use crate::report::live::Live;
use crate::report::table::table;
use crate::run::run;
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
    Disk(DiskCommand),
}

#[derive(Debug, Args)]
struct ShorthandArguments {
    #[command(flatten)]
    shorthand: Shorthand,
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    outputs: Outputs,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// A scenario file; see bench/scenarios
    scenario: PathBuf,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    outputs: Outputs,
}

/// Why a command has failed, in words.
#[derive(Debug, Error)]
pub enum CliError {
    /// What was asked for cannot be done; nothing was begun.
    #[error("{0}")]
    Usage(String),
    /// There is no result.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    /// What the process ends with: 2 for what cannot be done, as for arguments that are not known.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::FAILURE,
        }
    }
}

/// Does what the command line says. Whether all that was run is sound.
///
/// # Errors
/// Where it could not be done.
pub fn main(cli: Cli) -> Result<bool, CliError> {
    match cli.command {
        Command::Run(RunArguments { scenario, settings, target, outputs }) => {
            let scenario = read_scenario(&scenario, &settings).map_err(CliError::Usage)?;
            run_and_tell(&scenario, &target, &outputs)
        }
        Command::Produce(arguments) => arguments.run(Kind::Produce),
        Command::Consume(arguments) => arguments.run(Kind::Consume),
        Command::Both(arguments) => arguments.run(Kind::Both),
        Command::EndToEnd(arguments) => arguments.run(Kind::EndToEnd),
        Command::Search(command) => command.run(),
        Command::Compare(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::Disk(command) => command.run(),
    }
}

impl ShorthandArguments {
    fn run(&self, kind: Kind) -> Result<bool, CliError> {
        let scenario = self.shorthand.scenario(kind);
        scenario.check().map_err(|error| CliError::Usage(error.to_string()))?;
        run_and_tell(&scenario, &self.target, &self.outputs)
    }
}

fn run_and_tell(
    scenario: &Scenario,
    target: &TargetArguments,
    outputs: &Outputs,
) -> Result<bool, CliError> {
    target.check(scenario).and_then(|()| outputs.check()).map_err(CliError::Usage)?;
    let result = target.side().with_target(&target.place(), |target, launched| {
        let mut live = Live::new(stderr(), &target.label);
        run(scenario, target, launched, &mut live).map_err(|error| error.to_string())
    });
    let results = [result.map_err(CliError::Failed)?];
    print!("{}", table(&results));
    let kept = outputs.append(&results[0]).and_then(|()| outputs.write_page(&results));
    kept.map_err(CliError::Failed)?;
    Ok(is_sound(&results))
}
