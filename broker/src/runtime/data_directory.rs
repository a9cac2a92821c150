//! The data directory: that it can be used, and that nobody else does.
//!
//! Two locks. `.lock` is the process's own: it is free once the process is gone. But what a killed
//! process had asked of the kernel may go on: a write past the page cache that a disk or its queue
//! holds back lands a moment later, over what a new process has read and written there meanwhile.
//! So each ring holds the lock of the directory itself, too: the kernel lets go of it when the ring
//! is done with its last request. Nothing is read from the directory before.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use super::file::Descriptor;

/// Names the process that uses the data directory.
const LOCK_FILE: &str = ".lock";
/// Made and removed, to see that the directory takes files.
const PROBE_FILE: &str = ".probe";
/// How long it is waited in silence for the requests of a process that is gone.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// Why a data directory cannot be used. Nothing in it has been changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirectoryError {
    /// Another process holds its lock.
    #[error("data directory {0} is in use by another process")]
    InUse(PathBuf),
    /// It is not there.
    #[error("data directory {0} does not exist; make it first (mkdir -p)")]
    Missing(PathBuf),
    /// It cannot be written.
    #[error("data directory {path} cannot be used: {error}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// The system's own words.
        error: io::Error,
    },
}

/// The data directory of this process, locked against others while this lives. Shared by all
/// shards.
#[derive(Debug)]
pub struct DataDirectory {
    /// Absolute.
    pub(super) root: PathBuf,
    pub(super) directory: Arc<Descriptor>,
    pub(super) direct: bool,
    /// Syncs of the directory itself that failed.
    pub(super) syncs_failed: AtomicU64,
    _lock: fs::File,
}

impl DataDirectory {
    /// Locks an existing directory, sees that it takes files, and finds out whether its file system
    /// takes writes past the page cache. Waits for what a process that was killed had asked for.
    ///
    /// # Errors
    /// See [`DataDirectoryError`].
    pub fn open(path: &Path) -> Result<Self, DataDirectoryError> {
        let unusable = |error| DataDirectoryError::Unusable { path: path.to_owned(), error };
        let root = path.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DataDirectoryError::Missing(path.to_owned()),
            _ => unusable(error),
        })?;
        let directory = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(&root)
            .map_err(unusable)?;
        let lock_path = root.join(LOCK_FILE);
        let lock = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(&lock_path)
            .map_err(unusable)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => DataDirectoryError::InUse(root.clone()),
            fs::TryLockError::Error(error) => unusable(error),
        })?;
        await_requests(&directory, &root).map_err(unusable)?;
        probe(&root).map_err(unusable)?;
        let direct = fs::OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&lock_path)
            .is_ok();
        let directory = Arc::new(Descriptor::new(directory, "."));
        Ok(Self { root, directory, direct, syncs_failed: AtomicU64::new(0), _lock: lock })
    }

    /// Whether writes go past the page cache. Where the file system refuses that, they go through
    /// it, with the same data sync.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Absolute path.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// What a ring must hold for as long as the kernel works for it.
    pub(super) fn ring_lock(&self) -> RawFd {
        self.directory.as_raw_fd()
    }

    /// As on a file system that refuses `O_DIRECT`.
    #[cfg(test)]
    pub(super) fn refuse_direct(&mut self) {
        self.direct = false;
    }
}

/// Makes a file and removes it: a directory that was used has its lock file, also where nothing can
/// be made in it any more.
fn probe(root: &Path) -> io::Result<()> {
    let path = root.join(PROBE_FILE);
    fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o640).open(&path)?;
    fs::remove_file(&path)
}

/// Takes the lock that the rings of a process before may still hold. There is no such process any
/// more: its own lock is ours.
fn await_requests(directory: &fs::File, root: &Path) -> io::Result<()> {
    let mut warn_at = Some(Instant::now() + SILENCE_MAX);
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::Error(error)) => return Err(error),
            Err(fs::TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
        if warn_at.take_if(|at| *at <= Instant::now()).is_some() {
            tracing::warn!(
                directory = %root.display(),
                "waiting for the lock of the data directory itself: the disk has not done yet what \
                 a process that is gone had asked of it, or another program holds a lock there"
            );
        }
    }
}
