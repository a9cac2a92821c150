//! The faulty disk: a directory tree in memory that does exactly what `io` promises, and no more.
//!
//! Everything comes from one seed: which sectors of a torn write arrive, which unflushed writes and
//! names survive a crash. A [`FaultDisk`] counts its changing operations, so that a test can crash,
//! fail or fill up at each of them; it also takes damage by hand (flipped bits, zeroed ranges, cut
//! files). Behind the feature `simulator`.
//!
//! - `image`: one file as the process sees it, and as the platter may hold it.
//! - `tree`: names, as the process sees them, and as they may survive.
//! - `disk`: the trait `Disk` over both, and the faults. `file`: the trait `File`.

mod disk;
mod file;
mod image;
mod tree;

pub use self::disk::{Fault, FaultDisk, Latency, Operation};
pub use self::file::{FaultFile, FaultSource};
