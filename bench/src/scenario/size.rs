//! How large values are: all the same, or distributed.

use serde::{Deserialize, Serialize};

/// A log-normal size takes one of so many values, each as often: the middles of as many equal
/// shares of the distribution. The largest stands for the last of them.
const QUANTILES: u32 = 4096;
/// So many standard deviations above the median stands the 99th percentile.
const P99_DEVIATIONS: f64 = 2.326_347_874_040_841;
/// No value is larger, whatever a distribution says: what brokers and batches cannot hold.
const BYTES_MAX: u32 = 1 << 30;

/// How large values are, in bytes.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "a size is a number of bytes, { min, max }, { median, p99 }, or a list of \
                 { bytes, weight }"
)]
pub enum Size {
    /// All the same.
    Fixed(u32),
    /// Any in between, each as likely.
    Between {
        /// The smallest.
        min: u32,
        /// The largest.
        max: u32,
    },
    /// Log-normal, as sizes of messages mostly are: many small ones, and a long tail.
    LogNormal {
        /// Half of them are no larger.
        median: u32,
        /// 99 of 100 are no larger.
        p99: u32,
    },
    /// One of these.
    OneOf(Vec<Weighted>),
}

/// A size, and how often it comes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Weighted {
    /// The size, in bytes.
    pub bytes: u32,
    /// So often, of the sum of all weights.
    pub weight: u32,
}

impl Size {
    /// The mean, in bytes.
    pub fn mean(&self) -> f64 {
        match self {
            Self::Fixed(bytes) => f64::from(*bytes),
            Self::Between { min, max } => f64::midpoint(f64::from(*min), f64::from(*max)),
            Self::LogNormal { median, p99 } => {
                let all = quantiles(*median, *p99);
                all.iter().copied().map(f64::from).sum::<f64>() / f64::from(QUANTILES)
            }
            Self::OneOf(sizes) => {
                let of = |size: &Weighted| f64::from(size.bytes) * f64::from(size.weight);
                let sum: f64 = sizes.iter().map(of).sum();
                sum / sizes.iter().map(|size| f64::from(size.weight)).sum::<f64>()
            }
        }
    }

    /// The largest, in bytes.
    pub fn largest(&self) -> u32 {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Between { max, .. } => *max,
            Self::LogNormal { median, p99 } => {
                quantiles(*median, *p99).last().copied().unwrap_or_default()
            }
            Self::OneOf(sizes) => {
                let drawn = sizes.iter().filter(|size| size.weight > 0);
                drawn.map(|size| size.bytes).max().unwrap_or_default()
            }
        }
    }

    /// Why it is none; `None`: it is one.
    pub fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Between { min, max } if min > max => Some("min is more than max"),
            Self::LogNormal { median: 0, .. } => Some("the median is 0"),
            Self::LogNormal { median, p99 } if median > p99 => Some("the median is more than p99"),
            Self::OneOf(sizes) => {
                let sum: u64 = sizes.iter().map(|size| u64::from(size.weight)).sum();
                match sum {
                    0 => Some("no size has a weight"),
                    sum if sum > u64::from(u32::MAX) => Some("the weights' sum is too large"),
                    _ => self.too_large(),
                }
            }
            _ => self.too_large(),
        }
    }

    fn too_large(&self) -> Option<&'static str> {
        (self.largest() > BYTES_MAX).then_some("values of more than 1 GiB")
    }
}

/// The sizes of a log-normal distribution, in ascending order, each as likely as any other.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and saturates"
)]
pub fn quantiles(median: u32, p99: u32) -> Vec<u32> {
    const STEP: f64 = 1e-3;
    const REACH: f64 = 6.0;
    let (median, p99) = (f64::from(median.max(1)), f64::from(p99.max(1)));
    let deviation = (p99 / median).ln() / P99_DEVIATIONS;
    let mut sizes = Vec::new();
    // The area under the bell up to here, which is walked from far left.
    let (mut z, mut below) = (-REACH, 0.0);
    for number in 0..QUANTILES {
        let share = (f64::from(number) + 0.5) / f64::from(QUANTILES);
        while below < share && z < REACH {
            let middle = z + STEP / 2.0;
            below += STEP * (-middle * middle / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            z += STEP;
        }
        sizes.push((median * (deviation * z).exp()).round() as u32);
    }
    sizes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        size: Size,
    }

    fn read(size: &str) -> Result<Size, String> {
        let file: Result<File, _> = toml::from_str(&format!("size = {size}"));
        file.map(|file| file.size).map_err(|error| error.to_string())
    }

    #[test]
    fn a_size_is_written_as_a_number_a_table_or_a_list() {
        assert_eq!(read("7"), Ok(Size::Fixed(7)));
        assert_eq!(read("{ min = 1, max = 9 }"), Ok(Size::Between { min: 1, max: 9 }));
        let skewed = Size::LogNormal { median: 300, p99: 4000 };
        assert_eq!(read("{ median = 300, p99 = 4000 }"), Ok(skewed));
        let list = read("[{ bytes = 100, weight = 9 }, { bytes = 10_000, weight = 1 }]").unwrap();
        assert_eq!((list.mean(), list.largest()), (1090.0, 10_000));
        for wrong in ["'x'", "-1", "{ min = 1 }", "{ min = 1, max = 2, p99 = 3 }", "[1]"] {
            let error = read(wrong).unwrap_err();
            assert!(
                error.contains("a size is a number of bytes, { min, max }"),
                "{wrong}: {error}"
            );
        }
    }

    #[test]
    fn a_log_normal_size_has_the_percentiles_that_were_asked_for() {
        let sizes = quantiles(300, 4000);
        assert_eq!(sizes.len(), 4096);
        assert!(sizes.is_sorted());
        assert!((298..=302).contains(&sizes[2048]), "{}", sizes[2048]);
        let p99 = sizes[4096 * 99 / 100];
        assert!((3900..=4100).contains(&p99), "{p99}");
        assert_eq!(Size::LogNormal { median: 300, p99: 4000 }.largest(), sizes[4095]);
        assert!((10_000..30_000).contains(&sizes[4095]), "{}", sizes[4095]);
        // exp of half the variance, times the median; the tail behind the largest is missing.
        let mean = Size::LogNormal { median: 300, p99: 4000 }.mean();
        assert!((540.0..562.0).contains(&mean), "{mean}");
        assert!(quantiles(50, 50).iter().all(|bytes| *bytes == 50));
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        for (size, why) in [
            ("{ min = 2, max = 1 }", "min is more"),
            ("{ median = 0, p99 = 1 }", "median is 0"),
            ("{ median = 2, p99 = 1 }", "median is more"),
            ("{ median = 1, p99 = 1_000_000_000 }", "1 GiB"),
            ("[]", "no size"),
            ("[{ bytes = 1, weight = 0 }]", "no size"),
            ("[{ bytes = 2_000_000_000, weight = 1 }]", "1 GiB"),
        ] {
            let fault = read(size).unwrap().fault().unwrap_or_default();
            assert!(fault.contains(why), "{size}: {fault}");
        }
        assert_eq!(read("0").unwrap().fault(), None);
    }
}
