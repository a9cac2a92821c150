//! A reader against batches of its own making.
#![allow(clippy::unwrap_used, reason = "a failing test should say where")]

use std::sync::Arc;

use bytes::BytesMut;
use vltava_protocol::compression::{Codec, Compressor};

use super::*;
use crate::engine::batch::{BatchWriter, Identity};
use crate::engine::buffers::Buffers;
use crate::engine::clock::Clock;
use crate::engine::map::Map;
use crate::engine::payload::{Pool, Values};
use crate::engine::queue::Acknowledged;
use crate::engine::verify::Counts;
use crate::scenario::Size;

/// Where the part begins that a batch's CRC covers.
const CRC_START: usize = 21;
/// Where the attributes stand, of which this bit says that the broker gives timestamps.
const ATTRIBUTES_LAST: usize = 22;
const LOG_APPEND_TIME: u8 = 1 << 3;

/// A batch of so many records, each a millisecond and a half after the last; their timestamps are
/// `shift_ms` later than they should be.
fn batch(codec: Codec, record_bytes: u32, records: u64, shift_ms: i64, clock: &Clock) -> Vec<u8> {
    let pool = Arc::new(Pool::new(&Size::Fixed(record_bytes), 0.5, false, 1));
    let mut values = Values::new(&pool, 1);
    let mut writer = BatchWriter::new(Buffers::default().take(1 << 20));
    for sequence in 0..records {
        let intended_ns = sequence * 1_500_000;
        let (value, timestamp) = (values.make(), clock.wall_ms(intended_ns) + shift_ms);
        let key = (sequence % 3 == 0).then_some(&b"key"[..]);
        writer.append(timestamp, key, value.len, |out: &mut BytesMut| {
            values.put(value, 0, sequence, intended_ns, key.unwrap_or_default(), out);
        });
    }
    let mut compressor = Compressor::new(codec, None).unwrap();
    writer.close(Identity::NONE, &mut compressor).unwrap().0.to_vec()
}

fn context() -> Context {
    Context::new(Clock::start(), Arc::new(Map::default()), 0).unwrap()
}

fn read(bytes: &[u8], records: u64, context: &mut Context) -> (Counts, Option<ReadError>) {
    let mut reader = Reader { verifier: Verifier::new(1, 1) };
    let (_, error) = reader.read(0, 0, bytes, context);
    let of = Acknowledged { sequence_end: records, bare: 0 };
    (reader.verifier.finish([(0, 0, of)].into_iter()), error)
}

fn stamped(mut batch: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    batch
}

#[test]
fn what_was_sent_is_found_whole_whatever_its_size_and_codec() {
    let mut context = context();
    for codec in [Codec::None, Codec::Lz4] {
        for record_bytes in [24, 30, 255, 300, 1024, 5000] {
            let bytes = batch(codec, record_bytes, 100, 0, &context.clock.clone());
            let (counts, error) = read(&bytes, 100, &mut context);
            assert_eq!(error, None, "{codec:?} {record_bytes}");
            let expected = Counts { received: 100, expected: 100, ..Counts::default() };
            assert_eq!(counts, expected, "{codec:?} {record_bytes}");
        }
    }
}

#[test]
fn a_bit_that_is_not_as_it_was_is_found_wherever_it_is() {
    let mut context = context();
    for record_bytes in [30, 1024] {
        let whole = batch(Codec::None, record_bytes, 20, 0, &context.clock.clone());
        for at in (CRC_START..whole.len()).step_by(7).chain([whole.len() - 1]) {
            let mut torn = whole.clone();
            torn[at] ^= 0x10;
            let (_, error) = read(&torn, 20, &mut context);
            let is_found = matches!(error, Some(ReadError::Batch(_) | ReadError::Codec(_)));
            assert!(is_found, "byte {at}: {error:?}");
        }
    }
}

#[test]
fn a_value_that_was_changed_before_its_batch_was_closed_is_corrupt() {
    let mut context = context();
    let mut bytes = batch(Codec::None, 1024, 20, 0, &context.clock.clone());
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    let (counts, error) = read(&stamped(bytes), 20, &mut context);
    assert_eq!((counts.corrupt, error), (1, None));
}

#[test]
fn a_timestamp_that_is_not_the_moment_in_the_value_is_found() {
    let mut context = context();
    let clock = context.clock;
    for shift_ms in [-1, 1, 3_600_000] {
        for codec in [Codec::None, Codec::Zstd] {
            let bytes = batch(codec, 100, 20, shift_ms, &clock);
            let (counts, error) = read(&bytes, 20, &mut context);
            assert_eq!((counts.restamped, counts.missing, error), (20, 0, None), "{shift_ms}");
        }
    }
    // Where the broker says that it gives timestamps, they are not the producer's.
    let mut bytes = batch(Codec::None, 100, 20, 77, &clock);
    bytes[ATTRIBUTES_LAST] |= LOG_APPEND_TIME;
    assert_eq!(read(&stamped(bytes), 20, &mut context).0.restamped, 0);
}
