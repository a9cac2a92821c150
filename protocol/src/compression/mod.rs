//! The codecs of record batches: gzip, snappy, lz4, zstd.
//!
//! What a client sent is decompressed into a buffer that is used again, never larger than the bound
//! the caller gives and never larger than what the compressed bytes can justify by their format: a
//! bomb is [`CompressionError::TooLarge`], before memory is taken. A whole batch is one piece; its
//! CRC has been checked before, so checksums inside the formats are checked only because other
//! clients check them and would stumble.
//!
//! Level numbers are those of Kafka's `compression.gzip.level` and `compression.zstd.level`. lz4 is
//! always written at its fast level:
//! `compression.lz4.level` chooses how hard Java's compressor tries, not what is written.

mod codec;
mod compress;
mod decompress;
mod gzip;
mod lz4;
mod output;
mod snappy;
mod zstd;

pub use codec::{Codec, CompressionError};
pub use compress::{Compressor, compress};
pub use decompress::{Decompressor, decompress};

#[cfg(test)]
mod tests;
