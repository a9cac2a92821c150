//! The log on disk.
//!
//! Everything here reaches a file through [`io`] only, and learns the time from its caller.

pub mod io;
