//! Two brokers in turn, A B A B, over one scenario after the other.
//!
//! What a shared machine does to one of them it does to the other a moment later; their ratios,
//! round by round, say more than either's figures ([`crate::ratio`]).

use std::path::PathBuf;

use crate::engine::clock::Clock;
use crate::interrupt::is_interrupted;
use crate::launch::{LaunchError, Launched};
use crate::result::{Round, RunResult};
use crate::run::Target;
use crate::scenario::Scenario;

/// One of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// What it is called.
    pub label: String,
    /// How to reach it.
    pub broker: Broker,
}

/// How a broker is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broker {
    /// It runs.
    Running {
        /// Addresses, host:port.
        bootstrap: Vec<String>,
        /// Its process, where it runs on this machine.
        pid: Option<u32>,
    },
    /// It is started for each run, with nothing on its disk ([`Launched::start`]).
    Started {
        /// By this command.
        command: String,
    },
}

/// Where brokers' data stands, and whether their disk is sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory for data of brokers that are started.
    pub data_parent: PathBuf,
    /// Where to sample the disk beside each run.
    pub disk_sample_dir: Option<PathBuf>,
}

/// Something that happened between runs.
#[derive(Debug)]
pub enum Turn<'a> {
    /// A run is about to begin.
    Begins {
        /// Of this scenario.
        scenario: &'a Scenario,
        /// From 1 on.
        round: u32,
        /// Against whom.
        target: &'a Target,
        /// How long the broker took from start to first answer, in seconds, where it was started.
        ready_s: Option<f64>,
    },
    /// There is no result of this turn.
    Failed {
        /// Whose turn it was.
        label: &'a str,
        /// Why.
        why: String,
    },
}

/// Runs each scenario against both sides, `rounds` times in turn; all results in their order. A
/// turn that fails is told to `tell`, and leaves a gap: the others go on. A signal ends it.
///
/// `run` makes a run; it is told of each by `tell` first.
pub fn compare<E: ToString>(
    sides: &[Side; 2],
    scenarios: &[Scenario],
    rounds: u32,
    place: &Place,
    mut run: impl FnMut(&Scenario, &Target, Option<&mut Launched>) -> Result<RunResult, E>,
    mut tell: impl FnMut(Turn<'_>),
) -> Vec<RunResult> {
    let mut results = Vec::new();
    let comparison_ms = Clock::start().wall_ms(0);
    for scenario in scenarios {
        for round in 1..=rounds {
            let turn = Some(Round { comparison_ms, number: round });
            for side in sides {
                let turn = side.with_target(place, |target, launched| {
                    let target = &Target { round: turn, ..target.clone() };
                    let ready_s = launched.as_ref().map(|broker| broker.ready().as_secs_f64());
                    tell(Turn::Begins { scenario, round, target, ready_s });
                    run(scenario, target, launched).map_err(|error| error.to_string())
                });
                match turn {
                    Ok(result) => results.push(result),
                    Err(why) => tell(Turn::Failed { label: &side.label, why }),
                }
                if is_interrupted() {
                    return results;
                }
            }
        }
    }
    results
}

impl Side {
    /// Whether a scenario can be run against it.
    pub fn takes(&self, scenario: &Scenario) -> bool {
        !scenario.needs_own_broker() || matches!(self.broker, Broker::Started { .. })
    }

    /// Calls `run` with a broker that answers; started and stopped around it where it must be.
    ///
    /// # Errors
    /// What `run` says, and what starting and stopping the broker does.
    pub fn with_target(
        &self,
        place: &Place,
        run: impl FnOnce(&Target, Option<&mut Launched>) -> Result<RunResult, String>,
    ) -> Result<RunResult, String> {
        match &self.broker {
            Broker::Running { bootstrap, pid } => {
                run(&self.target(bootstrap.clone(), *pid, place), None)
            }
            Broker::Started { command } => {
                let started = Launched::start(command, &place.data_parent);
                let mut broker = started.map_err(|error: LaunchError| error.to_string())?;
                let bootstrap = vec![broker.address().to_owned()];
                let target = self.target(bootstrap, Some(broker.pid()), place);
                let result = run(&target, Some(&mut broker))?;
                broker.stop().map_err(|error| error.to_string())?;
                Ok(result)
            }
        }
    }

    fn target(&self, bootstrap: Vec<String>, broker_pid: Option<u32>, place: &Place) -> Target {
        Target {
            label: self.label.clone(),
            bootstrap,
            command: match &self.broker {
                Broker::Started { command } => Some(command.clone()),
                Broker::Running { .. } => None,
            },
            broker_pid,
            disk_sample_dir: place.disk_sample_dir.clone(),
            round: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn sides() -> [Side; 2] {
        ["a", "b"].map(|label| Side {
            label: label.to_owned(),
            broker: Broker::Running { bootstrap: vec![format!("{label}:9092")], pid: None },
        })
    }

    fn place() -> Place {
        Place { data_parent: std::env::temp_dir(), disk_sample_dir: None }
    }

    #[test]
    fn the_two_take_turns_scenario_by_scenario() {
        let mut second = samples::run("", 1.0).scenario;
        second.title = "second".to_owned();
        let scenarios = [samples::run("", 1.0).scenario, second];
        let mut order = String::new();
        let run = |scenario: &Scenario, target: &Target, _: Option<&mut Launched>| {
            let mut result = samples::run(&target.label, 1.0);
            result.scenario = scenario.clone();
            result.round = target.round;
            Ok::<_, String>(result)
        };
        let results = compare(&sides(), &scenarios, 2, &place(), run, |turn| {
            if let Turn::Begins { target, round, .. } = turn {
                order += &format!("{}{round} ", target.label);
            }
        });
        assert_eq!(order, "a1 b1 a2 b2 a1 b1 a2 b2 ");
        let titles = results.iter().map(|result| result.scenario.title.as_str());
        assert_eq!(titles.filter(|title| *title == "second").count(), 4);
        assert_eq!(results.len(), 8);
        let rounds = results.iter().map(|result| result.round.map(|round| round.number));
        assert_eq!(rounds.flatten().collect::<Vec<_>>(), [1, 1, 2, 2, 1, 1, 2, 2]);
    }

    #[test]
    fn a_turn_that_fails_leaves_a_gap() {
        let scenarios = [samples::run("", 1.0).scenario];
        let mut runs = 0;
        let mut failures = Vec::new();
        let run = |_: &Scenario, target: &Target, _: Option<&mut Launched>| {
            runs += 1;
            match runs {
                2 => Err("refused"),
                _ => Ok(samples::run(&target.label, 1.0)),
            }
        };
        let results = compare(&sides(), &scenarios, 2, &place(), run, |turn| {
            if let Turn::Failed { label, why } = turn {
                failures.push(format!("{label}: {why}"));
            }
        });
        assert_eq!(results.len(), 3);
        assert_eq!(failures, ["b: refused"]);
    }
}
