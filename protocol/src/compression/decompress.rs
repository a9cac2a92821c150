//! One codec's bytes in, the records out.

use super::codec::{Codec, CompressionError};
use super::output::Output;
use super::{gzip, lz4, snappy, zstd};

/// Decompresses batch after batch into one buffer, which it keeps.
#[derive(Default)]
pub struct Decompressor {
    buffer: Vec<u8>,
    zstd: zstd::Decoder,
}

impl Decompressor {
    /// One that has no buffer yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The records of a payload; as they are where `codec` is none. Never more than `bytes_max`
    /// bytes.
    pub fn decompress<'a>(
        &'a mut self,
        codec: Codec,
        payload: &'a [u8],
        bytes_max: usize,
    ) -> Result<&'a [u8], CompressionError> {
        let mut output = Output::new(&mut self.buffer, bytes_max);
        match codec {
            Codec::None if payload.len() > bytes_max => return Err(output.too_large()),
            Codec::None => return Ok(payload),
            Codec::Gzip => gzip::decompress(payload, &mut output)?,
            Codec::Snappy => snappy::decompress(payload, &mut output)?,
            Codec::Lz4 => lz4::decompress(payload, &mut output)?,
            Codec::Zstd => self.zstd.decompress(payload, &mut output)?,
        }
        Ok(output.finish())
    }

    /// What the buffer holds of memory, in bytes.
    pub fn buffer_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives back the buffer where it has grown past `bytes_max`.
    pub fn shrink(&mut self, bytes_max: usize) {
        if self.buffer.capacity() > bytes_max {
            self.buffer = Vec::new();
        }
    }
}

/// The records of a payload, owned. For many payloads keep a [`Decompressor`].
pub fn decompress(
    codec: Codec,
    payload: &[u8],
    bytes_max: usize,
) -> Result<Vec<u8>, CompressionError> {
    let mut decompressor = Decompressor::new();
    let len = match decompressor.decompress(codec, payload, bytes_max)? {
        whole if codec == Codec::None => return Ok(whole.to_vec()),
        records => records.len(),
    };
    decompressor.buffer.truncate(len);
    Ok(decompressor.buffer)
}
