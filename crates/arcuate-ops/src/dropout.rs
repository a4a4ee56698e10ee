//! Dropout with masks from named random numbers.
//!
//! # What it computes
//! Each element is 0 with the given probability and `x / (1 - probability)` otherwise. The mask follows from the name of
//! the site and the index of the element, so the backward pass makes it again and nothing is stored.
//!
//! # Reference
//! Srivastava et al. 2014.

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::cpu::simd::simd;
use crate::rng::{Blocks, Lanes};
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

/// Which mask a dropout draws.
#[derive(Debug, Clone)]
pub struct Dropout {
    /// Seed of the run.
    pub seed: u64,
    /// Microbatch counter of the run.
    pub step: u64,
    /// Place in the network; every place has a mask of its own.
    pub site: u64,
    /// Share of elements that become 0; below 1.
    pub probability: f64,
}

simd! {
    /// Drops elements of one block in place.
    fn drop_block(x: &mut [f32], lanes: &mut Lanes, threshold: u32, keep: f32) {
        let mut chunks = x.chunks_exact_mut(Lanes::DRAW);
        for x in &mut chunks {
            let bits = lanes.next();
            for i in 0..Lanes::DRAW {
                x[i] = if bits[i] < threshold { 0.0 } else { x[i] * keep };
            }
        }
        for (x, bits) in chunks.into_remainder().iter_mut().zip(lanes.next()) {
            *x = if bits < threshold { 0.0 } else { *x * keep };
        }
    }
}

impl Dropout {
    fn run(&self, x: FlexTensor) -> FlexTensor {
        let blocks = Blocks::new(self.seed, "dropout", self.step, self.site);
        let threshold = (self.probability * (1u64 << 32) as f64) as u32;
        let keep = (1.0 / (1.0 - self.probability)) as f32;
        let one = |i: usize, x: &mut [f32]| drop_block(x, &mut blocks.lanes(i as u64), threshold, keep);
        let mut x = x;
        let len = numbers(&x).len();
        // Memory that nobody else holds becomes the result.
        if let Some(own) = x.try_storage_mut::<f32>() {
            own[..len].par_chunks_mut(Blocks::LEN).enumerate().for_each(|(i, x)| one(i, x));
            return x;
        }
        let mut out = vec![0.0; len];
        let pairs = out.par_chunks_mut(Blocks::LEN).zip(numbers(&x).par_chunks(Blocks::LEN));
        pairs.enumerate().for_each(|(i, (out, x))| {
            out.copy_from_slice(x);
            one(i, out);
        });
        tensor(&dims(&x), out)
    }
}

impl Kernel<1> for Dropout {
    type Saved = ();

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, ()) {
        (self.run(x), ())
    }

    fn backward(&self, (): (), grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [Some(self.run(grad))]
    }
}

/// Zeroes elements of `x` at random and scales the rest up; the shape stays.
///
/// # Panics
/// When the probability is not from 0 to below 1.
pub fn dropout<const D: usize>(x: Tensor<D>, how: &Dropout) -> Tensor<D> {
    assert!((0.0..1.0).contains(&how.probability), "dropout: probability {}", how.probability);
    if how.probability == 0.0 {
        return x;
    }
    // The kernel takes the tensor over, so that it can write in its memory.
    match cpu_tensor(x.clone()) {
        Some(on_cpu) => {
            drop(x);
            apply(how.clone(), [Some(on_cpu)]).expect("a tensor on the CPU")
        }
        None => dropout_plain(x, how),
    }
}

/// The plain composition of `dropout`: a product with the mask.
pub fn dropout_plain<const D: usize>(x: Tensor<D>, how: &Dropout) -> Tensor<D> {
    let ones = tensor(&x.dims(), vec![1.0; x.dims().iter().product()]);
    let mask: TensorData = Tensor::<D>::from_primitive::<Flex>(how.run(ones)).into_data();
    let device = x.device();
    x * Tensor::from_data(mask, &device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, on_threads, random, values};

    fn how(probability: f64) -> Dropout {
        Dropout { seed: 1, step: 2, site: 3, probability }
    }

    #[test]
    fn agrees_with_plain_composition() {
        for [rows, columns] in [[0, 3], [1, 1], [3, 5], [17, 241], [2, 5000]] {
            agrees(
                (random([rows, columns], 1), random([1], 2), random([1], 3)),
                |(x, _, _)| dropout(x, &how(0.3)),
                |(x, _, _)| dropout_plain(x, &how(0.3)),
            );
        }
        agrees(
            (random([40, 300], 1), random([1], 2), random([1], 3)),
            |(x, _, _)| dropout(x.transpose(), &how(0.3)),
            |(x, _, _)| dropout_plain(x.transpose(), &how(0.3)),
        );
    }

    #[test]
    fn drops_the_wanted_share_and_keeps_the_mean() {
        for p in [0.01, 0.25, 0.9] {
            let x = values(dropout(random([100, 10_000], 1) * 0.0 + 1.0, &how(p)));
            let dropped = x.iter().filter(|x| **x == 0.0).count() as f64 / x.len() as f64;
            assert!((dropped - p).abs() < 2e-3, "{dropped} of {p}");
            assert!(x.iter().all(|x| *x == 0.0 || (f64::from(*x) * (1.0 - p) - 1.0).abs() < 1e-6));
        }
    }

    #[test]
    fn masks_differ_by_name_and_repeat() {
        let mask = |how: &Dropout| values(dropout(random([5000], 1) * 0.0 + 1.0, how));
        let one = how(0.5);
        assert_eq!(mask(&one), mask(&one));
        for other in
            [Dropout { seed: 2, ..one.clone() }, Dropout { step: 3, ..one.clone() }, Dropout { site: 4, ..one.clone() }]
        {
            let same = mask(&one).iter().zip(mask(&other)).filter(|(x, y)| **x == *y).count();
            assert!(same.abs_diff(2500) < 200, "{same} of 5000 agree");
        }
    }

    #[test]
    fn others_keep_their_values() {
        let x = random([100], 1);
        let before = values(x.clone());
        dropout(x.clone(), &how(0.5));
        assert_eq!(values(x), before);
    }

    #[test]
    fn dropped_elements_are_zero_whatever_they_were() {
        let x = values(dropout(random([1000], 1) * 0.0 + f32::INFINITY, &how(0.5)));
        assert!(x.iter().all(|x| *x == 0.0 || *x == f32::INFINITY));
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let run = |threads| on_threads(threads, || values(dropout(random([3, 9001], 1), &how(0.1))));
        assert_eq!(run(1), run(2));
    }
}
