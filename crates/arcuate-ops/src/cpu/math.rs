//! Branch-free single-precision functions that compilers turn into vector code, and sums in a fixed order.

/// Lanes of the fixed-order sums; results do not depend on the instruction set's width.
pub(crate) const LANES: usize = 16;

/// `e^x` to about 2 units in the last place; 0 below -87.3, clamped above 88.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * std::f32::consts::LOG2_E + 12_582_912.0; // 1.5 * 2^23 rounds to an integer
    let n = shifted - 12_582_912.0;
    let r = clamped - n * 0.693_359_4;
    let r = r + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 0.166_666_65;
    p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    // The integer stands in the low bits of `shifted`; a conversion would have to test for numbers that do not fit.
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { p * scale }
}

/// The logistic function.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Cumulative distribution and density of the standard normal (Abramowitz and Stegun 7.1.26, error below 1.5e-7).
#[inline(always)]
pub(crate) fn normal_cdf_pdf(x: f32) -> (f32, f32) {
    let z = x * std::f32::consts::FRAC_1_SQRT_2;
    let magnitude = z.abs();
    let e = exp(-z * z);
    let t = 1.0 / (magnitude * 0.327_591_1 + 1.0);
    let mut p = 1.061_405_4;
    p = p * t - 1.453_152;
    p = p * t + 1.421_413_7;
    p = p * t - 0.284_496_74;
    p = p * t + 0.254_829_6;
    let erf = (1.0 - p * t * e).copysign(x);
    (0.5 * (1.0 + erf), e * 0.398_942_3)
}

#[inline(always)]
fn fold(lanes: [f32; LANES], rest: f32) -> f32 {
    let mut width = LANES / 2;
    let mut lanes = lanes;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0] + rest
}

/// Sum in a fixed order.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder().iter().sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    fold(lanes, rest)
}

/// Sum of products in a fixed order.
#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let n = x.len().min(y.len());
    let (x, y) = (&x[..n], &y[..n]);
    let whole = n / LANES * LANES;
    for (x, y) in x[..whole].chunks_exact(LANES).zip(y[..whole].chunks_exact(LANES)) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    let rest = x[whole..].iter().zip(&y[whole..]).map(|(x, y)| x * y).sum();
    fold(lanes, rest)
}

/// Largest value; negative infinity when there is none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let mut best = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    for lane in lanes {
        best = best.max(lane);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        for i in -8600..8800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 4e-7 * exact, "{x}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(1000.0).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sigmoid_is_accurate() {
        for i in -2000..2000 {
            let x = i as f32 * 0.01;
            assert!((f64::from(sigmoid(x)) - 1.0 / (1.0 + (-f64::from(x)).exp())).abs() < 3e-7, "{x}");
        }
    }

    #[test]
    fn normal_distribution_matches_known_values() {
        for (x, cdf) in [(0.0, 0.5), (1.0, 0.841_344_8), (-1.0, 0.158_655_25), (3.0, 0.998_650_1), (-40.0, 0.0)] {
            let (c, p) = normal_cdf_pdf(x);
            assert!((c - cdf).abs() < 3e-7, "{x}: {c}");
            assert!((p - (-x * x / 2.0).exp() * 0.398_942_3).abs() < 3e-7);
        }
    }

    #[test]
    fn sums_agree_with_plain_loops_for_odd_lengths() {
        for n in [0usize, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..n).map(|i| (i as f32).sin()).collect();
            let plain: f64 = x.iter().map(|x| f64::from(*x)).sum();
            assert!((f64::from(sum(&x)) - plain).abs() < 1e-5);
            let plain: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
            assert!((f64::from(dot(&x, &x)) - plain).abs() < 1e-5);
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
