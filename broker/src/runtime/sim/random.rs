//! Random numbers of a simulation: one seed, a separate stream for each purpose.
//!
//! Streams are independent, so that one more draw for the network does not change what the
//! scheduler draws: a run stays comparable while one part of it changes.

use std::ops::RangeInclusive;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream of random numbers is for. Each purpose has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Which ready task runs next, how late timers fire.
    Schedule,
    /// Delays, pieces, resets.
    Network,
    /// Latencies and faults of disks.
    Disk,
    /// What a process gets from `Runtime::random_u64`.
    Ids,
    /// What clients do.
    Workload,
    /// Which faults strike, where and when.
    Faults,
}

/// Parts of a million.
pub const MILLION: u32 = 1_000_000;

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The stream of this seed for this purpose; `salt` tells apart several of one purpose (one for
    /// each node, say).
    pub fn new(seed: u64, purpose: Purpose, salt: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(((purpose as u64 + 1) << 48) ^ salt);
        Self(generator)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`.
    ///
    /// # Panics
    /// Where `end` is 0: the caller's mistake.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "nothing is below 0");
        let product = u128::from(self.bits()) * u128::from(end);
        // The upper half of a product with a number below 2^64 is below `end`.
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// A number of the range.
    pub fn between(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (start, end) = range.into_inner();
        assert!(start <= end, "the range {start}..={end} is empty");
        match (end - start).checked_add(1) {
            Some(span) => start + self.below(span),
            None => self.bits(),
        }
    }

    /// A number of the range, far more often a small one: times and sizes are like that.
    pub fn mostly_small(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (start, end) = range.into_inner();
        let once = self.between(start..=end);
        let twice = self.between(start..=once);
        self.between(start..=twice)
    }

    /// An index below `len`.
    ///
    /// # Panics
    /// Where `len` is 0: the caller's mistake.
    pub fn index(&mut self, len: usize) -> usize {
        let below = self.below(len as u64);
        usize::try_from(below).unwrap_or(0)
    }

    /// One of several.
    ///
    /// # Panics
    /// Where there is none: the caller's mistake.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// True in so many of a million cases.
    pub fn chance(&mut self, per_million: u32) -> bool {
        self.below(u64::from(MILLION)) < u64::from(per_million)
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_stream_repeats_and_streams_differ() {
        let draw = |seed, purpose, salt| {
            let mut random = Random::new(seed, purpose, salt);
            [random.bits(), random.bits()]
        };
        let first = draw(7, Purpose::Schedule, 0);
        assert_eq!(first, draw(7, Purpose::Schedule, 0));
        assert_ne!(first, draw(8, Purpose::Schedule, 0));
        assert_ne!(first, draw(7, Purpose::Network, 0));
        assert_ne!(first, draw(7, Purpose::Schedule, 1));
    }

    #[test]
    fn draws_stay_in_their_ranges_and_reach_both_ends() {
        let mut random = Random::new(1, Purpose::Workload, 0);
        let mut seen = [0u32; 5];
        for _ in 0..1000 {
            let drawn = random.between(3..=7);
            seen[usize::try_from(drawn - 3).expect("3..=7")] += 1;
            assert!((10..=20).contains(&random.mostly_small(10..=20)));
        }
        assert!(seen.iter().all(|&count| count > 100), "{seen:?}");
        assert_eq!(random.between(u64::MAX..=u64::MAX), u64::MAX);
        random.between(0..=u64::MAX);
    }

    #[test]
    fn a_chance_is_what_it_says() {
        let mut random = Random::new(1, Purpose::Faults, 0);
        assert!((0..1000).all(|_| !random.chance(0) && random.chance(MILLION)));
        let hits = (0..10_000).filter(|_| random.chance(MILLION / 4)).count();
        // The seed is fixed, and so is the number: a range (of seven standard deviations) only
        // because which number it is means nothing.
        assert!((2200..2800).contains(&hits), "{hits}");
    }
}
