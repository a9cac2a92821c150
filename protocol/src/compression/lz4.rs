//! One lz4 frame, its blocks through `lz4_flex`.
//!
//! The frame is read here, not by `lz4_flex::frame`: blocks go straight into the output, and only
//! as much room is made as a block's bytes can fill. Read: blocks that are independent (Java,
//! librdkafka) or linked (Python's lz4), of up to 4 MiB (franz-go), with or without checksums and
//! content size. Not read, as Java does not: dictionaries, skippable and legacy frames. Written:
//! what Java's producer writes, independent blocks of 64 KiB without checksums.

use lz4_flex::block;
use twox_hash::XxHash32;

use super::codec::{Codec, CompressionError};
use super::output::Output;

const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
const VERSION_MASK: u8 = 0b1100_0000;
const VERSION: u8 = 0b0100_0000;
const INDEPENDENT: u8 = 1 << 5;
const BLOCK_CHECKSUM: u8 = 1 << 4;
const CONTENT_SIZE: u8 = 1 << 3;
const CONTENT_CHECKSUM: u8 = 1 << 2;
const RESERVED: u8 = 1 << 1;
const DICTIONARY: u8 = 1;

/// In a block's length: its bytes are stored as they are.
const STORED: u32 = 1 << 31;
/// How far back a linked block may reach.
const WINDOW_BYTES: usize = 64 * 1024;
/// Input of one block that is written; number 4 in the descriptor.
const BLOCK_BYTES: usize = 64 * 1024;
const BLOCK_BYTES_NUMBER: u8 = 4;
/// What a byte can become: a byte of a length that goes on stands for 255.
const RATIO_MAX: usize = 255;

/// What a frame says of itself.
struct Descriptor {
    flags: u8,
    block_bytes_max: usize,
    content_bytes: Option<u64>,
}

impl Descriptor {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

pub(super) fn decompress(payload: &[u8], output: &mut Output<'_>) -> Result<(), CompressionError> {
    let mut rest = payload;
    let descriptor = read_descriptor(&mut rest)?;
    loop {
        let field = take_u32(&mut rest)?;
        if field == 0 {
            break;
        }
        let length = usize::try_from(field & !STORED).unwrap_or(usize::MAX);
        if length > descriptor.block_bytes_max {
            return Err(corrupt("a block larger than the frame allows"));
        }
        let block = take(&mut rest, length)?;
        if descriptor.has(BLOCK_CHECKSUM) && take_u32(&mut rest)? != XxHash32::oneshot(0, block) {
            return Err(corrupt("a block with a wrong checksum"));
        }
        if field & STORED == 0 {
            decompress_block(&descriptor, block, output)?;
        } else {
            output.extend(block)?;
        }
    }
    let (content, _) = output.tail(0);
    if descriptor.content_bytes.is_some_and(|bytes| u64::try_from(content.len()) != Ok(bytes)) {
        return Err(corrupt("another content size than announced"));
    }
    if descriptor.has(CONTENT_CHECKSUM) && take_u32(&mut rest)? != XxHash32::oneshot(0, content) {
        return Err(corrupt("a wrong content checksum"));
    }
    if rest.is_empty() { Ok(()) } else { Err(corrupt("bytes behind the frame")) }
}

fn read_descriptor(rest: &mut &[u8]) -> Result<Descriptor, CompressionError> {
    if take(rest, MAGIC.len())? != MAGIC {
        return Err(corrupt("no lz4 frame"));
    }
    let start = *rest;
    let fixed = take(rest, 2)?;
    let (flags, block_descriptor) = (fixed[0], fixed[1]);
    if flags & VERSION_MASK != VERSION || flags & (RESERVED | DICTIONARY) != 0 {
        return Err(corrupt("a frame of an unknown version, or with a dictionary"));
    }
    let block_bytes_max = match block_descriptor {
        0x40 => 64 * 1024,
        0x50 => 256 * 1024,
        0x60 => 1024 * 1024,
        0x70 => 4 * 1024 * 1024,
        _ => return Err(corrupt("an unknown block size")),
    };
    let content_bytes = if flags & CONTENT_SIZE == 0 {
        None
    } else {
        take(rest, 8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    };
    let described = &start[..start.len() - rest.len()];
    if take(rest, 1)?[0] != header_checksum(described) {
        return Err(corrupt("a wrong header checksum"));
    }
    Ok(Descriptor { flags, block_bytes_max, content_bytes })
}

fn decompress_block(
    descriptor: &Descriptor,
    block: &[u8],
    output: &mut Output<'_>,
) -> Result<(), CompressionError> {
    let wanted = descriptor.block_bytes_max.min(block.len().saturating_mul(RATIO_MAX));
    let clipped = output.room() < wanted;
    let (written, tail) = output.tail(wanted);
    let room = wanted.min(tail.len());
    let tail = &mut tail[..room];
    let result = if descriptor.has(INDEPENDENT) {
        block::decompress_into(block, tail)
    } else {
        let window = &written[written.len().saturating_sub(WINDOW_BYTES)..];
        block::decompress_into_with_dict(block, tail, window)
    };
    match result {
        Ok(count) => {
            output.advance(count);
            Ok(())
        }
        Err(block::DecompressError::OutputTooSmall { .. }) if clipped => Err(output.too_large()),
        Err(_) => Err(corrupt("a broken block")),
    }
}

pub(super) fn compress(payload: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let description = [VERSION | INDEPENDENT, BLOCK_BYTES_NUMBER << 4];
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&description);
    out.push(header_checksum(&description));
    for block in payload.chunks(BLOCK_BYTES) {
        let start = out.len() + size_of::<u32>();
        out.resize(start + block::get_maximum_output_size(block.len()), 0);
        let written = block::compress_into(block, &mut out[start..])
            .map_err(|_| CompressionError::Library(Codec::Lz4))?;
        let (length, flag) =
            if written < block.len() { (written, 0) } else { (block.len(), STORED) };
        out.truncate(start + length);
        if flag == STORED {
            out[start..].copy_from_slice(block);
        }
        // At most 64 KiB.
        let field =
            u32::try_from(length).map_err(|_| CompressionError::Library(Codec::Lz4))? | flag;
        out[start - size_of::<u32>()..start].copy_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&0_u32.to_le_bytes());
    Ok(())
}

/// The second byte of the hash of the descriptor.
fn header_checksum(described: &[u8]) -> u8 {
    XxHash32::oneshot(0, described).to_le_bytes()[1]
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], CompressionError> {
    let (taken, behind) = rest.split_at_checked(count).ok_or(corrupt("a truncated frame"))?;
    *rest = behind;
    Ok(taken)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, CompressionError> {
    let bytes = take(rest, 4)?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn corrupt(what: &'static str) -> CompressionError {
    CompressionError::corrupt(Codec::Lz4, what)
}
