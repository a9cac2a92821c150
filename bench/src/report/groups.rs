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

    /// The second side's figure as a multiple of the first one's, where there are exactly two.
    pub fn ratio(&self, measure: &Measure) -> Option<Ratio> {
        let [first, second] = self.sides.as_slice() else {
            return None;
        };
        Ratio::of(&first.values(measure), &second.values(measure))
    }

    /// Whether runs of different settings stand under this title.
    pub fn is_mixed(&self) -> bool {
        self.runs().any(|run| run.scenario != *self.scenario)
    }
}

impl Side<'_> {
    /// A figure over its runs; `None` where none of them has it. Runs that do not verify have none.
    pub fn spread(&self, measure: &Measure) -> Option<Spread> {
        Spread::of(self.values(measure).into_iter().flatten())
    }

    fn values(&self, measure: &Measure) -> Vec<Option<f64>> {
        let sound = |run: &&RunResult| run.verification.is_sound();
        self.runs
            .iter()
            .map(|run| Some(*run).filter(sound).and_then(|run| measure.of(run)))
            .collect()
    }
}
