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
//! 10. What a leader sent stands in the log byte for byte, where it ends.
//! 11. A reset leaves the old log or the new one.
//! 12. A read gives what stood in the log all the time.
//! 13. A vote that was answered is there after any crash, and after damage to one of its files.
//! 14. A vote that is lost is known to be.
//! 15. What is mended is what was written, and nothing around it is another.
//!
//! From the ground up; a module names only those before it:
//!
//! | module | subject |
//! |---|---|
//! | `io`, `layout` | the disk; names of files |
//! | `options`, `error` | what callers decide; what goes wrong |
//! | `leader_epochs`, `retention` | pure: epochs, what may go |
//! | `producer_state`, `refused` | pure: producers, those that a full disk refused |
//! | `group_key` | pure: what names a raft group |
//! | `checkpoint`, `journal_file`, `notes` | written beside the batches: how, |
//! | `log_checkpoint`, `reset_record`, `partition_files` | and what |
//! | `header`, `index`, `segment`, `scan` | one segment, and how it is read through |
//! | `buffer_supply`, `batch_cache`, `chunks`, `environment` | what the logs of a shard share |
//! | `keyed_journal` | votes and marks of the shard's groups |
//! | `shard_exceptions` | which partitions are kept on another shard than the computed one |
//! | `append_queue`, `zero_ahead`, `state` | what an open log holds in memory |
//! | `appends`, `appender` | what is done with it: appending, |
//! | `header_walk`, `locate`, `reader`, `lookup`, `undisturbed` | and reading |
//! | `recovery`, `cut`, `reset`, `verify`, `mend` | and with all of it |
//! | `log` | all of it, as its users see it |

mod error;
mod group_key;
pub mod io;
mod layout;
mod leader_epochs;
mod options;
pub mod producer_state;
mod retention;

mod append_queue;
mod appender;
mod appends;
mod batch_cache;
mod buffer_supply;
mod checkpoint;
mod chunks;
mod cut;
mod environment;
mod header;
mod header_walk;
mod index;
mod journal_file;
mod keyed_journal;
mod locate;
mod log;
mod log_checkpoint;
mod lookup;
mod mend;
mod notes;
mod partition_files;
mod reader;
mod recovery;
mod refused;
mod reset;
mod reset_record;
mod scan;
mod segment;
mod shard_exceptions;
mod state;
#[cfg(test)]
mod testing;
mod undisturbed;
mod verify;
mod zero_ahead;

pub use self::appends::Appended;
pub use self::environment::{LogEnvironment, StorageEvent};
pub use self::error::{Corruption, StorageError, StorageResult};
pub use self::group_key::GroupKey;
pub use self::header::{AppendBatch, AppendBatches, InvalidBatch, ReplicatedBatches};
pub use self::keyed_journal::{
    Given, KeyedJournal, LoadedJournals, Recorded, VALUE_BYTES_MAX, load_journals,
};
pub use self::leader_epochs::EpochEnd;
pub use self::log::{
    CorruptLog, Log, Opened, is_set_aside, remove_damaged, remove_damaged_of_gone,
};
pub use self::lookup::TimestampOffset;
pub use self::notes::{LoadedNotes, Note, Notes, load_notes};
pub use self::options::{AppendClass, EnvironmentOptions, LogOptions};
pub use self::partition_files::{partition_directories, remove_leftovers, remove_log, topic_id_of};
pub use self::reader::ReadResult;
pub use self::recovery::Loss;
pub use self::retention::SegmentFacts;
pub use self::shard_exceptions::{ShardExceptions, read_shard_exceptions, write_shard_exceptions};
