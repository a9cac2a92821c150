//! `vltava-bench`.

use std::process::ExitCode;

use clap::Parser;
use vltava_bench::cli::{Cli, main as run};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vltava-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
