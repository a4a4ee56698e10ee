//! Weight normalisation: a weight as a direction and a length.
//!
//! # What it computes
//! `weight = g v / |v|`, where every index of one kept dimension has a length of its own and the norm runs over all others.
//!
//! # Reference
//! Salimans and Kingma 2016. The positional convolution of wav2vec 2.0 keeps the taps (the last dimension), others the outputs
//! (the first).
// M kept indices, R rows of the last dimension

use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::cpu::gemm::buffer;
use crate::cpu::math::dot;
use crate::cpu::simd::simd;
use crate::cpu::sums::add_in_order;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

/// Rows of one task; also the unit of the fixed-order sums.
const ROWS: usize = 256;

/// The dimension whose indices have their own lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The outputs of a weight stored `[out, ..]`.
    First,
    /// The taps of a weight stored `[.., kernel]`.
    Last,
}

simd! {
    fn product_of(x: &[f32], y: &[f32]) -> f32 {
        dot(x, y)
    }
}

simd! {
    fn add_products(x: &[f32], y: &[f32], sums: &mut [f32]) {
        let m = sums.len();
        for (x, y) in x.chunks_exact(m).zip(y.chunks_exact(m)) {
            for i in 0..m {
                sums[i] += x[i] * y[i];
            }
        }
    }
}

simd! {
    /// `x * scale - y * pull` per column, or for all when there is one scale.
    fn combine(x: &[f32], scale: &[f32], y: &[f32], pull: &[f32], out: &mut [f32]) {
        if let ([scale], [pull]) = (scale, pull) {
            for ((x, y), out) in x.iter().zip(y).zip(out) {
                *out = x * scale - y * pull;
            }
            return;
        }
        let m = scale.len();
        for ((x, y), out) in x.chunks_exact(m).zip(y.chunks_exact(m)).zip(out.chunks_exact_mut(m)) {
            for i in 0..m {
                out[i] = x[i] * scale[i] - y[i] * pull[i];
            }
        }
    }
}

impl Keep {
    /// Numbers that lie together, and kept indices among them.
    fn task(self, len: usize, kept: usize) -> (usize, usize) {
        match self {
            Self::First => ((len / kept.max(1)).max(1), 1),
            Self::Last => ((ROWS * kept).max(1), kept),
        }
    }

    /// Sums of products per kept index.
    fn products(self, x: &[f32], y: &[f32], kept: usize) -> Vec<f32> {
        let (task, _) = self.task(x.len(), kept);
        let parts = x.par_chunks(task).zip(y.par_chunks(task));
        match self {
            Self::First => parts.map(|(x, y)| product_of(x, y)).collect(),
            Self::Last => {
                let parts = parts.map(|(x, y)| {
                    let mut sums = vec![0.0; kept];
                    add_products(x, y, &mut sums);
                    sums
                });
                add_in_order(parts.collect(), kept)
            }
        }
    }

    /// `x * scale - y * pull` with a scale and a pull per kept index.
    fn combine(self, x: &[f32], scale: &[f32], y: &[f32], pull: &[f32]) -> Vec<f32> {
        let (task, width) = self.task(x.len(), scale.len());
        let mut out = buffer(x.len());
        out.par_chunks_mut(task).zip(x.par_chunks(task)).zip(y.par_chunks(task)).enumerate().for_each(
            |(i, ((out, x), y))| {
                let at = if self == Self::First { i..i + 1 } else { 0..width };
                combine(x, &scale[at.clone()], y, &pull[at], out);
            },
        );
        out
    }
}

#[derive(Debug, Clone)]
struct WeightNorm(Keep);

impl Kernel<2> for WeightNorm {
    type Saved = (FlexTensor, FlexTensor, Vec<f32>);

    fn forward(&self, [v, g]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let (x, lengths) = (numbers(&v), numbers(&g));
        let norms: Vec<f32> = self.0.products(x, x, lengths.len()).into_iter().map(f32::sqrt).collect();
        let scale: Vec<f32> = lengths.iter().zip(&norms).map(|(g, norm)| g / norm).collect();
        let out = self.0.combine(x, &scale, x, &vec![0.0; scale.len()]);
        (tensor(&dims(&v), out), (v, g, norms))
    }

    fn backward(&self, (v, g, norms): Self::Saved, grad: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let (x, lengths, grad) = (numbers(&v), numbers(&g), numbers(&grad));
        let along: Vec<f32> =
            self.0.products(x, grad, lengths.len()).iter().zip(&norms).map(|(sum, norm)| sum / norm).collect();
        let scale: Vec<f32> = lengths.iter().zip(&norms).map(|(g, norm)| g / norm).collect();
        let pull: Vec<f32> = scale.iter().zip(&along).zip(&norms).map(|((s, a), norm)| s * a / norm).collect();
        let dv = self.0.combine(grad, &scale, x, &pull);
        [Some(tensor(&dims(&v), dv)), Some(tensor(&dims(&g), along))]
    }
}

/// The weight with direction `v` and lengths `g` `[M]`, in the shape of `v`; M is the size of the kept dimension.
pub fn weight_norm<const D: usize>(v: Tensor<D>, g: Tensor<1>, keep: Keep) -> Tensor<D> {
    let kept = if keep == Keep::First { v.dims()[0] } else { v.dims()[D - 1] };
    assert_eq!(g.dims(), [kept], "weight_norm: the lengths do not fit {:?} keeping {keep:?}", v.dims());
    apply(WeightNorm(keep), [cpu_tensor(v.clone()), cpu_tensor(g.clone())])
        .unwrap_or_else(|| weight_norm_plain(v, g, keep))
}

/// The plain composition of `weight_norm`.
pub fn weight_norm_plain<const D: usize>(v: Tensor<D>, g: Tensor<1>, keep: Keep) -> Tensor<D> {
    let (shape, kept) = (v.dims(), g.dims()[0]);
    let rest = shape.iter().product::<usize>() / kept.max(1);
    let (rows, along, lengths) = match keep {
        Keep::First => ([kept, rest], 1, g.reshape([kept, 1])),
        Keep::Last => ([rest, kept], 0, g.reshape([1, kept])),
    };
    let v = v.reshape(rows);
    let norm = v.clone().powi_scalar(2).sum_dim(along).sqrt();
    (v * (lengths / norm)).reshape(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, distance, on_threads, random, values};

    #[test]
    fn agrees_with_plain_composition() {
        for shape in [[1, 1, 1], [5, 3, 7], [130, 17, 9], [4, 1, 33]] {
            for (keep, kept) in [(Keep::First, shape[0]), (Keep::Last, shape[2])] {
                agrees(
                    (random(shape, 1), random([kept], 2), random([1], 3)),
                    |(v, g, _)| weight_norm(v, g, keep),
                    |(v, g, _)| weight_norm_plain(v, g, keep),
                );
            }
        }
    }

    #[test]
    fn lengths_are_the_norms_and_non_contiguous_directions_are_read_correctly() {
        let v = random([6, 4, 5], 1).swap_dims(0, 2) * 1e8;
        let w = values(weight_norm(v, Tensor::<1>::ones([6], &crate::device::cpu()) * 3.0, Keep::Last));
        for tap in 0..6 {
            let norm: f32 = w.iter().skip(tap).step_by(6).map(|x| x * x).sum();
            assert!((norm - 9.0).abs() < 1e-4, "{norm}");
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let run = |threads: usize| {
            on_threads(threads, || values(weight_norm(random([700, 3, 8], 1), random([8], 2), Keep::Last)))
        };
        assert_eq!(run(1), run(2));
        assert!(distance(&run(1), &run(2)) == 0.0);
    }
}
