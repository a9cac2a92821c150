//! Runs, one after the other or side by side, and what they came to.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::run::{Failure, Outcome};
use crate::say;

/// A seed that takes longer than this, in real time, hangs in code that never awaits.
const HANG: Duration = Duration::from_secs(300);
/// What repeats a run, but for its name.
const REPEAT: &str = "cargo test -p vltava --features simulator --test simulator --";

/// The commands that repeat what runs now, and since when, for the watchdog.
static RUNNING: Mutex<BTreeMap<u64, (Instant, String)>> = Mutex::new(BTreeMap::new());
/// Numbers for what runs.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// What is to be run.
#[derive(Clone, Copy)]
pub struct Run {
    /// In words.
    pub what: &'static str,
    /// Of what seed.
    pub seed: u64,
    /// The story, where it is one.
    pub scenario: Option<&'static str>,
    /// Instead of what the seed draws.
    pub nodes: Option<usize>,
    /// Twice, to see that both are the same.
    pub twice: bool,
}

impl Run {
    /// Once, as the seed says.
    pub fn new(what: &'static str, seed: u64) -> Self {
        Self { what, seed, scenario: None, nodes: None, twice: false }
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
            None => {
                let nodes = self.nodes.map_or(String::new(), |nodes| format!(" --nodes {nodes}"));
                format!("{REPEAT} --seed {}{nodes} --trace", self.seed)
            }
        }
    }
}

/// How many runs passed and failed, and how the first one failed. Used by all threads.
#[derive(Default)]
pub struct Tally {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    ran: usize,
    failures: Vec<(String, Failure)>,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one has failed.
    pub fn failed(&self) -> bool {
        !self.counts().failures.is_empty()
    }

    /// How many ran.
    pub fn ran(&self) -> usize {
        self.counts().ran
    }

    /// Runs once, or twice to see that both are the same.
    pub fn run(&self, what: &Run, run: impl Fn(u64) -> Outcome) {
        let seed = what.seed;
        let watched = Watched::new(what.repeat());
        let began = now();
        let outcome = run(seed);
        let took = began.elapsed();
        let mut failure = outcome.failure;
        if what.twice && failure.is_none() {
            let again = run(seed).hash;
            if again != outcome.hash {
                let hash = outcome.hash;
                let words = format!("two runs differ: {hash:016x} and {again:016x}");
                failure = Some(Failure::Correctness(words));
            }
        }
        drop(watched);
        let result = match (&failure, what.twice) {
            (Some(_), _) => "FAILED",
            (None, true) => "ok, twice the same",
            (None, false) => "ok",
        };
        let name = what.name();
        let mut lines = format!(
            "{name} ... {result} ({:016x}: {} nodes, {} s virtual, {} polls, {} acknowledged, {} \
             starts, {} ms)",
            outcome.hash,
            outcome.nodes,
            outcome.virtual_ns / 1_000_000_000,
            outcome.polls,
            outcome.acknowledged,
            outcome.starts,
            took.as_millis()
        );
        if let Some(failure) = &failure {
            let (commit, swarm, repeat) = (commit(), &outcome.swarm, what.repeat());
            lines += &format!("\n  {failure:?}\n  commit {commit}\n{swarm}\n  repeat: {repeat}");
        }
        say(&lines);
        let mut counts = self.counts();
        counts.ran += 1;
        counts.failures.extend(failure.map(|failure| (name, failure)));
    }

    /// The closing line and the exit code. `lacks_new_seeds`: a budget was given, and none ran.
    pub fn close(&self, lacks_new_seeds: bool) -> ExitCode {
        let counts = self.counts();
        for (name, failure) in &counts.failures {
            say(&format!("failed: {name}: {failure:?}"));
        }
        let (ran, failed) = (counts.ran, counts.failures.len());
        say(&format!("{} passed, {failed} failed", ran - failed));
        match counts.failures.first() {
            Some((_, failure)) => ExitCode::from(failure.exit_code()),
            None if ran == 0 || lacks_new_seeds => {
                say("no seed ran, or no new one: that is no success");
                ExitCode::FAILURE
            }
            None => ExitCode::SUCCESS,
        }
    }
}

/// While it lives, the watchdog looks at the clock.
struct Watched(u64);

impl Watched {
    fn new(repeat: String) -> Self {
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        running().insert(number, (now(), repeat));
        Self(number)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        running().remove(&self.0);
    }
}

fn running() -> MutexGuard<'static, BTreeMap<u64, (Instant, String)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The budget is real time; nothing of a run depends on it.
pub fn now() -> Instant {
    Instant::now()
}

/// The commit that is tested, as far as git knows.
pub fn commit() -> String {
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
pub fn watch_for_hangs() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let hangs = running().values().find(|(since, _)| since.elapsed() >= HANG).cloned();
            if let Some((_, repeat)) = hangs {
                say(&format!("failed: a run hangs\n  repeat: {repeat}"));
                std::process::exit(128);
            }
        }
    });
}
