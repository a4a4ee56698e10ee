//! The Muon update of one matrix: a Nesterov running mean of the gradient, made nearly orthogonal.
//!
//! # What it computes
//! `mean = mu mean + (1-mu) g`, `x = mu mean + (1-mu) g` over its norm, then five times `x = 3.4445 x + (-4.775 a + 2.0315 a a) x`
//! with `a = x x^T` of the shorter side, which brings all singular values near 1; `p = p (1 - lr decay) - lr sqrt(max(1, M/N)) x`.
//! `g` is scaled first by the clipping factor. The factor of M and N makes the size of a step independent of the shape.
//! The first term is folded into the matrix of the others, so an iteration is three products and one pass over `a`.
//!
//! # Reference
//! Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks
// M rows, N columns, K the smaller of them

use burn::backend::Flex;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::Precision;
use crate::adamw::{flex, is_plain, owned};
use crate::cpu::gemm::{How, View, matmul};
use crate::cpu::simd::simd;
use crate::global_norm::{global_norm, squares};
use crate::matmul::matmul_plain;
use crate::tape::{contiguous, numbers};

/// Numbers of one update.
#[derive(Debug, Clone, Copy)]
pub struct MuonStep {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the running mean.
    pub momentum: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Factor of the gradient: clipping.
    pub grad_scale: f64,
}

const STEPS: usize = 5;
/// Of x, a x and a a x.
const FACTORS: [f32; 3] = [3.4445, -4.775, 2.0315];
/// Added to the norm, against division by nothing.
const TINY: f64 = 1e-7;
/// Rows that a symmetric product computes at once.
const STRIP: usize = 128;
/// Elements of one parallel task.
const BLOCK: usize = 1 << 14;

simd! {
    /// The running mean in place, and what Nesterov makes of it.
    fn average(mean: &mut [f32], ahead: &mut [f32], g: &[f32], momentum: f32, grad_scale: f32) {
        for ((mean, ahead), g) in mean.iter_mut().zip(ahead).zip(g) {
            let g = g * grad_scale * (1.0 - momentum);
            *mean = *mean * momentum + g;
            *ahead = *mean * momentum + g;
        }
    }
}

simd! {
    fn scale(x: &mut [f32], by: f32) {
        for x in x {
            *x *= by;
        }
    }
}

simd! {
    fn step(p: &mut [f32], x: &[f32], keep: f32, rate: f32) {
        for (p, x) in p.iter_mut().zip(x) {
            *p = *p * keep - rate * x;
        }
    }
}

simd! {
    /// `[K, K]`: the factors of a and a a, in place of a a; that of x is added to the diagonal.
    fn polynomial(square: &mut [f32], a: &[f32], k: usize) {
        let [one, two, three] = FACTORS;
        for (square, a) in square.iter_mut().zip(a) {
            *square = *square * three + a * two;
        }
        for i in 0..k {
            square[i * k + i] += one;
        }
    }
}

/// The product `[K, K]` of `a` `[K, N]` and its transpose, or of two symmetric matrices that commute: only what lies on
/// or above the diagonal blocks is computed, the rest is copied from there.
fn symmetric([k, n]: [usize; 2], a: View, b: View, out: &mut [f32], how: How) {
    for at in (0..k).step_by(STRIP) {
        let height = STRIP.min(k - at);
        let a = View { data: &a.data[at * a.row..], ..a };
        let b = View { data: &b.data[at * b.col..], ..b };
        matmul([height, k - at, n], a, b, &mut out[at * k + at..], k, how);
        let (above, below) = out.split_at_mut((at + height) * k);
        for (i, row) in below.chunks_exact_mut(k).enumerate() {
            let from = at * k + at + height + i;
            for (j, x) in row[at..at + height].iter_mut().enumerate() {
                *x = above[from + j * k];
            }
        }
    }
}

/// `x` `[M, N]` made nearly orthogonal.
fn orthogonal([m, n]: [usize; 2], x: Vec<f32>, how: How) -> Vec<f32> {
    let k = m.min(n);
    let (mut x, mut next) = (x, vec![0.0; m * n]);
    let norm = squares(&[&x]).sqrt() + TINY;
    x.par_chunks_mut(BLOCK).for_each(|x| scale(x, (1.0 / norm) as f32));
    let (mut a, mut b) = (vec![0.0; k * k], vec![0.0; k * k]);
    for _ in 0..STEPS {
        let rows = View::rows(&x, n);
        // The products with a itself are symmetric, so a tall matrix is multiplied from the right.
        if m > n {
            symmetric([k, m], rows.t(), rows, &mut a, how);
        } else {
            symmetric([k, n], rows, rows.t(), &mut a, how);
        }
        let square = View::rows(&a, k);
        symmetric([k, k], square, square, &mut b, how);
        polynomial(&mut b, &a, k);
        let b = View::rows(&b, k);
        if m > n {
            matmul([m, n, k], rows, b, &mut next, n, how);
        } else {
            matmul([m, n, k], b, rows, &mut next, n, how);
        }
        std::mem::swap(&mut x, &mut next);
    }
    x
}

/// Parameter and running mean of a matrix `[M, N]`, all flattened to `[M N]`, after one step. Without a tape.
pub fn muon(
    shape: [usize; 2],
    param: Tensor<1>,
    grad: Tensor<1>,
    mean: Tensor<1>,
    how: &MuonStep,
) -> (Tensor<1>, Tensor<1>) {
    let [m, n] = shape;
    if [&param, &grad, &mean].into_iter().any(|x| !is_plain(x)) {
        return muon_plain(shape, param, grad, mean, how);
    }
    let (mut p, mut mean) = (owned(flex(param)), owned(flex(mean)));
    let g = contiguous(flex(grad));
    let mut ahead = vec![0.0; m * n];
    let (momentum, grad_scale) = (how.momentum as f32, how.grad_scale as f32);
    mean.storage_mut::<f32>()
        .par_chunks_mut(BLOCK)
        .zip(ahead.par_chunks_mut(BLOCK))
        .zip(numbers(&g).par_chunks(BLOCK))
        .for_each(|((mean, ahead), g)| average(mean, ahead, g, momentum, grad_scale));
    let x = orthogonal(shape, ahead, How::all(Precision::current()));
    let [keep, rate] = factors(shape, how).map(|x| x as f32);
    p.storage_mut::<f32>().par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(p, x)| step(p, x, keep, rate));
    let wrap = |x| Tensor::from_primitive::<Flex>(x);
    (wrap(p), wrap(mean))
}

/// What is kept of the parameter, and the rate of the direction.
fn factors([m, n]: [usize; 2], how: &MuonStep) -> [f64; 2] {
    [1.0 - how.learning_rate * how.weight_decay, how.learning_rate * (m as f64 / n as f64).max(1.0).sqrt()]
}

/// The plain composition of `muon`.
pub fn muon_plain(
    shape: [usize; 2],
    param: Tensor<1>,
    grad: Tensor<1>,
    mean: Tensor<1>,
    how: &MuonStep,
) -> (Tensor<1>, Tensor<1>) {
    let grad = grad * how.grad_scale * (1.0 - how.momentum);
    let mean = mean * how.momentum + grad.clone();
    let ahead = mean.clone() * how.momentum + grad;
    let x = orthogonal_plain(ahead.reshape(shape)).reshape([-1]);
    let [keep, rate] = factors(shape, how);
    (param * keep - x * rate, mean)
}

/// The plain composition of `orthogonal`. `[M, N]`
fn orthogonal_plain(x: Tensor<2>) -> Tensor<2> {
    let [m, n] = x.dims();
    let mut x = if m > n { x.transpose() } else { x };
    x = x.clone() / (global_norm([x]) + TINY);
    let [one, two, three] = FACTORS;
    for _ in 0..STEPS {
        let a = matmul_plain(x.clone(), x.clone().transpose());
        let b = a.clone() * two + matmul_plain(a.clone(), a) * three;
        x = x.clone() * one + matmul_plain(b, x);
    }
    if m > n { x.transpose() } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{distance, on_threads, random, values};

    const HOW: MuonStep = MuonStep { learning_rate: 0.02, momentum: 0.95, weight_decay: 0.1, grad_scale: 0.5 };
    const SHAPES: [[usize; 2]; 7] = [[1, 1], [1, 9], [9, 1], [8, 8], [17, 40], [130, 96], [140, 150]];

    #[test]
    fn agrees_with_plain_composition_over_steps() {
        for shape @ [m, n] in SHAPES {
            let (mut p, mut q) = (random([m * n], 1), random([m * n], 1));
            let (mut a, mut b) = (random([m * n], 2) * 0.0, random([m * n], 2) * 0.0);
            for seed in 1..4 {
                let g = random([m * n], seed);
                (p, a) = muon(shape, p, g.clone(), a, &HOW);
                (q, b) = muon_plain(shape, q, g, b, &HOW);
            }
            assert!(distance(&values(p), &values(q)) < 1e-5, "{m} x {n}");
            assert!(distance(&values(a), &values(b)) < 1e-6, "{m} x {n}");
        }
    }

    #[test]
    fn singular_values_come_near_one() {
        for shape @ [m, n] in [[8, 8], [4, 12], [12, 4], [64, 100]] {
            let x = orthogonal(shape, values(random([m * n], 1)), How::all(Precision::F32));
            let k = m.min(n);
            // The squares of the singular values add up to the sum of all squares.
            let mean = squares(&[&x]) / k as f64;
            assert!((0.5..1.5).contains(&mean), "mean squared singular value {mean}");
        }
    }

    #[test]
    fn nothing_moves_without_a_gradient() {
        let zero = || random([12], 1) * 0.0;
        let (p, _) = muon([3, 4], random([12], 2), zero(), zero(), &MuonStep { weight_decay: 0.0, ..HOW });
        assert_eq!(values(p), values(random([12], 2)));
    }

    #[test]
    fn tensors_that_nobody_shares_are_changed_in_place() {
        let at = |x: &Tensor<1>| numbers(&x.clone().try_into_primitive::<Flex>().expect("on the CPU")).as_ptr();
        let (p, mean) = (random([12], 1), random([12], 2));
        let before = [&p, &mean].map(at);
        let (p, mean) = muon([3, 4], p, random([12], 3), mean, &HOW);
        assert_eq!([&p, &mean].map(at), before);
    }

    #[test]
    fn shared_tensors_are_copied_not_changed() {
        let p = random([12], 1);
        let before = values(p.clone());
        let mean = random([12], 2);
        let (after, _) = muon([3, 4], p.clone(), random([12], 3), mean.clone(), &HOW);
        assert_eq!((values(p), values(mean)), (before.clone(), values(random([12], 2))));
        assert_ne!(values(after), before);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let run = |threads| {
            on_threads(threads, || {
                let [m, n] = [130, 200];
                let (p, mean) = muon([m, n], random([m * n], 1), random([m * n], 2), random([m * n], 3), &HOW);
                (values(p), values(mean))
            })
        };
        assert_eq!(run(1), run(2));
    }
}
