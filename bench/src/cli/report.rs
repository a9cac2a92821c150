//! `vltava-bench report`: results of earlier runs, side by side.

use std::path::PathBuf;

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
    /// What cannot be read or written, in words.
    pub fn run(self) -> Result<bool, String> {
        let mut results = Vec::new();
        for path in &self.results {
            results.extend(read_results(path)?);
        }
        Outputs { json: None, html: self.html }.write_page(&results)?;
        print!("{}", table(&results));
        Ok(is_sound(&results))
    }
}

/// Whether there are results, and all of them verify.
pub fn is_sound(results: &[RunResult]) -> bool {
    !results.is_empty() && results.iter().all(|result| result.verification.is_sound())
}
