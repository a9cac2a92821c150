//! Kafka's wire protocol as types: messages in every version, record batches, compression.
//!
//! No I/O, no async, no clock. Bytes in, values out; values in, bytes out.
//!
//! [`decode`] and [`encode`] are what generated code is made of. Decoding borrows from the buffer
//! by reference count, never panics, and allocates no more than the bytes that remain justify;
//! encoding puts record data in by reference.
#![forbid(unsafe_code)]

pub mod batch;
pub mod batch_builder;
pub mod compression;
pub mod control;
pub mod decode;
pub mod encode;
pub mod error_code;
pub mod record;
pub mod types;
