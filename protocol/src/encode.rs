//! Segmented writer: what is small is copied, record data goes in by reference.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// Bytes that are not in memory: a range of a file that whoever sends the answer knows how to send.
#[derive(Clone)]
pub struct ExternalBytes {
    /// Names the file, to the runtime that opened it; keeps it open.
    pub source: Arc<dyn Any + Send + Sync>,
    /// Where the range starts, in bytes.
    pub position: u64,
    /// Its length, in bytes.
    pub len: usize,
}

impl fmt::Debug for ExternalBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExternalBytes({}..+{})", self.position, self.len)
    }
}

/// A piece of an answer.
#[derive(Clone, Debug)]
pub enum Part {
    /// In memory.
    Memory(Bytes),
    /// Elsewhere.
    External(ExternalBytes),
}
