//! What else is known of a run: the machine, what processes take, how the disk does.
//!
//! - [`machine`]: what the harness runs on.

pub mod machine;
