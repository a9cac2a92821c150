//! How the disk does beside a run: small data-sync overwrites, a few a second, at moments that are
//! set beforehand. One that has to wait for another is charged for it.
//!
//! What a broker's durable acknowledgement cannot be faster than; on a shared disk it tells a slow
//! broker from a slow moment.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::fs::OFlags;

use crate::engine::stats::histogram;

/// Each overwrite, and what its place in memory and in the file is aligned to.
const BYTES: usize = 4096;
/// From one overwrite to the next: twenty a second.
const INTERVAL: Duration = Duration::from_millis(50);

/// From when until when samples count.
type Span = (Instant, Instant);

/// A thread that samples until it is stopped.
#[derive(Debug)]
pub struct DiskSample {
    orders: Sender<Span>,
    thread: JoinHandle<io::Result<Histogram<u64>>>,
}

impl DiskSample {
    /// Makes a file in a directory, and begins to overwrite it. Nothing counts before
    /// [`Self::measure`] has said what does.
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
        let (orders, ordered) = channel();
        let thread = thread::Builder::new().name(String::from("disk-sample")).spawn(move || {
            let found = sample(&ordered, || overwrite(&file, &buffer));
            fs::remove_file(path)?;
            found
        })?;
        Ok(Self { orders, thread })
    }

    /// Whether [`Self::start`] can be done there.
    ///
    /// # Errors
    /// Likewise.
    pub fn try_at(directory: &Path) -> io::Result<()> {
        Self::start(directory)?.stop().map(drop)
    }

    /// What to tell where it cannot be.
    pub fn refusal(directory: &Path, error: &io::Error) -> String {
        format!(
            "the disk below {} cannot be sampled: {error}; name a directory that exists and may be \
             written, on a disk that takes direct I/O",
            directory.display()
        )
    }

    /// What was to be written in this time counts.
    pub fn measure(&self, from: Instant, until: Instant) {
        // If it has ended with an error, `stop` tells.
        let _ = self.orders.send((from, until));
    }

    /// What was found, in microseconds.
    ///
    /// # Errors
    /// What the system said meanwhile.
    pub fn stop(self) -> io::Result<Histogram<u64>> {
        drop(self.orders);
        match self.thread.join() {
            Ok(found) => found,
            Err(_) => Err(io::Error::other("the disk's sampler has panicked")),
        }
    }
}

/// Writes at each moment until nobody is left to give orders, in microseconds from that moment.
fn sample(
    orders: &Receiver<Span>,
    mut write: impl FnMut() -> io::Result<()>,
) -> io::Result<Histogram<u64>> {
    let mut latencies = histogram();
    let mut span: Option<Span> = None;
    let mut record = |moment: Instant, span: Option<Span>| {
        if span.is_some_and(|(from, until)| from <= moment && moment < until) {
            let us = u64::try_from(moment.elapsed().as_micros()).unwrap_or(u64::MAX);
            latencies.saturating_record(us.max(1));
        }
    };
    let mut moment = Instant::now();
    loop {
        moment += INTERVAL;
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            match orders.recv_timeout(left) {
                Ok(ordered) => span = Some(ordered),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    // Those whose time had come have waited until now, at least.
                    while moment <= Instant::now() {
                        record(moment, span);
                        moment += INTERVAL;
                    }
                    return Ok(latencies);
                }
            }
        }
        write()?;
        record(moment, span);
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
        let now = Instant::now();
        sample.measure(now + 2 * INTERVAL, now + Duration::from_secs(60));
        thread::sleep(4 * INTERVAL);
        let found = sample.stop().unwrap();
        assert!((1..=3).contains(&found.len()), "without a warm-up: {}", found.len());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(DiskSample::start(Path::new("/proc/none")).is_err());
    }

    #[test]
    fn a_disk_that_stands_still_is_charged_for_all_that_waits() {
        let (orders, ordered) = channel();
        let now = Instant::now();
        orders.send((now, now + Duration::from_secs(60))).unwrap();
        let mut orders = Some(orders);
        // The first write takes four intervals, and then it is over.
        let found = sample(&ordered, || {
            thread::sleep(4 * INTERVAL);
            orders.take();
            Ok(())
        });
        let found = found.unwrap();
        assert!((4..=6).contains(&found.len()), "{}", found.len());
        assert!(found.value_at_percentile(50.0) > 90_000, "{}", found.value_at_percentile(50.0));
    }
}
