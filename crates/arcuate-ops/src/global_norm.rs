//! The L2 norm over many tensors.
//!
//! # What it computes
//! `sqrt(sum x^2)` over all elements of all tensors, on the CPU in f64 and in a fixed order.

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::cpu::math::LANES;
use crate::cpu::simd::simd;
use crate::gradcheck::values;
use crate::tape::{contiguous, numbers, untracked};

/// Elements of one partial sum.
const BLOCK: usize = 1 << 14;
/// Partial sums that one thread makes at least: waking others costs more than fewer.
const ALONE: usize = 4;

simd! {
    fn block(x: &[f32]) -> f64 {
        let mut lanes = [0f64; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest: f64 = chunks.remainder().iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        for chunk in chunks {
            for i in 0..LANES {
                lanes[i] += f64::from(chunk[i]) * f64::from(chunk[i]);
            }
        }
        lanes.iter().sum::<f64>() + rest
    }
}

/// Sum of squares of some numbers; partial sums of blocks are added in order.
pub(crate) fn squares(all: &[&[f32]]) -> f64 {
    let blocks: Vec<&[f32]> = all.iter().flat_map(|x| x.chunks(BLOCK)).collect();
    let parts: Vec<f64> = blocks.par_iter().with_min_len(ALONE).map(|x| block(x)).collect();
    parts.iter().sum()
}

/// Norm over all elements of all tensors; 0 when there are none. Without a tape.
pub fn global_norm<const D: usize>(tensors: impl IntoIterator<Item = Tensor<D>>) -> f64 {
    let (mut on_cpu, mut elsewhere) = (Vec::new(), Vec::new());
    for x in tensors {
        match untracked(x.clone()) {
            Some(x) => on_cpu.push(contiguous(x)),
            None => elsewhere.push(x.powi_scalar(2).sum()),
        }
    }
    let mut total = squares(&on_cpu.iter().map(numbers).collect::<Vec<_>>());
    if !elsewhere.is_empty() {
        // Read together: every read waits for the device.
        total += values(Tensor::cat(elsewhere, 0)).into_iter().map(f64::from).sum::<f64>();
    }
    total.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{on_threads, random, values};
    use crate::plain_only;

    fn many() -> Vec<Tensor<1>> {
        [0, 1, 15, 100, 16_384, 70_001].into_iter().map(|n| random([n], n as u64)).collect()
    }

    #[test]
    fn agrees_with_plain_loop() {
        let plain: f64 = many().into_iter().flat_map(values).map(|x| f64::from(x).powi(2)).sum();
        assert!((global_norm(many()) - plain.sqrt()).abs() < 1e-12 * plain.sqrt());
        assert_eq!(global_norm(Vec::<Tensor<1>>::new()), 0.0);
        assert!((plain_only(|| global_norm(many())) - plain.sqrt()).abs() < 1e-5 * plain.sqrt());
        let turned = random([30, 70], 1);
        assert!((global_norm([turned.clone().transpose()]) - global_norm([turned])).abs() < 1e-12);
    }

    #[test]
    fn large_and_broken_numbers_show() {
        assert!((global_norm([random([3], 1) * 0.0 + 1e30]) - 3f64.sqrt() * 1e30).abs() < 1e24);
        assert!(global_norm([random([3], 1) * f32::NAN]).is_nan());
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let run = |threads| on_threads(threads, || global_norm(many()).to_bits());
        assert_eq!(run(1), run(2));
    }
}
