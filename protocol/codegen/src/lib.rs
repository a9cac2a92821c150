//! Schema text in, Rust source out.
