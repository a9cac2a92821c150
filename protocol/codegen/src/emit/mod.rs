//! Writes the structures of one module: fields, defaults, decoding and encoding in every version.
//!
//! The source is plain on purpose (`if version >= 9`, calls of the reader and the writer, no
//! generics): there is much of it, and it is compiled with every build.

mod decode;
mod encode;
mod structure;

pub use structure::emit_module;
pub(crate) use structure::struct_bytes_min;

#[cfg(test)]
mod tests;
