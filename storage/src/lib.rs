//! The log on disk.
//!
//! Everything here reaches a file through [`io`] only, and learns the time from its caller. It
//! spawns nothing, holds no lock across shards, and chooses no Kafka error codes. One
//! [`LogEnvironment`] belongs to one shard; so does each [`Log`] opened in it.
//!
//! What must hold, whatever happens (see `docs/invariants.md` for where each is asserted and
//! tested):
//!
//! 1. What [`Log::write_pending`] has returned as flushed is on stable storage, and is there after
//!    any crash, once, in order.
//! 2. Nothing above the flushed end is ever read.
//! 3. After a failed write or sync nothing more is acknowledged on that log until it is opened
//!    again.
//! 4. A full disk changes nothing: what could not be written was never appended.
//! 5. What was cut never comes back: the file is shortened, durably, before anything is written
//!    behind the cut.
//! 6. Damage is reported, never cut silently: only what was never acknowledged may be cut.
//! 7. The last block is written again only with the same prefix.
//! 8. Files that stand under a final name are whole.
//! 9. Zeros that are written ahead go only where no append was begun, and the file is not cut
//!    meanwhile.
//!
//! From the ground up; a module names only those before it:
//!
//! | module | subject |
//! |---|---|
//! | `io`, `layout` | the disk; names of files |
//! | `options`, `error` | what callers decide; what goes wrong |
//! | `leader_epochs`, `retention` | pure: epochs, what may go |
//! | `producer_state`, `refused` | pure: producers, those that a full disk refused |
//! | `checkpoint`, `notes`, `log_checkpoint`, `partition_files` | written beside the batches |
//! | `header`, `index`, `segment`, `scan` | one segment, and how it is read through |
//! | `buffer_supply`, `batch_cache`, `chunks`, `environment` | what the logs of a shard share |
//! | `append_queue`, `zero_ahead`, `state` | what an open log holds in memory |
//! | `appender`, `header_walk`, `reader`, `lookup` | what is done with it |
//! | `cut`, `recovery`, `verify` | and with all of it |
//! | `log` | all of it, as its users see it |

mod error;
pub mod io;
mod layout;
mod leader_epochs;
mod options;
pub mod producer_state;
mod retention;

mod append_queue;
mod appender;
mod batch_cache;
mod buffer_supply;
mod checkpoint;
mod chunks;
mod cut;
mod environment;
mod header;
mod header_walk;
mod index;
mod log;
mod log_checkpoint;
mod lookup;
mod notes;
mod partition_files;
mod reader;
mod recovery;
mod refused;
mod scan;
mod segment;
mod state;
#[cfg(test)]
mod testing;
mod verify;
mod zero_ahead;

pub use self::environment::{LogEnvironment, StorageEvent};
pub use self::error::{Corruption, StorageError, StorageResult};
pub use self::header::{AppendBatch, AppendBatches, InvalidBatch};
pub use self::leader_epochs::EpochEnd;
pub use self::log::{Appended, CorruptLog, Log, Opened};
pub use self::lookup::TimestampOffset;
pub use self::notes::{LoadedNotes, Note, Notes, load_notes};
pub use self::options::{AppendClass, EnvironmentOptions, LogOptions};
pub use self::partition_files::{partition_directories, remove_leftovers, remove_log, topic_id_of};
pub use self::reader::ReadResult;
pub use self::recovery::Loss;
pub use self::retention::SegmentFacts;
