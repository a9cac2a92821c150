//! The facade: one partition's log.
//!
//! A [`Log`] belongs to one shard; all its calls may overlap. `append` gives batches their offsets
//! and returns at once; they are acknowledged by the flushed end that [`Log::write_pending`]
//! returns, and can be read from then on. A [`CorruptLog`] is a damaged one, until somebody
//! decides.

mod corrupt;
mod facade;
mod opening;
mod replace;

pub use self::corrupt::CorruptLog;
pub use self::facade::Log;
pub use self::opening::Opened;
pub use self::replace::{is_set_aside, remove_damaged, remove_damaged_of_gone};
