//! Small values by key, durable when their writer is told so: votes and marks of a shard's raft
//! groups.
//!
//! One [`KeyedJournal`] belongs to one shard, and has two files that hold the same. What must hold:
//!
//! - [`KeyedJournal::set`] returns when the value, or a newer one of the same key, is on stable
//!   storage in both files. All that is set while a write is under way goes with the next: one
//!   write, for all groups that vote at once.
//! - Damage to one of the files loses nothing. What is damaged in both is never taken for "never
//!   set": it is [`Recorded::Lost`], also after it was written anew, until it is set again.
//! - At start the files of all shards are read, once, before any shard opens its own
//!   ([`load_journals`]): the value with the highest sequence number of a key counts. Numbers are
//!   Lamport's: each write's is above all that its shard has seen, at start or with a group that
//!   moved to it ([`KeyedJournal::take`]).
//! - A failed write ends the journal: nothing is answered any more until a restart.
//! - A shard whose groups set nothing writes nothing, and has no files.
//!
//! A file is a row of frames (see `frame`). The first ones are all values as of a frame number, the
//! *base*; each behind them is a *change*, with the next number. Who reads takes the newest whole
//! base of the two files, and all changes behind it that either has; a number that is in neither,
//! with another behind it, is damage. So a torn end is none: a change is begun when the one before
//! it is durable in both. When a file has grown beyond twice its base, one with a new base takes
//! its place, and never of both at once. The first write of a run replaces both, one after the
//! other: what a stop tore is behind nothing then.
//!
//! | file | subject |
//! |---|---|
//! | `frame` | bytes of a frame; what can be read of a damaged one |
//! | `load` | what the files of all shards say, and what they lost |
//! | `journal` | the open journal of a shard |

mod frame;
mod journal;
mod load;

pub use self::frame::VALUE_BYTES_MAX;
pub use self::journal::{Given, KeyedJournal};
pub use self::load::{LoadedJournals, Recorded, load_journals};
