//! RMSNorm and LayerNorm over the last dimension.
//!
//! # What it computes
//! RMSNorm: `y = w x / sqrt(mean(x^2) + eps)` (Zhang and Sennrich 2019).
//! LayerNorm: `y = w (x - mean(x)) / sqrt(var(x) + eps) + b` with the biased variance (Ba et al. 2016), also of a sum of two
//! tensors. The backward pass reads the mean and the factor of every row instead of computing them again.
// C channels

use std::sync::Arc;

use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::cpu::gemm::buffer;
use crate::cpu::math::{dot, sum};
use crate::cpu::simd::simd;
use crate::cpu::sums::add_in_order;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

/// Rows that one task normalises; also the unit of the fixed-order sums over rows.
const ROWS: usize = 64;

simd! {
    /// Normalises rows; `factors` gets `1 / sqrt(..)` of each.
    fn rms_rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32], factors: &mut [f32]) {
        let c = weight.len();
        for ((x, out), factor) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)).zip(factors) {
            let r = 1.0 / (dot(x, x) / c as f32 + eps).sqrt();
            *factor = r;
            for i in 0..c {
                out[i] = x[i] * r * weight[i];
            }
        }
    }
}

simd! {
    fn rms_rows_backward(x: &[f32], weight: &[f32], grad: &[f32], factors: &[f32], dx: &mut [f32], dw: &mut [f32]) {
        let c = weight.len();
        for (((x, grad), dx), r) in x.chunks_exact(c).zip(grad.chunks_exact(c)).zip(dx.chunks_exact_mut(c)).zip(factors) {
            let dw = &mut dw[..c];
            for i in 0..c {
                dx[i] = grad[i] * weight[i];
                dw[i] += grad[i] * x[i] * r;
            }
            let pull = dot(dx, x) * r * r / c as f32;
            for i in 0..c {
                dx[i] = r * (dx[i] - x[i] * pull);
            }
        }
    }
}

/// Mean, and `1 / sqrt(variance + eps)`.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> [f32; 2] {
    let n = x.len() as f32;
    let mean = sum(x) / n;
    let mut squares = [0f32; 16];
    let chunks = x.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().map(|x| (x - mean) * (x - mean)).sum();
    for chunk in chunks {
        for i in 0..16 {
            squares[i] += (chunk[i] - mean) * (chunk[i] - mean);
        }
    }
    [mean, 1.0 / ((sum(&squares) + rest) / n + eps).sqrt()]
}

simd! {
    /// Normalises rows; `stats` gets mean and factor of each.
    fn layer_rows(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32], stats: &mut [[f32; 2]]) {
        let c = weight.len();
        let bias = &bias[..c];
        for ((x, out), stats) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)).zip(stats) {
            *stats = moments(x, eps);
            let [mean, r] = *stats;
            for i in 0..c {
                out[i] = (x[i] - mean) * r * weight[i] + bias[i];
            }
        }
    }
}

simd! {
    fn add_rows(x: &[f32], y: &[f32], out: &mut [f32]) {
        for ((x, y), out) in x.iter().zip(y).zip(out) {
            *out = x + y;
        }
    }
}

simd! {
    /// Sums over rows go to `sums`: the weight's, then the bias's.
    fn layer_rows_backward(x: &[f32], weight: &[f32], grad: &[f32], stats: &[[f32; 2]], dx: &mut [f32], sums: &mut [f32]) {
        let c = weight.len();
        let (dw, db) = sums.split_at_mut(c);
        let db = &mut db[..c];
        for (((x, grad), dx), [mean, r]) in x.chunks_exact(c).zip(grad.chunks_exact(c)).zip(dx.chunks_exact_mut(c)).zip(stats) {
            for i in 0..c {
                dx[i] = grad[i] * weight[i];
                dw[i] += grad[i] * (x[i] - mean) * r;
                db[i] += grad[i];
            }
            let average = sum(dx) / c as f32;
            let pull = (dot(dx, x) - mean * average * c as f32) * r * r / c as f32;
            for i in 0..c {
                dx[i] = r * (dx[i] - average - (x[i] - mean) * pull);
            }
        }
    }
}

#[derive(Debug, Clone)]
struct RmsNorm {
    eps: f32,
}

impl Kernel<2> for RmsNorm {
    type Saved = (FlexTensor, FlexTensor, Arc<Vec<f32>>);

    fn forward(&self, [x, weight]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let (w, xs) = (numbers(&weight), numbers(&x));
        let c = w.len();
        let mut out = buffer(xs.len());
        let mut factors = buffer(xs.len() / c);
        out.par_chunks_mut(ROWS * c)
            .zip(xs.par_chunks(ROWS * c))
            .zip(factors.par_chunks_mut(ROWS))
            .for_each(|((out, x), factors)| rms_rows(x, w, self.eps, out, factors));
        (tensor(&dims(&x), out), (x, weight, Arc::new(factors)))
    }

    fn backward(&self, (x, weight, factors): Self::Saved, grad: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let c = numbers(&weight).len();
        let mut dx = buffer(numbers(&x).len());
        let parts = dx
            .par_chunks_mut(ROWS * c)
            .zip(numbers(&x).par_chunks(ROWS * c))
            .zip(numbers(&grad).par_chunks(ROWS * c))
            .zip(factors.par_chunks(ROWS))
            .map(|(((dx, x), grad), factors)| {
                let mut dw = vec![0.0; c];
                rms_rows_backward(x, numbers(&weight), grad, factors, dx, &mut dw);
                dw
            })
            .collect();
        [Some(tensor(&dims(&x), dx)), Some(tensor(&[c], add_in_order(parts, c)))]
    }
}

#[derive(Debug, Clone)]
struct LayerNorm {
    eps: f32,
}

/// What is normalised, the weight, and mean and factor of every row.
type Saved = (FlexTensor, FlexTensor, Arc<Vec<[f32; 2]>>);

/// Gradients of what was normalised, of the weight and of the bias.
fn layer_norm_backward((x, weight, stats): Saved, grad: &FlexTensor) -> [FlexTensor; 3] {
    let c = numbers(&weight).len();
    let mut dx = buffer(numbers(&x).len());
    let parts = dx
        .par_chunks_mut(ROWS * c)
        .zip(numbers(&x).par_chunks(ROWS * c))
        .zip(numbers(grad).par_chunks(ROWS * c))
        .zip(stats.par_chunks(ROWS))
        .map(|(((dx, x), grad), stats)| {
            let mut sums = vec![0.0; 2 * c];
            layer_rows_backward(x, numbers(&weight), grad, stats, dx, &mut sums);
            sums
        })
        .collect();
    let mut dw = add_in_order(parts, 2 * c);
    let db = dw.split_off(c);
    [tensor(&dims(&x), dx), tensor(&[c], dw), tensor(&[c], db)]
}

impl Kernel<3> for LayerNorm {
    type Saved = Saved;

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let (w, b, xs) = (numbers(&weight), numbers(&bias), numbers(&x));
        let c = w.len();
        let mut out = buffer(xs.len());
        let mut stats = vec![[0.0; 2]; xs.len() / c];
        out.par_chunks_mut(ROWS * c)
            .zip(xs.par_chunks(ROWS * c))
            .zip(stats.par_chunks_mut(ROWS))
            .for_each(|((out, x), stats)| layer_rows(x, w, b, self.eps, out, stats));
        (tensor(&dims(&x), out), (x, weight, Arc::new(stats)))
    }

    fn backward(&self, saved: Self::Saved, grad: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        layer_norm_backward(saved, &grad).map(Some)
    }
}

/// With a second tensor that is added before.
impl Kernel<4> for LayerNorm {
    type Saved = Saved;

    fn forward(&self, [x, residual, weight, bias]: [FlexTensor; 4]) -> (FlexTensor, Self::Saved) {
        let (w, b) = (numbers(&weight), numbers(&bias));
        let (c, len) = (w.len(), numbers(&x).len());
        let (mut total, mut out) = (buffer(len), buffer(len));
        let mut stats = vec![[0.0; 2]; len / c];
        out.par_chunks_mut(ROWS * c)
            .zip(total.par_chunks_mut(ROWS * c))
            .zip(numbers(&x).par_chunks(ROWS * c))
            .zip(numbers(&residual).par_chunks(ROWS * c))
            .zip(stats.par_chunks_mut(ROWS))
            .for_each(|((((out, total), x), residual), stats)| {
                // Row by row, so that a sum is normalised while the nearest cache holds it.
                let rows = total.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(residual.chunks_exact(c));
                for ((((total, x), residual), out), stats) in rows.zip(out.chunks_exact_mut(c)).zip(stats.chunks_mut(1))
                {
                    add_rows(x, residual, total);
                    layer_rows(total, w, b, self.eps, out, stats);
                }
            });
        let shape = dims(&x);
        (tensor(&shape, out), (tensor(&shape, total), weight, Arc::new(stats)))
    }

    fn backward(&self, saved: Self::Saved, grad: FlexTensor, _: [bool; 4]) -> [Option<FlexTensor>; 4] {
        let [dx, dw, db] = layer_norm_backward(saved, &grad);
        [Some(dx.clone()), Some(dx), Some(dw), Some(db)]
    }
}

/// RMSNorm of `x` `[.., C]` with `weight` `[C]`.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    assert_eq!(x.dims()[D - 1], weight.dims()[0], "rms_norm: channels differ");
    apply(RmsNorm { eps: eps as f32 }, [cpu_tensor(x.clone()), cpu_tensor(weight.clone())])
        .unwrap_or_else(|| rms_norm_plain(x, weight, eps))
}

/// The plain composition of `rms_norm`.
pub fn rms_norm_plain<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    let r = x.clone().powi_scalar(2).mean_dim(D - 1).add_scalar(eps).sqrt().recip();
    x * r * weight.unsqueeze()
}

/// LayerNorm of `x` `[.., C]` with `weight` and `bias` `[C]`.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    assert_eq!(x.dims()[D - 1], weight.dims()[0], "layer_norm: channels differ");
    let inputs = [cpu_tensor(x.clone()), cpu_tensor(weight.clone()), cpu_tensor(bias.clone())];
    apply::<_, 3, D>(LayerNorm { eps: eps as f32 }, inputs).unwrap_or_else(|| layer_norm_plain(x, weight, bias, eps))
}

/// The plain composition of `layer_norm`.
pub fn layer_norm_plain<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let r = centred.clone().powi_scalar(2).mean_dim(D - 1).add_scalar(eps).sqrt().recip();
    centred * r * weight.unsqueeze() + bias.unsqueeze()
}

/// LayerNorm of `x + residual` `[.., C]`, as in post-norm networks, with `weight` and `bias` `[C]`.
pub fn layer_norm_residual<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    assert_eq!(x.dims(), residual.dims(), "layer_norm_residual: shapes differ");
    assert_eq!(x.dims()[D - 1], weight.dims()[0], "layer_norm_residual: channels differ");
    let inputs =
        [cpu_tensor(x.clone()), cpu_tensor(residual.clone()), cpu_tensor(weight.clone()), cpu_tensor(bias.clone())];
    apply::<_, 4, D>(LayerNorm { eps: eps as f32 }, inputs)
        .unwrap_or_else(|| layer_norm_residual_plain(x, residual, weight, bias, eps))
}

/// The plain composition of `layer_norm_residual`.
pub fn layer_norm_residual_plain<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    layer_norm_plain(x + residual, weight, bias, eps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, random};

    #[test]
    fn rms_norm_agrees_with_plain_composition() {
        for (rows, c) in [(0, 4), (1, 4), (3, 5), (200, 33), (2, 128)] {
            agrees(
                (random([rows, c], 1), random([c], 2), random([1], 3)),
                |(x, w, _)| rms_norm(x, w, 1e-5),
                |(x, w, _)| rms_norm_plain(x, w, 1e-5),
            );
        }
    }

    #[test]
    fn layer_norm_agrees_with_plain_composition() {
        for (rows, c) in [(0, 4), (1, 4), (3, 5), (200, 33), (2, 128)] {
            agrees(
                (random([rows, c], 1), random([c], 2), random([c], 3)),
                |(x, w, b)| layer_norm(x, w, b, 1e-5),
                |(x, w, b)| layer_norm_plain(x, w, b, 1e-5),
            );
        }
    }

    #[test]
    fn layer_norm_of_a_sum_agrees_with_plain_composition() {
        for (rows, c) in [(0, 4), (1, 4), (3, 5), (200, 33), (2, 128)] {
            let weight = random([c], 4);
            agrees(
                (random([rows, c], 1), random([rows, c], 2), random([c], 3)),
                |(x, y, w)| layer_norm_residual(x, y, w.clone(), w * 0.5 + weight.clone(), 1e-5),
                |(x, y, w)| layer_norm_residual_plain(x, y, w.clone(), w * 0.5 + weight.clone(), 1e-5),
            );
        }
    }

    #[test]
    fn non_contiguous_input_is_read_correctly() {
        agrees(
            (random([5, 3], 1), random([5], 2), random([3, 5], 3)),
            |(x, w, y)| layer_norm_residual(x.transpose(), y, w.clone(), w, 1e-5),
            |(x, w, y)| layer_norm_residual_plain(x.transpose(), y, w.clone(), w, 1e-5),
        );
    }
}
