//! gzip (RFC 1952), through `flate2`.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::codec::{Codec, CompressionError};
use super::output::Output;

/// What zlib calls its default, -1.
pub(super) const LEVEL_DEFAULT: u32 = 6;

/// How much room is made at a time.
const STEP_BYTES: usize = 32 * 1024;
/// What deflate can make of a byte, at most 1032 (258 bytes for 2 bits).
const RATIO_MAX: usize = 1032;

pub(super) fn decompress(payload: &[u8], output: &mut Output<'_>) -> Result<(), CompressionError> {
    let mut decoder = MultiGzDecoder::new(payload);
    let step = STEP_BYTES.min(payload.len().saturating_mul(RATIO_MAX));
    loop {
        let full = output.room() == 0;
        let mut probe = [0];
        let (_, tail) = output.tail(step);
        // With no room left, one byte more tells whether that was all.
        let read = decoder.read(if full { &mut probe } else { tail });
        match read {
            Ok(0) => return Ok(()),
            Ok(_) if full => return Err(output.too_large()),
            Ok(count) => output.advance(count),
            Err(_) => {
                return Err(CompressionError::corrupt(Codec::Gzip, "a broken or truncated stream"));
            }
        }
    }
}

pub(super) fn compress(
    payload: &[u8],
    level: u32,
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    // A `Vec` takes all that is written: there is no error to tell apart.
    let failed = |_| CompressionError::Library(Codec::Gzip);
    let mut encoder = GzEncoder::new(out, Compression::new(level));
    encoder.write_all(payload).map_err(failed)?;
    encoder.finish().map_err(failed)?;
    Ok(())
}
