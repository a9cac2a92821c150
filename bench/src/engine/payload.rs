//! What records carry, so that whoever receives one can tell whether it is what was sent.
//!
//! A value of 24 bytes or more begins, big-endian, with the number of its producer (u32), its
//! sequence among that producer's records of that partition (u64), the moment it was to be sent (ns
//! of the run's clock, u64), and a checksum over these, the key and the rest (u32). One of 12 bytes
//! or more has the first two only. A smaller one has nothing: such are counted, and their batch's
//! CRC is all that tells whether they are whole.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use crate::engine::lengths::Lengths;
use crate::engine::map::index;
use crate::engine::random::Random;
use crate::scenario::Size;

/// What is in front of a value that can be checked wholly.
pub const FULL_HEAD_BYTES: usize = 24;
/// What is in front of one that has its place only.
pub const SHORT_HEAD_BYTES: usize = 12;
/// Where the checksum stands.
const CHECKSUM_AT: usize = 20;
/// So many bytes in a row are random in the share that is asked for.
const GRAIN_BYTES: usize = 64;
/// Of values that are not compressed: few enough for a core's cache.
const POOL_BYTES: usize = 1 << 20;
/// Of those that are: more than a codec looks back, so that nothing comes twice.
const POOL_BYTES_COMPRESSED: usize = 8 << 20;

/// Bytes that values are made of, for all producers of a class.
#[derive(Debug)]
pub struct Pool {
    bytes: Vec<u8>,
    lengths: Lengths,
    /// Bytes for each value.
    stride: usize,
    /// Of each place, where all values are alike: the CRC behind the head.
    checksums: Vec<u32>,
}

/// Makes one producer's values.
#[derive(Debug)]
pub struct Values {
    pool: Arc<Pool>,
    place: usize,
    random: Random,
}

/// A value to be written: where in the pool, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    place: usize,
    /// Its length.
    pub len: usize,
}

/// What a value says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is what was sent.
    Whole {
        /// Who sent it.
        producer: u32,
        /// Its place among those of this producer in this partition.
        sequence: u64,
        /// When it was to be sent.
        intended_ns: u64,
    },
    /// It has a place; whether it is whole, its batch's CRC says.
    Placed {
        /// Who sent it.
        producer: u32,
        /// Its place.
        sequence: u64,
    },
    /// It is too small to say anything.
    Bare,
    /// It is not what was sent.
    Corrupt,
}

impl Pool {
    /// For values of a size, `entropy` of them random. `is_compressed`: with more variety.
    pub fn new(size: &Size, entropy: f64, is_compressed: bool, seed: u64) -> Self {
        let stride = index(size.largest()).max(1);
        let pool_bytes = if is_compressed { POOL_BYTES_COMPRESSED } else { POOL_BYTES };
        let places = (pool_bytes / stride).max(1);
        let mut bytes = vec![b'v'; places * stride];
        scatter(&mut bytes, entropy, &mut Random::new(seed));
        let checksums = match size {
            Size::Fixed(_) if stride >= FULL_HEAD_BYTES => {
                let bodies = bytes.chunks_exact(stride).map(|value| &value[FULL_HEAD_BYTES..]);
                bodies.map(crc32c::crc32c).collect()
            }
            _ => Vec::new(),
        };
        Self { bytes, lengths: Lengths::new(size), stride, checksums }
    }
}

impl Values {
    /// Out of a pool; those of another seed begin elsewhere in it.
    pub fn new(pool: &Arc<Pool>, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let places = u32::try_from(pool.bytes.len() / pool.stride).unwrap_or(u32::MAX);
        let place = usize::try_from(random.below(places)).unwrap_or_default();
        Self { pool: Arc::clone(pool), place, random }
    }

    /// The next value.
    pub fn make(&mut self) -> Value {
        let Pool { bytes, lengths, stride, .. } = &*self.pool;
        let len = lengths.draw(&mut self.random);
        let place = self.place;
        self.place = if (place + 2) * stride > bytes.len() { 0 } else { place + 1 };
        Value { place, len }
    }

    /// Writes a value.
    pub fn put(
        &self,
        value: Value,
        producer: u32,
        sequence: u64,
        intended_ns: u64,
        key: &[u8],
        out: &mut BytesMut,
    ) {
        let start = value.place * self.pool.stride;
        let bytes = &self.pool.bytes[start..start + value.len];
        if value.len < SHORT_HEAD_BYTES {
            out.put_slice(bytes);
            return;
        }
        let mut head = [0; FULL_HEAD_BYTES];
        head[..4].copy_from_slice(&producer.to_be_bytes());
        head[4..SHORT_HEAD_BYTES].copy_from_slice(&sequence.to_be_bytes());
        if value.len < FULL_HEAD_BYTES {
            out.put_slice(&head[..SHORT_HEAD_BYTES]);
            out.put_slice(&bytes[SHORT_HEAD_BYTES..]);
            return;
        }
        head[SHORT_HEAD_BYTES..CHECKSUM_AT].copy_from_slice(&intended_ns.to_be_bytes());
        let body = &bytes[FULL_HEAD_BYTES..];
        let known = self.pool.checksums.get(value.place);
        let body_crc = known.copied().unwrap_or_else(|| crc32c::crc32c(body));
        let checksum = checksum(&head, key, body_crc);
        head[CHECKSUM_AT..].copy_from_slice(&checksum.to_be_bytes());
        out.put_slice(&head);
        out.put_slice(body);
    }
}

/// What a received record says of itself.
pub fn inspect(key: Option<&[u8]>, value: &[u8]) -> Seen {
    let number = |at: usize, bytes: usize| {
        value[at..at + bytes].iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte))
    };
    let producer = || u32::try_from(number(0, 4)).unwrap_or_default();
    if value.len() < SHORT_HEAD_BYTES {
        return Seen::Bare;
    }
    let Some((head, body)) = value.split_first_chunk::<FULL_HEAD_BYTES>() else {
        return Seen::Placed { producer: producer(), sequence: number(4, 8) };
    };
    let computed = checksum(head, key.unwrap_or_default(), crc32c::crc32c(body));
    if u64::from(computed) != number(CHECKSUM_AT, 4) {
        return Seen::Corrupt;
    }
    Seen::Whole {
        producer: producer(),
        sequence: number(4, 8),
        intended_ns: number(SHORT_HEAD_BYTES, 8),
    }
}

fn checksum(head: &[u8; FULL_HEAD_BYTES], key: &[u8], body_crc: u32) -> u32 {
    let of_head = crc32c::crc32c(&head[..CHECKSUM_AT]);
    let of_key = if key.is_empty() { 0 } else { crc32c::crc32c(key) };
    // Rotated, so that equal parts do not cancel each other out.
    of_head ^ of_key.rotate_left(11) ^ body_crc.rotate_left(22)
}

/// Makes a share of each grain random.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a grain's length"
)]
fn scatter(pool: &mut [u8], entropy: f64, random: &mut Random) {
    let random_bytes = (GRAIN_BYTES as f64 * entropy).round() as usize;
    for grain in pool.chunks_mut(GRAIN_BYTES) {
        let len = random_bytes.min(grain.len());
        for word in grain[..len].chunks_mut(8) {
            let bytes = random.number().to_be_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(size: Size, key: &[u8]) -> BytesMut {
        let mut values = Values::new(&Arc::new(Pool::new(&size, 1.0, false, 7)), 7);
        let mut out = BytesMut::new();
        let value = values.make();
        values.put(value, 3, 1 << 40, 99, key, &mut out);
        assert_eq!(out.len(), value.len);
        out
    }

    #[test]
    fn a_value_tells_who_sent_it_and_whether_it_is_whole() {
        let expected = Seen::Whole { producer: 3, sequence: 1 << 40, intended_ns: 99 };
        for (bytes, key) in [(24, None), (25, Some(&b"k"[..])), (4096, Some(b"key"))] {
            let mut value = written(Size::Fixed(bytes), key.unwrap_or_default());
            assert_eq!(inspect(key, &value), expected);
            assert_eq!(inspect(Some(b"other"), &value), Seen::Corrupt);
            for at in [0, 11, 19, 23, value.len() - 1] {
                value[at] ^= 1;
                assert_eq!(inspect(key, &value), Seen::Corrupt, "byte {at} of {bytes}");
                value[at] ^= 1;
            }
        }
        let between = written(Size::Between { min: 100, max: 200 }, b"");
        assert_eq!(inspect(None, &between), expected);
    }

    #[test]
    fn small_values_say_what_fits() {
        let placed = Seen::Placed { producer: 3, sequence: 1 << 40 };
        assert_eq!(inspect(None, &written(Size::Fixed(23), b"")), placed);
        assert_eq!(inspect(None, &written(Size::Fixed(12), b"")), placed);
        assert_eq!(inspect(None, &written(Size::Fixed(11), b"")), Seen::Bare);
        assert_eq!(inspect(None, &written(Size::Fixed(0), b"")), Seen::Bare);
    }

    #[test]
    fn entropy_is_what_was_asked_for() {
        for (entropy, least, most) in [(0.0, 0.0, 0.0), (0.5, 0.45, 0.52), (1.0, 0.95, 1.0)] {
            let pool = Pool::new(&Size::Fixed(1000), entropy, true, 1);
            let random = pool.bytes.iter().filter(|byte| **byte != b'v').count();
            let share = random as f64 / pool.bytes.len() as f64;
            assert!((least..=most).contains(&share), "{entropy}: {share}");
        }
    }
}
