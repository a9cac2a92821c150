//! What else is known of a run: the machine, what processes take, how the disk does.
//!
//! - [`machine`]: what the harness runs on. [`process`]: what a process and its threads take.

pub mod machine;
pub mod process;
