//! Rotary position embedding.
//!
//! # What it computes
//! Channel pairs (i, i + H/2) of every head are turned by `position * frequency_i` (Su et al. 2021, with the halves
//! arranged as in the published Llama checkpoints).
// B rows, T positions, N heads, H head channels

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::cpu::gemm::buffer;
use crate::cpu::simd::simd;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

/// Cosines and sines for the positions of one batch.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// `[B*T, H/2]` each
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
    half: usize,
}

impl Rotation {
    /// For `positions` `[B*T]` and one frequency (radians a position) per channel pair `[H/2]`.
    pub fn new(positions: &[i32], frequencies: &[f64]) -> Self {
        let angles = || positions.iter().flat_map(|p| frequencies.iter().map(move |f| f64::from(*p) * f));
        Self {
            cos: angles().map(|a| a.cos() as f32).collect(),
            sin: angles().map(|a| a.sin() as f32).collect(),
            half: frequencies.len(),
        }
    }
}

simd! {
    /// One position: all heads of `x` turned by one row of cosines and sines.
    fn turn(x: &[f32], cos: &[f32], sin: &[f32], sign: f32, out: &mut [f32]) {
        let half = cos.len();
        for (x, out) in x.chunks_exact(2 * half).zip(out.chunks_exact_mut(2 * half)) {
            let (a, b) = x.split_at(half);
            let (oa, ob) = out.split_at_mut(half);
            for i in 0..half {
                let s = sin[i] * sign;
                oa[i] = a[i] * cos[i] - b[i] * s;
                ob[i] = b[i] * cos[i] + a[i] * s;
            }
        }
    }
}

impl Rotation {
    fn rotate(&self, x: &FlexTensor, sign: f32) -> FlexTensor {
        let width = *dims(x).last().expect("a tensor of rank 3");
        let mut out = buffer(numbers(x).len());
        const ROWS: usize = 32;
        out.par_chunks_mut(ROWS * width).zip(numbers(x).par_chunks(ROWS * width)).enumerate().for_each(
            |(block, (out, x))| {
                for (i, (out, x)) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
                    let at = (block * ROWS + i) * self.half;
                    turn(x, &self.cos[at..at + self.half], &self.sin[at..at + self.half], sign, out);
                }
            },
        );
        tensor(&dims(x), out)
    }
}

impl Kernel<1> for Rotation {
    type Saved = ();

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        (self.rotate(&x, 1.0), ())
    }

    fn backward(&self, (): (), grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [Some(self.rotate(&grad, -1.0))]
    }
}

/// Turns the heads of `x` `[B, T, N*H]`.
pub fn rope(x: Tensor<3>, rotation: &Rotation) -> Tensor<3> {
    let [b, t, width] = x.dims();
    assert!(
        width % (2 * rotation.half) == 0 && rotation.cos.len() == b * t * rotation.half,
        "rope: sizes do not fit {:?}",
        x.dims()
    );
    apply(rotation.clone(), [cpu_tensor(x.clone())]).unwrap_or_else(|| rope_plain(x, rotation))
}

/// The plain composition of `rope`.
pub fn rope_plain(x: Tensor<3>, rotation: &Rotation) -> Tensor<3> {
    let [b, t, width] = x.dims();
    let (half, heads) = (rotation.half, width / (2 * rotation.half));
    let table = |v: &[f32]| Tensor::<4>::from_data(TensorData::new(v.to_vec(), [b, t, 1, half]), &x.device());
    let (cos, sin) = (table(&rotation.cos), table(&rotation.sin));
    let x = x.reshape([b, t, heads, 2 * half]);
    let first = x.clone().narrow(3, 0, half);
    let second = x.narrow(3, half, half);
    let turned =
        Tensor::cat(vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin], 3);
    turned.reshape([b, t, width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, random, values};

    #[test]
    fn agrees_with_plain_composition() {
        let rotation = Rotation::new(&[0, 1, 2, 0, 5, 9], &[1.0, 0.1, 0.01]);
        agrees(
            (random([2, 3, 12], 1), random([1], 2), random([1], 3)),
            |(x, _, _)| rope(x, &rotation),
            |(x, _, _)| rope_plain(x, &rotation),
        );
    }

    #[test]
    fn products_depend_on_distance_only() {
        let product = |p: i32, q: i32| {
            let turn = |x: Tensor<3>, p| rope(x, &Rotation::new(&[p], &[1.0, 0.3]));
            values((turn(random([1, 1, 4], 1), p) * turn(random([1, 1, 4], 2), q)).sum())[0]
        };
        assert!((product(3, 1) - product(12, 10)).abs() < 1e-5);
    }
}
