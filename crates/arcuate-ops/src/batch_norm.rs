//! Batch normalisation over the last dimension, with GELU after it or without.
//!
//! # What it computes
//! Training: `y = w (x - mean) / sqrt(var + eps) + b` with mean and biased variance of each channel over all valid rows; rows
//! that the mask excludes do not count, come out as 0 and pass no gradient. Evaluation: the same with given statistics.
//! `batch_norm_gelu` gives `gelu(y)` (erf form) and keeps only `x` for the way back.
//!
//! # Reference
//! Ioffe and Szegedy 2015; the convolution module of the conformer (Gulati et al. 2020) uses it over padded batches.
// R rows (all leading dimensions), C channels

use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;

use crate::activation::{Gelu, gelu};
use crate::cpu::channels::{self, Affine, Channels, input_gradient, moments, normalise};
use crate::cpu::gemm::buffer;
use crate::tape::{Kernel, apply, contiguous, cpu_tensor, dims, numbers, tensor};

/// Mean and variance of each channel over the valid rows of a batch; running ones are the caller's.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// `[C]`
    pub mean: Vec<f32>,
    /// Biased, `[C]`; running variances usually keep `variance * rows / (rows - 1)`.
    pub variance: Vec<f32>,
    /// Valid rows.
    pub rows: usize,
}

#[derive(Debug, Clone)]
struct BatchNorm {
    at: Channels,
    valid: Vec<bool>,
    rows: usize,
    gelu: bool,
}

impl Kernel<3> for BatchNorm {
    type Saved = [FlexTensor; 3];

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let affine = Affine { weight: numbers(&weight), bias: numbers(&bias), gelu: self.gelu };
        let mut out = buffer(numbers(&x).len());
        normalise(numbers(&x), &self.at, &affine, &self.valid, &mut out);
        (tensor(&dims(&x), out), [x, weight, bias])
    }

    fn backward(&self, [x, weight, bias]: Self::Saved, grad: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let affine = Affine { weight: numbers(&weight), bias: numbers(&bias), gelu: self.gelu };
        let mut dx = buffer(numbers(&x).len());
        let (dw, db) = channels::sums(numbers(&x), numbers(&grad), &self.at, &affine, &self.valid, &mut dx);
        let means = |sums: &[f32]| -> Vec<f32> {
            sums.iter().zip(affine.weight).map(|(s, w)| s * w / self.rows.max(1) as f32).collect()
        };
        input_gradient(numbers(&x), &self.at, affine.weight, &means(&dw), &means(&db), &self.valid, &mut dx);
        let c = dw.len();
        [Some(tensor(&dims(&x), dx)), Some(tensor(&[c], dw)), Some(tensor(&[c], db))]
    }
}

fn assert_sizes<const D: usize>(x: &Tensor<D>, weight: &Tensor<1>, bias: &Tensor<1>, valid: &[bool]) {
    let c = x.dims()[D - 1];
    assert!(
        c > 0 && weight.dims() == [c] && bias.dims() == [c],
        "batch_norm: weight or bias does not have {c} numbers"
    );
    let rows = x.dims()[..D - 1].iter().product::<usize>();
    assert!(valid.is_empty() || valid.len() == rows, "batch_norm: a mask of {} for {rows} rows", valid.len());
}

/// Batch norm of `x` `[.., C]` in training, with `weight` and `bias` `[C]`, and the statistics it used. `valid` names the rows
/// that count, `[R]`, or is empty when all do.
pub fn batch_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    valid: &[bool],
    eps: f64,
) -> (Tensor<D>, Statistics) {
    match fused(&x, &weight, &bias, valid, eps, false) {
        Some(found) => found,
        None => batch_norm_plain(x, weight, bias, valid, eps),
    }
}

/// GELU of `batch_norm` with all rows valid.
pub fn batch_norm_gelu<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> (Tensor<D>, Statistics) {
    match fused(&x, &weight, &bias, &[], eps, true) {
        Some(found) => found,
        None => {
            let (y, statistics) = batch_norm_plain(x, weight, bias, &[], eps);
            (gelu(y, Gelu::Erf), statistics)
        }
    }
}

/// The kernel's result; nothing where a tensor does not live on the CPU.
fn fused<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    valid: &[bool],
    eps: f64,
    gelu: bool,
) -> Option<(Tensor<D>, Statistics)> {
    assert_sizes(x, weight, bias, valid);
    let input = contiguous(cpu_tensor(x.clone())?.into_plain());
    let found = moments(numbers(&input), x.dims()[D - 1], valid);
    let statistics = Statistics {
        mean: found.iter().map(|m| m.mean as f32).collect(),
        variance: found.iter().map(|m| m.variance() as f32).collect(),
        rows: found.first().map_or(0, |m| m.count as usize),
    };
    let rate = found.iter().map(|m| (m.variance() + eps).sqrt().recip() as f32).collect();
    let at = Channels { mean: statistics.mean.clone(), rate };
    let kernel = BatchNorm { at, valid: valid.to_vec(), rows: statistics.rows, gelu };
    let inputs = [cpu_tensor(x.clone()), cpu_tensor(weight.clone()), cpu_tensor(bias.clone())];
    Some((apply(kernel, inputs)?, statistics))
}

/// The plain composition of `batch_norm`.
pub fn batch_norm_plain<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    valid: &[bool],
    eps: f64,
) -> (Tensor<D>, Statistics) {
    let shape = x.dims();
    let c = shape[D - 1];
    let total = shape[..D - 1].iter().product::<usize>();
    let x = x.reshape([total, c]);
    let keep: Vec<f32> = (0..total).map(|row| f32::from(u8::from(valid.get(row).is_none_or(|v| *v)))).collect();
    let rows = keep.iter().filter(|keep| **keep > 0.0).count();
    let keep = Tensor::<2>::from_data(TensorData::new(keep, [total, 1]), &x.device());
    let count = rows.max(1) as f64;
    let mean = (x.clone() * keep.clone()).sum_dim(0) / count;
    let centred = (x - mean.clone()) * keep.clone();
    let variance = centred.clone().powi_scalar(2).sum_dim(0) / count;
    let y = (centred / (variance.clone() + eps).sqrt() * weight.unsqueeze() + bias.unsqueeze()) * keep;
    let host = |x: Tensor<2>| x.into_data().convert::<f32>().try_to_vec::<f32>().expect("converted to f32");
    (y.reshape(shape), Statistics { mean: host(mean), variance: host(variance), rows })
}

/// Batch norm of `x` `[.., C]` with given statistics `mean` and `variance` `[C]`, as in evaluation.
pub fn batch_norm_fixed<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    mean: Tensor<1>,
    variance: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    assert_sizes(&x, &weight, &bias, &[]);
    let scale = weight / (variance + eps).sqrt();
    (x - mean.unsqueeze()) * scale.unsqueeze() + bias.unsqueeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, on_threads, random, values};

    fn masks(rows: usize) -> [Vec<bool>; 3] {
        [Vec::new(), (0..rows).map(|row| row % 3 != 1).collect(), (0..rows).map(|row| row < rows / 2 + 1).collect()]
    }

    #[test]
    fn agrees_with_plain_composition() {
        for (b, l, c) in [(1, 5, 1), (2, 7, 6), (3, 131, 33)] {
            for valid in masks(b * l) {
                let inputs = (random([b, l, c], 1) * 2.0 + 0.5, random([c], 2), random([c], 3));
                agrees(
                    inputs.clone(),
                    |(x, w, b)| batch_norm(x, w, b, &valid, 1e-5).0,
                    |(x, w, b)| batch_norm_plain(x, w, b, &valid, 1e-5).0,
                );
                let (x, w, b) = inputs;
                let (a, b) = (
                    batch_norm(x.clone(), w.clone(), b.clone(), &valid, 1e-5),
                    batch_norm_plain(x, w, b, &valid, 1e-5),
                );
                assert_eq!(a.1.rows, b.1.rows);
                for (a, b) in a.1.mean.iter().chain(&a.1.variance).zip(b.1.mean.iter().chain(&b.1.variance)) {
                    assert!((a - b).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn gelu_after_it_is_gelu_after_it() {
        agrees(
            (random([3, 131, 33], 1) * 2.0 + 0.5, random([33], 2), random([33], 3)),
            |(x, w, b)| batch_norm_gelu(x, w, b, 1e-5).0,
            |(x, w, b)| gelu(batch_norm_plain(x, w, b, &[], 1e-5).0, Gelu::Erf),
        );
    }

    #[test]
    fn non_contiguous_input_is_read_correctly() {
        agrees(
            (random([2, 6, 9], 1), random([6], 2), random([6], 3)),
            |(x, w, b)| batch_norm(x.swap_dims(1, 2), w, b, &[], 1e-5).0,
            |(x, w, b)| batch_norm_plain(x.swap_dims(1, 2), w, b, &[], 1e-5).0,
        );
    }

    #[test]
    fn excluded_rows_do_not_matter() {
        let (w, b) = (random([4], 2), random([4], 3));
        let valid = [true, false, true, true];
        let x = random([4, 4], 1);
        let spoilt = Tensor::cat(
            vec![x.clone().narrow(0, 0, 1), x.clone().narrow(0, 1, 1) * f32::NAN, x.clone().narrow(0, 2, 2)],
            0,
        );
        let (clean, spoilt) =
            (batch_norm(x, w.clone(), b.clone(), &valid, 1e-5), batch_norm(spoilt, w, b, &valid, 1e-5));
        assert_eq!((values(clean.0), clean.1), (values(spoilt.0), spoilt.1));
    }

    #[test]
    fn the_same_statistics_give_the_same_numbers_in_evaluation() {
        let (x, w, b) = (random([50, 3], 1), random([3], 2), random([3], 3));
        let (y, found) = batch_norm(x.clone(), w.clone(), b.clone(), &[], 1e-5);
        let device = crate::device::cpu();
        let [mean, variance] = [found.mean, found.variance].map(|v| Tensor::<1>::from_data(v.as_slice(), &device));
        for (a, b) in values(y).iter().zip(values(batch_norm_fixed(x, w, b, mean, variance, 1e-5))) {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn nothing_valid_gives_zeros() {
        let device = crate::device::cpu();
        let (w, b) = (Tensor::<1>::ones([4], &device), Tensor::<1>::zeros([4], &device));
        assert_eq!(batch_norm(random([0, 3, 4], 1), w.clone(), b.clone(), &[], 1e-5).1.rows, 0);
        let (y, found) = batch_norm(random([3, 4], 1), w, b, &[false; 3], 1e-5);
        assert!(found.rows == 0 && values(y).iter().all(|y| *y == 0.0));
    }

    #[test]
    fn threads_change_no_bit() {
        let run = |threads: usize| {
            on_threads(threads, || {
                let device = burn::tensor::Device::flex().autodiff();
                let x = Tensor::<2>::from_data(random([700, 10], 1).into_data(), &device).require_grad();
                let w = Tensor::<1>::from_data(random([10], 2).into_data(), &device).require_grad();
                let (y, found) = batch_norm(x.clone(), w.clone(), w.clone(), &masks(700)[1], 1e-5);
                let grads = (y.clone() * y.clone()).sum().backward();
                (
                    [
                        values(y),
                        values(x.grad(&grads).expect("a gradient")),
                        values(w.grad(&grads).expect("a gradient")),
                    ],
                    found,
                )
            })
        };
        assert_eq!(run(1), run(2));
    }
}
