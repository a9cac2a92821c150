//! SIGINT, SIGTERM and SIGHUP: what was started is ended, and what was made is deleted, where that
//! can be.
//!
//! The first signal asks: whoever waits for something looks at [`is_interrupted`], gives up, and
//! cleans up behind itself. Where that takes too long, or at the second signal, brokers that were
//! started are killed from here, their directories removed, and that is the end. A harness that is
//! killed outright (SIGKILL) leaves both.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::{emulate_default_handler, pipe};

/// How long cleaning up may take before it is cut short.
const PATIENCE: Duration = Duration::from_secs(30);

/// The number of the signal that has come; 0: none has.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);
/// Brokers that run and were started here, by process, and their directories.
static STARTED: Mutex<BTreeMap<u32, PathBuf>> = Mutex::new(BTreeMap::new());

/// Listens for signals from now on, instead of ending at once. To be called once.
///
/// # Errors
/// What the system says.
pub fn listen() -> io::Result<()> {
    let (mut heard, sender) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: whoever hears of it finds its number.
        let number = usize::try_from(signal).unwrap_or_default();
        flag::register_usize(signal, Arc::clone(&SIGNAL), number)?;
        pipe::register(signal, sender.try_clone()?)?;
    }
    let wait = move || {
        let mut byte = [0];
        if heard.read_exact(&mut byte).is_ok() {
            // Without it, only another signal cuts it short.
            let _ = heard.set_read_timeout(Some(PATIENCE));
            let _ = heard.read_exact(&mut byte);
            end_what_was_started();
            end();
        }
    };
    thread::Builder::new().name(String::from("signals")).spawn(wait).map(drop)
}

/// Whether a signal has come: no more is to be begun, and nothing waited for.
pub fn is_interrupted() -> bool {
    SIGNAL.load(Ordering::Relaxed) != 0
}

/// Ends this process as the signal that has come would have.
pub fn end() {
    let signal = i32::try_from(SIGNAL.load(Ordering::Relaxed)).unwrap_or(SIGTERM);
    // It does not come back from this, whichever of the three it is.
    let _ = emulate_default_handler(signal);
}

/// A broker was started, with all that it has in this directory.
pub fn on_started(process: u32, directory: &Path) {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    started.insert(process, directory.to_owned());
}

/// It has ended, and its directory is its starter's business.
pub fn on_ended(process: u32) {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner).remove(&process);
}

fn end_what_was_started() {
    let started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    for (process, directory) in &*started {
        let process = i32::try_from(*process).ok().and_then(Pid::from_raw);
        // One that has ended meanwhile needs no killing; a directory that is gone, no removing.
        let _ = process.map(|process| kill_process(process, Signal::KILL));
        let _ = fs::remove_dir_all(directory);
    }
}
