//! Whole nodes in one process, from one seed: real shards on `runtime::sim`, clients that speak the
//! real protocol, faults, and checkers that know every acknowledgement. `docs/simulation.md` says
//! how to read a failing seed.
//!
//! `cargo test -p vltava --features simulator --test simulator -- --seed 7`

mod checkers;
mod client;
mod cluster;
mod faults;
mod node;
mod run;
mod scenarios;
mod workload;

use std::io::{Write, stdout};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use vltava::runtime::sim::TraceSink;

use crate::faults::Swarm;
use crate::run::{Failure, Outcome, run_seed};

/// Seeds that failed once, with the commit that repaired what they found.
const KEPT_SEEDS: &str = include_str!("kept_seeds.txt");
/// New seeds where nothing else is asked for.
const SEEDS_DEFAULT: u64 = 20;
/// A seed that takes longer than this, in real time, hangs in code that never awaits.
const HANG: Duration = Duration::from_secs(300);
/// How many of the new seeds run twice, to see that they repeat.
const TWICE: u64 = 2;
/// What repeats a run, but for its name.
const REPEAT: &str = "cargo test -p vltava --features simulator --test simulator --";

/// Runs nodes, clients and faults, each run from one seed.
#[derive(Parser)]
struct Arguments {
    /// Runs this seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs this many new seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// Runs new seeds until this many seconds have passed, once the kept ones have run.
    #[arg(long)]
    seconds: Option<u64>,
    /// The first of the new seeds; drawn from the clock where it is not given.
    #[arg(long)]
    first_seed: Option<u64>,
    /// Runs the scenario of this name alone, or `all`; with `--seeds`, over so many seeds.
    #[arg(long)]
    scenario: Option<String>,
    /// Prints everything that happens in a run.
    #[arg(long)]
    trace: bool,
    /// Goes on after a failure.
    #[arg(long)]
    keep_going: bool,
}

/// The command that repeats what runs now, for the watchdog.
static REPEATS_NOW: Mutex<String> = Mutex::new(String::new());
/// Whether a run has begun since the watchdog last looked.
static PROGRESS: AtomicBool = AtomicBool::new(false);

fn say(line: &str) {
    // A closed pipe is no reason to fail.
    let _ = writeln!(stdout().lock(), "{line}");
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.trace {
        print_log();
    }
    watch_for_hangs();
    let mut tally = Tally::default();
    if let Some(name) = &arguments.scenario {
        for scenario in scenarios::all().filter(|scenario| name == "all" || scenario.name == name) {
            for seed in scenario_seeds(&arguments, scenario.seed) {
                let run = Run { scenario: Some(scenario.name), ..Run::new("scenario", seed) };
                tally.run(&run, |_| (scenario.run)(seed, sink(&arguments)));
            }
        }
        return tally.close();
    }
    if let Some(seed) = arguments.seed {
        say(&format!("seed {seed}:\n{}", Swarm::new(seed)));
        let run = Run { twice: true, ..Run::new("seed", seed) };
        tally.run(&run, |_| run_seed(seed, sink(&arguments)));
        return tally.close();
    }
    run_budget(&arguments, &mut tally);
    tally.close()
}

/// The scenario's own seed, where no others are asked for.
fn scenario_seeds(arguments: &Arguments, own: u64) -> std::ops::Range<u64> {
    let first = arguments.first_seed.unwrap_or(own);
    first..first + arguments.seeds.unwrap_or(1)
}

fn sink(arguments: &Arguments) -> Option<TraceSink> {
    let sink: TraceSink = Box::new(say);
    arguments.trace.then_some(sink)
}

/// Prints what the broker logs between the lines of the trace.
fn print_log() {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .without_time()
        .with_ansi(false)
        .with_writer(stdout)
        .init();
}

/// The scenarios, the kept seeds, then new ones for as long as the budget lasts.
fn run_budget(arguments: &Arguments, tally: &mut Tally) {
    for scenario in scenarios::all() {
        // One that has everything in it shows that a seed repeats, whatever the budget.
        let run = Run {
            scenario: Some(scenario.name),
            twice: scenario.name == scenarios::EVERYTHING,
            ..Run::new("scenario", scenario.seed)
        };
        tally.run(&run, |_| (scenario.run)(scenario.seed, None));
    }
    for seed in kept_seeds() {
        tally.run(&Run::new("kept seed", seed), |_| run_seed(seed, None));
    }
    let first = arguments.first_seed.unwrap_or_else(seed_from_clock);
    let seconds = arguments.seconds.map(Duration::from_secs);
    let seeds_max = match (arguments.seeds, seconds) {
        (Some(seeds), _) => seeds,
        (None, Some(_)) => u64::MAX,
        (None, None) => SEEDS_DEFAULT,
    };
    let limit = match seeds_max {
        u64::MAX => format!("{} seconds", arguments.seconds.unwrap_or(0)),
        seeds => format!("{seeds} seeds"),
    };
    say(&format!("new seeds from {first}, {limit}, commit {}", commit()));
    let (began, ran_before) = (now(), tally.ran);
    for number in 0..seeds_max {
        let is_over = seconds.is_some_and(|seconds| began.elapsed() >= seconds);
        if is_over || (tally.failed() && !arguments.keep_going) {
            break;
        }
        let seed = first.wrapping_add(number);
        let run = Run { twice: number < TWICE, ..Run::new("seed", seed) };
        tally.run(&run, |_| run_seed(seed, None));
    }
    tally.lacks_new_seeds = tally.ran == ran_before && !tally.failed();
}

fn kept_seeds() -> impl Iterator<Item = u64> {
    let lines = KEPT_SEEDS.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

/// What is to be run.
#[derive(Clone, Copy)]
struct Run {
    what: &'static str,
    seed: u64,
    scenario: Option<&'static str>,
    /// Twice, to see that both are the same.
    twice: bool,
}

impl Run {
    fn new(what: &'static str, seed: u64) -> Self {
        Self { what, seed, scenario: None, twice: false }
    }

    fn name(&self) -> String {
        match self.scenario {
            Some(name) => format!("{} {name} {}", self.what, self.seed),
            None => format!("{} {}", self.what, self.seed),
        }
    }

    /// The command that repeats it.
    fn repeat(&self) -> String {
        match self.scenario {
            Some(name) => {
                format!("{REPEAT} --scenario {name} --first-seed {} --trace", self.seed)
            }
            None => format!("{REPEAT} --seed {} --trace", self.seed),
        }
    }
}

/// How many runs passed and failed, and how the first one failed.
#[derive(Default)]
struct Tally {
    ran: usize,
    /// A budget was given, and no new seed ran.
    lacks_new_seeds: bool,
    failures: Vec<(String, Failure)>,
}

impl Tally {
    fn failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Runs once, or twice to see that both are the same.
    fn run(&mut self, what: &Run, run: impl Fn(u64) -> Outcome) {
        let seed = what.seed;
        if let Ok(mut repeat) = REPEATS_NOW.lock() {
            *repeat = what.repeat();
        }
        PROGRESS.store(true, Ordering::Relaxed);
        let began = now();
        let outcome = run(seed);
        let took = began.elapsed();
        self.ran += 1;
        let mut failure = outcome.failure;
        if what.twice && failure.is_none() {
            PROGRESS.store(true, Ordering::Relaxed);
            let again = run(seed).hash;
            if again != outcome.hash {
                let hash = outcome.hash;
                let words = format!("two runs differ: {hash:016x} and {again:016x}");
                failure = Some(Failure::Correctness(words));
            }
        }
        let result = match (&failure, what.twice) {
            (Some(_), _) => "FAILED",
            (None, true) => "ok, twice the same",
            (None, false) => "ok",
        };
        let name = what.name();
        say(&format!(
            "{name} ... {result} ({:016x}: {} s virtual, {} polls, {} acknowledged, {} starts, \
             {} ms)",
            outcome.hash,
            outcome.virtual_ns / 1_000_000_000,
            outcome.polls,
            outcome.acknowledged,
            outcome.starts,
            took.as_millis()
        ));
        if let Some(failure) = failure {
            say(&format!("  {failure:?}\n  commit {}\n{}", commit(), outcome.swarm));
            say(&format!("  repeat: {}", what.repeat()));
            self.failures.push((name, failure));
        }
    }

    /// The closing line and the exit code.
    fn close(&self) -> ExitCode {
        for (name, failure) in &self.failures {
            say(&format!("failed: {name}: {failure:?}"));
        }
        let failed = self.failures.len();
        say(&format!("{} passed, {failed} failed", self.ran - failed));
        match self.failures.first() {
            Some((_, failure)) => ExitCode::from(failure.exit_code()),
            None if self.ran == 0 || self.lacks_new_seeds => {
                say("no seed ran, or no new one: that is no success");
                ExitCode::FAILURE
            }
            None => ExitCode::SUCCESS,
        }
    }
}

/// The budget is real time; nothing of a run depends on it.
fn now() -> Instant {
    Instant::now()
}

/// New seeds differ from one start to the next.
fn seed_from_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs())
}

/// The commit that is tested, as far as git knows.
fn commit() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

/// Ends the process where one run takes longer than any should: code that never awaits cannot be
/// stopped from within.
fn watch_for_hangs() {
    std::thread::spawn(|| {
        let step = Duration::from_secs(1);
        let mut waited = Duration::ZERO;
        loop {
            std::thread::sleep(step);
            waited += step;
            if PROGRESS.swap(false, Ordering::Relaxed) {
                waited = Duration::ZERO;
            }
            if waited >= HANG {
                let repeat = REPEATS_NOW.lock().map(|repeat| repeat.clone());
                say(&format!("failed: a run hangs\n  repeat: {}", repeat.unwrap_or_default()));
                std::process::exit(128);
            }
        }
    });
}
