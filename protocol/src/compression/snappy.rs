//! Snappy, through `snap`: raw blocks, and the framing of xerial's `snappy-java` that Kafka's
//! clients write around them.
//!
//! The framing: 8 bytes of magic, version i32, lowest compatible version i32, then blocks, each an
//! i32 length and a raw block. All big-endian. Streams may follow one another, each with its own
//! header, as `snappy-java` reads them.

use snap::raw;

use super::codec::{Codec, CompressionError};
use super::output::Output;

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const HEADER_BYTES: usize = 16;
/// Input of one block, as Java's producer has it.
const BLOCK_BYTES: usize = 32 * 1024;
/// What a byte can become: a copy of 3 bytes stands for 64 at most.
const RATIO_MAX: usize = 22;

pub(super) fn decompress(payload: &[u8], output: &mut Output<'_>) -> Result<(), CompressionError> {
    if !payload.starts_with(&MAGIC) {
        return decompress_block(payload, output);
    }
    let mut rest = payload;
    while !rest.is_empty() {
        if rest.starts_with(&MAGIC) {
            rest = rest.get(HEADER_BYTES..).ok_or(corrupt("a truncated header"))?;
            continue;
        }
        let (length, behind) = rest.split_first_chunk().ok_or(corrupt("a truncated length"))?;
        let length = usize::try_from(i32::from_be_bytes(*length))
            .map_err(|_| corrupt("a block of negative length"))?;
        let (block, behind) =
            behind.split_at_checked(length).ok_or(corrupt("a truncated block"))?;
        decompress_block(block, output)?;
        rest = behind;
    }
    Ok(())
}

fn decompress_block(block: &[u8], output: &mut Output<'_>) -> Result<(), CompressionError> {
    let announced = raw::decompress_len(block).map_err(|_| corrupt("no length"))?;
    if announced > output.room() {
        return Err(output.too_large());
    }
    if announced > block.len().saturating_mul(RATIO_MAX) {
        return Err(corrupt("a length that its bytes cannot hold"));
    }
    let (_, tail) = output.tail(announced);
    let written = raw::Decoder::new()
        .decompress(block, &mut tail[..announced])
        .map_err(|_| corrupt("a broken block"))?;
    output.advance(written);
    Ok(())
}

/// Writes xerial's framing.
pub(super) struct Encoder(raw::Encoder);

impl Default for Encoder {
    fn default() -> Self {
        Self(raw::Encoder::new())
    }
}

impl Encoder {
    pub(super) fn compress(
        &mut self,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CompressionError> {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&1_i32.to_be_bytes());
        out.extend_from_slice(&1_i32.to_be_bytes());
        for block in payload.chunks(BLOCK_BYTES) {
            let start = out.len() + size_of::<i32>();
            out.resize(start + raw::max_compress_len(block.len()), 0);
            let written = self
                .0
                .compress(block, &mut out[start..])
                .map_err(|_| CompressionError::Library(Codec::Snappy))?;
            let length = i32::try_from(written)
                .map_err(|_| CompressionError::Library(Codec::Snappy))?
                .to_be_bytes();
            out[start - length.len()..start].copy_from_slice(&length);
            out.truncate(start + written);
        }
        Ok(())
    }
}

fn corrupt(what: &'static str) -> CompressionError {
    CompressionError::corrupt(Codec::Snappy, what)
}
