//! The commands of `vltava`.

pub mod logging;
pub mod serve;
