//! Is the mean of paired differences away from zero? Tests, intervals, effect size.
//!
//! # What it computes
//! Student's paired t-test and the exact sign test, two-sided; intervals of the mean by t, by the percentile bootstrap, or
//! by the bias-corrected and accelerated bootstrap (BCa); Cohen's d_z = mean / standard deviation, and Hedges' g, which
//! takes out its bias in small samples.
//! # Reference
//! Efron 1987 (BCa); Hedges 1981; Lakens 2013 for d_z.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::distribution::{even_binomial_cdf, log_gamma, normal_cdf, normal_quantile, t_quantile, t_two_sided};
use super::{Bootstrap, Interval, mean, quantile_of_sorted, sample_std, standard_error};

/// How the interval of a mean is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntervalKind {
    /// Student's t: assumes that the differences scatter normally; the right choice for few seeds.
    T,
    /// Percentiles of resampled means: assumes nothing, but is too narrow for fewer than about ten seeds.
    BootstrapPercentile,
    /// The same, corrected for bias and skew (BCa).
    BootstrapBca,
}

impl IntervalKind {
    /// In words, for tables.
    pub fn words(self) -> &'static str {
        match self {
            Self::T => "Student's t",
            Self::BootstrapPercentile => "percentile bootstrap",
            Self::BootstrapBca => "BCa bootstrap",
        }
    }

    /// The interval of the mean; `None` for fewer than two values.
    pub fn of_mean(self, values: &[f64], level: f64) -> Option<Interval> {
        if values.len() < 2 {
            return None;
        }
        let bootstrap = Bootstrap { level, num_resamples: 10_000, seed: 0 };
        match self {
            Self::T => t_interval(values, level),
            Self::BootstrapPercentile => bootstrap.mean_interval(values),
            Self::BootstrapBca => bootstrap.mean_interval_bca(values),
        }
    }
}

/// The t interval of the mean; `None` for fewer than two values.
pub fn t_interval(values: &[f64], level: f64) -> Option<Interval> {
    let (mean, error) = (mean(values)?, standard_error(values)?);
    let reach = t_quantile(0.5 + 0.5 * level.clamp(0.0, 1.0), (values.len() - 1) as f64) * error;
    // Equal values have no error, and infinity times nothing is nothing here.
    let reach = if error == 0.0 { 0.0 } else { reach };
    Some(Interval { low: mean - reach, high: mean + reach })
}

/// The result of a test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// What was computed: t, or the number of positive differences.
    pub statistic: f64,
    /// Probability of something as extreme when there is no effect; two-sided.
    pub p_value: f64,
}

/// Student's t-test that the mean is `null`; `None` for fewer than two values. Equal values that differ from `null` give
/// p = 0, those that equal it p = 1.
pub fn t_test(values: &[f64], null: f64) -> Option<Test> {
    let (mean, error) = (mean(values)?, standard_error(values)?);
    let statistic = match (mean - null) / error {
        t if t.is_nan() => 0.0,
        t => t,
    };
    Some(Test { statistic, p_value: t_two_sided(statistic, (values.len() - 1) as f64) })
}

/// The exact sign test that half of the values lie above `null`. Values that equal it are left out; `None` if none is left.
pub fn sign_test(values: &[f64], null: f64) -> Option<Test> {
    let above = values.iter().filter(|value| **value > null).count() as u64;
    let apart = above + values.iter().filter(|value| **value < null).count() as u64;
    (apart > 0).then(|| Test {
        statistic: above as f64,
        p_value: (2.0 * even_binomial_cdf(above.min(apart - above), apart)).min(1.0),
    })
}

/// Cohen's d_z: the mean in standard deviations. `None` for fewer than two values or values without spread.
pub fn cohens_dz(values: &[f64]) -> Option<f64> {
    let spread = sample_std(values).filter(|spread| *spread > 0.0)?;
    Some(mean(values)? / spread)
}

/// d_z without its bias in small samples (Hedges' exact factor).
pub fn hedges_g(values: &[f64]) -> Option<f64> {
    let freedom = values.len().checked_sub(1)? as f64;
    let factor = if values.len() < 3 {
        // The factor has no finite value for one degree of freedom.
        return None;
    } else {
        (log_gamma(freedom / 2.0) - log_gamma((freedom - 1.0) / 2.0)).exp() / (freedom / 2.0).sqrt()
    };
    Some(cohens_dz(values)? * factor)
}

impl Bootstrap {
    /// The bias-corrected and accelerated interval of the mean; `None` for fewer than two values.
    pub fn mean_interval_bca(&self, values: &[f64]) -> Option<Interval> {
        let num = values.len();
        let (observed, sum) = (mean(values).filter(|_| num > 1)?, values.iter().sum::<f64>());
        let mut drawn = self.draws(num, |indices| indices.iter().map(|&i| values[i]).sum::<f64>() / num as f64);
        drawn.sort_by(f64::total_cmp);
        let below = drawn.iter().filter(|mean| **mean < observed).count() as f64;
        let equal = drawn.iter().filter(|mean| **mean == observed).count() as f64;
        // Ties count half, as in SciPy.
        let bias = normal_quantile((below + 0.5 * equal) / drawn.len() as f64);
        let without: Vec<f64> = values.iter().map(|value| (sum - value) / (num - 1) as f64).collect();
        let centre = mean(&without)?;
        let (squares, cubes) = without.iter().fold((0.0, 0.0), |(squares, cubes), value| {
            let from = centre - value;
            (squares + from * from, cubes + from * from * from)
        });
        let acceleration = if squares > 0.0 { cubes / (6.0 * squares.powf(1.5)) } else { 0.0 };
        let tail = (1.0 - self.level.clamp(0.0, 1.0)) / 2.0;
        let place = |share: f64| {
            let z = bias + normal_quantile(share);
            let share = normal_cdf(bias + z / (1.0 - acceleration * z));
            quantile_of_sorted(&drawn, if share.is_nan() { 0.5 } else { share })
        };
        Some(Interval { low: place(tail)?, high: place(1.0 - tail)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [f64; 5] = [1.0, 2.0, 3.0, 4.0, 5.0];

    #[test]
    fn the_t_interval_is_the_textbook_one() {
        let interval = t_interval(&VALUES, 0.95).expect("has values");
        let reach = 2.776_445_105_197_793 * (2.5_f64 / 5.0).sqrt();
        assert!((interval.high - 3.0 - reach).abs() < 1e-9 && (3.0 - interval.low - reach).abs() < 1e-9);
    }

    #[test]
    fn equal_values_neither_divide_by_zero_nor_lie() {
        assert_eq!(t_test(&[2.0, 2.0, 2.0], 0.0).map(|test| test.p_value), Some(0.0));
        assert_eq!(t_test(&[0.0, 0.0], 0.0).map(|test| test.p_value), Some(1.0));
        assert_eq!(t_interval(&[2.0, 2.0], 0.95), Some(Interval { low: 2.0, high: 2.0 }));
        assert_eq!((cohens_dz(&[2.0, 2.0]), hedges_g(&[2.0, 3.0])), (None, None));
        let interval = IntervalKind::BootstrapBca.of_mean(&[2.0, 2.0], 0.95).expect("has values");
        assert_eq!((interval.low, interval.high), (2.0, 2.0));
    }

    #[test]
    fn the_sign_test_counts_and_leaves_out_ties() {
        let test = sign_test(&[1.0, 2.0, 3.0, 4.0, 5.0, 0.0], 0.0).expect("has signs");
        assert_eq!((test.statistic, test.p_value), (5.0, 2.0 / 32.0));
        assert_eq!(sign_test(&[0.0, 0.0], 0.0), None);
        assert_eq!(sign_test(&[1.0, -1.0], 0.0).map(|test| test.p_value), Some(1.0));
    }

    #[test]
    fn shifting_values_and_null_changes_nothing() {
        let shifted: Vec<f64> = VALUES.iter().map(|value| value + 10.0).collect();
        let (plain, moved) = (t_test(&VALUES, 1.0), t_test(&shifted, 11.0));
        assert!((plain.expect("has").p_value - moved.expect("has").p_value).abs() < 1e-12);
        assert_eq!(sign_test(&VALUES, 2.5), sign_test(&shifted, 12.5));
    }

    #[test]
    fn one_value_has_no_interval() {
        for kind in [IntervalKind::T, IntervalKind::BootstrapPercentile, IntervalKind::BootstrapBca] {
            assert_eq!(kind.of_mean(&[1.0], 0.95), None);
            assert!(!kind.words().is_empty());
        }
    }
}
