//! The seam between the log and the machine: what a disk is, and what each call promises.
//!
//! Two implementations exist: the machine's (broker, `runtime::file`) and the faulty one in memory
//! (`fault_disk`), which does exactly what is promised here and no more. Each call says what is
//! true after it returns, after it fails, and after a crash. Paths are relative to the disk's root
//! (the data directory) and use `/`.

mod aligned;
#[cfg(any(test, feature = "simulator"))]
pub mod fault_disk;
mod pool;
mod region;

use std::any::Any;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

pub use self::aligned::{AlignedBlocks, AlignedBuffer, BLOCK_BYTES};
pub use self::pool::BufferPool;

/// Where the block begins that holds a position.
pub fn block_start(position: u64) -> u64 {
    position - position % BLOCK_BYTES as u64
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Exists; is only read.
    Read,
    /// Exists; is only read, mostly with [`File::begin_read`].
    ReadBlocks,
    /// Exists; is read and written.
    Write,
    /// Does not exist yet (else [`IoErrorKind::AlreadyExists`]); is read and written. The name is
    /// durable only after [`Disk::sync_dir`] of its directory.
    Create,
}

/// Whether a write is durable when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives the process, not the machine.
    Written,
    /// Survives the machine: data and the metadata needed to read it back (`RWF_DSYNC`).
    Flushed,
}

/// What went wrong, as far as a caller acts differently on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoErrorKind {
    /// No such file or directory.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// No space, or no quota, is left.
    Full,
    /// The process, or the system, has no descriptor left: nothing was opened.
    NoDescriptor,
    /// The disk is read-only, or permission is missing.
    ReadOnly,
    /// Anything else (EIO above all): what the file holds is no longer known.
    Failed,
}

/// An I/O error: what was tried, on which path, and why it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} {path}: {message}")]
pub struct IoError {
    /// What a caller may act on.
    pub kind: IoErrorKind,
    /// What was tried: "write", "open" ...
    pub operation: &'static str,
    /// The path, relative to the disk's root.
    pub path: String,
    /// The system's own words.
    pub message: String,
}

impl IoError {
    /// The error of a sync: whatever it says, nothing is known to be durable any more.
    pub(crate) fn of_sync(self) -> Self {
        Self { kind: IoErrorKind::Failed, ..self }
    }
}

/// Result of an I/O call.
pub type IoResult<T> = Result<T, IoError>;

/// Who waits for work that is done beside the thread that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// Somebody does.
    Soon,
    /// Nobody does: it is done where a core has nothing else to do.
    WhenIdle,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirectoryEntry {
    /// Name, without its directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
}

/// Space of the file system that a disk's root lies on, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What could be written before [`IoErrorKind::Full`].
    pub free: u64,
    /// All.
    pub total: u64,
}

/// A directory tree with files: the data directory.
pub trait Disk: Clone + 'static {
    /// An open file of this disk.
    type File: File;

    /// Opens a file. On error nothing has changed.
    async fn open(&self, path: &str, mode: OpenMode) -> IoResult<Self::File>;

    /// The entries of a directory, sorted by name.
    async fn list(&self, directory: &str) -> IoResult<Vec<DirectoryEntry>>;

    /// Creates a directory; succeeds where it exists. Durable after [`Disk::sync_dir`] of its
    /// parent.
    async fn create_dir(&self, directory: &str) -> IoResult<()>;

    /// Gives a file or directory another name, atomically; replaces a file of that name. After a
    /// crash one of the two names stands; which one is certain only after [`Disk::sync_dir`] of
    /// both directories.
    async fn rename(&self, from: &str, to: &str) -> IoResult<()>;

    /// Removes a file. Files that are open stay readable through their handle. Durable after
    /// [`Disk::sync_dir`].
    async fn remove_file(&self, path: &str) -> IoResult<()>;

    /// Removes an empty directory.
    async fn remove_dir(&self, directory: &str) -> IoResult<()>;

    /// Makes names in this directory durable. After an error they are unknown: also those that
    /// others changed before, and also where a later call succeeds.
    async fn sync_dir(&self, directory: &str) -> IoResult<()>;

    /// How many calls of [`Disk::sync_dir`] of the root have failed, of all who share this disk.
    fn root_syncs_failed(&self) -> u64;

    /// [`Disk::sync_dir`] after names were changed there: an error, too, where a call of somebody
    /// else has failed since `failed` of the root had ([`Disk::root_syncs_failed`]), which was
    /// asked before they were changed. Only the root is shared.
    async fn sync_names(&self, directory: &str, failed: u64) -> IoResult<()> {
        self.sync_dir(directory).await?;
        if directory.is_empty() && self.root_syncs_failed() != failed {
            return Err(IoError {
                kind: IoErrorKind::Failed,
                operation: "sync directory",
                path: directory.to_owned(),
                message: "a sync of it for somebody else has failed meanwhile".to_owned(),
            });
        }
        Ok(())
    }

    /// Renames within a directory, durably once this returns.
    async fn rename_durably(&self, from: &str, to: &str, directory: &str) -> IoResult<()> {
        let failed = self.root_syncs_failed();
        self.rename(from, to).await?;
        self.sync_names(directory, failed).await.map_err(IoError::of_sync)
    }

    /// Whether [`File::begin_read`] goes past a cache of the system's. Where it does not, what is
    /// sent to a socket is better left to [`File::source`].
    fn reads_past_cache(&self) -> bool;

    /// Space left. Cheap enough to ask once a second.
    async fn space(&self) -> IoResult<Space>;

    /// Does work that takes milliseconds, and needs nothing of this disk, beside the thread that
    /// asks; after what was asked for before with the same haste. `Err`: it may not have been done.
    async fn beside<T: Send + 'static>(
        &self,
        haste: Haste,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> IoResult<T>;
}

/// An open file. A clone is the same open file. Offsets and lengths are in bytes.
#[expect(
    clippy::len_without_is_empty,
    reason = "the length is asked of the system; nobody asks whether it is zero"
)]
pub trait File: Clone + 'static {
    /// Writes whole blocks at a position that is a multiple of [`BLOCK_BYTES`], past the page cache
    /// where the file system allows it. Short writes are continued inside.
    ///
    /// `Ok`: all is written, and durable where asked for. `Err(Full)`: a prefix may be written;
    /// nothing else has changed. Other errors: what those blocks hold is unknown, and no later call
    /// may be taken for proof that they are durable. After a crash an unflushed write may be there
    /// in part, torn at any multiple of 512 bytes.
    ///
    /// Of two writes at once to the same block either may come last: nobody makes them. A write
    /// that nobody waits for any more goes on, where the process does.
    async fn write_at(
        &self,
        blocks: AlignedBlocks,
        position: u64,
        durability: Durability,
    ) -> IoResult<()>;

    /// Reads up to `len` bytes; fewer only at the end of the file. Sees every write that has
    /// returned.
    async fn read_at(&self, position: u64, len: usize) -> IoResult<Bytes>;

    /// Reads `len` bytes from a position that is a multiple of [`BLOCK_BYTES`] into the buffer,
    /// which has room for the whole blocks they lie in. Sees every write that has returned; fewer
    /// bytes only at the end of the file. The read is under way when this returns, whether or not
    /// anybody waits for it; a disk may put off some of many.
    fn begin_read(
        &self,
        position: u64,
        len: usize,
        buffer: AlignedBuffer,
    ) -> impl Future<Output = IoResult<AlignedBuffer>> + 'static;

    /// Allocates space for `[position, position + len)` and makes the file at least that long; what
    /// was never written reads as zeros. `Err(Full)`: nothing has changed. Durable after
    /// [`File::sync`].
    async fn allocate(&self, position: u64, len: u64) -> IoResult<()>;

    /// Makes the file exactly this long; space allocated beyond is given back. Durable after
    /// [`File::sync`].
    async fn set_len(&self, len: u64) -> IoResult<()>;

    /// Makes everything written, and the length, durable. After an error nothing is known to be,
    /// then or later.
    async fn sync(&self) -> IoResult<()>;

    /// Length in bytes.
    async fn len(&self) -> IoResult<u64>;

    /// The first block that something may stand in that was written, of the one that holds
    /// `position` and those behind it: where it begins, a multiple of [`BLOCK_BYTES`]. From
    /// `position` up to there all reads as zeros. `None`: up to the end.
    async fn next_data(&self, position: u64) -> IoResult<Option<u64>>;

    /// What a connection of the same runtime needs to send a range of this file without copying it
    /// (`protocol::encode::ExternalBytes::source`). Keeps the file open while it lives; may cross
    /// threads.
    fn source(&self) -> Arc<dyn Any + Send + Sync>;
}
