//! `vltava`: arguments in, exit code out.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use vltava::cli::serve::{Config, Serve};

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
}

fn main() -> ExitCode {
    let started = Instant::now();
    let result = match Arguments::parse().command {
        Command::Serve(serve) => serve.run(started),
        Command::Config(config) => {
            config.run();
            Ok(())
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
