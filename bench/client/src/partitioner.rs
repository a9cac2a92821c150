//! Which partition a record goes to: Java's choice, so that all clients agree on where a key lives.

/// Chooses partitions for the records of one topic.
///
/// A record with a key goes where the murmur2 hash of its key says. One without goes where the last
/// one without went, until [`Self::move_on`] is called, which the producer does whenever it closes
/// a batch: full batches and, over time, even use (KIP-480).
#[derive(Clone, Debug)]
pub struct Partitioner {
    sticky: u32,
}

impl Partitioner {
    /// Starts at a partition of the caller's choice; many clients that start at once should differ.
    pub fn new(start: u32) -> Self {
        Self { sticky: start }
    }

    /// The partition, of `partition_count`, for a record with this key.
    pub fn partition(&self, key: Option<&[u8]>, partition_count: u32) -> u32 {
        let count = partition_count.max(1);
        match key {
            Some(key) => (murmur2(key) & 0x7fff_ffff) % count,
            None => self.sticky % count,
        }
    }

    /// The next record without a key goes elsewhere.
    pub fn move_on(&mut self) {
        self.sticky = self.sticky.wrapping_add(1);
    }
}

/// The 32-bit murmur2 hash with the seed that Kafka's producers use.
pub fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Java's lengths are 32 bits wide, and a key is never longer.
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> R)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Kafka's own test of `Utils.murmur2`.
    #[test]
    fn hashes_are_javas() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn keys_stay_and_the_rest_moves_on() {
        let mut partitioner = Partitioner::new(5);
        let keyed = partitioner.partition(Some(b"foobar"), 7);
        assert_eq!(partitioner.partition(None, 4), 1);
        assert_eq!(partitioner.partition(None, 4), 1);
        partitioner.move_on();
        assert_eq!(partitioner.partition(None, 4), 2);
        assert_eq!(partitioner.partition(Some(b"foobar"), 7), keyed);
        assert_eq!(partitioner.partition(None, 0), 0);
    }
}
