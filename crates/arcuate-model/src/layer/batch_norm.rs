//! Batch norm with running statistics, alone or with GELU after it.
//!
//! Training normalises with the statistics of the batch and leaves them in `Seen`; the loop moves them on into the running
//! ones once the update is made, so a forward pass changes nothing. What has no trained weight (evaluation, frozen) uses the
//! running statistics.
// B rows, T tokens, H columns, C channels

use std::sync::{Arc, Mutex, PoisonError};

use arcuate_ops::activation::{Gelu, gelu};
use arcuate_ops::batch_norm::{Statistics, batch_norm, batch_norm_fixed, batch_norm_gelu};
use arcuate_ops::gradcheck::values;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::pass::Sight;
use crate::params::with_values;

/// Added to variances; PyTorch's default.
const EPS: f64 = 1e-5;
/// Weight of a new batch in the running statistics; PyTorch's default.
const MOMENTUM: f32 = 0.1;

/// The statistics that the batch norms of training passes saw, in the order of the passes.
///
/// It goes into `Input::seen`; `Network::fold` takes what it holds.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<(usize, Statistics)>>>);

impl Seen {
    pub(crate) fn push(&self, norm: usize, statistics: Statistics) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((norm, statistics));
    }

    /// Everything so far: which norm, and what it saw.
    pub(crate) fn take(&self) -> Vec<(usize, Statistics)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Batch norm over the last dimension.
#[derive(Module, Debug)]
pub(crate) struct BatchNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: Param<Tensor<1>>,
    running_var: Param<Tensor<1>>,
}

impl BatchNorm {
    pub(crate) fn new(channels: usize, device: &Device) -> Self {
        let zeros = || Param::from_tensor(Tensor::zeros([channels], device));
        let buffer = || zeros().set_require_grad(false);
        Self { weight: zeros(), bias: zeros(), running_mean: buffer(), running_var: buffer() }
    }

    /// `gelu(norm(x))` of `[B, T, H, C]`; `norm` is the number of this one in the network.
    pub(crate) fn forward(&self, x: Tensor<4>, norm: usize, seen: Option<&Seen>) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        if !weight.is_require_grad() {
            let (mean, variance) = (self.running_mean.val(), self.running_var.val());
            return gelu(batch_norm_fixed(x, weight, bias, mean, variance, EPS), Gelu::Erf);
        }
        let (y, statistics) = batch_norm_gelu(x, weight, bias, EPS);
        if let Some(seen) = seen {
            seen.push(norm, statistics);
        }
        y
    }

    /// Whether the weight is trained.
    pub(crate) fn is_trained(&self) -> bool {
        self.weight.val().is_require_grad()
    }

    /// The norm of `[B, T, C]`: by the statistics of its valid rows where these are to be kept, else by the running ones.
    /// `valid` is empty when all rows are.
    pub(crate) fn rows(&self, x: Tensor<3>, sight: Option<&Sight>, valid: &[bool]) -> Tensor<3> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let Some(sight) = sight else {
            return batch_norm_fixed(x, weight, bias, self.running_mean.val(), self.running_var.val(), EPS);
        };
        let (y, statistics) = batch_norm(x, weight, bias, valid, EPS);
        sight.keep(statistics);
        y
    }

    /// The same with the statistics of one more batch in the running ones.
    pub(crate) fn fold(self, statistics: &Statistics) -> Self {
        // As PyTorch: the running variance is that of a sample.
        let rows = statistics.rows as f32;
        let sample = if statistics.rows > 1 { rows / (rows - 1.0) } else { 1.0 };
        let moved = |running: Param<Tensor<1>>, new: &[f32], factor: f32| {
            running.map(|old| {
                let moved = values(old.clone()).iter().zip(new).map(|(old, new)| step(*old, new * factor)).collect();
                with_values(&old, moved)
            })
        };
        Self {
            running_mean: moved(self.running_mean, &statistics.mean, 1.0),
            running_var: moved(self.running_var, &statistics.variance, sample),
            ..self
        }
    }
}

fn step(running: f32, new: f32) -> f32 {
    (1.0 - MOMENTUM) * running + MOMENTUM * new
}

#[cfg(test)]
mod tests {
    use arcuate_ops::gradcheck::random;

    use super::*;

    const CHANNELS: usize = 3;

    fn norm(device: &Device) -> BatchNorm {
        let mut norm = BatchNorm::new(CHANNELS, device);
        norm.weight = norm.weight.map(|old| with_values(&old, vec![0.5, -1.5, 1.0]));
        norm.bias = norm.bias.map(|old| with_values(&old, vec![0.1, 0.0, -0.2]));
        norm.running_var = norm.running_var.map(|old| with_values(&old, vec![1.0; CHANNELS]));
        norm
    }

    fn batch(seed: u64, device: &Device) -> Tensor<4> {
        Tensor::from_data((random([2, 3, 4, CHANNELS], seed) * 2.0 + 0.7).into_data(), device)
    }

    /// Mean and sum of squares of a channel, and how many.
    fn moments(x: &[f32], channel: usize) -> (f64, f64, f64) {
        let column: Vec<f64> = x.iter().skip(channel).step_by(CHANNELS).map(|x| f64::from(*x)).collect();
        let count = column.len() as f64;
        let mean = column.iter().sum::<f64>() / count;
        (mean, column.iter().map(|x| (x - mean).powi(2)).sum(), count)
    }

    fn agrees(found: Vec<f32>, x: &[f32], statistics: impl Fn(usize) -> (f64, f64)) {
        for (i, (found, x)) in found.iter().zip(x).enumerate() {
            let (mean, variance) = statistics(i % CHANNELS);
            let (weight, bias) = ([0.5, -1.5, 1.0][i % CHANNELS], [0.1, 0.0, -0.2][i % CHANNELS]);
            let y = (f64::from(*x) - mean) / (variance + EPS).sqrt() * weight + bias;
            let y = Tensor::<1>::from_data([y as f32], &Device::flex());
            let wanted = values(gelu(y, Gelu::Erf))[0];
            assert!((found - wanted).abs() < 1e-5, "{i}: {found} {wanted}");
        }
    }

    #[test]
    fn training_uses_the_batch_and_evaluation_what_was_folded_in() {
        let device = Device::flex().autodiff();
        let (mut norm, seen) = (norm(&device), Seen::default());
        let mut running = [(0.0, 1.0); CHANNELS];
        for seed in 1..4 {
            let x = batch(seed, &device);
            let numbers = values(x.clone());
            agrees(values(norm.forward(x, 0, Some(&seen))), &numbers, |channel| {
                let (mean, squares, count) = moments(&numbers, channel);
                (mean, squares / count)
            });
            for (channel, (mean, variance)) in running.iter_mut().enumerate() {
                let (new, squares, count) = moments(&numbers, channel);
                *mean = 0.9 * *mean + 0.1 * new;
                *variance = 0.9 * *variance + 0.1 * squares / (count - 1.0);
            }
        }
        let before = values(norm.running_mean.val());
        assert_eq!(before, [0.0; CHANNELS], "a forward pass changes nothing");
        for (_, statistics) in seen.take() {
            norm = norm.fold(&statistics);
        }
        for (channel, (mean, variance)) in running.iter().enumerate() {
            assert!((f64::from(values(norm.running_mean.val())[channel]) - mean).abs() < 1e-6);
            assert!((f64::from(values(norm.running_var.val())[channel]) - variance).abs() < 1e-5);
        }
        let x = batch(9, &Device::flex());
        let numbers = values(x.clone());
        agrees(values(norm.valid().forward(x, 0, Some(&seen))), &numbers, |channel| running[channel]);
        assert!(seen.take().is_empty());
    }

    #[test]
    fn a_frozen_norm_keeps_to_its_running_statistics() {
        let device = Device::flex().autodiff();
        let (mut norm, seen) = (norm(&device), Seen::default());
        norm.weight = norm.weight.set_require_grad(false);
        let x = batch(1, &device);
        let numbers = values(x.clone());
        agrees(values(norm.forward(x, 0, Some(&seen))), &numbers, |_| (0.0, 1.0));
        assert!(seen.take().is_empty());
    }

    #[test]
    fn running_statistics_get_no_gradient() {
        let device = Device::flex().autodiff();
        let norm = norm(&device).fold(&Statistics { mean: vec![1.0; 3], variance: vec![2.0; 3], rows: 5 });
        assert_eq!(values(norm.running_mean.val()), [0.1; 3]);
        assert!(values(norm.running_var.val()).iter().all(|v| (v - 1.15).abs() < 1e-6));
        assert!(!norm.running_mean.val().is_require_grad() && norm.weight.val().is_require_grad());
        let grads = norm.forward(batch(1, &device), 0, None).sum().backward();
        assert!(norm.weight.val().grad(&grads).is_some());
        assert!(norm.running_mean.val().grad(&grads).is_none() && norm.running_var.val().grad(&grads).is_none());
    }
}
