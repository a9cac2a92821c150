//! A witness of what the rings are asked and what they answer, for tests that prove the order of
//! things: "nothing is acknowledged before a completed data-sync write covers it", "no rename
//! without a directory sync".

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::RawFd;

/// What one request to a ring does to the data directory or to a socket. Made from the submission
/// itself, not from the call that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A write into a file.
    Write {
        /// Relative to the data directory: its name when it was opened.
        path: String,
        /// What [`Operation::Open`] had for a result.
        descriptor: RawFd,
        /// Where it starts, in bytes.
        position: u64,
        /// What it writes.
        content: Vec<u8>,
        /// Whether it carries `RWF_DSYNC`.
        data_sync: bool,
    },
    /// `fsync` (or `fdatasync`) of a file or a directory; the root is ".".
    Sync {
        /// Relative to the data directory: its name when it was opened.
        path: String,
        /// What [`Operation::Open`] had for a result; the root is open from the beginning.
        descriptor: RawFd,
    },
    /// Opens a file or a directory. Its result is the descriptor.
    Open {
        /// Relative to the data directory; absolute where an open file is opened once more.
        path: String,
        /// Whether it makes the file.
        create: bool,
    },
    /// Renames.
    Rename {
        /// The old name, relative to the data directory.
        from: String,
        /// The new name, relative to the data directory.
        to: String,
    },
    /// Removes a file or an empty directory.
    Remove {
        /// Relative to the data directory.
        path: String,
    },
    /// Makes a directory.
    CreateDirectory {
        /// Relative to the data directory.
        path: String,
    },
    /// Allocates a range.
    Allocate {
        /// Relative to the data directory: its name when it was opened.
        path: String,
        /// What [`Operation::Open`] had for a result.
        descriptor: RawFd,
        /// Where it starts, in bytes.
        position: u64,
        /// Its length, in bytes.
        len: u64,
    },
    /// Cuts or extends a file. Before Linux 6.9 no ring can, and nothing is seen of it.
    SetLength {
        /// Relative to the data directory: its name when it was opened.
        path: String,
        /// What [`Operation::Open`] had for a result.
        descriptor: RawFd,
        /// The length afterwards, in bytes.
        len: u64,
    },
    /// Waits for a connection.
    Accept,
    /// Sends to a peer; its result is how many bytes were sent. What is left is sent again.
    Send {
        /// To whom, where that is known.
        peer: Option<SocketAddr>,
        /// What is to be sent.
        content: Vec<u8>,
    },
    /// Reads from a file, asks for read-ahead, waits for a socket or receives: changes nothing on
    /// disk.
    Other(&'static str),
}

/// Sees every request of every shard. Called on the shard's thread, in the order in which the ring
/// sees it; must be quick.
pub trait Recorder: fmt::Debug + Send + Sync {
    /// The request goes to the kernel. `id` is unique within the shard.
    fn submitted(&self, shard: usize, id: u64, operation: &Operation);

    /// It is done: bytes or a descriptor where not negative, else the negated error number. Comes
    /// before the task that waits for it runs.
    fn completed(&self, shard: usize, id: u64, result: i32);
}
