//! Which runs belong side by side: those of one scenario, by broker.

use crate::measures::Measure;
use crate::ratio::{Ratio, Spread};
use crate::result::RunResult;
use crate::scenario::Scenario;

/// All runs of one scenario.
#[derive(Debug)]
pub struct Group<'a> {
    /// As the first of them has it.
    pub scenario: &'a Scenario,
    /// By label, in the order in which they first ran.
    pub sides: Vec<Side<'a>>,
}

/// All runs of one broker.
#[derive(Debug)]
pub struct Side<'a> {
    /// What it is called.
    pub label: &'a str,
    /// Its runs, in their order.
    pub runs: Vec<&'a RunResult>,
}

/// Puts runs of one title together, and in these the runs of one label.
pub fn groups(results: &[RunResult]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for result in results {
        let title = &result.scenario.title;
        let at = groups.iter().position(|group| group.scenario.title == *title);
        let at = at.unwrap_or_else(|| {
            groups.push(Group { scenario: &result.scenario, sides: Vec::new() });
            groups.len() - 1
        });
        let sides = &mut groups[at].sides;
        match sides.iter_mut().find(|side| side.label == result.label) {
            Some(side) => side.runs.push(result),
            None => sides.push(Side { label: &result.label, runs: vec![result] }),
        }
    }
    groups
}

impl Group<'_> {
    /// All its runs, side by side.
    pub fn runs(&self) -> impl Iterator<Item = &RunResult> {
        self.sides.iter().flat_map(|side| side.runs.iter().copied())
    }

    /// What its sides are called.
    pub fn labels(&self) -> Vec<&str> {
        self.sides.iter().map(|side| side.label).collect()
    }

    /// The second side's figure as a multiple of the first one's, where there are exactly two:
    /// round by round, where it is known of all which round they are, and in their order else.
    pub fn ratio(&self, measure: &Measure) -> Option<Ratio> {
        let [first, second] = self.sides.as_slice() else {
            return None;
        };
        let has_rounds = self.runs().all(|run| run.round.is_some());
        let partners: Vec<Option<&RunResult>> = if has_rounds {
            let same = |run: &&RunResult| {
                second.runs.iter().copied().find(|other| other.round == run.round)
            };
            first.runs.iter().map(same).collect()
        } else {
            second.runs.iter().copied().map(Some).collect()
        };
        let a: Vec<Option<f64>> = first.runs.iter().map(|run| exact(run, measure)).collect();
        let b = partners.into_iter().map(|run| run.and_then(|run| exact(run, measure)));
        Ratio::of(&a, &b.collect::<Vec<_>>())
    }

    /// Whether runs of different settings stand under this title.
    pub fn is_mixed(&self) -> bool {
        self.runs().any(|run| run.scenario != *self.scenario)
    }
}

impl Side<'_> {
    /// A figure over its runs; `None` where none of them has it. Runs that do not verify have none.
    pub fn spread(&self, measure: &Measure) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| figure(run, measure)))
    }

    /// Whether that is no more than a bound: one of the runs did not hold its rate.
    pub fn is_bound(&self, measure: &Measure) -> bool {
        self.runs.iter().any(|run| run.verification.is_sound() && measure.is_bound(run))
    }
}

fn figure(run: &RunResult, measure: &Measure) -> Option<f64> {
    Some(run).filter(|run| run.verification.is_sound()).and_then(|run| measure.of(run))
}

/// The figure, where it is one: nothing can be divided by what is at least something.
fn exact(run: &RunResult, measure: &Measure) -> Option<f64> {
    figure(run, measure).filter(|_| !measure.is_bound(run))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use super::*;
    use crate::measures::MEASURES;
    use crate::report::samples;
    use crate::result::Round;

    fn measure(name: &str) -> &'static Measure {
        MEASURES.iter().find(|measure| measure.name == name).unwrap()
    }

    #[test]
    fn rounds_are_paired_by_their_number() {
        // The second turn of `a` failed; the machine was slower with each round.
        let runs = [("a", 1, 1.0), ("b", 1, 2.0), ("b", 2, 20.0), ("a", 3, 100.0), ("b", 3, 200.0)];
        let runs = runs.map(|(label, number, slowness)| {
            let mut run = samples::run(label, slowness);
            run.round = Some(Round { comparison_ms: 7, number });
            run
        });
        let ratio = groups(&runs)[0].ratio(measure("broker's CPU")).unwrap();
        assert_eq!((ratio.rounds, ratio.spread.least, ratio.spread.most), (2, 2.0, 2.0));
    }

    #[test]
    fn what_did_not_hold_its_rate_has_no_ratio_of_latencies() {
        let mut runs = ["a", "b"].map(|label| samples::run(label, 1.0));
        runs[1].unsent = 5;
        let groups = groups(&runs);
        let p99 = measure("acknowledgement, p99");
        assert!(groups[0].ratio(p99).is_none() && groups[0].sides[1].is_bound(p99));
        assert!(!groups[0].sides[0].is_bound(p99));
        assert!(groups[0].ratio(measure("broker's CPU")).is_some());
    }
}
