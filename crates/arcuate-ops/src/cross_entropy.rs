//! Softmax cross-entropy over a vocabulary, with z-loss, label smoothing and a weight per target.
//!
//! # What it computes
//! Per row with target y and weight w: `w ((1-s) (lse - x_y) + s (lse - mean(x)) + z lse^2)` where `lse = log sum exp(x)`.
//! Rows with a negative target count nothing. The result is the sum over rows, never a mean.
//!
//! # Reference
//! Szegedy et al. 2016 (label smoothing); Chowdhery et al. 2022 (z-loss).
// N rows, V vocabulary

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, activation};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::cpu::math;
use crate::cpu::simd::simd;
use crate::gradcheck::values;
use crate::tape::{Kernel, apply, contiguous, cpu_tensor, dims, numbers, tensor, untracked};

/// Targets and options of a cross-entropy.
#[derive(Debug, Clone)]
pub struct CrossEntropy {
    /// Index of the right class per row; negative: not counted. `[N]`
    pub targets: Arc<[i32]>,
    /// Weight per row; left out: 1. `[N]`
    pub weights: Option<Arc<[f32]>>,
    /// Weight of `lse^2`.
    pub z_loss: f32,
    /// Probability mass that is spread evenly.
    pub label_smoothing: f32,
}

simd! {
    /// Log of the sum of exponentials.
    fn log_sum_exp(x: &[f32]) -> f32 {
        let top = math::max(x);
        let mut lanes = [0f32; math::LANES];
        let chunks = x.chunks_exact(math::LANES);
        let rest: f32 = chunks.remainder().iter().map(|x| math::exp(x - top)).sum();
        for chunk in chunks {
            for i in 0..math::LANES {
                lanes[i] += math::exp(chunk[i] - top);
            }
        }
        top + (math::sum(&lanes) + rest).ln()
    }
}

simd! {
    /// Gradient of one row in place: `softmax * scale - spread`.
    fn row_gradient(x: &mut [f32], lse: f32, scale: f32, spread: f32) {
        for x in x.iter_mut() {
            *x = math::exp(*x - lse) * scale - spread;
        }
    }
}

impl CrossEntropy {
    fn weight(&self, row: usize) -> f32 {
        if self.targets[row] < 0 { 0.0 } else { self.weights.as_ref().map_or(1.0, |w| w[row]) }
    }

    /// Sum of a loss over rows in f64 and in order, so that no number of threads changes it.
    fn total(losses: &[f32]) -> f32 {
        losses.iter().map(|x| f64::from(*x)).sum::<f64>() as f32
    }

    fn rows(&self, logits: &FlexTensor) -> (Vec<f32>, Vec<f32>) {
        let v = dims(logits)[1];
        let s = self.label_smoothing;
        numbers(logits)
            .par_chunks(v.max(1))
            .enumerate()
            .map(|(i, x)| {
                let w = self.weight(i);
                if w == 0.0 {
                    return (0.0, 0.0);
                }
                let lse = log_sum_exp(x);
                let mut loss = (1.0 - s) * (lse - x[self.targets[i] as usize]) + self.z_loss * lse * lse;
                if s > 0.0 {
                    loss += s * (lse - math::sum(x) / v as f32);
                }
                (w * loss, lse)
            })
            .unzip()
    }
}

impl Kernel<1> for CrossEntropy {
    type Saved = (FlexTensor, Arc<Vec<f32>>);

    fn forward(&self, [logits]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        let (losses, lse) = self.rows(&logits);
        (tensor(&[1], vec![Self::total(&losses)]), (logits, Arc::new(lse)))
    }

    fn backward(&self, (logits, lse): Self::Saved, grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let upstream = numbers(&grad)[0];
        let v = dims(&logits)[1];
        let s = self.label_smoothing;
        // The logits are usually held by nobody else, so their memory becomes the gradient.
        let mut out = logits;
        if out.try_storage_mut::<f32>().is_none() {
            out = tensor(&dims(&out), numbers(&out).to_vec());
        }
        out.storage_mut::<f32>().par_chunks_mut(v.max(1)).enumerate().for_each(|(i, x)| {
            let w = self.weight(i) * upstream;
            if w == 0.0 {
                x.fill(0.0);
                return;
            }
            row_gradient(x, lse[i], w * (1.0 + 2.0 * self.z_loss * lse[i]), w * s / v as f32);
            x[self.targets[i] as usize] -= w * (1.0 - s);
        });
        [Some(out)]
    }
}

/// Sum of the losses of `logits` `[N, V]`: `[1]`.
///
/// # Panics
/// When a target is not below V or counts differ; batches are checked against the model before training.
pub fn cross_entropy(logits: Tensor<2>, how: &CrossEntropy) -> Tensor<1> {
    let [n, v] = logits.dims();
    assert!(
        how.targets.len() == n
            && how.targets.iter().all(|t| *t < v as i32)
            && how.weights.as_ref().is_none_or(|w| w.len() == n),
        "cross_entropy: targets do not fit {n} rows of {v}"
    );
    apply(how.clone(), [cpu_tensor(logits.clone())]).unwrap_or_else(|| cross_entropy_plain(logits, how))
}

/// The loss of every row of `logits` `[N, V]` in f32; 0 for rows that do not count. No gradient.
pub fn cross_entropy_rows(logits: Tensor<2>, how: &CrossEntropy) -> Vec<f32> {
    match untracked(logits.clone()) {
        Some(x) => how.rows(&contiguous(x)).0,
        None => values(rows_plain(logits, how)),
    }
}

/// The plain composition of `cross_entropy`.
pub fn cross_entropy_plain(logits: Tensor<2>, how: &CrossEntropy) -> Tensor<1> {
    rows_plain(logits, how).sum()
}

/// The loss of every row of `logits` `[N, V]`: `[N, 1]`.
fn rows_plain(logits: Tensor<2>, how: &CrossEntropy) -> Tensor<2> {
    let [n, _] = logits.dims();
    let device = logits.device();
    let weights: Vec<f32> = (0..n).map(|i| how.weight(i)).collect();
    let targets: Vec<i32> = how.targets.iter().map(|t| (*t).max(0)).collect();
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [n, 1]), &device);
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [n, 1]), &device);
    let log_p = activation::log_softmax(logits.clone(), 1);
    let lse = (logits - log_p.clone()).mean_dim(1);
    let s = how.label_smoothing;
    let right = log_p.clone().gather(1, targets).neg() * (1.0 - s);
    let even = log_p.mean_dim(1).neg() * s;
    (right + even + lse.powi_scalar(2) * how.z_loss) * weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, random};
    use crate::tape::plain_only;

    fn check(how: CrossEntropy, v: usize) {
        let n = how.targets.len();
        agrees(
            (random([n, v], 1) * 3.0, random([1], 2), random([1], 3)),
            |(x, _, _)| cross_entropy(x, &how) * 0.7,
            |(x, _, _)| cross_entropy_plain(x, &how) * 0.7,
        );
    }

    #[test]
    fn agrees_with_plain_composition() {
        for v in [2, 17, 300] {
            for (z_loss, label_smoothing) in [(0.0, 0.0), (1e-2, 0.0), (0.0, 0.1), (1e-2, 0.1)] {
                let targets: Arc<[i32]> = vec![0, 1, -100, v as i32 - 1].into();
                let weights: Arc<[f32]> = vec![1.0, 0.5, 1.0, 2.0].into();
                check(CrossEntropy { targets: targets.clone(), weights: None, z_loss, label_smoothing }, v);
                check(CrossEntropy { targets, weights: Some(weights), z_loss, label_smoothing }, v);
            }
        }
    }

    #[test]
    fn equal_logits_cost_log_of_the_vocabulary() {
        let how = CrossEntropy { targets: vec![3, 5].into(), weights: None, z_loss: 0.0, label_smoothing: 0.0 };
        let loss = values(cross_entropy(random([2, 50], 1) * 0.0, &how))[0];
        assert!((loss - 2.0 * 50f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn rows_add_up_to_the_sum() {
        let how = CrossEntropy { targets: vec![3, -1, 5].into(), weights: None, z_loss: 0.1, label_smoothing: 0.1 };
        let x = random([3, 50], 1);
        let rows = cross_entropy_rows(x.clone(), &how);
        assert_eq!(rows[1], 0.0);
        assert!((rows.iter().sum::<f32>() - values(cross_entropy(x.clone(), &how))[0]).abs() < 1e-5);
        let plain = plain_only(|| cross_entropy_rows(x, &how));
        assert!(rows.iter().zip(plain).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn extreme_logits_stay_finite() {
        let how = CrossEntropy { targets: vec![0].into(), weights: None, z_loss: 0.0, label_smoothing: 0.0 };
        let x = Tensor::<2>::from_data([[-1e30f32, 0.0, 1e30]], &crate::device::cpu());
        assert!(values(cross_entropy(x, &how))[0].is_finite());
    }
}
