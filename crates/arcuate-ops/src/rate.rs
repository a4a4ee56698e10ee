//! How fast this machine multiplies: the limit against which training is measured.
//!
//! # What it computes
//! `fma_peak`: multiply-adds between registers, two operations each, on all threads: what no product can pass.
//! `product`: seconds of one matrix product as training computes it, packing included.
// N tokens, C inputs, D outputs

use std::time::Instant;

use rayon::prelude::*;

use crate::cpu::gemm::{How, View, buffer, matmul};
use crate::cpu::simd::simd;
use crate::{Level, Precision, level};

/// Numbers that are updated side by side.
const LANES: usize = 16;
/// Independent sums: enough to hide the delay of one operation, few enough for the registers.
const WIDE: usize = 12;
const NARROW: usize = 6;

#[inline(always)]
fn chains<const N: usize>(rounds: usize, fused: bool) -> f32 {
    let mut sums = [[1.0f32; LANES]; N];
    let (factor, term) = (std::hint::black_box(0.999_9f32), std::hint::black_box(1e-4f32));
    for _ in 0..rounds {
        for sum in &mut sums {
            for x in sum {
                *x = if fused { x.mul_add(factor, term) } else { *x * factor + term };
            }
        }
    }
    sums.iter().flatten().sum()
}

simd! {
    fn wide(rounds: usize) -> f32 {
        chains::<WIDE>(rounds, true)
    }
}

simd! {
    fn narrow(rounds: usize) -> f32 {
        chains::<NARROW>(rounds, true)
    }
}

simd! {
    fn unfused(rounds: usize) -> f32 {
        chains::<NARROW>(rounds, false)
    }
}

/// Operations a second of f32 multiply-adds between registers, on all threads of the pool; the best of a few tries.
pub fn fma_peak() -> f64 {
    const ROUNDS: usize = 1 << 20;
    let (kernel, sums): (fn(usize) -> f32, usize) = match level() {
        Level::Portable if cfg!(target_arch = "x86_64") => (unfused, NARROW),
        Level::Avx2 => (narrow, NARROW),
        _ => (wide, WIDE),
    };
    let threads = rayon::current_num_threads();
    let operations = (2 * LANES * sums * ROUNDS * threads) as f64;
    let best = (0..8).map(|_| {
        let start = Instant::now();
        rayon::broadcast(|_| std::hint::black_box(kernel(std::hint::black_box(ROUNDS))));
        start.elapsed().as_secs_f64()
    });
    operations / best.fold(f64::INFINITY, f64::min)
}

/// The three products of a linear layer in a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// `y[N, D] = x[N, C] w[D, C]^T`
    Forward,
    /// `dx[N, C] = dy[N, D] w[D, C]`
    InputGradient,
    /// `dw[D, C] = dy[N, D]^T x[N, C]`
    WeightGradient,
}

impl Pass {
    /// All of them, in the order of a step.
    pub const ALL: [Self; 3] = [Self::Forward, Self::InputGradient, Self::WeightGradient];

    /// As it is written in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::InputGradient => "input gradient",
            Self::WeightGradient => "weight gradient",
        }
    }
}

/// Seconds of `repeats` products of a layer with `[N, C, D]` tokens, inputs and outputs, after one that is not counted.
pub fn product(pass: Pass, [tokens, inputs, outputs]: [usize; 3], precision: Precision, repeats: usize) -> Vec<f64> {
    let numbers = |len: usize| -> Vec<f32> { (0..len).into_par_iter().map(|i| (i % 17) as f32 * 0.1 - 0.8).collect() };
    let (n, c, d) = (tokens, inputs, outputs);
    let (sizes, left, right) = match pass {
        Pass::Forward => ([n, d, c], numbers(n * c), numbers(d * c)),
        Pass::InputGradient => ([n, c, d], numbers(n * d), numbers(d * c)),
        Pass::WeightGradient => ([d, c, n], numbers(n * d), numbers(n * c)),
    };
    let mut out = buffer(sizes[0] * sizes[1]);
    let mut once = || {
        let (a, b) = match pass {
            Pass::Forward => (View::rows(&left, c), View::rows(&right, c).t()),
            Pass::InputGradient => (View::rows(&left, d), View::rows(&right, c)),
            Pass::WeightGradient => (View::rows(&left, d).t(), View::rows(&right, c)),
        };
        let start = Instant::now();
        matmul(sizes, a, b, &mut out, sizes[1], How::all(precision));
        std::hint::black_box(&mut out);
        start.elapsed().as_secs_f64()
    };
    once();
    (0..repeats).map(|_| once()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_the_peak_loop_come_to_rest_where_they_must() {
        // x = 0.9999 x + 0.0001 has its fixed point at 1, so every sum stays there.
        for (sum, chains) in [(wide(1000), WIDE), (narrow(1000), NARROW), (unfused(1000), NARROW)] {
            assert!((sum - (chains * LANES) as f32).abs() < 1e-2, "{sum}");
        }
    }

    #[test]
    fn every_pass_of_odd_sizes_is_timed_as_often_as_asked() {
        for pass in Pass::ALL {
            for sizes in [[1, 1, 1], [3, 5, 7], [33, 17, 9]] {
                let seconds = product(pass, sizes, Precision::F32, 3);
                assert!(seconds.len() == 3 && seconds.iter().all(|s| *s >= 0.0));
            }
        }
    }
}
