//! The admin port: metrics for Prometheus, health and readiness, over HTTP.
//!
//! A [`view::View`] lives on every shard and says how that shard stands; the HTTP server lives on
//! shard 0, asks all views, adds up and answers. It serves while the node starts, and until it
//! stops. What is on a page stands in one table, [`catalogue`], from which `docs/metrics.md` is
//! made; [`exposition`] is the text format, [`report`] what travels between shards, `pages` what is
//! served and `http` how. [`shards`]: which shard has which partition, and moves
//! by hand; [`recover`]: what an operator decides where no majority is left.
//!
//! Invariants:
//! - A page costs a bounded time on each shard: above a number of partitions (or of committed
//!   offsets) the lines for each are left out, and a gauge says so.
//! - Whatever is sent to the port costs a bounded memory and time, and ends in an answer or a
//!   closed connection.
//! - A shard that does not answer makes a page fail, not wait: sums never leave out a shard.

pub mod catalogue;
pub mod exposition;
pub mod http;
pub mod pages;
pub mod recover;
pub mod report;
pub mod server;
pub mod shards;
pub mod view;
