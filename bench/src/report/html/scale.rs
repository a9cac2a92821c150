//! Where a value stands on an axis, and which values an axis names.

/// How values are laid out along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Evenly, from 0 to a value.
    Linear {
        /// The value at its end.
        most: f64,
    },
    /// Each tenfold takes the same room.
    Logarithmic {
        /// The value at its begin; more than 0.
        least: f64,
        /// The value at its end.
        most: f64,
    },
    /// Percentiles: each nine takes the same room.
    Percentile {
        /// How many nines there are at its end.
        nines: f64,
    },
}

/// A value that an axis names.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Where, from 0 to 1.
    pub at: f64,
    /// The value.
    pub value: f64,
}

impl Scale {
    /// From 0 to a round number above all `values`.
    pub fn linear(values: impl Iterator<Item = f64>) -> Self {
        let most = values.fold(0.0, f64::max);
        if most <= 0.0 {
            return Self::Linear { most: 1.0 };
        }
        let step = step(most);
        Self::Linear { most: (most / step).ceil() * step }
    }

    /// Between round numbers around all `values`; those that are 0 stand at its begin.
    pub fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let positive = values.filter(|value| *value > 0.0);
        let ends = positive.fold(None, |ends: Option<(f64, f64)>, value| {
            let (least, most) = ends.unwrap_or((value, value));
            Some((least.min(value), most.max(value)))
        });
        let (least, most) = ends.unwrap_or((1.0, 10.0));
        let (least, most) = (round_below(least), round_above(most));
        // Where all are nearly the same, there is still room around them.
        if most / least < 5.0 {
            return Self::Logarithmic { least: least / 2.0, most: most * 2.0 };
        }
        Self::Logarithmic { least, most }
    }

    /// Up to the percentile that `count` values can tell.
    pub fn percentile(count: u64) -> Self {
        let nines = (count.max(10) as f64).log10();
        Self::Percentile { nines: nines.min(6.0) }
    }

    /// Where a value stands, from 0 to 1.
    pub fn at(&self, value: f64) -> f64 {
        let at = match self {
            Self::Linear { most } => value / most,
            Self::Logarithmic { least, .. } if value <= *least => 0.0,
            Self::Logarithmic { least, most } => (value / least).ln() / (most / least).ln(),
            Self::Percentile { .. } if value >= 100.0 => 1.0,
            Self::Percentile { nines } => -(1.0 - value / 100.0).log10() / nines,
        };
        at.clamp(0.0, 1.0)
    }

    /// The values that it names, at most some ten of them.
    pub fn ticks(&self) -> Vec<Tick> {
        let values: Vec<f64> = match self {
            Self::Linear { most } => {
                let step = step(*most);
                (0..=10u32).map(|tick| f64::from(tick) * step).collect()
            }
            Self::Logarithmic { least, most } => {
                let steps: &[f64] = if most / least > 1e3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let decades = decade(*least)..=decade(*most);
                decades
                    .flat_map(|decade| steps.iter().map(move |s| s * 10f64.powi(decade)))
                    .collect()
            }
            // The begin has no room for a name where there are many nines.
            Self::Percentile { nines } => {
                let first = if *nines > 4.0 { 50.0 } else { 0.0 };
                vec![first, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999]
            }
        };
        let inside = |value: &f64| match self {
            Self::Linear { most } => *value <= most * 1.000_001,
            Self::Logarithmic { least, most } => {
                *value >= least * 0.999_999 && *value <= most * 1.000_001
            }
            Self::Percentile { nines } => -(1.0 - value / 100.0).log10() <= nines + 1e-6,
        };
        let mut values: Vec<f64> = values.into_iter().filter(inside).collect();
        values.dedup();
        values.into_iter().map(|value| Tick { at: self.at(value), value }).collect()
    }
}

/// A round number of which about five make up `most`.
fn step(most: f64) -> f64 {
    round_above(most / 6.0)
}

fn round_above(value: f64) -> f64 {
    let size = 10f64.powi(decade(value));
    let steps = [1.0, 2.0, 5.0, 10.0];
    let fits = steps.iter().find(|step| *step * size >= value * 0.999_999);
    fits.unwrap_or(&10.0) * size
}

fn round_below(value: f64) -> f64 {
    let size = 10f64.powi(decade(value));
    let steps = [5.0, 2.0, 1.0];
    let fits = steps.iter().find(|step| *step * size <= value * 1.000_001);
    fits.unwrap_or(&1.0) * size
}

/// The power of ten at or below a value.
fn decade(value: f64) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "a double's exponent of ten is small")]
    let decade = (value.log10() + 1e-9).floor() as i32;
    decade
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(scale: Scale) -> Vec<f64> {
        scale.ticks().iter().map(|tick| (tick.value * 1e6).round() / 1e6).collect()
    }

    #[test]
    fn a_linear_axis_begins_at_0_and_ends_above_the_values() {
        let scale = Scale::linear([3.0, 812.0].into_iter());
        assert_eq!(values(scale), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
        assert_eq!(scale.at(500.0), 0.5);
        assert_eq!(values(Scale::linear([0.0].into_iter())).len(), 6);
        assert_eq!(Scale::linear(std::iter::empty()), Scale::Linear { most: 1.0 });
    }

    #[test]
    fn a_logarithmic_axis_gives_each_tenfold_the_same_room() {
        let scale = Scale::logarithmic([0.25, 40.0].into_iter());
        assert_eq!(values(scale), [0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        assert!((scale.at(1.0) - scale.at(0.5) - (scale.at(20.0) - scale.at(10.0))).abs() < 1e-9);
        assert_eq!((scale.at(0.0), scale.at(1e9)), (0.0, 1.0));
        // Six tenfolds: only they are named.
        let wide = Scale::logarithmic([1.0, 1e6].into_iter());
        assert_eq!(values(wide), [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6]);
        assert!(values(Scale::logarithmic([3.0].into_iter())).len() > 1);
    }

    #[test]
    fn a_percentile_axis_ends_where_the_values_do() {
        let scale = Scale::percentile(10_000);
        assert_eq!(values(Scale::percentile(1000)).last(), Some(&99.9));
        assert_eq!(values(scale), [0.0, 50.0, 90.0, 99.0, 99.9, 99.99]);
        assert_eq!(values(Scale::percentile(100_000)).first(), Some(&50.0));
        assert!((scale.at(99.0) - 0.5).abs() < 1e-9);
        assert_eq!(scale.at(100.0), 1.0);
    }
}
