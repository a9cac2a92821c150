//! How figures of runs that took turns compare. Pure.

/// The middle of some figures, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub least: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// That of `values`; `None` where there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (below, above) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { least, median: f64::midpoint(below, above), most })
    }
}

/// One side as a multiple of the other.
///
/// Each round of the one is divided by the round of the other that ran right before or after it:
/// what a shared machine does to both of them falls out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Of the rounds' ratios.
    pub spread: Spread,
    /// Rounds that have one.
    pub rounds: usize,
}

impl Ratio {
    /// `second` as a multiple of `first`, round by round; rounds in which one of them has no
    /// figure, or a figure of 0 to divide by, are left out. `None` where none is left.
    pub fn of(first: &[Option<f64>], second: &[Option<f64>]) -> Option<Self> {
        let both = first.iter().zip(second).filter_map(|(a, b)| Some(((*a)?, (*b)?)));
        let ratios: Vec<f64> = both.filter(|(a, _)| *a > 0.0).map(|(a, b)| b / a).collect();
        let rounds = ratios.len();
        Some(Self { spread: Spread::of(ratios)?, rounds })
    }

    /// Whether all rounds lie on the same side of 1.
    pub fn is_clear(&self) -> bool {
        self.spread.most < 1.0 || self.spread.least > 1.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use super::*;

    #[test]
    fn a_spread_is_the_middle_and_the_ends() {
        assert_eq!(Spread::of([]), None);
        let of = |values: &[f64]| Spread::of(values.iter().copied()).unwrap();
        assert_eq!(of(&[3.0]), Spread { least: 3.0, median: 3.0, most: 3.0 });
        assert_eq!(of(&[9.0, 1.0, 3.0]), Spread { least: 1.0, median: 3.0, most: 9.0 });
        assert_eq!(of(&[4.0, 1.0, 2.0, 9.0]).median, 3.0);
    }

    #[test]
    fn rounds_are_paired_before_they_are_divided() {
        // A machine that is half as fast in the second round: the ratio does not change.
        let ratio = Ratio::of(&[Some(100.0), Some(50.0)], &[Some(300.0), Some(150.0)]).unwrap();
        assert_eq!(ratio.spread, Spread { least: 3.0, median: 3.0, most: 3.0 });
        assert_eq!(ratio.rounds, 2);
        assert!(ratio.is_clear());
    }

    #[test]
    fn what_was_not_measured_on_both_sides_has_no_ratio() {
        assert_eq!(Ratio::of(&[], &[]), None);
        assert_eq!(Ratio::of(&[Some(1.0)], &[None]), None);
        assert_eq!(Ratio::of(&[Some(0.0)], &[Some(1.0)]), None);
        let ratio = Ratio::of(&[None, Some(2.0), Some(4.0)], &[Some(5.0), Some(1.0)]).unwrap();
        assert_eq!((ratio.spread.median, ratio.rounds), (0.5, 1));
    }

    #[test]
    fn rounds_that_disagree_are_not_clear() {
        let ratio = Ratio::of(&[Some(1.0), Some(1.0)], &[Some(0.9), Some(1.2)]).unwrap();
        assert!(!ratio.is_clear());
    }
}
