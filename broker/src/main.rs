//! `vltava`: arguments in, exit code out.

use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory, Parser, Subcommand};
use vltava::cli::serve::{Config, Serve};
use vltava::cli::{ClientCommand, run};

/// A message broker that speaks Kafka's protocol.
#[derive(Debug, Parser)]
#[command(version, about, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
All but serve, config, inspect and repair are clients of a broker: --bootstrap HOST:PORT says which
(127.0.0.1:9092 by default), Vltava or any other that speaks Kafka's protocol.

Exit codes: 0 done, 1 it was tried and failed, 2 arguments or settings are wrong, 3 no broker
answers, 4 inspect or repair found damage.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker
    Serve(Serve),
    /// List the settings of a broker and of topics
    Config(Config),
    #[command(flatten)]
    Client(ClientCommand),
}

fn main() -> ExitCode {
    let started = Instant::now();
    let done = match Arguments::parse().command {
        Command::Serve(serve) => serve.run(started),
        Command::Config(config) => config.run(),
        Command::Client(command) => run(command, Arguments::command),
    };
    match done {
        Err(error) if !error.is_quiet() => {
            eprintln!("vltava: {error}");
            error.exit_code()
        }
        _ => ExitCode::SUCCESS,
    }
}
