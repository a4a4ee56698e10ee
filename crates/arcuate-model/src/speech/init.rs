//! Initial weights as published.
//!
//! Convolutions are Kaiming-normal, entries of codebooks and the vector of hidden frames uniform in [0, 1), scores of
//! entries standard normal; maps are normal, norms 1, biases 0. Each tensor has its own stream (seed, "init", name).

use std::collections::BTreeMap;

use arcuate_ops::rng::Stream;

use super::Speech;
use crate::network::Network;

/// Draws of one tensor.
struct Draws {
    stream: Stream,
    len: usize,
}

impl Draws {
    fn normal(mut self, scale: f64) -> Vec<f32> {
        (0..self.len).map(|_| (self.stream.normal() * scale) as f32).collect()
    }

    fn uniform(mut self, from: f64, to: f64) -> Vec<f32> {
        (0..self.len).map(|_| (from + self.stream.uniform() * (to - from)) as f32).collect()
    }

    fn within(self, bound: f64) -> Vec<f32> {
        self.uniform(-bound, bound)
    }
}

impl Speech {
    /// The network with fresh weights.
    pub(crate) fn init(self, seed: u64) -> Network {
        let scale = self.architecture().initializer_range;
        fresh(Network::Speech(self), scale, seed)
    }
}

/// A network with an encoder of speech with fresh weights; those of maps have this standard deviation.
pub(crate) fn fresh(network: Network, scale: f64, seed: u64) -> Network {
    let shapes: BTreeMap<String, Vec<usize>> =
        network.parameters().into_iter().map(|info| (info.name, info.shape)).collect();
    let network = network.fill(|name, shape| Some(initial(name, shape, &shapes, scale, seed)));
    // The lengths of a normalised weight are those of its directions at first.
    let values = network.values();
    network.fill(|name, shape| {
        let directions = &values.get(&name.strip_suffix("original0").map(|start| format!("{start}original1"))?)?.1;
        let taps = shape[2];
        let length = |tap| directions.iter().skip(tap).step_by(taps).map(|x| f64::from(*x).powi(2)).sum::<f64>();
        Some((0..taps).map(|tap| length(tap).sqrt() as f32).collect())
    })
}

fn initial(name: &str, shape: &[usize], shapes: &BTreeMap<String, Vec<usize>>, scale: f64, seed: u64) -> Vec<f32> {
    let len = shape.iter().product();
    let draws = Draws { stream: Stream::new(seed, &format!("init {name}"), 0, 0), len };
    let f = |n: usize| n as f64;
    let is_bias = name.ends_with(".bias");
    // The shape of the weight that a bias belongs to.
    let weight = name.strip_suffix(".bias").and_then(|start| shapes.get(&format!("{start}.weight")));
    let fan_in = |shape: &[usize]| f(shape[1..].iter().product());
    match shape {
        _ if name.ends_with("masked_spec_embed") || name.ends_with("codevectors") => draws.uniform(0.0, 1.0),
        [outputs, inputs] if name.contains("pos_bias_") => draws.within((6.0 / f(outputs + inputs)).sqrt()),
        _ if name == "quantizer.weight_proj.weight" => draws.normal(1.0),
        // Within 1 / sqrt(inputs), weights and biases alike.
        _ if ["feature_projection.projection.", "project_q.", "project_hid."]
            .iter()
            .any(|part| name.contains(part)) =>
        {
            draws.within(fan_in(weight.map_or(shape, Vec::as_slice)).powf(-0.5))
        }
        [channels, _, taps] if name.ends_with("original1") => draws.normal(2.0 / (f(*taps) * f(*channels)).sqrt()),
        [_, _, _] => draws.normal((2.0 / fan_in(shape)).sqrt()),
        [_] if is_bias && weight.is_some_and(|weight| weight.len() == 3) => {
            draws.within(fan_in(weight.map_or(shape, Vec::as_slice)).powf(-0.5))
        }
        [_] if is_bias || name.ends_with("running_mean") => vec![0.0; len],
        [_] => vec![1.0; len],
        _ => draws.normal(scale),
    }
}
