//! `vltava-bench search`: the highest rate that holds a latency.

use std::io::stderr;
use std::path::PathBuf;

use super::files::{Outputs, Settings, read_scenario};
use super::target::TargetArguments;
use crate::compare::Side;
use crate::report::figures::{plain, significant};
use crate::report::live::Live;
use crate::report::table::table;
use crate::result::RunResult;
use crate::run::run;
use crate::search::{Goal, Search, SearchError, Step, Timed, at_rate, highest, rate_of};

/// Where a search begins when neither the scenario nor the caller says.
const FIRST_RATE: f64 = 10_000.0;

/// Find the highest rate at which 99 of 100 records are acknowledged in time.
#[derive(Clone, Debug, clap::Args)]
pub struct SearchCommand {
    /// What to run: a scenario file. Its producers keep their shares of the rate.
    #[arg(value_name = "SCENARIO")]
    pub scenario: PathBuf,
    /// The longest that the 99th percentile may be, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub p99_ms: f64,
    /// Time records until they are received, not until they are acknowledged.
    #[arg(long)]
    pub end_to_end: bool,
    /// Against whom.
    #[command(flatten)]
    pub target: TargetArguments,
    /// The rate to begin with, in records a second; the scenario's own where it is not given.
    #[arg(long, value_name = "RATE")]
    pub from: Option<f64>,
    /// Try no rate above this.
    #[arg(long, value_name = "RATE", default_value_t = 100e6)]
    pub most: f64,
    /// Try no rate below this.
    #[arg(long, value_name = "RATE", default_value_t = 10.0)]
    pub least: f64,
    /// How close to come, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub precision: f64,
    /// What is changed in scenarios.
    #[command(flatten)]
    pub settings: Settings,
    /// Where results go.
    #[command(flatten)]
    pub outputs: Outputs,
}

impl SearchCommand {
    /// Searches, and says what was found. True only where a rate holds.
    ///
    /// # Errors
    /// A run that could not be made, or did not verify, in words.
    pub fn run(self) -> Result<bool, String> {
        let goal = self.goal()?;
        let mut scenario = read_scenario(&self.scenario, &self.settings)?;
        if scenario.producers.is_empty() {
            return Err(format!("{}: nobody writes in it", self.scenario.display()));
        }
        if self.end_to_end && scenario.consumers.is_empty() {
            let path = self.scenario.display();
            return Err(format!("{path}: nobody reads in it, which --end-to-end is about"));
        }
        self.outputs.check()?;
        let p99_ms = significant(self.p99_ms);
        scenario.title += &format!("; highest rate with a p99 of at most {p99_ms} ms");
        let first = self.from.or_else(|| rate_of(&scenario)).unwrap_or(FIRST_RATE);
        let ran = highest(&goal, first, |rate| {
            let side = self.target.side();
            let label = format!("{}, {} records/s", side.label, plain(rate.round()));
            let side = Side { label, ..side };
            let result = side.with_target(&self.target.place(), |target, launched| {
                let mut live = Live::new(stderr(), &target.label);
                let scenario = at_rate(&scenario, rate);
                run(&scenario, target, launched, &mut live).map_err(|error| error.to_string())
            })?;
            self.outputs.append(&result)?;
            Ok(result)
        });
        let search = ran.map_err(|error: SearchError<String>| match &error {
            SearchError::Broken { result, .. } => {
                format!("{error}\n{}", table(&[(**result).clone()]))
            }
            SearchError::Run(_) => error.to_string(),
        })?;
        let mut steps: Vec<&Step> = search.steps.iter().collect();
        steps.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let runs: Vec<RunResult> = steps.iter().map(|step| step.result.clone()).collect();
        self.outputs.write_page(&runs)?;
        print!("{}", told(&search, self.p99_ms));
        Ok(search.rate.is_some())
    }

    fn goal(&self) -> Result<Goal, String> {
        let is_sensible = self.p99_ms >= 0.001 && self.p99_ms <= 600_000.0;
        if !is_sensible {
            return Err("--p99-ms is between 0.001 and 600000".to_owned());
        }
        if !(self.least > 0.0 && self.least <= self.most && self.most.is_finite()) {
            return Err("--least is more than 0, and --most no less than that".to_owned());
        }
        if !(self.precision >= 0.5 && self.precision <= 100.0) {
            return Err("--precision is between 0.5 and 100 percent".to_owned());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        let p99_us = (self.p99_ms * 1e3).round() as u64;
        Ok(Goal {
            p99_us,
            of: if self.end_to_end { Timed::EndToEnd } else { Timed::Acknowledged },
            precision: self.precision / 100.0,
            rate_least: self.least,
            rate_most: self.most,
        })
    }
}

/// Each step in a line, then the answer and the figures of the run that confirmed it.
fn told(search: &Search, p99_ms: f64) -> String {
    let mut text = String::new();
    for Step { rate, miss, result } in &search.steps {
        let held = match miss {
            None => "holds".to_owned(),
            Some(miss) => format!("does not hold: {miss}"),
        };
        let limit =
            result.harness.bottleneck.as_ref().map_or("", |_| " (may not be the broker's limit)");
        text += &format!("{:>12} records/s  {held}{limit}\n", plain(rate.round()));
    }
    let p99_ms = significant(p99_ms);
    match (search.rate, search.steps.last()) {
        (Some(rate), Some(last)) => {
            let rate = plain(rate.round());
            text += &format!("\nHighest rate with a p99 of at most {p99_ms} ms: {rate}/s\n");
            if search.is_harness_limit {
                text += "The broker was not alone the limit above that, and may do better.\n";
            }
            text += &format!("\n{}", table(std::slice::from_ref(&last.result)));
        }
        _ => text += &format!("\nNo rate that was tried has a p99 of at most {p99_ms} ms\n"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;
    use crate::search::Miss;

    #[test]
    fn a_search_is_told_step_by_step() {
        let step = |rate, miss| Step { rate, miss, result: samples::run("broker", 1.0) };
        let steps = vec![step(20_000.0, Some(Miss::Slow { p99_us: 7_500 })), step(15_000.0, None)];
        let search = Search { rate: Some(15_000.0), is_harness_limit: true, steps };
        let text = told(&search, 5.0);
        assert!(text.contains("      20,000 records/s  does not hold: p99 7.5 ms\n"), "{text}");
        assert!(text.contains("      15,000 records/s  holds\n"), "{text}");
        assert!(text.contains("at most 5.00 ms: 15,000/s"), "{text}");
        assert!(text.contains("The broker was not alone"), "{text}");
        let search = Search { rate: None, ..search };
        assert!(told(&search, 5.0).contains("No rate that was tried"), "none");
    }
}
