//! Records in, one codec's bytes out.

use super::codec::{Codec, CompressionError};
use super::{gzip, lz4, snappy, zstd};

/// Compresses payload after payload with one codec at one level.
pub struct Compressor {
    codec: Codec,
    engine: Engine,
}

enum Engine {
    None,
    Gzip(u32),
    Snappy(Box<snappy::Encoder>),
    Lz4,
    Zstd(zstd::Encoder),
}

impl Compressor {
    /// For `codec`, at Kafka's default level or at `level`, which must be one of [`Codec::levels`].
    pub fn new(codec: Codec, level: Option<i32>) -> Result<Self, CompressionError> {
        // Kafka's -1 is gzip's own default.
        let level = level.filter(|level| (codec, *level) != (Codec::Gzip, -1));
        if let Some(level) = level
            && codec.levels().is_some_and(|levels| !levels.contains(&level))
        {
            return Err(CompressionError::Level { codec, level });
        }
        let engine = match codec {
            Codec::None => Engine::None,
            Codec::Gzip => {
                let level = level.and_then(|level| u32::try_from(level).ok());
                Engine::Gzip(level.unwrap_or(gzip::LEVEL_DEFAULT))
            }
            Codec::Snappy => Engine::Snappy(Box::default()),
            Codec::Lz4 => Engine::Lz4,
            Codec::Zstd => Engine::Zstd(zstd::Encoder::new(level.unwrap_or(zstd::LEVEL_DEFAULT))?),
        };
        Ok(Self { codec, engine })
    }

    /// Which codec it was made for.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Appends the compressed form of `payload` to `out`.
    pub fn compress(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
        match &mut self.engine {
            Engine::None => {
                out.extend_from_slice(payload);
                Ok(())
            }
            Engine::Gzip(level) => gzip::compress(payload, *level, out),
            Engine::Snappy(encoder) => encoder.compress(payload, out),
            Engine::Lz4 => lz4::compress(payload, out),
            Engine::Zstd(encoder) => encoder.compress(payload, out),
        }
    }
}

/// Appends the compressed form of `payload` to `out`. For many payloads keep a [`Compressor`].
pub fn compress(
    codec: Codec,
    level: Option<i32>,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    Compressor::new(codec, level)?.compress(payload, out)
}
