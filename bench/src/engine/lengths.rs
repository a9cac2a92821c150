//! How long each value of a producer is to be: sizes of a scenario, ready to be drawn from.

use crate::engine::map::index;
use crate::engine::random::Random;
use crate::scenario::{Size, quantiles};

/// Lengths in bytes.
#[derive(Clone, Debug)]
pub enum Lengths {
    /// All the same.
    Fixed(usize),
    /// From the first to the last, each as likely.
    Between(u32, u32),
    /// One of these, each as likely.
    Alike(Vec<u32>),
    /// One of these, in the order of their weights' sums: the sum of all up to it, and the length.
    Weighted(Vec<(u32, u32)>),
}

impl Lengths {
    /// Of sizes that make sense.
    pub fn new(size: &Size) -> Self {
        match size {
            Size::Fixed(bytes) => Self::Fixed(index(*bytes)),
            Size::Between { min, max } => Self::Between(*min, *max),
            Size::LogNormal { median, p99 } => Self::Alike(quantiles(*median, *p99)),
            Size::OneOf(sizes) => {
                let mut sum = 0_u32;
                let summed = sizes.iter().map(|size| {
                    sum = sum.saturating_add(size.weight);
                    (sum, size.bytes)
                });
                Self::Weighted(summed.collect())
            }
        }
    }

    /// The next one.
    pub fn draw(&self, random: &mut Random) -> usize {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Between(min, max) => {
                let more = random.below((max - min).saturating_add(1));
                index(min + more)
            }
            Self::Alike(all) => {
                let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
                all.get(index(random.below(count))).copied().map_or(0, index)
            }
            Self::Weighted(all) => {
                let drawn = random.below(all.last().map_or(0, |(sum, _)| *sum));
                let place = all.partition_point(|(sum, _)| *sum <= drawn);
                all.get(place).map_or(0, |(_, bytes)| index(*bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Weighted;

    fn drawn(size: &Size) -> Vec<usize> {
        let (lengths, mut random) = (Lengths::new(size), Random::new(5));
        (0..20_000).map(|_| lengths.draw(&mut random)).collect()
    }

    fn share(drawn: &[usize], of: impl Fn(usize) -> bool) -> f64 {
        drawn.iter().filter(|bytes| of(**bytes)).count() as f64 / drawn.len() as f64
    }

    #[test]
    fn each_distribution_is_drawn_as_it_is_said() {
        assert!(drawn(&Size::Fixed(9)).iter().all(|bytes| *bytes == 9));
        let between = drawn(&Size::Between { min: 10, max: 19 });
        assert!(between.iter().all(|bytes| (10..=19).contains(bytes)));
        assert!((0.47..0.53).contains(&share(&between, |bytes| bytes < 15)));
        let weighted = |bytes, weight| Weighted { bytes, weight };
        let list = [weighted(100, 9), weighted(7, 0), weighted(10_000, 1)];
        let list = drawn(&Size::OneOf(Vec::from(list)));
        assert!((0.88..0.92).contains(&share(&list, |bytes| bytes == 100)));
        assert!((0.08..0.12).contains(&share(&list, |bytes| bytes == 10_000)));
        assert_eq!(share(&list, |bytes| bytes == 7), 0.0);
        let skewed = drawn(&Size::LogNormal { median: 300, p99: 4000 });
        assert!((0.48..0.52).contains(&share(&skewed, |bytes| bytes <= 300)));
        assert!((0.98..0.995).contains(&share(&skewed, |bytes| bytes <= 4000)));
    }
}
