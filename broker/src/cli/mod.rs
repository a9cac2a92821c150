//! The commands of `vltava`: the broker's ([`serve`]), and those that are clients of any Kafka
//! broker, or of a file.
//!
//! `main.rs` nests [`ClientCommand`] among its own subcommands and calls [`run`]. A client command
//! lives on the process's one thread and blocks; nothing of it runs in a broker. Records and tables
//! go to standard output, everything else to standard error. The exit codes are in [`error`].

pub mod error;
pub mod logging;
pub mod serve;

mod arguments;
mod cluster;
mod command;
mod consume;
mod format;
mod group;
mod inspect;
mod json;
mod manual;
mod member;
mod output;
mod position;
mod produce;
mod progress;
mod reading;
mod repair;
mod timestamp;
mod topic;

pub use command::{ClientCommand, run};
pub use error::CliError;
pub use output::tell;
