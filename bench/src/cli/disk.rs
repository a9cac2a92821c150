//! `vltava-bench disk`: how quickly a disk keeps 4 KiB.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::CliError;
use super::files::append;
use crate::engine::clock::nanoseconds;
use crate::interrupt::is_interrupted;
use crate::observe::disk::DiskSample;
use crate::report::figures::{significant, some};
use crate::result::Latency;

/// How often it is looked whether somebody wants it to end.
const PAUSE: Duration = Duration::from_millis(20);

/// Overwrite 4 KiB in a directory with data sync, twenty times a second, and tell how long that
/// takes; a signal (SIGINT, SIGTERM) ends it early.
#[derive(Clone, Debug, clap::Args)]
pub struct DiskCommand {
    /// Where: a directory on the disk in question.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// For how many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub duration: f64,
    /// Append what was found to this file, as one line of JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What was found, as a line of JSON.
#[derive(Debug, Serialize)]
struct Found<'a> {
    directory: String,
    disk_sample_us: &'a Latency,
}

impl DiskCommand {
    /// Samples, and tells.
    ///
    /// # Errors
    /// A directory where that cannot be done, a file that cannot be written.
    pub fn run(self) -> Result<bool, CliError> {
        if !(0.05..=86_400.0).contains(&self.duration) {
            return Err(CliError::Usage("--duration is between 0.05 and 86400".to_owned()));
        }
        let refused = |error| CliError::Usage(DiskSample::refusal(&self.directory, &error));
        let sample = DiskSample::start(&self.directory).map_err(refused)?;
        let begun = Instant::now();
        let end = begun + Duration::from_nanos(nanoseconds(self.duration));
        sample.measure(begun, end);
        while Instant::now() < end && !is_interrupted() {
            sleep(PAUSE.min(end.saturating_duration_since(Instant::now())));
        }
        let found = sample.stop().map_err(|error| {
            CliError::Failed(format!("writing in {}: {error}", self.directory.display()))
        })?;
        let Some(latency) = Latency::of(&found) else {
            return Err(CliError::Failed("it ended before anything was written".to_owned()));
        };
        println!("{}", told(&latency, &self.directory.display().to_string()));
        if let Some(path) = &self.json {
            let directory = self.directory.display().to_string();
            let found = Found { directory, disk_sample_us: &latency };
            append(path, &found).map_err(CliError::Failed)?;
        }
        Ok(true)
    }
}

fn told(latency: &Latency, directory: &str) -> String {
    let ms = |name| significant(latency.percentile(name) as f64 / 1e3);
    let writes = some(latency.count, "write");
    format!(
        "p50 {} ms, p99 {} ms: {writes} of 4 KiB with data sync in {directory}",
        ms("50"),
        ms("99")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use std::fs;

    use super::*;

    #[test]
    fn a_disk_is_told_in_words_and_as_json() {
        let build = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir_in(build.parent().unwrap()).unwrap();
        let json = directory.path().join("disk.json");
        let command = |directory: PathBuf, json| DiskCommand { directory, duration: 0.3, json };
        assert!(command(directory.path().to_owned(), Some(json.clone())).run().unwrap());
        let written = fs::read_to_string(&json).unwrap();
        let found: serde_json::Value = serde_json::from_str(&written).unwrap();
        let latency: Latency = serde_json::from_value(found["disk_sample_us"].clone()).unwrap();
        assert!((1..=6).contains(&latency.count), "{}", latency.count);
        assert!(told(&latency, "/x").ends_with(" of 4 KiB with data sync in /x"));
        let gone = command(directory.path().join("gone"), None).run().unwrap_err();
        let expected = format!("{}/gone", directory.path().display());
        assert!(matches!(&gone, CliError::Usage(why) if why.contains(&expected)), "{gone}");
    }
}
