//! Records of internal topics, and what stands inside byte fields; generated from `schema/record/`.
//!
//! A record with a key has `NameKey::to_key_bytes` and `NameValue::{to_value_bytes,
//! from_value_bytes}`; the module's `Key` reads a key of any type. A record without key has
//! `to_bytes`; the module's `Record` reads one of any type. What has neither is framed by
//! [`crate::message::to_versioned_bytes`] where it begins with its version.
#![allow(missing_docs, reason = "a field whose name says it all has no documentation")]
#![allow(
    clippy::all,
    unused_imports,
    unused_variables,
    reason = "generated: every function has the same parameters, every module the same imports"
)]

include!(concat!(env!("OUT_DIR"), "/records.rs"));
