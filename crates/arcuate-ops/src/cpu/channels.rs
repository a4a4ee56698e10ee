//! Normalisation of channels-last rows over the rows: statistics per channel, in blocks that fit the cache.
//!
//! Group norm and batch norm differ only in which rows and channels share a mean; both hand in per-channel vectors.
// R rows, C channels

use rayon::prelude::*;

use super::math::normal_cdf_pdf;
use super::simd::simd;

/// Rows of one task; also the unit of the fixed-order sums.
pub(crate) const ROWS: usize = 64;

/// Count, mean and sum of squared differences from it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Moments {
    pub count: f64,
    pub mean: f64,
    pub squares: f64,
}

impl Moments {
    /// Both sets of numbers together (Chan, Golub and LeVeque 1979).
    pub(crate) fn merged(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let apart = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + apart * (other.count / count),
            squares: self.squares + other.squares + apart * apart * (self.count * other.count / count),
        }
    }

    /// The biased variance; 0 of nothing.
    pub(crate) fn variance(self) -> f64 {
        self.squares / self.count.max(1.0)
    }
}

/// What every channel is normalised with: `y = (x - mean) * rate * weight + bias`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Channels {
    pub mean: Vec<f32>,
    pub rate: Vec<f32>,
}

simd! {
    fn block_moments(x: &[f32], mean: &mut [f32], squares: &mut [f32]) {
        let c = mean.len();
        let count = (x.len() / c) as f32;
        for x in x.chunks_exact(c) {
            for (mean, x) in mean.iter_mut().zip(x) {
                *mean += x;
            }
        }
        for mean in mean.iter_mut() {
            *mean /= count;
        }
        for x in x.chunks_exact(c) {
            for ((squares, mean), x) in squares.iter_mut().zip(&*mean).zip(x) {
                *squares += (x - mean) * (x - mean);
            }
        }
    }
}

/// Moments of each of `c` channels over the rows that `valid` names (all when it is empty).
pub(crate) fn moments(x: &[f32], c: usize, valid: &[bool]) -> Vec<Moments> {
    let blocks: Vec<_> = x
        .par_chunks(ROWS * c)
        .enumerate()
        .map(|(task, x)| {
            let kept: Vec<f32>;
            let mut x = x;
            if !valid.is_empty() {
                let valid = &valid[task * ROWS..][..x.len() / c];
                kept =
                    x.chunks_exact(c).zip(valid).filter(|(_, valid)| **valid).flat_map(|(x, _)| x).copied().collect();
                x = &kept;
            }
            let (mut mean, mut squares) = (vec![0f32; c], vec![0f32; c]);
            if !x.is_empty() {
                block_moments(x, &mut mean, &mut squares);
            }
            (x.len() / c, mean, squares)
        })
        .collect();
    let mut total = vec![Moments::default(); c];
    for (count, mean, squares) in blocks {
        for ((total, mean), squares) in total.iter_mut().zip(mean).zip(squares) {
            *total = total.merged(Moments { count: count as f64, mean: mean.into(), squares: squares.into() });
        }
    }
    total
}

simd! {
    fn normal_rows(x: &[f32], mean: &[f32], rate: &[f32], weight: &[f32], bias: &[f32], gelu: bool, out: &mut [f32]) {
        let c = mean.len();
        for (x, out) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
            for i in 0..c {
                out[i] = (x[i] - mean[i]) * rate[i] * weight[i] + bias[i];
            }
            if gelu {
                for out in out {
                    *out *= normal_cdf_pdf(*out).0;
                }
            }
        }
    }
}

/// An affine normalisation, with GELU after it or without.
pub(crate) struct Affine<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub gelu: bool,
}

/// Normalised rows `[R, C]`; rows that `valid` excludes stay as `out` has them.
pub(crate) fn normalise(x: &[f32], at: &Channels, affine: &Affine, valid: &[bool], out: &mut [f32]) {
    let c = at.mean.len();
    let Affine { weight, bias, gelu } = *affine;
    out.par_chunks_mut(ROWS * c).zip(x.par_chunks(ROWS * c)).enumerate().for_each(|(task, (out, x))| {
        if valid.is_empty() {
            normal_rows(x, &at.mean, &at.rate, weight, bias, gelu, out);
            return;
        }
        let rows = x.chunks_exact(c).zip(out.chunks_exact_mut(c)).zip(&valid[task * ROWS..]);
        for ((x, out), _) in rows.filter(|(_, valid)| **valid) {
            normal_rows(x, &at.mean, &at.rate, weight, bias, gelu, out);
        }
    });
}

simd! {
    /// Puts the gradient before GELU into `dx` and adds its sums, alone and times the normalised input.
    fn gradient_sums(
        x: &[f32], grad: &[f32], mean: &[f32], rate: &[f32], weight: &[f32], bias: &[f32], gelu: bool,
        dx: &mut [f32], dw: &mut [f32], db: &mut [f32],
    ) {
        let c = mean.len();
        for ((x, grad), dx) in x.chunks_exact(c).zip(grad.chunks_exact(c)).zip(dx.chunks_exact_mut(c)) {
            if gelu {
                for i in 0..c {
                    let y = (x[i] - mean[i]) * rate[i] * weight[i] + bias[i];
                    let (cdf, pdf) = normal_cdf_pdf(y);
                    dx[i] = grad[i] * (cdf + y * pdf);
                }
            } else {
                dx.copy_from_slice(grad);
            }
            for i in 0..c {
                dw[i] += dx[i] * (x[i] - mean[i]) * rate[i];
                db[i] += dx[i];
            }
        }
    }
}

/// Gradients of weight and bias of rows `[R, C]`; `dx` receives the gradient before GELU, 0 for excluded rows.
pub(crate) fn sums(
    x: &[f32],
    grad: &[f32],
    at: &Channels,
    affine: &Affine,
    valid: &[bool],
    dx: &mut [f32],
) -> (Vec<f32>, Vec<f32>) {
    let c = at.mean.len();
    let Affine { weight, bias, gelu } = *affine;
    let parts: Vec<_> = dx
        .par_chunks_mut(ROWS * c)
        .zip(x.par_chunks(ROWS * c))
        .zip(grad.par_chunks(ROWS * c))
        .enumerate()
        .map(|(task, ((dx, x), grad))| {
            let (mut dw, mut db) = (vec![0f32; c], vec![0f32; c]);
            if valid.is_empty() {
                gradient_sums(x, grad, &at.mean, &at.rate, weight, bias, gelu, dx, &mut dw, &mut db);
            } else {
                let rows = x.chunks_exact(c).zip(grad.chunks_exact(c)).zip(dx.chunks_exact_mut(c));
                for (((x, grad), dx), _) in rows.zip(&valid[task * ROWS..]).filter(|(_, valid)| **valid) {
                    gradient_sums(x, grad, &at.mean, &at.rate, weight, bias, gelu, dx, &mut dw, &mut db);
                }
            }
            (dw, db)
        })
        .collect();
    let (mut dw, mut db) = (vec![0f32; c], vec![0f32; c]);
    for (w, b) in parts {
        for i in 0..c {
            dw[i] += w[i];
            db[i] += b[i];
        }
    }
    (dw, db)
}

simd! {
    fn input_rows(x: &[f32], mean: &[f32], rate: &[f32], weight: &[f32], pull: &[f32], average: &[f32], dx: &mut [f32]) {
        let c = mean.len();
        for (x, dx) in x.chunks_exact(c).zip(dx.chunks_exact_mut(c)) {
            for i in 0..c {
                let normal = (x[i] - mean[i]) * rate[i];
                dx[i] = rate[i] * (weight[i] * dx[i] - average[i] - normal * pull[i]);
            }
        }
    }
}

/// Turns what `sums` left in `dx` into the gradient of the input. `pull` and `average` are, per channel, the means of
/// `weight * gradient` over all that shares a mean, with and without the normalised input as a factor.
pub(crate) fn input_gradient(
    x: &[f32],
    at: &Channels,
    weight: &[f32],
    pull: &[f32],
    average: &[f32],
    valid: &[bool],
    dx: &mut [f32],
) {
    let c = at.mean.len();
    dx.par_chunks_mut(ROWS * c).zip(x.par_chunks(ROWS * c)).enumerate().for_each(|(task, (dx, x))| {
        if valid.is_empty() {
            input_rows(x, &at.mean, &at.rate, weight, pull, average, dx);
            return;
        }
        let rows = x.chunks_exact(c).zip(dx.chunks_exact_mut(c)).zip(&valid[task * ROWS..]);
        for ((x, dx), _) in rows.filter(|(_, valid)| **valid) {
            input_rows(x, &at.mean, &at.rate, weight, pull, average, dx);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_a_large_offset_keep_their_digits() {
        let x: Vec<f32> = (0..300 * 3).map(|i| 1e4 + (i as f32 * 0.37).sin()).collect();
        for (channel, moments) in moments(&x, 3, &[]).into_iter().enumerate() {
            let column: Vec<f64> = x.iter().skip(channel).step_by(3).map(|x| f64::from(*x)).collect();
            let mean = column.iter().sum::<f64>() / 300.0;
            let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 300.0;
            assert_eq!(moments.count, 300.0);
            assert!((moments.mean - mean).abs() < 1e-2 && (moments.variance() / variance - 1.0).abs() < 1e-3);
        }
    }
}
