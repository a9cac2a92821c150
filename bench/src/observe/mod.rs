//! What else is known of a run: the machine, what processes take, how the disk does.
//!
//! - [`machine`]: what the harness runs on. [`process`]: what a process and its threads take.
//!   [`family`]: the same of a broker of several processes. [`disk`]: small synchronous writes
//!   beside the run. [`cache`]: the page cache, and reads past it.

pub mod cache;
pub mod disk;
pub mod family;
pub mod machine;
pub mod process;
