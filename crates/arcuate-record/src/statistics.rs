//! Means with their uncertainty, and whether two lists that belong together pair by pair differ.
//!
//! The bootstrap draws with splitmix64 from a given seed: the same values and seed give the same interval everywhere.
//! `tests/statistics.rs` holds everything here against SciPy and statsmodels.

mod correction;
mod distribution;
mod paired;
mod power;

pub use correction::{benjamini_hochberg, holm};
pub use distribution::{
    even_binomial_cdf, noncentral_t_cdf, normal_cdf, normal_quantile, t_cdf, t_quantile, t_two_sided,
};
pub use paired::{IntervalKind, Test, cohens_dz, hedges_g, sign_test, t_interval, t_test};
pub use power::{pairs_needed, t_test_power};

use serde::{Deserialize, Serialize};

/// The arithmetic mean; `None` without values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation of a sample (divided by n - 1); `None` for fewer than two values.
pub fn sample_std(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// The standard error of the mean; `None` for fewer than two values.
pub fn standard_error(values: &[f64]) -> Option<f64> {
    Some(sample_std(values)? / (values.len() as f64).sqrt())
}

/// The value below which the given share of the values lies, interpolated linearly between neighbours (the default
/// of NumPy and R). `None` without values. NaN sorts last.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile_of_sorted(&sorted, share)
}

fn quantile_of_sorted(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = share.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(if low == high { low } else { low + (high - low) * place.fract() })
}

/// A range that holds the true value with the stated confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// How a bootstrap is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Confidence, as in 0.95.
    pub level: f64,
    /// How often the sample is drawn anew.
    pub num_resamples: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { level: 0.95, num_resamples: 2000, seed: 0 }
    }
}

impl Bootstrap {
    /// The percentile interval of the mean; `None` without values.
    pub fn mean_interval(&self, values: &[f64]) -> Option<Interval> {
        self.interval(values.len(), |indices| indices.iter().map(|&i| values[i]).sum::<f64>() / indices.len() as f64)
    }

    /// The percentile interval of any statistic of `num_items` items, given the drawn indices (macro-F1, say).
    pub fn interval(&self, num_items: usize, statistic: impl Fn(&[usize]) -> f64) -> Option<Interval> {
        let mut drawn = self.draws(num_items, statistic);
        drawn.sort_by(f64::total_cmp);
        let tail = (1.0 - self.level.clamp(0.0, 1.0)) / 2.0;
        let (low, high) = (quantile_of_sorted(&drawn, tail)?, quantile_of_sorted(&drawn, 1.0 - tail)?);
        Some(Interval { low, high })
    }

    /// The statistic of each resample; empty without items. The same seed and number of items give the same draws.
    pub fn draws(&self, num_items: usize, statistic: impl Fn(&[usize]) -> f64) -> Vec<f64> {
        if num_items == 0 {
            return Vec::new();
        }
        let mut state = self.seed;
        let mut indices = vec![0; num_items];
        let mut drawn = Vec::with_capacity(self.num_resamples);
        for _ in 0..self.num_resamples {
            for index in &mut indices {
                *index = below(&mut state, num_items as u64) as usize;
            }
            drawn.push(statistic(&indices));
        }
        drawn
    }

    /// Compares two lists item by item (same seed, same test item): `b - a`. `None` if they are empty or of different
    /// length.
    pub fn paired_difference(&self, a: &[f64], b: &[f64]) -> Option<PairedDifference> {
        if a.len() != b.len() {
            return None;
        }
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
        Some(PairedDifference {
            mean: mean(&differences)?,
            interval: self.mean_interval(&differences)?,
            num_positive: differences.iter().filter(|&&difference| difference > 0.0).count(),
            num_pairs: differences.len(),
        })
    }
}

/// How much more `b` has than `a`, pair by pair.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// Mean of `b - a`.
    pub mean: f64,
    /// Its bootstrap interval.
    pub interval: Interval,
    /// Pairs in which `b` has more.
    pub num_positive: usize,
    /// All pairs.
    pub num_pairs: usize,
}

/// A draw from `0..limit` without bias worth mentioning: the high half of a 128-bit product.
fn below(state: &mut u64, limit: u64) -> u64 {
    ((u128::from(splitmix64(state)) * u128::from(limit)) >> 64) as u64
}

/// The generator of Steele, Lea and Flood 2014.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_agree_with_hand_computation() {
        // Mean 5, squared deviations 9+1+1+1+0+0+4+16 = 32, over 7.
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert_eq!(mean(&values), Some(5.0));
        assert_eq!(sample_std(&values), Some((32.0_f64 / 7.0).sqrt()));
        assert_eq!(standard_error(&values), Some((32.0_f64 / 7.0).sqrt() / 8.0_f64.sqrt()));
    }

    #[test]
    fn too_few_values_have_no_spread() {
        assert_eq!((mean(&[]), sample_std(&[1.0]), standard_error(&[1.0])), (None, None, None));
        assert_eq!(Bootstrap::default().mean_interval(&[]), None);
        assert_eq!(Bootstrap::default().paired_difference(&[1.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn quantiles_interpolate_between_neighbours() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&values, 0.5), Some(2.5));
        assert_eq!(quantile(&values, 0.9), Some(3.7));
        assert_eq!(quantile(&values, 1.0), Some(4.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn the_generator_gives_the_published_numbers() {
        let mut state = 1_234_567;
        let drawn: Vec<u64> = (0..3).map(|_| splitmix64(&mut state)).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn the_interval_of_two_values_is_known_exactly() {
        // A resample of {0, 1} has mean 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4: the 2.5% tails are 0 and 1.
        let interval = Bootstrap::default().mean_interval(&[0.0, 1.0]).expect("has values");
        assert_eq!(interval, Interval { low: 0.0, high: 1.0 });
        let half = Bootstrap { level: 0.4, ..Bootstrap::default() }.mean_interval(&[0.0, 1.0]).expect("has values");
        assert_eq!(half, Interval { low: 0.5, high: 0.5 });
    }

    #[test]
    fn the_interval_of_many_values_nears_the_normal_one() {
        let values: Vec<f64> = (0..400).map(|index| f64::from(index % 2)).collect();
        let interval = Bootstrap::default().mean_interval(&values).expect("has values");
        let expected = 1.96 * standard_error(&values).expect("has values");
        assert!((interval.high - 0.5 - expected).abs() < 0.005, "{interval:?} {expected}");
        assert!((0.5 - interval.low - expected).abs() < 0.005, "{interval:?} {expected}");
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0];
        let draw = |seed| Bootstrap { seed, num_resamples: 50, ..Bootstrap::default() }.mean_interval(&values);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn paired_differences_count_the_wins() {
        let a = [0.60, 0.61, 0.62, 0.60, 0.63];
        let b = [0.68, 0.69, 0.70, 0.68, 0.71];
        let difference = Bootstrap::default().paired_difference(&a, &b).expect("same length");
        assert!((difference.mean - 0.08).abs() < 1e-12);
        assert!((difference.interval.low - 0.08).abs() < 1e-9 && (difference.interval.high - 0.08).abs() < 1e-9);
        assert_eq!((difference.num_positive, difference.num_pairs), (5, 5));
    }

    #[test]
    fn any_statistic_can_be_drawn() {
        let values = [1.0, 2.0, 3.0];
        let largest = |indices: &[usize]| indices.iter().map(|&i| values[i]).fold(0.0, f64::max);
        let interval = Bootstrap::default().interval(3, largest).expect("has items");
        assert_eq!(interval, Interval { low: 1.0, high: 3.0 });
    }
}
