//! Zstandard frames (RFC 8878), through `zstd`.
//!
//! Decompressed in one step into the output, so that a frame's window costs nothing: streaming
//! would allocate what the frame's header asks for, 128 MiB for 20 bytes. How much room that needs
//! at most is read from the frames' block headers first.

use zstd::bulk;
use zstd::zstd_safe::{compress_bound, max_c_level, min_c_level};

use super::codec::{Codec, CompressionError};
use super::output::Output;

/// Kafka's and zstd's.
pub(super) const LEVEL_DEFAULT: i32 = 3;

const MAGIC: u32 = 0xFD2F_B528;
const SKIPPABLE: u32 = 0x184D_2A50;
const SKIPPABLE_MASK: u32 = 0xFFFF_FFF0;
/// No block holds more.
const BLOCK_BYTES_MAX: u64 = 128 * 1024;

/// Keeps zstd's context, which is costly to make.
#[derive(Default)]
pub(super) struct Decoder(Option<bulk::Decompressor<'static>>);

impl Decoder {
    pub(super) fn decompress(
        &mut self,
        payload: &[u8],
        output: &mut Output<'_>,
    ) -> Result<(), CompressionError> {
        let bound = content_bytes_max(payload).ok_or(corrupt("broken frames"))?;
        let wanted = usize::try_from(bound).unwrap_or(usize::MAX);
        let clipped = output.room() < wanted;
        let decoder = match &mut self.0 {
            Some(decoder) => decoder,
            none => none.insert(
                bulk::Decompressor::new().map_err(|_| CompressionError::Library(Codec::Zstd))?,
            ),
        };
        let (_, tail) = output.tail(wanted);
        match decoder.decompress_to_buffer(payload, tail) {
            Ok(count) => {
                output.advance(count);
                Ok(())
            }
            // zstd does not say in a stable way that the room was too small; where it may have
            // been, that is the likelier.
            Err(_) if clipped => Err(output.too_large()),
            Err(_) => Err(corrupt("a broken frame")),
        }
    }
}

/// The most that the frames of `payload` can hold; `None` where they are not whole frames.
fn content_bytes_max(payload: &[u8]) -> Option<u64> {
    let mut rest = payload;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let magic = take_number(&mut rest, 4)?;
        if magic == u64::from(MAGIC) {
            total = total.saturating_add(frame_bytes_max(&mut rest)?);
        } else if magic & u64::from(SKIPPABLE_MASK) == u64::from(SKIPPABLE) {
            let length = take_number(&mut rest, 4)?;
            take(&mut rest, usize::try_from(length).ok()?)?;
        } else {
            return None;
        }
    }
    Some(total)
}

/// The same for one frame, behind its magic.
fn frame_bytes_max(rest: &mut &[u8]) -> Option<u64> {
    let descriptor = take_number(rest, 1)?;
    let single_segment = descriptor & 0b10_0000 != 0;
    let checksum = descriptor & 0b100 != 0;
    if !single_segment {
        take(rest, 1)?;
    }
    take(rest, [0, 1, 2, 4][usize::try_from(descriptor & 0b11).ok()?])?;
    let content_field = match descriptor >> 6 {
        0 if single_segment => 1,
        0 => 0,
        flag => 1 << flag,
    };
    let announced = match take_number(rest, content_field)? {
        _ if content_field == 0 => u64::MAX,
        // Two bytes begin to count where one ends.
        number if content_field == 2 => number + 256,
        number => number,
    };
    let mut bound = 0_u64;
    loop {
        let header = take_number(rest, 3)?;
        let size = header >> 3;
        let (stored, held) = match header >> 1 & 0b11 {
            0 => (size, size),
            1 => (1, size),
            2 => (size, BLOCK_BYTES_MAX),
            _ => return None,
        };
        take(rest, usize::try_from(stored).ok()?)?;
        bound = bound.saturating_add(held.min(BLOCK_BYTES_MAX));
        if header & 1 == 1 {
            break;
        }
    }
    if checksum {
        take(rest, 4)?;
    }
    Some(bound.min(announced))
}

/// Keeps zstd's context, which is costly to make.
pub(super) struct Encoder(bulk::Compressor<'static>);

impl Encoder {
    pub(super) fn new(level: i32) -> Result<Self, CompressionError> {
        let level = level.clamp(min_c_level(), max_c_level());
        let compressor = bulk::Compressor::new(level);
        Ok(Self(compressor.map_err(|_| CompressionError::Library(Codec::Zstd))?))
    }

    pub(super) fn compress(
        &mut self,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CompressionError> {
        let start = out.len();
        out.resize(start + compress_bound(payload.len()), 0);
        let written = self
            .0
            .compress_to_buffer(payload, &mut out[start..])
            .map_err(|_| CompressionError::Library(Codec::Zstd))?;
        out.truncate(start + written);
        Ok(())
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(count)?;
    *rest = behind;
    Some(taken)
}

/// A little-endian number of up to 8 bytes.
fn take_number(rest: &mut &[u8], bytes: usize) -> Option<u64> {
    let taken = take(rest, bytes)?;
    Some(taken.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn corrupt(what: &'static str) -> CompressionError {
    CompressionError::corrupt(Codec::Zstd, what)
}
