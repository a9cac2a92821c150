//! `vltava-bench search`: the highest rate that holds a latency.

use std::io::stderr;
use std::path::PathBuf;

use super::CliError;
use super::files::{Outputs, Settings, read_scenario};
use super::target::TargetArguments;
use crate::compare::Side;
use crate::report::figures::{plain, significant};
use crate::report::live::Live;
use crate::report::table::table;
use crate::result::RunResult;
use crate::run::run;
use crate::scenario::Scenario;
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
    /// Searches, tells each run as it is judged, and then what was found. True only where a rate
    /// holds.
    ///
    /// # Errors
    /// A run that could not be made, or did not verify.
    pub fn run(self) -> Result<bool, CliError> {
        let (goal, mut scenario) = self.checked().map_err(CliError::Usage)?;
        let p99_ms = significant(self.p99_ms);
        scenario.title += &format!("; highest rate with a p99 of at most {p99_ms} ms");
        let first = self.from.or_else(|| rate_of(&scenario)).unwrap_or(FIRST_RATE);
        let ran = |rate: f64| {
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
        };
        let tell = |step: &Step| eprintln!("\n{}\n", line(step, &goal));
        let search = highest(&goal, first, ran, tell);
        let search = search.map_err(|error: SearchError<String>| match &error {
            SearchError::Broken { result, .. } => {
                format!("{error}\n{}", table(&[(**result).clone()]))
            }
            SearchError::Run(_) => error.to_string(),
        });
        let search = search.map_err(CliError::Failed)?;
        let mut steps: Vec<&Step> = search.steps.iter().collect();
        steps.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let runs: Vec<RunResult> = steps.iter().map(|step| step.result.clone()).collect();
        self.outputs.write_page(&runs).map_err(CliError::Failed)?;
        print!("{}", told(&search, &goal));
        Ok(search.rate.is_some())
    }

    /// What is searched for, and in what: before anything is run.
    fn checked(&self) -> Result<(Goal, Scenario), String> {
        let goal = self.goal()?;
        let scenario = read_scenario(&self.scenario, &self.settings)?;
        let path = self.scenario.display();
        if scenario.producers.is_empty() {
            return Err(format!("{path}: nobody writes in it"));
        }
        if self.end_to_end && scenario.consumers.is_empty() {
            return Err(format!("{path}: nobody reads in it, which --end-to-end is about"));
        }
        self.target.check(&scenario)?;
        self.outputs.check()?;
        Ok((goal, scenario))
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

/// A run in a line: its rate, its p99, and whether the rate holds.
fn line(step: &Step, goal: &Goal) -> String {
    let Step { rate, miss, result } = step;
    let p99 = match goal.p99_us(result) {
        Some(p99_us) => format!("p99 {} ms", significant(p99_us as f64 / 1e3)),
        None => "no p99".to_owned(),
    };
    let held = match miss {
        None => "holds".to_owned(),
        Some(miss) => format!("does not hold: {miss}"),
    };
    let limit =
        result.harness.bottleneck.as_ref().map_or("", |_| " (may not be the broker's limit)");
    format!("{:>12} records/s  {p99:>12}  {held}{limit}", plain(rate.round()))
}

/// All runs, a line each, then the answer and the figures of the run that confirmed it.
fn told(search: &Search, goal: &Goal) -> String {
    let mut text = String::new();
    for step in &search.steps {
        text += &format!("{}\n", line(step, goal));
    }
    let p99_ms = significant(goal.p99_us as f64 / 1e3);
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
        let goal = Goal {
            p99_us: 5_000,
            of: Timed::Acknowledged,
            precision: 0.05,
            rate_least: 1.0,
            rate_most: 1e6,
        };
        let text = told(&search, &goal);
        let slow = "      20,000 records/s   p99 4.95 ms  does not hold: p99 above the goal\n";
        assert!(text.contains(slow), "{text}");
        assert!(text.contains("      15,000 records/s   p99 4.95 ms  holds\n"), "{text}");
        assert!(text.contains("at most 5.00 ms: 15,000/s"), "{text}");
        assert!(text.contains("The broker was not alone"), "{text}");
        let search = Search { rate: None, ..search };
        assert!(told(&search, &goal).contains("No rate that was tried"), "none");
    }
}
