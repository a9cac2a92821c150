//! Whole clusters in one process, from one seed: real shards on `runtime::sim`, clients that speak
//! the real protocol, faults, and checkers that know every acknowledgement. `docs/simulation.md`
//! says how to read a failing seed.
//!
//! `cargo test -p vltava --features simulator --test simulator -- --seed 7`

mod agreement;
mod checkers;
mod client;
mod cluster;
mod comers;
mod faults;
mod losses;
mod no_descriptors;
mod node;
mod old_epochs;
mod recover;
mod rot;
mod run;
mod scenarios;
mod shape;
mod stage;
mod swarm;
mod tally;
mod two_of_three;
mod workload;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use vltava::runtime::sim::TraceSink;

use crate::run::run_seed;
use crate::swarm::Swarm;
use crate::tally::{Run, Tally, now};

/// Seeds that failed once, with the commit that repaired what they found.
const KEPT_SEEDS: &str = include_str!("kept_seeds.txt");
/// New seeds where nothing else is asked for.
const SEEDS_DEFAULT: u64 = 20;
/// How many of the new seeds run twice, to see that they repeat.
const TWICE: u64 = 4;

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
    /// Nodes of the cluster, instead of what each seed draws: then nothing but new seeds runs.
    #[arg(long)]
    nodes: Option<usize>,
    /// Runs of new seeds side by side.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Prints everything that happens in a run.
    #[arg(long)]
    trace: bool,
    /// Goes on after a failure.
    #[arg(long)]
    keep_going: bool,
}

fn say(line: &str) {
    // A closed pipe is no reason to fail.
    let _ = writeln!(stdout().lock(), "{line}");
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.trace {
        print_log();
    }
    tally::watch_for_hangs();
    let tally = Tally::default();
    if let Some(name) = &arguments.scenario {
        for scenario in scenarios::all().filter(|scenario| name == "all" || scenario.name == name) {
            for seed in scenario_seeds(&arguments, scenario.seed) {
                let run = Run { scenario: Some(scenario.name), ..Run::new("scenario", seed) };
                tally.run(&run, |_| (scenario.run)(seed, sink(&arguments)));
            }
        }
        return tally.close(false);
    }
    if let Some(seed) = arguments.seed {
        say(&format!("seed {seed}:\n{}", Swarm::new(seed, arguments.nodes)));
        let run = Run { twice: true, nodes: arguments.nodes, ..Run::new("seed", seed) };
        tally.run(&run, |_| run_seed(seed, run.nodes, sink(&arguments)));
        return tally.close(false);
    }
    if arguments.nodes.is_none() {
        run_known(&tally);
    }
    run_new(&arguments, &tally)
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

/// The scenarios and the kept seeds.
fn run_known(tally: &Tally) {
    for scenario in scenarios::all() {
        // One that has everything in it shows that a seed repeats, whatever the budget.
        let run = Run {
            scenario: Some(scenario.name),
            twice: scenario.name.starts_with(scenarios::EVERYTHING),
            ..Run::new("scenario", scenario.seed)
        };
        tally.run(&run, |_| (scenario.run)(scenario.seed, None));
    }
    for (seed, nodes) in kept_seeds() {
        let run = Run { nodes, ..Run::new("kept seed", seed) };
        tally.run(&run, |_| run_seed(seed, nodes, None));
    }
}

/// New seeds for as long as the budget lasts, side by side.
fn run_new(arguments: &Arguments, tally: &Tally) -> ExitCode {
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
    say(&format!("new seeds from {first}, {limit}, commit {}", tally::commit()));
    let (began, ran_before, next) = (now(), tally.ran(), AtomicU64::new(0));
    let (nodes, keep_going) = (arguments.nodes, arguments.keep_going);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let is_over = seconds.is_some_and(|seconds| began.elapsed() >= seconds);
            if number >= seeds_max || is_over || (tally.failed() && !keep_going) {
                return;
            }
            let seed = first.wrapping_add(number);
            let run = Run { twice: number < TWICE, nodes, ..Run::new("seed", seed) };
            tally.run(&run, |_| run_seed(seed, nodes, None));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..arguments.jobs {
            scope.spawn(work);
        }
        work();
    });
    let ran = tally.ran() - ran_before;
    say(&format!("{ran} new seeds in {} s", began.elapsed().as_secs()));
    tally.close(ran == 0 && !tally.failed())
}

/// Seeds, and with how many nodes each is run.
fn kept_seeds() -> impl Iterator<Item = (u64, Option<usize>)> {
    let lines = KEPT_SEEDS.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| kept_seed(line).unwrap_or_else(|| panic!("this is no kept seed: {line}")))
}

/// `SEED nodes=COUNT ...`, or `SEED nodes=drawn ...`.
fn kept_seed(line: &str) -> Option<(u64, Option<usize>)> {
    let mut words = line.split_whitespace();
    let seed = words.next()?.parse().ok()?;
    match words.next()?.strip_prefix("nodes=")? {
        "drawn" => Some((seed, None)),
        nodes => Some((seed, Some(nodes.parse().ok()?))),
    }
}

/// New seeds differ from one start to the next.
fn seed_from_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs())
}
