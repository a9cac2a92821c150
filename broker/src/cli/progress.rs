//! What is said on standard error while something takes longer than a second, if a person looks at
//! it.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::cli::output::human_bytes;

const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Counters {
    records: AtomicU64,
    bytes: AtomicU64,
}

/// Ends, and wipes its line, when it is dropped.
pub(super) struct Progress {
    counters: Arc<Counters>,
    ticker: Option<(SyncSender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Says `what` is going on, with what was counted, after a second and each second from then on.
    pub(super) fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let counters = Arc::new(Counters::default());
        if !io::stderr().is_terminal() {
            return Self { counters, ticker: None };
        }
        let (stop, stopped) = mpsc::sync_channel(1);
        let counted = Arc::clone(&counters);
        let thread = thread::spawn(move || {
            let started = Instant::now();
            let mut shown = false;
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                shown = true;
                show(&line(&what, &counted, started.elapsed()));
            }
            if shown {
                show("");
            }
        });
        Self { counters, ticker: Some((stop, thread)) }
    }

    /// Counts.
    pub(super) fn add(&self, records: u64, bytes: u64) {
        self.counters.records.fetch_add(records, Ordering::Relaxed);
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records counted so far.
    pub(super) fn records(&self) -> u64 {
        self.counters.records.load(Ordering::Relaxed)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.ticker.take() {
            drop(stop);
            // A thread that has panicked has nothing to say.
            let _ = thread.join();
        }
    }
}

/// Replaces the line that is shown.
fn show(line: &str) {
    // Nobody to tell where this fails.
    let _ = io::stderr().write_all(format!("\r\x1b[K{line}").as_bytes());
}

fn line(what: &str, counters: &Counters, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs().max(1);
    let records = counters.records.load(Ordering::Relaxed);
    let bytes = counters.bytes.load(Ordering::Relaxed);
    let mut line = format!("{what} ({seconds} s)");
    if records > 0 {
        line.push_str(&format!(": {records} records, {}/s", records / seconds));
    }
    if bytes > 0 {
        line.push_str(&format!(", {}, {}/s", human_bytes(bytes), human_bytes(bytes / seconds)));
    }
    line
}
