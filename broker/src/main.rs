//! `vltava`: arguments in, exit code out.

use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory, Parser, Subcommand};
use vltava::cli::error::USAGE;
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
topic, produce, consume and group are clients: --bootstrap HOST:PORT says of which broker, Vltava or
any other that speaks Kafka's protocol (127.0.0.1:9092 by default).

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
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            // As all other errors are told.
            let text = error.to_string();
            match text.strip_prefix("error: ") {
                Some(told) => eprint!("vltava: {told}"),
                None => eprint!("{text}"),
            }
            return ExitCode::from(USAGE);
        }
        Err(help) => help.exit(),
    };
    let done = match arguments.command {
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
