//! Kafka's wire protocol as types: messages in every version, record batches, compression.
//!
//! No I/O, no async, no clock. Bytes in, values out; values in, bytes out.
#![forbid(unsafe_code)]

pub mod batch;
pub mod batch_builder;
pub mod compression;
pub mod control;
pub mod encode;
pub mod record;
pub mod types;
