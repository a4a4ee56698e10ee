//! A product quantizer: each of several codebooks gives one of its entries.
//!
//! # What it computes
//! With scores `a = W x + b` of the entries of each codebook, the entry taken is the best one. In training the scores get
//! Gumbel noise first, and the gradient is that of `softmax((a + noise) / temperature)` (straight-through): what comes out
//! is exactly the entry taken. Without noise nothing but the entries learns.
//!
//! # Reference
//! Jang et al. 2017; Baevski et al. 2020 (wav2vec 2.0)
// N frames, F features, G codebooks, V entries of each, D numbers of all entries taken side by side

use std::sync::Arc;

use arcuate_ops::embedding::embedding;
use arcuate_ops::gradcheck::values;
use arcuate_ops::matmul::matmul;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData, activation};

use super::Linear;
use super::basic::zeros;

/// Codebooks and the map that scores their entries.
#[derive(Module, Debug)]
pub(crate) struct Quantizer {
    codevectors: Param<Tensor<3>>,
    weight_proj: Linear,
    #[module(skip)]
    num_codebooks: usize,
}

/// What becomes of frames.
pub(crate) struct Quantized {
    /// The entries taken, those of all codebooks side by side `[N, D]`.
    pub(crate) vectors: Tensor<2>,
    /// How often each entry is used, on average `[G, V]`.
    pub(crate) usage: Tensor<2>,
    /// The entries taken `[N * G]`.
    pub(crate) ids: Arc<[u32]>,
}

impl Quantizer {
    /// `width`: numbers of all entries taken side by side.
    pub(crate) fn new(
        features: usize,
        num_codebooks: usize,
        codebook_size: usize,
        width: usize,
        device: &Device,
    ) -> Self {
        let entries = num_codebooks * codebook_size;
        Self {
            codevectors: zeros([1, entries, width / num_codebooks], device),
            weight_proj: Linear::new(features, entries, true, device),
            num_codebooks,
        }
    }

    /// How many numbers of noise a frame needs.
    pub(crate) fn num_entries(&self) -> usize {
        self.codevectors.val().dims()[1]
    }

    /// The entries for features `[N, F]`; `noise` has a temperature and a number for each score `[N * G * V]`.
    pub(crate) fn forward(&self, x: Tensor<2>, noise: Option<(f64, Vec<f32>)>) -> Quantized {
        let [_, entries, size] = self.codevectors.val().dims();
        let (n, g) = (x.dims()[0], self.num_codebooks);
        let v = entries / g;
        let table = self.codevectors.val().reshape([entries, size]);
        let device = table.device();
        let scores = self.weight_proj.forward(x).reshape([n * g, v]);
        let (noisy, temperature) = match noise {
            None => (scores.clone(), None),
            Some((temperature, noise)) => {
                let noise = Tensor::<2>::from_data(TensorData::new(noise, [n * g, v]), &device);
                (scores.clone() + noise, Some(temperature))
            }
        };
        let ids: Arc<[u32]> = values(noisy.clone()).chunks_exact(v.max(1)).map(best).collect();
        let rows: Arc<[i32]> = ids.iter().enumerate().map(|(i, id)| ((i % g) * v) as i32 + *id as i32).collect();
        let taken = embedding(table.clone(), &rows, None).reshape([n, g * size]);
        let Some(temperature) = temperature.filter(|_| n > 0) else {
            let mut usage = vec![0f32; entries];
            rows.iter().for_each(|row| usage[*row as usize] += 1.0 / n as f32);
            let usage = Tensor::from_data(TensorData::new(usage, [g, v]), &device);
            return Quantized { vectors: taken, usage, ids };
        };
        let soft = activation::softmax(noisy / temperature, 1);
        // Zero in value, so that the entries come out as they are.
        let moving = (soft.clone() - soft.detach()).reshape([n, g, v]).swap_dims(0, 1);
        let through = matmul(moving, table.detach().reshape([g, v, size])).swap_dims(0, 1).reshape([n, g * size]);
        let usage = activation::softmax(scores, 1).reshape([n, g, v]).mean_dim(0).reshape([g, v]);
        Quantized { vectors: taken + through, usage, ids }
    }
}

/// The first of the largest numbers.
fn best(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (i, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = i;
        }
    }
    best as u32
}

/// A Gumbel variable from a uniform one in [0, 1).
pub(crate) fn gumbel(uniform: f64) -> f32 {
    -(-uniform.max(f64::MIN_POSITIVE).ln()).ln() as f32
}

#[cfg(test)]
mod tests {
    use arcuate_ops::gradcheck::random;
    use arcuate_ops::rng::Stream;

    use super::*;
    use crate::params::{self, Fill, Visit};

    /// Two codebooks of three entries of two numbers; scores are the features.
    fn quantizer(device: &Device) -> Quantizer {
        let fill = |name: &str, shape: &[usize]| {
            let len: usize = shape.iter().product();
            Some(match name {
                "weight_proj.weight" => (0..len).map(|i| f32::from(u8::from(i / 6 == i % 6))).collect(),
                "weight_proj.bias" => vec![0.0; len],
                _ => values(random([len], 8)),
            })
        };
        params::replace(Quantizer::new(6, 2, 3, 4, device), "", &mut Fill(fill))
    }

    fn features(device: &Device) -> Tensor<2> {
        Tensor::from_data([[0.1f32, 0.9, -0.3, 1.0, 0.2, 0.3], [2.0, 0.9, -0.3, -1.0, 0.2, 0.3]], device)
    }

    #[test]
    fn without_noise_the_best_entries_are_taken_and_nothing_else_learns() {
        let device = Device::flex().autodiff();
        let (quantizer, x) = (quantizer(&device), features(&device).require_grad());
        let found = quantizer.forward(x.clone(), None);
        assert_eq!(found.ids[..], [1, 0, 0, 2]);
        let table = values(random([12], 8));
        let rows = [1, 3, 0, 5].map(|row| &table[row * 2..row * 2 + 2]).concat();
        assert_eq!(values(found.vectors.clone()), rows);
        assert_eq!(values(found.usage), [0.5, 0.5, 0.0, 0.5, 0.0, 0.5]);
        let grads = found.vectors.sum().backward();
        assert!(x.grad(&grads).is_none());
        assert!(quantizer.weight_proj.parts().weight.grad(&grads).is_none());
        let grad = values(quantizer.codevectors.val().grad(&grads).expect("entries learn"));
        assert_eq!(grad, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn entries_come_out_as_they_are_and_scores_learn_from_the_soft_choice() {
        let device = Device::flex().autodiff();
        let (quantizer, x) = (quantizer(&device), features(&device).require_grad());
        let (temperature, noise) = (0.7, values(random([12], 5)));
        let found = quantizer.forward(x.clone(), Some((temperature, noise.clone())));
        let table = values(random([12], 8));
        let scores = values(x.clone());
        let noisy: Vec<f32> = scores.iter().zip(&noise).map(|(a, n)| a + n).collect();
        let taken: Vec<u32> = noisy.chunks(3).map(best).collect();
        assert_eq!(found.ids[..], taken[..]);
        let rows: Vec<f32> = taken
            .iter()
            .enumerate()
            .flat_map(|(i, id)| table[(i % 2 * 3 + *id as usize) * 2..][..2].to_vec())
            .collect();
        assert_eq!(values(found.vectors.clone()), rows);
        let toward = values(random([8], 6));
        let direction = Tensor::<2>::from_data(random([8], 6).reshape([2, 4]).into_data(), &device);
        let grads = (found.vectors * direction).sum().backward();
        let grad = values(x.grad(&grads).expect("scores learn"));
        // y_v (w_v - sum y w) / temperature, with w the product of an entry and the direction.
        for (i, noisy) in noisy.chunks(3).enumerate() {
            let powers: Vec<f64> = noisy.iter().map(|a| (f64::from(*a) / temperature).exp()).collect();
            let sum: f64 = powers.iter().sum();
            let y: Vec<f64> = powers.iter().map(|p| p / sum).collect();
            let w: Vec<f64> = (0..3)
                .map(|v| (0..2).map(|c| f64::from(table[(i % 2 * 3 + v) * 2 + c] * toward[i * 2 + c])).sum())
                .collect();
            let mean: f64 = y.iter().zip(&w).map(|(y, w)| y * w).sum();
            for v in 0..3 {
                let wanted = y[v] * (w[v] - mean) / temperature;
                assert!((f64::from(grad[i * 3 + v]) - wanted).abs() < 1e-5, "{i} {v}");
            }
        }
        // How often entries are used comes from scores without noise and temperature.
        let mut usage = [0f32; 6];
        for (i, scores) in scores.chunks(3).enumerate() {
            let sum: f32 = scores.iter().map(|a| a.exp()).sum();
            (0..3).for_each(|v| usage[i % 2 * 3 + v] += scores[v].exp() / sum / 2.0);
        }
        for (found, wanted) in values(found.usage).iter().zip(usage) {
            assert!((found - wanted).abs() < 1e-6);
        }
    }

    #[test]
    fn entries_are_taken_as_often_as_their_probability_says() {
        let device = Device::flex();
        let draws = 100_000;
        let row = [0.1f32, 0.9, -0.3, 1.0, 0.2, 0.3];
        let x = Tensor::<1>::from_data(row, &device).reshape([1, 6]).expand([draws, 6]);
        for temperature in [0.3, 2.0] {
            let mut stream = Stream::new(1, "gumbel", temperature as u64, 0);
            let noise = (0..draws * 6).map(|_| gumbel(stream.uniform())).collect();
            let found = quantizer(&device).forward(x.clone(), Some((temperature, noise)));
            for codebook in 0..2 {
                let scores = &row[codebook * 3..][..3];
                let sum: f32 = scores.iter().map(|a| a.exp()).sum();
                for (v, score) in scores.iter().enumerate() {
                    let p = f64::from(score.exp() / sum);
                    let ids = found.ids.chunks(2).filter(|ids| ids[codebook] as usize == v).count() as f64;
                    let sigma = (p * (1.0 - p) / draws as f64).sqrt();
                    assert!((ids / draws as f64 - p).abs() < 3.0 * sigma, "{codebook} {v}: {ids} {p}");
                }
            }
        }
    }

    #[test]
    fn the_smallest_draw_gives_finite_noise() {
        assert!(gumbel(0.0).is_finite() && gumbel(1.0 - f64::EPSILON / 2.0).is_finite());
        assert!((gumbel(0.5) - 0.366_512_9).abs() < 1e-6);
    }

    #[test]
    fn no_frames_are_no_codes() {
        let device = Device::flex().autodiff();
        for noise in [None, Some((1.0, Vec::new()))] {
            let found = quantizer(&device).forward(Tensor::zeros([0, 6], &device), noise);
            assert_eq!((found.vectors.dims(), found.usage.dims(), found.ids.len()), ([0, 4], [2, 3], 0));
            assert!(values(found.usage).iter().all(|x| *x == 0.0));
        }
    }

    struct Names(Vec<String>);

    impl Visit for Names {
        fn visit<const D: usize>(&mut self, name: &str, _: &Param<Tensor<D>>) {
            self.0.push(name.to_string());
        }
    }

    #[test]
    fn parts_have_their_public_names() {
        let mut names = Names(Vec::new());
        params::visit(&quantizer(&Device::flex()), "", &mut names);
        assert_eq!(names.0, ["codevectors", "weight_proj.weight", "weight_proj.bias"]);
    }
}
