//! Rotary position embedding.
//!
//! # What it computes
//! Channel pairs (i, i + H/2) of every head are turned by `position * frequency_i` (Su et al. 2021, with the halves
//! arranged as in the published Llama checkpoints).
// B rows, T positions, N heads, H head channels

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::cpu::gemm::buffer;
use crate::cpu::simd::simd;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

/// Positions that one task turns.
const ROWS: usize = 32;

/// Cosines and sines of all positions up to some length.
#[derive(Debug)]
struct Table {
    frequencies: Vec<f64>,
    /// `[positions, H/2]` each
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

/// Tables of the networks in use, the latest last: a sine costs more than a whole row of turned channels.
static TABLES: Mutex<Vec<Arc<Table>>> = Mutex::new(Vec::new());
const MAX_TABLES: usize = 4;

impl Table {
    fn of(frequencies: &[f64], len: usize) -> Arc<Self> {
        let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        let found = tables.iter().position(|table| table.frequencies == frequencies);
        let old = found.map(|i| tables.remove(i));
        let table = old.filter(|table| table.cos.len() >= len * frequencies.len()).unwrap_or_else(|| {
            // Rounded up, so that generation does not build a table for every token.
            let positions = 0..len.next_power_of_two();
            let angles = || positions.clone().flat_map(|p| frequencies.iter().map(move |f| p as f64 * f));
            Arc::new(Self {
                frequencies: frequencies.to_vec(),
                cos: angles().map(|a| a.cos() as f32).collect(),
                sin: angles().map(|a| a.sin() as f32).collect(),
                half: frequencies.len(),
            })
        });
        if tables.len() == MAX_TABLES {
            tables.remove(0);
        }
        tables.push(table.clone());
        table
    }
}

/// Cosines and sines for the positions of one batch.
#[derive(Debug, Clone)]
pub struct Rotation {
    table: Arc<Table>,
    /// `[B*T]`
    positions: Arc<[i32]>,
}

impl Rotation {
    /// For `positions` `[B*T]` and one frequency (radians a position) per channel pair `[H/2]`.
    ///
    /// # Panics
    /// When a position is negative.
    pub fn new(positions: &Arc<[i32]>, frequencies: &[f64]) -> Self {
        assert!(positions.iter().all(|p| *p >= 0), "rope: a position is negative");
        let len = positions.iter().max().map_or(0, |p| *p as usize + 1);
        Self { table: Table::of(frequencies, len), positions: positions.clone() }
    }
}

simd! {
    /// One position: all heads of `x` turned in place by one row of cosines and sines.
    fn turn(x: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        let half = cos.len();
        for x in x.chunks_exact_mut(2 * half) {
            let (a, b) = x.split_at_mut(half);
            for i in 0..half {
                let (s, from) = (sin[i] * sign, a[i]);
                a[i] = from * cos[i] - b[i] * s;
                b[i] = b[i] * cos[i] + from * s;
            }
        }
    }
}

impl Rotation {
    fn turn_block(&self, block: usize, x: &mut [f32], width: usize, sign: f32) {
        let table = &self.table;
        for (x, position) in x.chunks_exact_mut(width).zip(&self.positions[block * ROWS..]) {
            let at = *position as usize * table.half..(*position as usize + 1) * table.half;
            turn(x, &table.cos[at.clone()], &table.sin[at], sign);
        }
    }

    /// Turns in place when nobody else holds the numbers.
    fn rotate(&self, mut x: FlexTensor, sign: f32) -> FlexTensor {
        let shape = dims(&x);
        let width = *shape.last().expect("a tensor of rank 3");
        let (len, size) = (numbers(&x).len(), (ROWS * width).max(1));
        if let Some(own) = x.try_storage_mut::<f32>() {
            own[..len].par_chunks_mut(size).enumerate().for_each(|(block, x)| self.turn_block(block, x, width, sign));
            return x;
        }
        let mut out = buffer(len);
        out.par_chunks_mut(size).zip(numbers(&x).par_chunks(size)).enumerate().for_each(|(block, (out, x))| {
            out.copy_from_slice(x);
            self.turn_block(block, out, width, sign);
        });
        tensor(&shape, out)
    }
}

impl Kernel<1> for Rotation {
    type Saved = ();

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        (self.rotate(x, 1.0), ())
    }

    fn backward(&self, (): (), grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [Some(self.rotate(grad, -1.0))]
    }
}

/// Turns the heads of `x` `[B, T, N*H]`.
pub fn rope(x: Tensor<3>, rotation: &Rotation) -> Tensor<3> {
    let [b, t, width] = x.dims();
    assert!(
        width.is_multiple_of(2 * rotation.table.half) && rotation.positions.len() == b * t,
        "rope: sizes do not fit {:?}",
        x.dims()
    );
    if cpu_tensor(x.clone()).is_none() {
        return rope_plain(x, rotation);
    }
    // No copy of the handle may be left, or the numbers could not be turned in place.
    apply(rotation.clone(), [cpu_tensor(x)]).expect("lives on the CPU")
}

/// The plain composition of `rope`.
pub fn rope_plain(x: Tensor<3>, rotation: &Rotation) -> Tensor<3> {
    let [b, t, width] = x.dims();
    let (half, heads) = (rotation.table.half, width / (2 * rotation.table.half));
    let table = |v: &[f32]| {
        let rows = rotation.positions.iter().flat_map(|p| v[*p as usize * half..][..half].iter().copied());
        Tensor::<4>::from_data(TensorData::new(rows.collect::<Vec<_>>(), [b, t, 1, half]), &x.device())
    };
    let (cos, sin) = (table(&rotation.table.cos), table(&rotation.table.sin));
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
        for (b, t, heads) in [(2, 3, 2), (1, 1, 1), (3, 70, 3)] {
            let positions: Arc<[i32]> = (0..b * t).map(|i| (i as i32 * 7) % 50).collect();
            let rotation = Rotation::new(&positions, &[1.0, 0.1, 0.01]);
            agrees(
                (random([b, t, heads * 6], 1), random([1], 2), random([1], 3)),
                |(x, _, _)| rope(x, &rotation),
                |(x, _, _)| rope_plain(x, &rotation),
            );
        }
    }

    #[test]
    fn input_that_others_hold_is_left_alone() {
        let x = random([1, 40, 4], 1);
        let before = values(x.clone());
        let rotation = Rotation::new(&(0..40).collect(), &[1.0, 0.3]);
        let turned = values(rope(x.clone(), &rotation));
        assert_eq!(values(x.clone()), before);
        assert_eq!(values(rope(x, &rotation)), turned, "in place");
    }

    #[test]
    fn a_longer_table_repeats_the_shorter() {
        let row =
            |positions: Vec<i32>| values(rope(random([1, 1, 4], 1), &Rotation::new(&positions.into(), &[0.7, 0.2])));
        let short = row(vec![3]);
        row(vec![300]);
        assert_eq!(row(vec![3]), short);
    }

    #[test]
    fn products_depend_on_distance_only() {
        let product = |p: i32, q: i32| {
            let turn = |x: Tensor<3>, p: i32| rope(x, &Rotation::new(&vec![p].into(), &[1.0, 0.3]));
            values((turn(random([1, 1, 4], 1), p) * turn(random([1, 1, 4], 2), q)).sum())[0]
        };
        assert!((product(3, 1) - product(12, 10)).abs() < 1e-5);
    }
}
