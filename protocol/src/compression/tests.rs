use std::io::Write;

use proptest::prelude::*;

use super::*;

const BYTES_MAX: usize = 16 << 20;

fn compressed(codec: Codec, level: Option<i32>, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compress(codec, level, payload, &mut out).unwrap();
    out
}

/// Compressible, but not in one run.
fn text(bytes: usize) -> Vec<u8> {
    (0_u64..).flat_map(|n| format!("record {} of many; ", n * n).into_bytes()).take(bytes).collect()
}

/// What no codec makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..bytes).map(|_| next()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_goes_in_comes_out(
        payload in proptest::collection::vec(any::<u8>(), 0..3000),
        repeated in 1_usize..60,
    ) {
        let payload = payload.repeat(repeated);
        for codec in Codec::ALL {
            let small = compressed(codec, None, &payload);
            prop_assert_eq!(&decompress(codec, &small, payload.len()).unwrap(), &payload);
        }
    }

    #[test]
    fn garbage_is_an_error_or_some_bytes_and_never_more_than_allowed(
        garbage in proptest::collection::vec(any::<u8>(), 0..300),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        bytes_max in 0_usize..3000,
    ) {
        for codec in Codec::ALL {
            let mut decompressor = Decompressor::new();
            let mut changed = compressed(codec, None, &text(2000));
            *at.get_mut(&mut changed) = byte;
            for hostile in [&garbage, &changed] {
                if let Ok(bytes) = decompressor.decompress(codec, hostile, bytes_max) {
                    prop_assert!(bytes.len() <= bytes_max);
                }
                prop_assert!(decompressor.buffer_bytes() <= bytes_max);
            }
        }
    }
}

#[test]
fn every_level_is_read_back() {
    let payload = text(200_000);
    for codec in Codec::ALL {
        let Some(levels) = codec.levels() else {
            continue;
        };
        for level in levels.clone().filter(|level| *level > -8).chain([*levels.start()]) {
            let small = compressed(codec, Some(level), &payload);
            assert_eq!(decompress(codec, &small, BYTES_MAX).unwrap(), payload, "{codec} {level}");
        }
        let level = levels.end() + 1;
        let refused = compress(codec, Some(level), &payload, &mut Vec::new());
        assert_eq!(refused, Err(CompressionError::Level { codec, level }));
    }
    assert!(compressed(Codec::Gzip, Some(-1), &payload).len() < payload.len());
}

#[test]
fn large_payloads_go_over_block_borders() {
    let mut payload = text(5 << 20);
    payload.extend_from_slice(&noise(1 << 20));
    let mut decompressor = Decompressor::new();
    for codec in Codec::ALL {
        let small = compressed(codec, None, &payload);
        let large = decompressor.decompress(codec, &small, BYTES_MAX).unwrap();
        assert!(large == payload, "{codec}");
        // To the byte.
        assert!(decompressor.decompress(codec, &small, payload.len()).is_ok());
        assert_eq!(
            decompressor.decompress(codec, &small, payload.len() - 1),
            Err(CompressionError::TooLarge { bytes_max: payload.len() - 1 }),
            "{codec}"
        );
    }
}

#[test]
fn what_is_cut_off_anywhere_is_an_error() {
    let payload = text(3000);
    for codec in Codec::ALL.into_iter().filter(|codec| *codec != Codec::None) {
        let small = compressed(codec, None, &payload);
        for length in 1..small.len() {
            let result = decompress(codec, &small[..length], BYTES_MAX);
            // Behind xerial's header, no block is no error; the record count will tell.
            let nothing = codec == Codec::Snappy && length == 16;
            assert_eq!(result == Ok(vec![]), nothing, "{codec} {length}");
            assert!(nothing || result.is_err(), "{codec} {length}");
        }
    }
}

#[test]
fn a_bomb_is_an_error_and_takes_no_memory() {
    let large = vec![0; 64 << 20];
    for codec in Codec::ALL.into_iter().filter(|codec| *codec != Codec::None) {
        let bomb = compressed(codec, None, &large);
        let mut decompressor = Decompressor::new();
        for bytes_max in [0, 1, 1000, 1 << 20] {
            let result = decompressor.decompress(codec, &bomb, bytes_max);
            assert_eq!(result, Err(CompressionError::TooLarge { bytes_max }), "{codec}");
            assert!(decompressor.buffer_bytes() <= bytes_max, "{codec}");
        }
    }
}

#[test]
fn lying_lengths_take_no_more_memory_than_their_bytes_justify() {
    // zstd: a frame of 1 GiB by its header, with one empty block.
    let mut zstd = vec![0x28, 0xB5, 0x2F, 0xFD, 0b1010_0000];
    zstd.extend_from_slice(&(1_u32 << 30).to_le_bytes());
    zstd.extend_from_slice(&[1, 0, 0]);
    // snappy: a raw block of 1 GiB by its length.
    let snappy = vec![0x80, 0x80, 0x80, 0x80, 0x04, 0x00, 0x61];
    // lz4: blocks of up to 4 MiB, and one of 4 MiB announced.
    let mut lz4 = vec![0x04, 0x22, 0x4D, 0x18, 0x60, 0x70, 0x73];
    lz4.extend_from_slice(&(4_u32 << 20).to_le_bytes());
    lz4.extend_from_slice(&[0; 40]);
    for (codec, bytes) in [(Codec::Zstd, zstd), (Codec::Snappy, snappy), (Codec::Lz4, lz4)] {
        let mut decompressor = Decompressor::new();
        let result = decompressor.decompress(codec, &bytes, 2 << 30);
        assert!(matches!(result, Err(CompressionError::Corrupt { .. })), "{codec}: {result:?}");
        assert!(decompressor.buffer_bytes() <= bytes.len() * 255, "{codec}");
    }
}

#[test]
fn the_buffer_is_used_again_and_given_back() {
    let mut decompressor = Decompressor::new();
    let (long, short) = (text(100_000), text(10));
    let long_small = compressed(Codec::Lz4, None, &long);
    let short_small = compressed(Codec::Snappy, None, &short);
    assert_eq!(decompressor.decompress(Codec::Lz4, &long_small, BYTES_MAX).unwrap(), long);
    let before = decompressor.buffer_bytes();
    assert_eq!(decompressor.decompress(Codec::Snappy, &short_small, 10).unwrap(), short);
    assert_eq!(decompressor.buffer_bytes(), before);
    decompressor.shrink(before);
    assert_eq!(decompressor.buffer_bytes(), before);
    decompressor.shrink(before - 1);
    assert_eq!(decompressor.buffer_bytes(), 0);
}

#[test]
fn gzip_of_several_members_is_one() {
    let mut both = compressed(Codec::Gzip, None, b"one ");
    both.extend(compressed(Codec::Gzip, None, b"two"));
    assert_eq!(decompress(Codec::Gzip, &both, 7).unwrap(), b"one two");
}

#[test]
fn snappy_is_read_raw_and_framed_and_one_behind_the_other() {
    let payload = text(100_000);
    let raw = snap::raw::Encoder::new().compress_vec(&payload).unwrap();
    assert_eq!(decompress(Codec::Snappy, &raw, BYTES_MAX).unwrap(), payload);
    let mut framed = compressed(Codec::Snappy, None, &payload);
    assert_eq!(&framed[..16], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    framed.extend(framed.clone());
    assert_eq!(decompress(Codec::Snappy, &framed, BYTES_MAX).unwrap(), payload.repeat(2));
}

#[test]
fn lz4_frames_of_every_shape_are_read() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let mut payload = text(600_000);
    payload.extend(noise(200_000));
    payload.extend(text(100_000));
    let sizes = [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB];
    for block_size in sizes {
        for block_mode in [BlockMode::Independent, BlockMode::Linked] {
            for checks in 0..8 {
                let info = FrameInfo::new()
                    .block_size(block_size)
                    .block_mode(block_mode)
                    .block_checksums(checks & 1 != 0)
                    .content_checksum(checks & 2 != 0)
                    .content_size((checks & 4 != 0).then_some(payload.len() as u64));
                let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(&payload).unwrap();
                let frame = encoder.finish().unwrap();
                let read = decompress(Codec::Lz4, &frame, BYTES_MAX).unwrap();
                assert!(read == payload, "{block_size:?} {block_mode:?} {checks}");
            }
        }
    }
}

#[test]
fn lz4_checksums_and_sizes_are_checked() {
    use lz4_flex::frame::{FrameEncoder, FrameInfo};
    let payload = text(1000);
    let info =
        FrameInfo::new().block_checksums(true).content_checksum(true).content_size(Some(1000));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(&payload).unwrap();
    let frame = encoder.finish().unwrap();
    assert_eq!(decompress(Codec::Lz4, &frame, BYTES_MAX).unwrap(), payload);
    for index in 0..frame.len() {
        let mut broken = frame.clone();
        broken[index] ^= 1;
        assert!(decompress(Codec::Lz4, &broken, BYTES_MAX).is_err(), "byte {index}");
    }
    let mut longer = frame;
    longer.push(0);
    assert!(decompress(Codec::Lz4, &longer, BYTES_MAX).is_err());
}

#[test]
fn lz4_frames_written_here_are_read_by_another_decoder_and_begin_as_javas() {
    use std::io::Read;
    let mut payload = text(300_000);
    payload.extend(noise(100_000));
    let frame = compressed(Codec::Lz4, None, &payload);
    assert_eq!(&frame[..7], &[0x04, 0x22, 0x4D, 0x18, 0x60, 0x40, 0x82]);
    let mut read = Vec::new();
    lz4_flex::frame::FrameDecoder::new(&frame[..]).read_to_end(&mut read).unwrap();
    assert!(read == payload);
}

#[test]
fn zstd_frames_without_a_content_size_are_read() {
    let payload = text(700_000);
    let mut encoder = zstd_stream(5);
    encoder.write_all(&payload).unwrap();
    let mut frames = encoder.finish().unwrap();
    let mut decompressor = Decompressor::new();
    assert_eq!(decompressor.decompress(Codec::Zstd, &frames, BYTES_MAX).unwrap(), payload);
    // A skippable frame, and another behind it.
    frames.extend_from_slice(&[0x5A, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3]);
    frames.extend(compressed(Codec::Zstd, None, b"more"));
    let both = decompressor.decompress(Codec::Zstd, &frames, BYTES_MAX).unwrap();
    assert_eq!((&both[..700_000], &both[700_000..]), (&payload[..], &b"more"[..]));
}

fn zstd_stream(level: i32) -> ::zstd::stream::write::Encoder<'static, Vec<u8>> {
    let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), level).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder
}

#[test]
fn names_and_numbers() {
    for codec in Codec::ALL {
        assert_eq!(Codec::from_id(codec.id()), Some(codec));
        assert_eq!(codec.name().parse(), Ok(codec));
    }
    assert_eq!(Codec::from_id(5), None);
    assert_eq!("brotli".parse::<Codec>(), Err(CompressionError::UnknownCodec));
}
