//! RMSNorm and LayerNorm over the last dimension.
//!
//! # What it computes
//! RMSNorm: `y = w x / sqrt(mean(x^2) + eps)` (Zhang and Sennrich 2019).
//! LayerNorm: `y = w (x - mean(x)) / sqrt(var(x) + eps) + b` with the biased variance (Ba et al. 2016).
// C channels

use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::cpu::gemm::buffer;
use crate::cpu::math::{dot, sum};
use crate::cpu::simd::simd;
use crate::linear::add_in_order;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

/// Rows that one task normalises; also the unit of the fixed-order sums over rows.
const ROWS: usize = 64;

simd! {
    fn rms_rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let c = weight.len();
        for (x, out) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
            let r = 1.0 / (dot(x, x) / c as f32 + eps).sqrt();
            for i in 0..c {
                out[i] = x[i] * r * weight[i];
            }
        }
    }
}

simd! {
    fn rms_rows_backward(x: &[f32], weight: &[f32], grad: &[f32], eps: f32, dx: &mut [f32], dw: &mut [f32]) {
        let c = weight.len();
        for ((x, grad), dx) in x.chunks_exact(c).zip(grad.chunks_exact(c)).zip(dx.chunks_exact_mut(c)) {
            let r = 1.0 / (dot(x, x) / c as f32 + eps).sqrt();
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

#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
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
    (mean, 1.0 / ((sum(&squares) + rest) / n + eps).sqrt())
}

simd! {
    fn layer_rows(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        let c = weight.len();
        for (x, out) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
            let (mean, r) = moments(x, eps);
            for i in 0..c {
                out[i] = (x[i] - mean) * r * weight[i] + bias[i];
            }
        }
    }
}

simd! {
    fn layer_rows_backward(x: &[f32], weight: &[f32], grad: &[f32], eps: f32, dx: &mut [f32], dw: &mut [f32], db: &mut [f32]) {
        let c = weight.len();
        for ((x, grad), dx) in x.chunks_exact(c).zip(grad.chunks_exact(c)).zip(dx.chunks_exact_mut(c)) {
            let (mean, r) = moments(x, eps);
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
    type Saved = (FlexTensor, FlexTensor);

    fn forward(&self, [x, weight]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let c = numbers(&weight).len();
        let mut out = buffer(numbers(&x).len());
        out.par_chunks_mut(ROWS * c)
            .zip(numbers(&x).par_chunks(ROWS * c))
            .for_each(|(out, x)| rms_rows(x, numbers(&weight), self.eps, out));
        (tensor(&dims(&x), out), (x, weight))
    }

    fn backward(&self, (x, weight): Self::Saved, grad: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let c = numbers(&weight).len();
        let mut dx = buffer(numbers(&x).len());
        let parts = dx
            .par_chunks_mut(ROWS * c)
            .zip(numbers(&x).par_chunks(ROWS * c))
            .zip(numbers(&grad).par_chunks(ROWS * c))
            .map(|((dx, x), grad)| {
                let mut dw = vec![0.0; c];
                rms_rows_backward(x, numbers(&weight), grad, self.eps, dx, &mut dw);
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

impl Kernel<3> for LayerNorm {
    type Saved = (FlexTensor, FlexTensor);

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let c = numbers(&weight).len();
        let mut out = buffer(numbers(&x).len());
        out.par_chunks_mut(ROWS * c)
            .zip(numbers(&x).par_chunks(ROWS * c))
            .for_each(|(out, x)| layer_rows(x, numbers(&weight), numbers(&bias), self.eps, out));
        (tensor(&dims(&x), out), (x, weight))
    }

    fn backward(&self, (x, weight): Self::Saved, grad: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let c = numbers(&weight).len();
        let mut dx = buffer(numbers(&x).len());
        let parts: Vec<(Vec<f32>, Vec<f32>)> = dx
            .par_chunks_mut(ROWS * c)
            .zip(numbers(&x).par_chunks(ROWS * c))
            .zip(numbers(&grad).par_chunks(ROWS * c))
            .map(|((dx, x), grad)| {
                let (mut dw, mut db) = (vec![0.0; c], vec![0.0; c]);
                layer_rows_backward(x, numbers(&weight), grad, self.eps, dx, &mut dw, &mut db);
                (dw, db)
            })
            .collect();
        let (dw, db): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        [Some(tensor(&dims(&x), dx)), Some(tensor(&[c], add_in_order(dw, c))), Some(tensor(&[c], add_in_order(db, c)))]
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
    apply(LayerNorm { eps: eps as f32 }, inputs).unwrap_or_else(|| layer_norm_plain(x, weight, bias, eps))
}

/// The plain composition of `layer_norm`.
pub fn layer_norm_plain<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let r = centred.clone().powi_scalar(2).mean_dim(D - 1).add_scalar(eps).sqrt().recip();
    centred * r * weight.unsqueeze() + bias.unsqueeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, random};

    #[test]
    fn rms_norm_agrees_with_plain_composition() {
        for (rows, c) in [(1, 4), (3, 5), (200, 33), (2, 128)] {
            agrees(
                (random([rows, c], 1), random([c], 2), random([1], 3)),
                |(x, w, _)| rms_norm(x, w, 1e-5),
                |(x, w, _)| rms_norm_plain(x, w, 1e-5),
            );
        }
    }

    #[test]
    fn layer_norm_agrees_with_plain_composition() {
        for (rows, c) in [(3, 5), (200, 33), (2, 128)] {
            agrees(
                (random([rows, c], 1), random([c], 2), random([c], 3)),
                |(x, w, b)| layer_norm(x, w, b, 1e-5),
                |(x, w, b)| layer_norm_plain(x, w, b, 1e-5),
            );
        }
    }
}
