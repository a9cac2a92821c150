//! Schema text in, Rust source out.
//!
//! The grammar is described in `protocol/schema/README.md`. [`parse`] reads one file into the
//! [`model`] and checks it; an error names file and line. [`emit`] writes the structures of one
//! module with their decoding and encoding, [`tables`] what lists them all. [`generate`] does a
//! whole directory, for a build script.
#![forbid(unsafe_code)]

mod check;
pub mod emit;
pub mod generate;
pub mod model;
pub mod names;
pub mod parse;
pub mod tables;
