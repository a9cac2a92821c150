//! `vltava`: arguments in, exit code out.

use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory, Parser, Subcommand};
use vltava::cli::serve::{Config, Serve};
use vltava::cli::{ClientCommand, run};

/// A message broker that speaks Kafka's protocol.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker.
    Serve(Serve),
    /// List every setting with its default, unit and documentation.
    Config(Config),
    #[command(flatten)]
    Client(ClientCommand),
}

fn main() -> ExitCode {
    let started = Instant::now();
    let result: Result<(), String> = match Arguments::parse().command {
        Command::Serve(serve) => serve.run(started),
        Command::Config(config) => {
            config.run();
            Ok(())
        }
        Command::Client(command) => {
            return match run(command, Arguments::command) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("vltava: {error}");
                    error.exit_code()
                }
            };
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("vltava: {message}");
            ExitCode::FAILURE
        }
    }
}
