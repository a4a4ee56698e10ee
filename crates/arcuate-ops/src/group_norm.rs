//! Group normalisation of channels-last rows, alone or with GELU after it.
//!
//! # What it computes
//! `y = w (x - mean) / sqrt(var + eps) + b` with mean and biased variance over all positions of a batch row and all channels
//! of a group; `group_norm_gelu` is `gelu(y)` in its erf form, which saves memory for `y` and two passes over it.
//!
//! # Reference
//! Wu and He 2018. The first layer of wav2vec 2.0 has as many groups as channels.
// B batch, L positions, C channels, G groups

use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::activation::{Gelu, gelu_plain};
use crate::cpu::channels::{Affine, Channels, Moments, input_gradient, moments, normalise, sums};
use crate::cpu::gemm::buffer;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

#[derive(Debug, Clone)]
struct GroupNorm {
    groups: usize,
    eps: f64,
    gelu: bool,
}

impl GroupNorm {
    /// Per channel of one batch row.
    fn statistics(&self, x: &[f32], c: usize) -> Channels {
        let width = c / self.groups;
        let mut channels = Channels::default();
        for group in moments(x, c, &[]).chunks_exact(width) {
            let all = group.iter().fold(Moments::default(), |all, channel| all.merged(*channel));
            let rate = (all.variance() + self.eps).sqrt().recip() as f32;
            channels.mean.resize(channels.mean.len() + width, all.mean as f32);
            channels.rate.resize(channels.rate.len() + width, rate);
        }
        channels
    }

    /// Per channel, the group's mean of `weight * sums`.
    fn means(&self, sums: &[f32], weight: &[f32], rows: usize) -> Vec<f32> {
        let width = weight.len() / self.groups;
        let groups = sums.chunks_exact(width).zip(weight.chunks_exact(width));
        groups
            .flat_map(|(sums, weight)| {
                let sum: f64 = sums.iter().zip(weight).map(|(s, w)| f64::from(*s) * f64::from(*w)).sum();
                std::iter::repeat_n((sum / (rows * width) as f64) as f32, width)
            })
            .collect()
    }
}

impl Kernel<3> for GroupNorm {
    type Saved = ([FlexTensor; 3], Vec<Channels>);

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let shape = dims(&x);
        let (row, c) = (shape[1] * shape[2], shape[2]);
        let affine = Affine { weight: numbers(&weight), bias: numbers(&bias), gelu: self.gelu };
        let mut out = buffer(numbers(&x).len());
        let rows = out.chunks_exact_mut(row.max(1)).zip(numbers(&x).chunks_exact(row.max(1)));
        let statistics = rows
            .map(|(out, x)| {
                let at = self.statistics(x, c);
                normalise(x, &at, &affine, &[], out);
                at
            })
            .collect();
        (tensor(&shape, out), ([x, weight, bias], statistics))
    }

    fn backward(&self, saved: Self::Saved, grad: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let ([x, weight, bias], statistics) = saved;
        let shape = dims(&x);
        let (row, c) = (shape[1] * shape[2], shape[2]);
        let affine = Affine { weight: numbers(&weight), bias: numbers(&bias), gelu: self.gelu };
        let (mut dx, mut dw, mut db) = (buffer(numbers(&x).len()), vec![0f32; c], vec![0f32; c]);
        let rows = numbers(&x).chunks_exact(row.max(1)).zip(numbers(&grad).chunks_exact(row.max(1)));
        for (((x, grad), dx), at) in rows.zip(dx.chunks_exact_mut(row.max(1))).zip(&statistics) {
            let (w, b) = sums(x, grad, at, &affine, &[], dx);
            let pull = self.means(&w, affine.weight, shape[1]);
            let average = self.means(&b, affine.weight, shape[1]);
            input_gradient(x, at, affine.weight, &pull, &average, &[], dx);
            for i in 0..c {
                dw[i] += w[i];
                db[i] += b[i];
            }
        }
        [Some(tensor(&shape, dx)), Some(tensor(&[c], dw)), Some(tensor(&[c], db))]
    }
}

fn fused(x: &Tensor<3>, weight: &Tensor<1>, bias: &Tensor<1>, kernel: GroupNorm) -> Option<Tensor<3>> {
    let c = x.dims()[2];
    assert!(
        kernel.groups > 0 && c.is_multiple_of(kernel.groups),
        "group_norm: {c} channels in {} groups",
        kernel.groups
    );
    assert!(weight.dims() == [c] && bias.dims() == [c], "group_norm: weight or bias does not have {c} numbers");
    apply(kernel, [cpu_tensor(x.clone()), cpu_tensor(weight.clone()), cpu_tensor(bias.clone())])
}

/// Group norm of `x` `[B, L, C]` in `groups` groups of channels, with `weight` and `bias` `[C]`.
pub fn group_norm(x: Tensor<3>, weight: Tensor<1>, bias: Tensor<1>, groups: usize, eps: f64) -> Tensor<3> {
    fused(&x, &weight, &bias, GroupNorm { groups, eps, gelu: false })
        .unwrap_or_else(|| group_norm_plain(x, weight, bias, groups, eps))
}

/// GELU (erf) of the group norm of `x` `[B, L, C]` in `groups` groups of channels, with `weight` and `bias` `[C]`.
pub fn group_norm_gelu(x: Tensor<3>, weight: Tensor<1>, bias: Tensor<1>, groups: usize, eps: f64) -> Tensor<3> {
    fused(&x, &weight, &bias, GroupNorm { groups, eps, gelu: true })
        .unwrap_or_else(|| gelu_plain(group_norm_plain(x, weight, bias, groups, eps), Gelu::Erf))
}

/// The plain composition of `group_norm`.
pub fn group_norm_plain(x: Tensor<3>, weight: Tensor<1>, bias: Tensor<1>, groups: usize, eps: f64) -> Tensor<3> {
    let [b, l, c] = x.dims();
    let x = x.reshape([b, l, groups, c / groups]);
    let centred = x.clone() - x.mean_dim(1).mean_dim(3);
    let rate = centred.clone().powi_scalar(2).mean_dim(1).mean_dim(3).add_scalar(eps).sqrt().recip();
    (centred * rate).reshape([b, l, c]) * weight.unsqueeze() + bias.unsqueeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, on_threads, random, values};

    #[test]
    fn agrees_with_plain_composition() {
        for (b, l, c, groups) in [(1, 5, 1, 1), (2, 7, 6, 3), (3, 131, 33, 33), (2, 64, 8, 1), (1, 1, 12, 4)] {
            let inputs = (random([b, l, c], 1) * 2.0 + 0.5, random([c], 2), random([c], 3));
            agrees(
                inputs.clone(),
                |(x, w, b)| group_norm(x, w, b, groups, 1e-5),
                |(x, w, b)| group_norm_plain(x, w, b, groups, 1e-5),
            );
            agrees(
                inputs,
                |(x, w, b)| group_norm_gelu(x, w, b, groups, 1e-5),
                |(x, w, b)| gelu_plain(group_norm_plain(x, w, b, groups, 1e-5), Gelu::Erf),
            );
        }
    }

    #[test]
    fn non_contiguous_input_is_read_correctly() {
        agrees(
            (random([2, 6, 9], 1), random([6], 2), random([6], 3)),
            |(x, w, b)| group_norm(x.swap_dims(1, 2), w, b, 2, 1e-5),
            |(x, w, b)| group_norm_plain(x.swap_dims(1, 2), w, b, 2, 1e-5),
        );
    }

    #[test]
    fn empty_batches_and_constant_or_huge_inputs_stay_finite() {
        let device = crate::device::cpu();
        let (w, b) = (Tensor::<1>::ones([4], &device), Tensor::<1>::zeros([4], &device));
        assert_eq!(group_norm(random([0, 3, 4], 1), w.clone(), b.clone(), 2, 1e-5).dims(), [0, 3, 4]);
        let constant = values(group_norm(Tensor::ones([1, 3, 4], &device) * 7.0, w.clone(), b.clone(), 2, 1e-5));
        assert!(constant.iter().all(|y| *y == 0.0));
        let huge = values(group_norm(random([1, 9, 4], 1) * 1e15, w, b, 2, 1e-5));
        assert!(huge.iter().all(|y| y.abs() < 5.0));
    }

    #[test]
    fn threads_change_no_bit() {
        let run = |threads: usize| {
            on_threads(threads, || {
                let device = burn::tensor::Device::flex().autodiff();
                let x = Tensor::<3>::from_data(random([2, 333, 10], 1).into_data(), &device).require_grad();
                let w = Tensor::<1>::from_data(random([10], 2).into_data(), &device).require_grad();
                let y = group_norm_gelu(x.clone(), w.clone(), w.clone(), 5, 1e-5);
                let grads = (y.clone() * y.clone()).sum().backward();
                [values(y), values(x.grad(&grads).expect("a gradient")), values(w.grad(&grads).expect("a gradient"))]
            })
        };
        assert_eq!(run(1), run(2));
    }
}
