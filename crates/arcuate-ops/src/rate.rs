//! How fast this machine multiplies: the limit against which training is measured.
//!
//! # What it computes
//! `fma_peak`: multiply-adds between registers, two operations each, on all threads: what no product can pass.
//! `product`: seconds of one matrix product as training computes it, packing included.
// N tokens, C inputs, D outputs

use std::time::Instant;

use rayon::prelude::*;

use crate::Precision;
use crate::cpu::gemm::{How, View, buffer, matmul};
#[cfg(target_arch = "x86_64")]
use crate::{Level, level};

/// Independent sums of vectors: enough to hide the delay of one operation, few enough for the registers.
const CHAINS: usize = 12;
/// A sum stays where it begins, at `x = FACTOR x + TERM`.
const FACTOR: f32 = 0.75;
const TERM: f32 = 0.25;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{CHAINS, FACTOR, TERM};

    /// Written with intrinsics: compilers spread the loop of the portable form over memory.
    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(rounds: usize) -> f32 {
        let (factor, term) = (_mm512_set1_ps(black_box(FACTOR)), _mm512_set1_ps(black_box(TERM)));
        let mut sums = [_mm512_set1_ps(1.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, term);
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(rounds: usize) -> f32 {
        let (factor, term) = (_mm256_set1_ps(black_box(FACTOR)), _mm256_set1_ps(black_box(TERM)));
        let mut sums = [_mm256_set1_ps(1.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, term);
            }
        }
        sums.into_iter().map(|sum| _mm256_cvtss_f32(sum) * 8.0).sum()
    }
}

/// Sums of four numbers a vector, where nothing more is known of the processor.
fn portable(rounds: usize) -> f32 {
    let (factor, term) = (std::hint::black_box(FACTOR), std::hint::black_box(TERM));
    let mut sums = [[1.0f32; 4]; CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = sum.map(|x| x * factor + term);
        }
    }
    sums.iter().flatten().sum()
}

/// Runs the loop of the best instruction set: its sum, and how many numbers it keeps.
fn loops(rounds: usize) -> (f32, usize) {
    #[cfg(target_arch = "x86_64")]
    match level() {
        // SAFETY: `level` names only what the processor was found to have.
        #[allow(unsafe_code)]
        Level::Avx512 | Level::Avx512Bf16 | Level::Amx => return (unsafe { x86::avx512(rounds) }, 16 * CHAINS),
        #[allow(unsafe_code)]
        Level::Avx2 => return (unsafe { x86::avx2(rounds) }, 8 * CHAINS),
        Level::Portable => {}
    }
    (portable(rounds), 4 * CHAINS)
}

/// Operations a second of f32 multiply-adds between registers, on all threads of the pool; the best of a few tries.
pub fn fma_peak() -> f64 {
    const ROUNDS: usize = 1 << 20;
    let threads = rayon::current_num_threads();
    let operations = (2 * loops(0).1 * ROUNDS * threads) as f64;
    let seconds = (0..8).map(|_| {
        let start = Instant::now();
        rayon::broadcast(|_| std::hint::black_box(loops(std::hint::black_box(ROUNDS))));
        start.elapsed().as_secs_f64()
    });
    operations / seconds.fold(f64::INFINITY, f64::min)
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
    fn sums_of_the_peak_loop_stay_where_they_must() {
        for rounds in [0, 1, 1000] {
            let (sum, numbers) = loops(rounds);
            assert_eq!(sum, numbers as f32);
            assert_eq!(portable(rounds), (4 * CHAINS) as f32);
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
