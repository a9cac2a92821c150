//! The files that commands read and write.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::report::html::page;
use crate::result::{FORMAT, RunResult};
use crate::scenario::Scenario;

/// Where results go besides the terminal.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Outputs {
    /// Append each result to this file, as one line of JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with plots to this file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl Outputs {
    /// Whether these files can be written: to be asked before anything is measured.
    ///
    /// # Errors
    /// Where one cannot, in words.
    pub fn check(&self) -> Result<(), String> {
        self.json.iter().chain(&self.html).try_for_each(|path| {
            let opened = OpenOptions::new().create(true).append(true).open(path);
            opened.map(drop).map_err(|error| failed("write", path, &error))
        })
    }

    /// Appends a result where one is asked for; at once: a later failure takes nothing
    /// away.
    ///
    /// # Errors
    /// Where the file cannot be written, in words.
    pub fn append(&self, result: &RunResult) -> Result<(), String> {
        let Some(path) = &self.json else {
            return Ok(());
        };
        append(path, result)
    }

    /// Writes a page of all results where one is asked for.
    ///
    /// # Errors
    /// Where the file cannot be written, in words.
    pub fn write_page(&self, results: &[RunResult]) -> Result<(), String> {
        let Some(path) = self.html.as_ref().filter(|_| !results.is_empty()) else {
            return Ok(());
        };
        fs::write(path, page(results)).map_err(|error| failed("write", path, &error))
    }
}

/// Appends a line of JSON to a file.
///
/// # Errors
/// Where it cannot be written, in words.
pub fn append(path: &Path, what: &impl Serialize) -> Result<(), String> {
    let line = serde_json::to_string(what).map_err(|error| error.to_string())?;
    let opened = OpenOptions::new().create(true).append(true).open(path);
    let written = opened.and_then(|mut file: File| writeln!(file, "{line}"));
    written.map_err(|error| failed("write", path, &error))
}

/// Settings of scenarios that are changed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Settings {
    /// Change a value of the scenario: `run.duration_s=30`, `producers.0.keys=100`; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

/// The scenario in a file, with these settings changed.
///
/// # Errors
/// Where it cannot be read, or is none, in words.
pub fn read_scenario(path: &Path, settings: &Settings) -> Result<Scenario, String> {
    let text = fs::read_to_string(path).map_err(|error| failed("read", path, &error))?;
    let changes: Vec<&str> = settings.set.iter().map(String::as_str).collect();
    let scenario = Scenario::parse_changed(&text, &changes);
    scenario.map_err(|error| format!("{}: {error}", path.display()))
}

/// The results in a file, a line each.
///
/// # Errors
/// Where it cannot be read, or a line is no result, in words.
pub fn read_results(path: &Path) -> Result<Vec<RunResult>, String> {
    let text = fs::read_to_string(path).map_err(|error| failed("read", path, &error))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let results = lines.map(|(at, line)| {
        let place = || format!("{}:{}", path.display(), at + 1);
        let result: RunResult =
            serde_json::from_str(line).map_err(|error| format!("{}: {error}", place()))?;
        match result.format {
            FORMAT => Ok(result),
            format => Err(format!("{}: format {format}; this reads {FORMAT}", place())),
        }
    });
    results.collect()
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use super::*;
    use crate::report::samples;
    use crate::report::table::table;

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let json = directory.path().join("results.json");
        let html = directory.path().join("page.html");
        let outputs = Outputs { json: Some(json.clone()), html: Some(html.clone()) };
        outputs.check().unwrap();
        let nowhere = Some(directory.path().join("gone/page.html"));
        let nowhere = Outputs { json: None, html: nowhere }.check().unwrap_err();
        assert!(nowhere.starts_with("cannot write "), "{nowhere}");
        let runs = ["a", "b"].map(|label| samples::run(label, 1.0));
        runs.iter().for_each(|run| outputs.append(run).unwrap());
        // The last digits of numbers may differ.
        assert_eq!(table(&read_results(&json).unwrap()), table(&runs));
        outputs.write_page(&runs).unwrap();
        assert!(fs::read_to_string(&html).unwrap().starts_with("<!DOCTYPE html>"));
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.json");
        let mut run = samples::run("a", 1.0);
        run.format = 99;
        fs::write(&path, format!("\n{}\n", serde_json::to_string(&run).unwrap())).unwrap();
        let error = read_results(&path).unwrap_err();
        assert!(error.contains("results.json:2: format 99"), "{error}");
        fs::write(&path, "{}").unwrap();
        assert!(read_results(&path).unwrap_err().contains("results.json:1: missing field"));
        assert!(read_scenario(&path, &Settings::default()).unwrap_err().contains("results.json"));
        let gone = directory.path().join("gone");
        assert!(read_results(&gone).unwrap_err().starts_with("cannot read "));
    }
}
