//! Distributions that tests and intervals need: normal, Student's t, noncentral t, and the sign test's binomial.
//!
//! # What it computes
//! The incomplete beta function by Lentz's continued fraction; quantiles by bisection over the distribution function; the
//! noncentral t by algorithm AS 243.
//! # Reference
//! Press et al., Numerical Recipes, 6.4; Lenth 1989, Applied Statistics 38(1).

use libm::{erfc, lgamma};

/// Steps of a continued fraction or series after which it has long converged.
const MAX_STEPS: usize = 10_000;

/// P(Z <= z) of the standard normal.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * erfc(-z / std::f64::consts::SQRT_2)
}

/// The z with P(Z <= z) = `share`; infinite at 0 and 1.
pub fn normal_quantile(share: f64) -> f64 {
    quantile_of(share, normal_cdf)
}

/// P(T <= t) of Student's t.
pub fn t_cdf(t: f64, freedom: f64) -> f64 {
    if t.is_infinite() {
        return if t > 0.0 { 1.0 } else { 0.0 };
    }
    if t * t < freedom {
        // Near the middle, one minus almost one would lose half of the digits.
        let from_middle = 0.5 * beta_share(t * t / (freedom + t * t), 0.5, freedom / 2.0);
        return 0.5 + if t > 0.0 { from_middle } else { -from_middle };
    }
    let tail = 0.5 * beta_share(freedom / (freedom + t * t), freedom / 2.0, 0.5);
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// P(|T| >= |t|) of Student's t: the p-value of a two-sided test.
pub fn t_two_sided(t: f64, freedom: f64) -> f64 {
    if t.is_infinite() { 0.0 } else { beta_share(freedom / (freedom + t * t), freedom / 2.0, 0.5) }
}

/// The t with P(T <= t) = `share`; infinite at 0 and 1.
pub fn t_quantile(share: f64, freedom: f64) -> f64 {
    quantile_of(share, |t| t_cdf(t, freedom))
}

/// P(T <= t) of the noncentral t with noncentrality `shift`.
pub fn noncentral_t_cdf(t: f64, freedom: f64, shift: f64) -> f64 {
    if t < 0.0 {
        return 1.0 - noncentral_t_cdf(-t, freedom, -shift);
    }
    // Beyond this the first terms of the series are no longer numbers; the distribution is far on one side of any t of use.
    if shift.abs() > 37.0 {
        let spread = (1.0 + t * t / (2.0 * freedom)).sqrt();
        return normal_cdf((t * (1.0 - 1.0 / (4.0 * freedom)) - shift) / spread);
    }
    let x = t * t / (t * t + freedom);
    if x <= 0.0 {
        return normal_cdf(-shift);
    }
    let half = 0.5 * shift * shift;
    let (mut a, b) = (0.5, 0.5 * freedom);
    let mut p = 0.5 * (-half).exp();
    let mut q = (2.0 / std::f64::consts::PI).sqrt() * p * shift;
    let mut rest = 0.5 - p;
    let rest_beta = (b * (-x).ln_1p()).exp();
    let log_beta = 0.5 * std::f64::consts::PI.ln() + lgamma(b) - lgamma(a + b);
    let mut odd = beta_share(x, a, b);
    let mut odd_step = 2.0 * rest_beta * (a * x.ln() - log_beta).exp();
    let mut even = 1.0 - rest_beta;
    let mut even_step = b * x * rest_beta;
    let mut sum = p * odd + q * even;
    for step in 1..MAX_STEPS {
        let n = step as f64;
        a += 1.0;
        odd -= odd_step;
        even -= even_step;
        odd_step *= x * (a + b - 1.0) / a;
        even_step *= x * (a + b - 0.5) / (a + 0.5);
        p *= half / n;
        q *= half / (n + 0.5);
        rest -= p;
        sum += p * odd + q * even;
        if (2.0 * rest * (odd - odd_step)).abs() < 1e-13 {
            break;
        }
    }
    (sum + normal_cdf(-shift)).clamp(0.0, 1.0)
}

/// P(at most `successes` of `trials`) when each has an even chance.
pub fn even_binomial_cdf(successes: u64, trials: u64) -> f64 {
    let log_choose = |k: u64| lgamma(trials as f64 + 1.0) - lgamma(k as f64 + 1.0) - lgamma((trials - k) as f64 + 1.0);
    let log_half = trials as f64 * std::f64::consts::LN_2;
    (0..=successes.min(trials)).map(|k| (log_choose(k) - log_half).exp()).sum::<f64>().min(1.0)
}

/// The logarithm of the gamma function.
pub(super) fn log_gamma(x: f64) -> f64 {
    lgamma(x)
}

/// The regularised incomplete beta function I_x(a, b).
fn beta_share(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    let front = (lgamma(a + b) - lgamma(a) - lgamma(b) + a * x.ln() + b * (-x).ln_1p()).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(x, a, b) / a
    } else {
        1.0 - front * beta_fraction(1.0 - x, b, a) / b
    }
}

fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..MAX_STEPS {
        let m = step as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = fraction;
        for term in [even, odd] {
            d = 1.0 / away(1.0 + term * d);
            c = away(1.0 + term / c);
            fraction *= d * c;
        }
        if (fraction - before).abs() <= 1e-15 * fraction.abs() {
            break;
        }
    }
    fraction
}

/// Where a rising function reaches `share`, to the last bit that bisection can give.
fn quantile_of(share: f64, cdf: impl Fn(f64) -> f64) -> f64 {
    if share.is_nan() || share <= 0.0 || share >= 1.0 {
        return if share >= 1.0 { f64::INFINITY } else { f64::NEG_INFINITY };
    }
    // The lower half is exact where the upper one would round to 1.
    if share > 0.5 {
        return -quantile_of(1.0 - share, cdf);
    }
    let mut low = -1.0;
    while cdf(low) > share && low > -1e300 {
        low *= 2.0;
    }
    let mut high = 0.0;
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if cdf(middle) < share { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_are_right() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        close(normal_quantile(0.975), 1.959_963_984_540_054);
        close(t_quantile(0.975, 4.0), 2.776_445_105_197_793);
        // With one degree of freedom it is Cauchy's.
        close(t_cdf(1.0, 1.0), 0.75);
        close(t_two_sided(1.0, 1.0), 0.5);
        close(even_binomial_cdf(1, 4), 5.0 / 16.0);
    }

    #[test]
    fn without_a_shift_the_noncentral_t_is_the_central_one() {
        for t in [-3.0, -0.5, 0.0, 0.1, 2.0, 9.0] {
            assert!((noncentral_t_cdf(t, 7.0, 0.0) - t_cdf(t, 7.0)).abs() < 1e-12, "{t}");
        }
    }

    #[test]
    fn ends_and_nonsense_are_defined() {
        assert_eq!((normal_quantile(0.0), normal_quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
        assert_eq!((t_cdf(f64::INFINITY, 3.0), t_two_sided(f64::NEG_INFINITY, 3.0)), (1.0, 0.0));
        assert!(noncentral_t_cdf(2.0, 4.0, 60.0) < 1e-12);
        assert_eq!(even_binomial_cdf(9, 4), 1.0);
    }

    #[test]
    fn quantiles_undo_the_distribution() {
        for share in [1e-12, 0.01, 0.3, 0.5, 0.9, 1.0 - 1e-9] {
            assert!((t_cdf(t_quantile(share, 2.0), 2.0) - share).abs() < 1e-12, "{share}");
            assert!((normal_cdf(normal_quantile(share)) - share).abs() < 1e-12, "{share}");
        }
    }
}
