//! `vltava-bench report`: results of earlier runs, side by side.

use std::path::PathBuf;

use super::CliError;
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
    /// Shows them. True only where all of them verify.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn run(self) -> Result<bool, CliError> {
        let mut results = Vec::new();
        for path in &self.results {
            results.extend(read_results(path).map_err(CliError::Usage)?);
        }
        let outputs = Outputs { json: None, html: self.html };
        outputs.write_page(&results).map_err(CliError::Usage)?;
        print!("{}", table(&results));
        Ok(is_sound(&results))
    }
}

/// Whether there are results, and all of them verify.
pub fn is_sound(results: &[RunResult]) -> bool {
    !results.is_empty() && results.iter().all(|result| result.verification.is_sound())
}
