//! Requests and responses, one module per API; generated from `schema/api/`.
//!
//! A structure implements [`crate::message::Message`], a request [`crate::message::Request`]. Field
//! names are Kafka's, in snake case. A field that a version lacks has its default after decoding.
#![allow(missing_docs, reason = "a field whose name says it all has no documentation")]
#![allow(
    clippy::all,
    unused_imports,
    unused_variables,
    reason = "generated: every function has the same parameters, every module the same imports"
)]

include!(concat!(env!("OUT_DIR"), "/messages.rs"));
