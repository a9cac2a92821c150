//! How the disk does beside a run: small data-sync overwrites, a few a second.
//!
//! What a broker's durable acknowledgement cannot be faster than; on a shared disk it tells a slow
//! broker from a slow moment.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::fs::OFlags;

use crate::engine::stats::histogram;

/// Each overwrite, and what its place in memory and in the file is aligned to.
const BYTES: usize = 4096;
/// From one overwrite to the next: twenty a second.
const INTERVAL: Duration = Duration::from_millis(50);

/// A thread that samples until it is stopped.
#[derive(Debug)]
pub struct DiskSample {
    stop: Sender<()>,
    thread: JoinHandle<io::Result<Histogram<u64>>>,
}

impl DiskSample {
    /// Makes a file in a directory, and begins to overwrite it.
    ///
    /// # Errors
    /// Where the file cannot be made there, or takes no direct I/O.
    pub fn start(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!("vltava-bench-{}.sample", std::process::id()));
        let flags = i32::try_from((OFlags::DIRECT | OFlags::DSYNC).bits());
        let flags = flags.map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).custom_flags(flags);
        let file = file.open(&path)?;
        let buffer = vec![0x5a; 2 * BYTES];
        // Its blocks are there before anything is measured.
        overwrite(&file, &buffer).inspect_err(|_| drop(fs::remove_file(&path)))?;
        let (stop, stopped) = channel();
        let thread = thread::Builder::new().name(String::from("disk-sample")).spawn(move || {
            let mut latencies = histogram();
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let began = Instant::now();
                overwrite(&file, &buffer)?;
                let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                latencies.saturating_record(us.max(1));
            }
            fs::remove_file(path)?;
            Ok(latencies)
        })?;
        Ok(Self { stop, thread })
    }

    /// What was found, in microseconds.
    ///
    /// # Errors
    /// What the system said meanwhile.
    pub fn stop(self) -> io::Result<Histogram<u64>> {
        drop(self.stop);
        match self.thread.join() {
            Ok(found) => found,
            Err(_) => Err(io::Error::other("the disk's sampler has panicked")),
        }
    }
}

/// Writes from the part of the buffer that direct I/O takes.
fn overwrite(file: &File, buffer: &[u8]) -> io::Result<()> {
    let aligned = buffer.as_ptr().align_offset(BYTES).min(BYTES);
    file.write_all_at(&buffer[aligned..aligned + BYTES], 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test should say where")]

    use super::*;

    #[test]
    fn a_file_is_overwritten_until_it_is_enough_and_is_gone_then() {
        // The build is on a disk that takes direct I/O where `/tmp` may not be.
        let build = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir_in(build.parent().unwrap()).unwrap();
        let sample = DiskSample::start(directory.path()).unwrap();
        thread::sleep(4 * INTERVAL);
        let found = sample.stop().unwrap();
        assert!((1..=4).contains(&found.len()), "{}", found.len());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(DiskSample::start(Path::new("/proc/none")).is_err());
    }
}
