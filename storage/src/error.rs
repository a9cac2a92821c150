//! What can go wrong in the log, by who may do what about it.

use thiserror::Error;

use crate::io::{IoError, IoErrorKind};

/// Result of a storage call.
pub type StorageResult<T> = Result<T, StorageError>;

/// Something on disk that is not what was written, and that must not be cut away silently.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{path} is damaged at byte {position} (offset {offset}): {what}")]
pub struct Corruption {
    /// Relative to the data directory.
    pub path: String,
    /// Where in the file, in bytes.
    pub position: u64,
    /// The first offset that cannot be proved.
    pub offset: i64,
    /// What was found.
    pub what: String,
}

/// Why a storage call did not do what it was asked.
#[derive(Clone, Debug, Error)]
pub enum StorageError {
    /// No space is left, or less than the reserve. Nothing has changed; later appends work again
    /// once there is space.
    #[error("no space for the log: {0}")]
    Full(String),
    /// No descriptor is left for a file of the log. Nothing has changed; it works again once there
    /// is one.
    #[error("no descriptor is left for the log (ulimit -n, LimitNOFILE=): {0}")]
    NoDescriptor(IoError),
    /// A write or sync failed: what the files hold is no longer known. Nothing more is acknowledged
    /// on this log until it is opened again (after a restart); reads of what was flushed go on.
    #[error("the log ended with an I/O error: {0}")]
    Failed(IoError),
    /// A read failed. It may be tried again.
    #[error("the log cannot be read: {0}")]
    Unreadable(IoError),
    /// The log is damaged. An operator may accept the loss (`CorruptLog::accept_loss`).
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The log was made here, and its directory is gone.
    #[error(
        "{directory} is missing, and was here: it held what was written below offset \
         {flushed_end}; put it back and restart, or delete the topic"
    )]
    Missing {
        /// The log's directory.
        directory: String,
        /// Everything below was flushed, as far as is known.
        flushed_end: i64,
    },
    /// The offset is not in the log.
    #[error("offset {offset} is not within {start}..={end}")]
    OutOfRange {
        /// What was asked for.
        offset: i64,
        /// First offset of the log.
        start: i64,
        /// The end it was compared with.
        end: i64,
    },
    /// What a leader sent is not what comes next.
    #[error(
        "a batch at offset {offset} of epoch {leader_epoch} does not continue a log that ends at \
         {end}, in epoch {end_epoch}"
    )]
    NotContinued {
        /// Where the first batch begins.
        offset: i64,
        /// Its epoch.
        leader_epoch: i32,
        /// Where the log ends, queued batches included.
        end: i64,
        /// The epoch of the last batch; 0 where there is none.
        end_epoch: i32,
    },
    /// No log can begin like this.
    #[error("no log can begin like this: {0}")]
    InvalidBeginning(&'static str),
    /// The file is of a version that this program does not know.
    #[error("{path} has format version {found}; this program knows {known}")]
    Format {
        /// Relative to the data directory.
        path: String,
        /// What the file says.
        found: u32,
        /// What can be read.
        known: u32,
    },
    /// A batch that can be in no segment.
    #[error("a batch of {bytes} bytes is more than a segment may hold ({limit})")]
    BatchTooLarge {
        /// Its size.
        bytes: usize,
        /// The most a segment file can hold.
        limit: u64,
    },
    /// A value that no group may set.
    #[error("a value of {bytes} bytes is more than a group may set ({limit})")]
    ValueTooLarge {
        /// Its size.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// A log of this name exists already.
    #[error("{0} exists already")]
    AlreadyExists(String),
    /// The log is being truncated: nothing is appended meanwhile.
    #[error("the log is being truncated")]
    Truncating,
    /// The log was closed or removed.
    #[error("the log is closed")]
    Closed,
}

impl StorageError {
    /// An error while something was changed: no space and no descriptor are harmless, everything
    /// else ends the log.
    pub(crate) fn from_write(error: IoError) -> Self {
        match error.kind {
            IoErrorKind::Full => Self::Full(error.to_string()),
            IoErrorKind::NoDescriptor => Self::NoDescriptor(error),
            _ => Self::Failed(error),
        }
    }

    /// An error of a sync, of a file or a directory: what is durable is no longer known, also where
    /// it says that there is no space.
    pub(crate) fn from_sync(error: IoError) -> Self {
        Self::Failed(error.of_sync())
    }

    /// An error while something was read.
    pub(crate) fn from_read(error: IoError) -> Self {
        match error.kind {
            IoErrorKind::NoDescriptor => Self::NoDescriptor(error),
            _ => Self::Unreadable(error),
        }
    }
}
