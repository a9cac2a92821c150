//! `vltava-bench`.

use std::process::ExitCode;

use clap::Parser;
use vltava_bench::cli::{Cli, main as run};
use vltava_bench::interrupt;

fn main() -> ExitCode {
    let command = Cli::parse();
    if let Err(error) = interrupt::listen() {
        eprintln!("vltava-bench: listening for signals: {error}");
        return ExitCode::FAILURE;
    }
    match run(command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vltava-bench: {error}");
            if interrupt::is_interrupted() {
                interrupt::end();
            }
            error.exit_code()
        }
    }
}
