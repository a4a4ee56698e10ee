//! How many pairs it takes to see an effect: the power of the paired t-test.
//!
//! # What it computes
//! The chance that a two-sided test at `level` rejects when the mean is `effect` standard deviations from zero, from the
//! noncentral t with noncentrality `effect * sqrt(n)`.
//! # Reference
//! Cohen 1988; the same as `TTestPower` of statsmodels.

use super::distribution::{noncentral_t_cdf, t_quantile};

/// More pairs than this are as good as never.
const MAX_PAIRS: f64 = 1e7;

/// The power with `num_pairs` pairs (which need not be whole) at significance `alpha`.
pub fn t_test_power(effect: f64, num_pairs: f64, alpha: f64) -> f64 {
    let freedom = num_pairs - 1.0;
    if freedom <= 0.0 {
        return 0.0;
    }
    let critical = t_quantile(1.0 - alpha / 2.0, freedom);
    let shift = effect.abs() * num_pairs.sqrt();
    (1.0 - noncentral_t_cdf(critical, freedom, shift) + noncentral_t_cdf(-critical, freedom, shift)).clamp(0.0, 1.0)
}

/// The fewest pairs with at least this power: a number that need not be whole, at least 2. `None` if no bearable number does.
pub fn pairs_needed(effect: f64, power: f64, alpha: f64) -> Option<f64> {
    let is_sound = effect.abs() > 0.0 && effect.is_finite() && (0.0..1.0).contains(&power);
    if !is_sound {
        return None;
    }
    let enough = |pairs: f64| t_test_power(effect, pairs, alpha) >= power;
    let (mut low, mut high) = (2.0, 2.0);
    while !enough(high) {
        (low, high) = (high, high * 2.0);
        if high > MAX_PAIRS {
            return None;
        }
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if enough(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_pairs_and_larger_effects_have_more_power() {
        assert!(t_test_power(0.5, 10.0, 0.05) < t_test_power(0.5, 20.0, 0.05));
        assert!(t_test_power(0.5, 10.0, 0.05) < t_test_power(1.0, 10.0, 0.05));
        assert!((t_test_power(0.0, 10.0, 0.05) - 0.05).abs() < 1e-9);
        assert_eq!(t_test_power(1.0, 1.0, 0.05), 0.0);
    }

    #[test]
    fn the_pairs_that_are_needed_have_just_the_power() {
        let pairs = pairs_needed(0.8, 0.8, 0.05).expect("is bearable");
        assert!((t_test_power(0.8, pairs, 0.05) - 0.8).abs() < 1e-9);
        assert_eq!(pairs_needed(50.0, 0.8, 0.05), Some(2.0));
    }

    #[test]
    fn no_effect_is_never_seen() {
        assert_eq!(pairs_needed(0.0, 0.8, 0.05), None);
        assert_eq!(pairs_needed(1e-9, 0.8, 0.05), None);
        assert_eq!(pairs_needed(f64::NAN, 0.8, 0.05), None);
    }
}
