//! The highest rate that holds a latency. Pure: whoever calls it runs.
//!
//! Doubles a rate that holds, halves one that does not, then closes in between the two. A rate that
//! does not hold gets a second run: on a machine that others share, one bad moment would hide all
//! higher rates. What is found is run once more, and lowered until it holds again: a lucky run is
//! no result.

use crate::report::figures::some;
use crate::result::RunResult;
use crate::scenario::Scenario;

/// A rate that was reached to less than this share of it was not reached.
const REACHED: f64 = 0.98;

/// What is to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// The 99th percentile is at most this, in microseconds.
    pub p99_us: u64,
    /// Of which latency.
    pub of: Timed,
    /// How close the rate found and the lowest that failed come, as a share of it.
    pub precision: f64,
    /// Rates that are tried, in records a second: not below this.
    pub rate_least: f64,
    /// Not above this.
    pub rate_most: f64,
}

/// Which latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// From the intended send to the acknowledgement.
    Acknowledged,
    /// From the intended send to the receipt.
    EndToEnd,
}

/// A run at a rate.
#[derive(Clone, Debug)]
pub struct Step {
    /// Records a second that were asked for.
    pub rate: f64,
    /// What came of it.
    pub result: RunResult,
    /// Why it does not hold; `None`: it does.
    pub miss: Option<Miss>,
}

/// Why a rate does not hold.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Miss {
    /// Its 99th percentile is above the goal.
    #[error("p99 above the goal")]
    Slow {
        /// The percentile, in microseconds.
        p99_us: u64,
    },
    /// Less came through than was asked for.
    #[error("only {rate:.0} records/s came through")]
    Behind {
        /// What came through, in records a second.
        rate: f64,
    },
    /// The broker refused records, or did not answer in time.
    #[error("{0}")]
    Failed(String),
    /// There is no such latency in the run.
    #[error("nothing was timed")]
    Untimed,
}

/// How a search ended.
#[derive(Clone, Debug)]
pub struct Search {
    /// The highest rate that held, and held again; `None`: not even the lowest did.
    pub rate: Option<f64>,
    /// Whether the harness, not the broker, may be why no higher rate held.
    pub is_harness_limit: bool,
    /// All runs, in their order.
    pub steps: Vec<Step>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError<E> {
    /// A run could not be made.
    #[error(transparent)]
    Run(E),
    /// What came back is not what was sent. That is no matter of rates.
    #[error("at {rate:.0} records/s, what came back is not what was sent")]
    Broken {
        /// The rate, in records a second.
        rate: f64,
        /// The run.
        result: Box<RunResult>,
    },
}

/// Searches from `first` records a second on; `run` runs at a rate, and `tell` is told of each run
/// as soon as it is judged.
///
/// # Errors
/// The first run that could not be made, or that is broken.
pub fn highest<E>(
    goal: &Goal,
    first: f64,
    run: impl FnMut(f64) -> Result<RunResult, E>,
    tell: impl FnMut(&Step),
) -> Result<Search, SearchError<E>> {
    let mut runs = Runs { goal, run, tell, steps: Vec::new() };
    let rate = runs.close_in(first.clamp(goal.rate_least, goal.rate_most))?;
    let rate = runs.confirm(rate)?;
    let misses = runs.steps.iter().filter(|step| step.miss.is_some());
    let lowest = misses.min_by(|a, b| a.rate.total_cmp(&b.rate));
    let is_harness_limit = lowest.is_some_and(|step| step.result.harness.bottleneck.is_some());
    Ok(Search { rate, is_harness_limit, steps: runs.steps })
}

struct Runs<'a, F, T> {
    goal: &'a Goal,
    run: F,
    tell: T,
    steps: Vec<Step>,
}

impl<F, T: FnMut(&Step)> Runs<'_, F, T> {
    /// Whether a rate holds.
    fn holds<E>(&mut self, rate: f64) -> Result<bool, SearchError<E>>
    where
        F: FnMut(f64) -> Result<RunResult, E>,
    {
        let result = (self.run)(rate).map_err(SearchError::Run)?;
        let seen = &result.verification;
        if !seen.is_intact() {
            return Err(SearchError::Broken { rate, result: Box::new(result) });
        }
        let miss = self.goal.miss(rate, &result);
        let holds = miss.is_none();
        let step = Step { rate, result, miss };
        (self.tell)(&step);
        self.steps.push(step);
        Ok(holds)
    }

    /// A rate that held, close below one that did not or at the end of what is tried.
    fn close_in<E>(&mut self, first: f64) -> Result<Option<f64>, SearchError<E>>
    where
        F: FnMut(f64) -> Result<RunResult, E>,
    {
        let (least, most) = (self.goal.rate_least, self.goal.rate_most);
        let (mut held, mut missed): (Option<f64>, Option<f64>) = (None, None);
        let mut rate = first;
        loop {
            let holds = self.holds(rate)? || self.holds(rate)?;
            let end = if holds { &mut held } else { &mut missed };
            *end = Some(rate);
            rate = match (held, missed) {
                (Some(held), None) if held < most => (held * 2.0).min(most),
                (None, Some(missed)) if missed > least => (missed / 2.0).max(least),
                (Some(held), Some(missed)) if missed / held > 1.0 + self.goal.precision => {
                    (held * missed).sqrt()
                }
                _ => return Ok(held),
            };
        }
    }

    /// The rate, or the next lower one, that holds once more.
    fn confirm<E>(&mut self, rate: Option<f64>) -> Result<Option<f64>, SearchError<E>>
    where
        F: FnMut(f64) -> Result<RunResult, E>,
    {
        let Some(mut rate) = rate else {
            return Ok(None);
        };
        while rate >= self.goal.rate_least {
            if self.holds(rate)? {
                return Ok(Some(rate));
            }
            rate /= 1.0 + self.goal.precision;
        }
        Ok(None)
    }
}

impl Goal {
    /// Why a run at a rate does not hold.
    fn miss(&self, rate: f64, result: &RunResult) -> Option<Miss> {
        let verification = &result.verification;
        if verification.failed > 0 {
            let failed = some(verification.failed, "record");
            return Some(Miss::Failed(format!("{failed} failed")));
        }
        if let Some(fault) = verification.faults.first() {
            return Some(Miss::Failed(fault.clone()));
        }
        let through = match self.of {
            Timed::Acknowledged => &result.produced,
            Timed::EndToEnd => &result.consumed,
        };
        let reached = through.records as f64 / result.measured_s;
        if reached < rate * REACHED {
            return Some(Miss::Behind { rate: reached });
        }
        match self.p99_us(result) {
            None => Some(Miss::Untimed),
            Some(p99_us) => (p99_us > self.p99_us).then_some(Miss::Slow { p99_us }),
        }
    }

    /// The 99th percentile of a run that is held against the goal, in microseconds.
    pub fn p99_us(&self, result: &RunResult) -> Option<u64> {
        let latency = match self.of {
            Timed::Acknowledged => &result.acknowledged_us,
            Timed::EndToEnd => &result.end_to_end_us,
        };
        latency.as_ref().map(|latency| latency.percentile("99"))
    }
}

/// Records a second of all producers together; `None` where one of them has no rate.
pub fn rate_of(scenario: &Scenario) -> Option<f64> {
    scenario.producers.iter().map(|producers| producers.records_per_second).sum()
}

/// The scenario with `rate` records a second in all: each class of producers keeps its share, which
/// where no rates are given is by their number.
pub fn at_rate(scenario: &Scenario, rate: f64) -> Scenario {
    let mut scenario = scenario.clone();
    let rates = rate_of(&scenario).filter(|rate| *rate > 0.0);
    let count: f64 = scenario.producers.iter().map(|producers| f64::from(producers.count)).sum();
    for producers in &mut scenario.producers {
        let share = match (rates, producers.records_per_second) {
            (Some(all), Some(own)) => own / all,
            _ => f64::from(producers.count) / count,
        };
        producers.records_per_second = Some(rate * share);
    }
    scenario
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use std::convert::Infallible;

    use super::*;
    use crate::report::samples;

    const GOAL: Goal = Goal {
        p99_us: 5_000,
        of: Timed::Acknowledged,
        precision: 0.05,
        rate_least: 10.0,
        rate_most: 1e6,
    };

    /// A run at a rate, with this p99.
    fn ran(rate: f64, p99_us: u64) -> RunResult {
        let mut result = samples::run("broker", 1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        let records = (rate * result.measured_s).ceil() as u64;
        result.produced.records = records;
        result.acknowledged_us.as_mut().unwrap().percentiles.insert("99".to_owned(), p99_us);
        result
    }

    /// A broker that is fast up to a rate.
    fn up_to(limit: f64) -> impl FnMut(f64) -> Result<RunResult, Infallible> {
        move |rate| Ok(ran(rate, if rate <= limit { 1_000 } else { 900_000 }))
    }

    #[test]
    fn the_limit_is_found_from_below_and_from_above() {
        for first in [20.0, 70_000.0, 900_000.0] {
            let mut told = 0;
            let search = highest(&GOAL, first, up_to(70_000.0), |_| told += 1).unwrap();
            let rate = search.rate.unwrap();
            assert!(rate <= 70_000.0 && rate > 70_000.0 / 1.05, "{first}: {rate}");
            assert!(search.steps.len() < 35, "{}", search.steps.len());
            assert_eq!(search.steps.last().unwrap().rate, rate, "the last run confirms it");
            assert_eq!(told, search.steps.len(), "each is told");
        }
    }

    #[test]
    fn the_ends_of_what_is_tried_are_answers() {
        let search = highest(&GOAL, 1e5, up_to(1e9), |_| ()).unwrap();
        assert_eq!(search.rate, Some(1e6));
        let search = highest(&GOAL, 1e5, up_to(1.0), |_| ()).unwrap();
        assert_eq!(search.rate, None);
        assert_eq!(search.steps.last().unwrap().rate, 10.0);
    }

    #[test]
    fn a_rate_that_held_by_luck_is_lowered() {
        // Each rate above 50,000 holds once, then no more.
        let mut lucky = Vec::new();
        let search = highest(
            &GOAL,
            1000.0,
            |rate| {
                let holds =
                    rate <= 50_000.0 || (rate < 80_000.0 && !lucky.contains(&rate.to_bits()));
                lucky.push(rate.to_bits());
                Ok::<_, Infallible>(ran(rate, if holds { 1 } else { 90_000 }))
            },
            |_| (),
        );
        let rate = search.unwrap().rate.unwrap();
        assert!(rate < 80_000.0 / 1.04, "{rate}");
    }

    #[test]
    fn one_bad_moment_hides_nothing() {
        let mut runs = 0;
        let search = highest(
            &GOAL,
            1000.0,
            |rate| {
                runs += 1;
                let p99_us = if rate > 50_000.0 || runs == 2 { 90_000 } else { 1 };
                Ok::<_, Infallible>(ran(rate, p99_us))
            },
            |_| (),
        );
        assert!(search.unwrap().rate.unwrap() > 45_000.0);
    }

    #[test]
    fn what_is_behind_or_refused_does_not_hold() {
        let miss = |change: fn(&mut RunResult)| {
            let mut result = ran(20_000.0, 1_000);
            change(&mut result);
            GOAL.miss(20_000.0, &result)
        };
        assert_eq!(miss(|_| ()), None);
        assert_eq!(
            miss(|run| run.produced.records = 100_000),
            Some(Miss::Behind { rate: 10_000.0 })
        );
        assert!(matches!(miss(|run| run.verification.failed = 1), Some(Miss::Failed(_))));
        assert_eq!(miss(|run| run.acknowledged_us = None), Some(Miss::Untimed));
    }

    #[test]
    fn lost_records_end_the_search() {
        let search = highest(
            &GOAL,
            1000.0,
            |rate| {
                let mut result = ran(rate, 1);
                result.verification.missing = u64::from(rate > 5_000.0);
                Ok::<_, Infallible>(result)
            },
            |_| (),
        );
        assert!(matches!(search, Err(SearchError::Broken { rate, .. }) if rate == 8000.0));
    }

    #[test]
    fn the_harness_is_named_where_it_was_the_limit() {
        let search = highest(
            &GOAL,
            1000.0,
            |rate| {
                let mut result = ran(rate, if rate > 50_000.0 { 90_000 } else { 1 });
                result.harness.bottleneck = (rate > 50_000.0).then(|| "busy".to_owned());
                Ok::<_, Infallible>(result)
            },
            |_| (),
        );
        assert!(search.unwrap().is_harness_limit);
    }

    #[test]
    fn producers_keep_their_shares() {
        let scenario = |text: &str| Scenario::parse(&format!("title = 'x'\n{text}")).unwrap();
        let rates = |scenario: &Scenario| -> Vec<f64> {
            scenario.producers.iter().filter_map(|class| class.records_per_second).collect()
        };
        let open = scenario(
            "[[producers]]\nrecords_per_second = 10\n[[producers]]\nrecords_per_second = 30\n",
        );
        assert_eq!(rate_of(&open), Some(40.0));
        assert_eq!(rates(&at_rate(&open, 400.0)), [100.0, 300.0]);
        let closed = scenario("[[producers]]\ncount = 3\n[[producers]]\n");
        assert_eq!(rate_of(&closed), None);
        assert_eq!(rates(&at_rate(&closed, 400.0)), [300.0, 100.0]);
    }
}
