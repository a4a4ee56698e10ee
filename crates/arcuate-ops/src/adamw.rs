//! The AdamW update of one tensor, in place.
//!
//! # What it computes
//! `m = b1 m + (1-b1) g`, `v = b2 v + (1-b2) g^2`, then
//! `p = p (1 - lr decay) - lr (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps)`, with `g` scaled first by the clipping factor.
//!
//! # Reference
//! Loshchilov and Hutter 2019.

use burn::backend::Flex;
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::cpu::simd::simd;
use crate::tape::{contiguous, numbers, tensor, untracked};

/// Numbers of one update.
#[derive(Debug, Clone, Copy)]
pub struct AdamwStep {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay of this tensor.
    pub weight_decay: f64,
    /// Steps taken, counted from 1.
    pub step: u64,
    /// Factor of the gradient: clipping.
    pub grad_scale: f64,
}

/// Elements of one parallel task.
const BLOCK: usize = 1 << 14;

simd! {
    fn update(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], k: &[f32; 7]) {
        let [b1, b2, grad_scale, rate, root, epsilon, keep] = *k;
        for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * grad_scale;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *p = *p * keep - rate * *m / (v.sqrt() * root + epsilon);
        }
    }
}

/// Whether a tensor lives on the CPU and has no tape.
pub(crate) fn is_plain<const D: usize>(x: &Tensor<D>) -> bool {
    untracked(x.clone()).is_some()
}

/// A tensor that `is_plain`; the caller's handle is given up, so that its memory can be written.
pub(crate) fn flex<const D: usize>(x: Tensor<D>) -> FlexTensor {
    x.try_into_primitive::<Flex>().expect("a tensor on the CPU without a tape")
}

/// The numbers of a tensor for writing; copies only when somebody else holds them.
pub(crate) fn owned(x: FlexTensor) -> FlexTensor {
    let mut x = contiguous(x);
    if x.try_storage_mut::<f32>().is_none() {
        let d: Vec<usize> = x.layout().shape().iter().copied().collect();
        x = tensor(&d, numbers(&x).to_vec());
    }
    x
}

/// Parameter, first and second moment after one step. Tensors are without a tape.
pub fn adamw<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    moments: [Tensor<D>; 2],
    how: &AdamwStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let [m, v] = moments;
    if [&param, &grad, &m, &v].into_iter().any(|x| !is_plain(x)) {
        return adamw_plain(param, grad, [m, v], how);
    }
    let (mut p, mut m, mut v) = (owned(flex(param)), owned(flex(m)), owned(flex(v)));
    let g = contiguous(flex(grad));
    let t = how.step as f64;
    let k = [
        how.beta1,
        how.beta2,
        how.grad_scale,
        how.learning_rate / (1.0 - how.beta1.powf(t)),
        1.0 / (1.0 - how.beta2.powf(t)).sqrt(),
        how.epsilon,
        1.0 - how.learning_rate * how.weight_decay,
    ]
    .map(|x| x as f32);
    let len = numbers(&g).len();
    // A tensor of one block is updated by the calling thread without waking others.
    p.storage_mut::<f32>()[..len]
        .par_chunks_mut(BLOCK)
        .zip(m.storage_mut::<f32>().par_chunks_mut(BLOCK))
        .zip(v.storage_mut::<f32>().par_chunks_mut(BLOCK))
        .zip(numbers(&g).par_chunks(BLOCK))
        .for_each(|(((p, m), v), g)| update(p, m, v, g, &k));
    let wrap = |x| Tensor::from_primitive::<Flex>(x);
    (wrap(p), [wrap(m), wrap(v)])
}

/// The plain composition of `adamw`.
pub fn adamw_plain<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    [m, v]: [Tensor<D>; 2],
    how: &AdamwStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let grad = grad * how.grad_scale;
    let t = how.step as f64;
    let m = m * how.beta1 + grad.clone() * (1.0 - how.beta1);
    let v = v * how.beta2 + grad.powi_scalar(2) * (1.0 - how.beta2);
    let first = m.clone() / (1.0 - how.beta1.powf(t));
    let second = (v.clone() / (1.0 - how.beta2.powf(t))).sqrt() + how.epsilon;
    let param = param * (1.0 - how.learning_rate * how.weight_decay) - first / second * how.learning_rate;
    (param, [m, v])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{distance, random, values};

    const HOW: AdamwStep = AdamwStep {
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        step: 1,
        grad_scale: 0.5,
    };

    #[test]
    fn agrees_with_plain_composition_over_steps() {
        let zeros = || random([5, 7], 9) * 0.0;
        let (mut p, mut q) = (random([5, 7], 1), random([5, 7], 1));
        let (mut a, mut b) = ([zeros(), zeros()], [zeros(), zeros()]);
        for step in 1..5 {
            let g = random([5, 7], step);
            let how = AdamwStep { step, ..HOW };
            (p, a) = adamw(p, g.clone(), a, &how);
            (q, b) = adamw_plain(q, g, b, &how);
        }
        assert!(distance(&values(p), &values(q)) < 1e-6);
        assert!(distance(&values(a[1].clone()), &values(b[1].clone())) < 1e-6);
    }

    #[test]
    fn first_step_moves_by_the_learning_rate() {
        let zero = || random([3], 1) * 0.0;
        let how = AdamwStep { weight_decay: 0.0, ..HOW };
        let (p, _) = adamw(zero(), random([3], 2), [zero(), zero()], &how);
        assert!(values(p).iter().all(|x| (x.abs() - 1e-2).abs() < 1e-6));
    }

    #[test]
    fn tensors_that_nobody_shares_are_changed_in_place() {
        let at = |x: &Tensor<1>| numbers(&x.clone().try_into_primitive::<Flex>().expect("on the CPU")).as_ptr();
        let (p, m, v) = (random([4], 1), random([4], 2), random([4], 3));
        let before = [&p, &m, &v].map(at);
        let (p, [m, v]) = adamw(p, random([4], 4), [m, v], &HOW);
        assert_eq!([&p, &m, &v].map(at), before);
    }

    #[test]
    fn shared_tensors_are_copied_not_changed() {
        let p = random([4], 1);
        let before = values(p.clone());
        let zero = || random([4], 1) * 0.0;
        let (after, _) = adamw(p.clone(), random([4], 2), [zero(), zero()], &HOW);
        assert_eq!(values(p), before);
        assert_ne!(values(after), before);
    }
}
