//! A small Kafka client over `vltava-protocol`, shared by the load harness and by `vltava`'s own
//! commands.
//!
//! The core does no I/O and reads no clock: requests and bytes come out, answers and bytes go in,
//! and the time is a parameter, in milliseconds of any clock that does not go back. Whoever has
//! sockets can drive it: [`blocking`] does so with `std::net`, for commands; the harness brings its
//! own.
//!
//! - [`connection`]: one connection: framing, versions, what is in flight.
//! - [`metadata`]: who leads what. [`partitioner`]: where a key goes.
//! - [`producer`]: batches, sequences, retries. [`fetcher`]: positions, and fetches without
//!   sessions. [`records`]: what is in an answer.
//! - [`group`]: membership in a classic group; [`assignor`] is what its members tell each other.
//! - [`offsets`]: looking up, fetching and committing offsets.
//! - [`blocking`]: all of it over blocking sockets.
#![forbid(unsafe_code)]

pub mod assignor;
pub mod backoff;
pub mod blocking;
pub mod connection;
pub mod error;
pub mod fetcher;
pub mod group;
pub mod metadata;
pub mod offsets;
pub mod partitioner;
pub mod producer;
pub mod records;
