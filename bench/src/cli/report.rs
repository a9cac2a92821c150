//! `vltava-bench report`: results of earlier runs, side by side.

use std::path::PathBuf;
use std::process::ExitCode;

use super::files::{Outputs, read_results};
use crate::report::table::table;
use crate::result::RunResult;

/// Show results of earlier runs, those of one scenario side by side.
#[derive(Clone, Debug, clap::Args)]
pub struct Report {
    /// Files of results, a line of JSON each.
    #[arg(required = true, value_name = "RESULTS")]
    pub results: Vec<PathBuf>,
    /// Write a page with plots to this file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl Report {
    /// Shows them. Success only where all of them verify.
    ///
    /// # Errors
    /// What cannot be read or written, in words.
    pub fn run(self) -> Result<ExitCode, String> {
        let mut results = Vec::new();
        for path in &self.results {
            results.extend(read_results(path)?);
        }
        Outputs { json: None, html: self.html }.write_page(&results)?;
        print!("{}", table(&results));
        Ok(exit_code(&results))
    }
}

/// Success where there are results, and all of them verify.
pub fn exit_code(results: &[RunResult]) -> ExitCode {
    let is_sound = results.iter().all(|result| result.verification.is_sound());
    ExitCode::from(u8::from(results.is_empty() || !is_sound))
}
