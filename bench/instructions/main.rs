//! What the hot paths cost in instructions, as callgrind counts them: the same on a busy machine as
//! on a quiet one. `bench/instructions/compare` builds this in two commits, runs it, and compares.
//!
//!     instructions              the cases, a line each
//!     instructions CASE COUNT   sets a case up, then does it COUNT times
//!
//! Whoever counts runs a case twice with different counts and divides the difference: what setting
//! up takes falls out.

mod cases;
mod disk;

use std::error::Error;
use std::process::ExitCode;

use cases::CASES;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    // `cargo bench` adds a word of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [name, count] = words.as_slice() else {
        CASES.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    };
    let case = CASES.iter().find(|(known, _)| known == name);
    let (_, case) = case.ok_or_else(|| format!("{name} is none of the cases"))?;
    case(count.parse()?)
}
