//! The command line.

mod compare;
mod files;
mod report;
mod search;
mod target;

use std::io::stderr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use thiserror::Error;

use self::compare::CompareCommand;
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
#[error("{0}")]
pub struct CliError(String);

/// Does what the command line says. Whether all that was run is sound.
///
/// # Errors
/// Where it could not be done.
pub fn main(cli: Cli) -> Result<bool, CliError> {
    let done = match cli.command {
        Command::Run(RunArguments { scenario, settings, target, outputs }) => {
            read_scenario(&scenario, &settings)
                .and_then(|scenario| run_and_tell(&scenario, &target, &outputs))
        }
        Command::Produce(arguments) => arguments.run(Kind::Produce),
        Command::Consume(arguments) => arguments.run(Kind::Consume),
        Command::Both(arguments) => arguments.run(Kind::Both),
        Command::EndToEnd(arguments) => arguments.run(Kind::EndToEnd),
        Command::Search(command) => command.run(),
        Command::Compare(command) => command.run(),
        Command::Report(command) => command.run(),
    };
    done.map_err(CliError)
}

impl ShorthandArguments {
    fn run(&self, kind: Kind) -> Result<bool, String> {
        run_and_tell(&self.shorthand.scenario(kind), &self.target, &self.outputs)
    }
}

fn run_and_tell(
    scenario: &Scenario,
    target: &TargetArguments,
    outputs: &Outputs,
) -> Result<bool, String> {
    outputs.check()?;
    let result = target.side().with_target(&target.place(), |target, launched| {
        let mut live = Live::new(stderr(), &target.label);
        run(scenario, target, launched, &mut live).map_err(|error| error.to_string())
    })?;
    let results = [result];
    print!("{}", table(&results));
    outputs.append(&results[0])?;
    outputs.write_page(&results)?;
    Ok(is_sound(&results))
}
