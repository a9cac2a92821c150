//! `vltava-bench compare`: two brokers in turn.

use std::io::stderr;
use std::path::PathBuf;

use super::CliError;
use super::files::{Outputs, Settings, read_scenario};
use super::report::is_sound;
use super::target::{check, check_disk};
use crate::compare::{Broker, Place, Side, Turn, compare};
use crate::interrupt::is_interrupted;
use crate::report::figures::{plain, some};
use crate::report::live::Live;
use crate::report::table::table;
use crate::run::run;
use crate::scenario::Scenario;

/// Run scenarios against two brokers in turn, A B A B, and show how B compares with A.
#[derive(Clone, Debug, clap::Args)]
pub struct CompareCommand {
    /// What to run: scenario files, one after the other.
    #[arg(required = true, value_name = "SCENARIO")]
    pub scenarios: Vec<PathBuf>,
    /// Addresses of broker A, with commas between them.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    #[arg(conflicts_with = "a_command")]
    pub a: Vec<String>,
    /// A command that is broker A, started anew for each run: `{port}`, `{port2}` to `{port9}` and
    /// `{data}` are replaced. In a script, `exec` the broker; one that stays, to start several
    /// nodes, ends them when it is told to end.
    #[arg(long, value_name = "COMMAND")]
    pub a_command: Option<String>,
    /// What to call broker A.
    #[arg(long, value_name = "LABEL", default_value = "A")]
    pub a_label: String,
    /// Broker A's process, where it runs on this machine and is not started by a command.
    #[arg(long, value_name = "PID", conflicts_with = "a_command")]
    pub a_pid: Option<u32>,
    /// Addresses of broker B, with commas between them.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    #[arg(conflicts_with = "b_command")]
    pub b: Vec<String>,
    /// A command that is broker B.
    #[arg(long, value_name = "COMMAND")]
    pub b_command: Option<String>,
    /// What to call broker B.
    #[arg(long, value_name = "LABEL", default_value = "B")]
    pub b_label: String,
    /// Broker B's process.
    #[arg(long, value_name = "PID", conflicts_with = "b_command")]
    pub b_pid: Option<u32>,
    /// How often each of them has its turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Where the data of brokers that are started stands, on a real disk; removed after each run.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub data: PathBuf,
    /// Sample the disk of this directory beside each run.
    #[arg(long, value_name = "DIR")]
    pub disk_sample: Option<PathBuf>,
    /// What is changed in scenarios.
    #[command(flatten)]
    pub settings: Settings,
    /// Where results go.
    #[command(flatten)]
    pub outputs: Outputs,
}

impl CompareCommand {
    /// Compares. True only where all turns gave a result.
    ///
    /// # Errors
    /// A scenario that cannot be run, a broker that is not named, a file that cannot be written.
    pub fn run(self) -> Result<bool, CliError> {
        let scenarios = self.checked().map_err(CliError::Usage)?;
        let place =
            Place { data_parent: self.data.clone(), disk_sample_dir: self.disk_sample.clone() };
        let mut failures = 0_u64;
        let results = compare(
            &self.sides(),
            &scenarios,
            self.rounds,
            &place,
            |scenario, target, launched| {
                let mut live = Live::new(stderr(), &target.label);
                let result = run(scenario, target, launched, &mut live);
                let result = result.map_err(|error| error.to_string())?;
                self.outputs.append(&result)?;
                Ok::<_, String>(result)
            },
            |turn| {
                failures += u64::from(matches!(turn, Turn::Failed { .. }));
                eprintln!("{}", told(&turn, self.rounds));
            },
        );
        self.outputs.write_page(&results).map_err(CliError::Failed)?;
        print!("{}", table(&results));
        if is_interrupted() {
            return Err(CliError::Failed("interrupted: not all turns were taken".to_owned()));
        }
        if failures > 0 {
            println!("{} without a result: see above", some(failures, "turn"));
            return Ok(false);
        }
        Ok(is_sound(&results))
    }

    /// The scenarios, where all of them can be run, against both: before any broker is started.
    fn checked(&self) -> Result<Vec<Scenario>, String> {
        let read = self.scenarios.iter().map(|path| read_scenario(path, &self.settings));
        let scenarios: Vec<Scenario> = read.collect::<Result<_, _>>()?;
        if self.a_label == self.b_label {
            return Err("--a-label and --b-label are the same".to_owned());
        }
        for (is_named, name) in [
            (self.a_command.is_some() || !self.a.is_empty(), "a"),
            (self.b_command.is_some() || !self.b.is_empty(), "b"),
        ] {
            if !is_named {
                return Err(format!("--{name} HOST:PORT or --{name}-command COMMAND is missing"));
            }
        }
        let [a, b] = self.sides();
        for scenario in &scenarios {
            check(&a, scenario, "--a-command")?;
            check(&b, scenario, "--b-command")?;
        }
        check_disk(self.disk_sample.as_deref())?;
        self.outputs.check()?;
        Ok(scenarios)
    }

    fn sides(&self) -> [Side; 2] {
        let broker = |command: &Option<String>, bootstrap: &[String], pid| match command {
            Some(command) => Broker::Started { command: command.clone() },
            None => Broker::Running { bootstrap: bootstrap.to_vec(), pid },
        };
        [
            Side {
                label: self.a_label.clone(),
                broker: broker(&self.a_command, &self.a, self.a_pid),
            },
            Side {
                label: self.b_label.clone(),
                broker: broker(&self.b_command, &self.b, self.b_pid),
            },
        ]
    }
}

fn told(turn: &Turn<'_>, rounds: u32) -> String {
    match turn {
        Turn::Begins { scenario, round, target, ready_s } => {
            let ready = ready_s.map_or_else(String::new, |seconds| {
                format!(", ready after {} ms", plain((seconds * 1e3).round()))
            });
            format!("\n{}: {}, round {round} of {rounds}{ready}", scenario.title, target.label)
        }
        Turn::Failed { label, why } => format!("{label}: no result: {why}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        compare: CompareCommand,
    }

    fn parse(line: &str) -> Result<CompareCommand, clap::Error> {
        let words = std::iter::once("compare").chain(line.split(' '));
        Line::try_parse_from(words).map(|line| line.compare)
    }

    #[test]
    fn each_side_is_an_address_or_a_command() {
        let command = parse("--a x:1,y:2 --a-pid 7 --b-command serve{port} s.toml").unwrap();
        let [a, b] = command.sides();
        let bootstrap = vec!["x:1".to_owned(), "y:2".to_owned()];
        assert_eq!(a.broker, Broker::Running { bootstrap, pid: Some(7) });
        assert_eq!(b.broker, Broker::Started { command: "serve{port}".to_owned() });
        assert!(parse("--a x:1 --a-command y --b z:1 s.toml").is_err(), "two A");
        assert!(parse("--a x:1 --b-command y --b-pid 3 s.toml").is_err(), "whose process?");
        assert!(parse("--a x:1 --b y:1").is_err(), "no scenario");
    }

    #[test]
    fn what_cannot_be_run_is_refused_before_anything_is_started() {
        let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let refused = |line: &str| {
            let line = line.replace("SCENARIOS", &scenarios.display().to_string());
            let error = parse(&line).unwrap().run().unwrap_err();
            assert!(matches!(error, CliError::Usage(_)), "{line}: {error}");
            error.to_string()
        };
        let gone = refused("--a x:1 --b-command false SCENARIOS/gone.toml");
        assert!(gone.starts_with("cannot read "), "{gone}");
        let start = refused("--a x:1 --b-command false SCENARIOS/idle.toml SCENARIOS/start.toml");
        assert!(start.contains("--a-command"), "{start}");
        let both = refused("--a x:1 --b y:1 --a-label B SCENARIOS/idle.toml");
        assert!(both.contains("the same"), "{both}");
        let nobody = refused("--a x:1 SCENARIOS/idle.toml");
        assert!(nobody.contains("--b HOST:PORT"), "{nobody}");
        let disk = refused("--a x:1 --b y:1 --disk-sample /gone SCENARIOS/idle.toml");
        assert!(disk.contains("the disk below /gone cannot be sampled"), "{disk}");
    }
}
