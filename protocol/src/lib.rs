//! Kafka's wire protocol as types: messages in every version, record batches, compression.
//!
//! No I/O, no async, no clock. Bytes in, values out; values in, bytes out.
//!
//! - [`messages`]: requests and responses of the broker's APIs, one module per API, generated from
//!   `schema/api/`.
//! - [`records`]: what stands in internal topics and inside other fields, generated from
//!   `schema/record/`.
//! - [`api`]: the one table of APIs. [`error_code`]: the one table of errors.
//! - [`frame`]: length prefix and headers, around messages.
//! - [`batch`]: record batches in place, with [`record`] and [`control`]; [`batch_builder`] makes
//!   them, [`compression`] has the codecs.
//! - [`decode`] and [`encode`] are what generated code is made of. Decoding borrows from the buffer
//!   by reference count, never panics, and allocates no more than the bytes that remain justify;
//!   encoding puts record data in by reference.
//!
//! How messages are written down is in `schema/README.md`; the generator is the crate in
//! `codegen/`.
#![forbid(unsafe_code)]

pub mod api;
pub mod batch;
pub mod batch_builder;
pub mod compression;
pub mod control;
pub mod decode;
pub mod encode;
pub mod error_code;
pub mod frame;
pub mod message;
pub mod messages;
pub mod record;
pub mod records;
pub mod types;

include!(concat!(env!("OUT_DIR"), "/registry.rs"));
