//! Convolutions over the image of tokens by hidden numbers, in front of an encoder.
//!
//! # What it computes
//! `[B, T, H]` is an image of one channel. Each layer is `gelu(batch_norm(conv(x)))` with a convolution that keeps the size;
//! the last has a kernel of 1 and one channel, so that `[B, T, H]` comes out. There is no residual.
//!
//! # Reference
//! Gross et al. 2025, Tiny language models
// B rows, T tokens, H hidden

use arcuate_ops::conv2d::conv2d;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::batch_norm::{BatchNorm, Seen};

/// `[model.bert.conv_front]`: convolutions between the embeddings and the encoder layers.
///
/// They come in addition to `num_layers` encoder layers. Hidden numbers have no natural order, but neighbours are mixed all
/// the same. Rows are padded to `max_seq_len` of the model, padding counts in the statistics of a training batch, and every
/// token sees its neighbours, so a row must hold one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConvFrontConfig {
    /// Number of convolutions, without the last one that brings the channels back to one.
    #[schemars(range(min = 1))]
    pub num_layers: usize,
    /// Taps over tokens and over hidden numbers, such as `[3, 3]`. Of an even number, one more lies behind than before.
    pub kernel: [usize; 2],
    /// Channels of each convolution.
    #[schemars(range(min = 1))]
    pub channels: usize,
}

impl ConvFrontConfig {
    /// What makes these sizes impossible for rows of so many tokens of so many hidden numbers.
    pub fn problem(&self, tokens: usize, hidden: usize) -> Option<String> {
        let Self { num_layers, kernel: [height, width], channels } = *self;
        if [num_layers, height, width, channels].contains(&0) {
            return Some(format!(
                "`conv_front` has {num_layers} layers of {channels} channels with a kernel of {height} x {width}, and each must be at least 1"
            ));
        }
        (height > tokens || width > hidden).then(|| {
            format!(
                "the kernel of {height} x {width} of `conv_front` is larger than a row of {tokens} tokens x {hidden} hidden numbers"
            )
        })
    }

    /// Inputs, outputs and kernel of every convolution.
    fn shapes(&self) -> impl Iterator<Item = (usize, usize, [usize; 2])> {
        let (kernel, channels) = (self.kernel, self.channels);
        (0..self.num_layers).map(move |i| (if i == 0 { 1 } else { channels }, channels, kernel))
    }

    /// About how many parameters there are.
    pub(crate) fn estimate(&self) -> f64 {
        let f = |n: usize| n as f64;
        let taps = f(self.kernel[0]) * f(self.kernel[1]);
        let channels = f(self.channels);
        (1.0 + (f(self.num_layers) - 1.0) * channels) * channels * taps
            + 3.0 * f(self.num_layers) * channels
            + channels
            + 3.0
    }
}

#[derive(Module, Debug)]
struct Conv2d {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct ConvLayer {
    conv: Conv2d,
    norm: BatchNorm,
}

impl ConvLayer {
    fn new((inputs, outputs, [i, j]): (usize, usize, [usize; 2]), device: &Device) -> Self {
        let conv = Conv2d {
            weight: Param::from_tensor(Tensor::zeros([outputs, inputs, i, j], device)),
            bias: Param::from_tensor(Tensor::zeros([outputs], device)),
        };
        Self { conv, norm: BatchNorm::new(outputs, device) }
    }
}

/// All convolutions.
#[derive(Module, Debug)]
pub(crate) struct ConvFront {
    layer: Vec<ConvLayer>,
    output: ConvLayer,
}

impl ConvFront {
    pub(crate) fn new(config: &ConvFrontConfig, device: &Device) -> Self {
        Self {
            layer: config.shapes().map(|shape| ConvLayer::new(shape, device)).collect(),
            output: ConvLayer::new((config.channels, 1, [1, 1]), device),
        }
    }

    /// `x` `[B, T, H]` after all convolutions.
    pub(crate) fn forward(&self, x: Tensor<3>, seen: Option<&Seen>) -> Tensor<3> {
        let [b, t, h] = x.dims();
        let layers = self.layer.iter().chain([&self.output]).enumerate();
        let x = layers.fold(x.reshape([b, t, h, 1]), |x, (i, layer)| {
            layer.norm.forward(conv2d(x, layer.conv.weight.val(), layer.conv.bias.val()), i, seen)
        });
        x.reshape([b, t, h])
    }

    /// The same with what was seen in the running statistics.
    pub(crate) fn fold(mut self, seen: &Seen) -> Self {
        for (norm, statistics) in seen.take() {
            let fold = |layer: ConvLayer| ConvLayer { norm: layer.norm.fold(&statistics), ..layer };
            if norm == self.layer.len() {
                self.output = fold(self.output);
            } else {
                self.layer =
                    self.layer.into_iter().enumerate().map(|(i, l)| if i == norm { fold(l) } else { l }).collect();
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use arcuate_ops::activation::{Gelu, gelu};
    use arcuate_ops::gradcheck::{random, values};

    use super::*;
    use crate::params::{self, Fill, Infos};

    fn config(num_layers: usize, kernel: [usize; 2], channels: usize) -> ConvFrontConfig {
        ConvFrontConfig { num_layers, kernel, channels }
    }

    fn front(config: &ConvFrontConfig, device: &Device, fill: impl FnMut(&str, &[usize]) -> Vec<f32>) -> ConvFront {
        let mut fill = fill;
        params::replace(
            ConvFront::new(config, device),
            "",
            &mut Fill(|name: &str, shape: &[usize]| Some(fill(name, shape))),
        )
    }

    fn num_parameters(config: &ConvFrontConfig) -> usize {
        let mut infos = Infos::default();
        params::visit(&ConvFront::new(config, &Device::flex()), "", &mut infos);
        infos.0.iter().filter(|info| !info.is_buffer()).map(|info| info.len()).sum()
    }

    #[test]
    fn has_the_published_numbers_of_parameters() {
        for (config, wanted) in [(config(2, [3, 3], 64), 37_891), (config(3, [3, 3], 32), 19_043)] {
            assert_eq!(num_parameters(&config), wanted);
            assert_eq!(config.estimate().round() as usize, wanted);
        }
        assert_eq!(config(2, [16, 3], 64).estimate().round() as usize, num_parameters(&config(2, [16, 3], 64)));
    }

    /// Centre taps of the first channel 1, norms that do nothing.
    fn identity(kernel: [usize; 2]) -> impl FnMut(&str, &[usize]) -> Vec<f32> {
        move |name, shape| {
            let len: usize = shape.iter().product();
            if let [outputs, inputs, rows, columns] = *shape {
                assert!([rows, columns] == kernel || [rows, columns] == [1, 1]);
                let centre = (rows - 1) / 2 * columns + (columns - 1) / 2;
                let mut weight = vec![0.0; len];
                (0..outputs).for_each(|n| weight[n * inputs * rows * columns + centre] = 1.0);
                return weight;
            }
            let value = match name {
                _ if name.ends_with("running_var") => 1.0 - 1e-5,
                _ if name.ends_with("norm.weight") => 1.0,
                _ => 0.0,
            };
            vec![value; len]
        }
    }

    #[test]
    fn weights_that_do_nothing_leave_gelu_once_a_layer_and_once_more() {
        for (num_layers, kernel, shape) in
            [(2, [3, 3], [1, 128, 768]), (2, [16, 3], [1, 128, 768]), (3, [3, 3], [2, 5, 4]), (1, [5, 4], [2, 5, 4])]
        {
            let front = front(&config(num_layers, kernel, 2), &Device::flex(), identity(kernel));
            let x = random(shape, 1) * 3.0;
            let y = front.forward(x.clone(), None);
            assert_eq!(y.dims(), shape);
            let wanted = (0..=num_layers).fold(x, |x, _| gelu(x, Gelu::Erf));
            for (a, b) in values(y).iter().zip(values(wanted)) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        let config = config(2, [3, 2], 3);
        let device = Device::flex().autodiff();
        let names = {
            let mut infos = Infos::default();
            params::visit(&ConvFront::new(&config, &device), "", &mut infos);
            infos.0
        };
        let seed = |name: &str| names.iter().position(|info| info.name == name).unwrap_or_default() as u64;
        // Parameters moved by `by` in a random direction; the input has a number of its own.
        let build = |by: f32| {
            front(&config, &device, |name, shape| {
                let len = shape.iter().product();
                let (start, along) = (random([len], seed(name) + 10), random([len], seed(name) + 100));
                values(start * 0.5 + along * by)
            })
        };
        let input = |by: f32| random([2, 5, 4], 1) + random([2, 5, 4], 2) * by;
        let loss = |front: &ConvFront, x: Tensor<3>| {
            let direction = Tensor::<3>::from_data(random([2, 5, 4], 3).into_data(), &device);
            (front.forward(x, None) * direction).sum()
        };
        let at = |by: f32| {
            let x = Tensor::from_data(input(by).into_data(), &device);
            f64::from(loss(&build(by), x).into_scalar::<f32>())
        };
        let (front, x) = (build(0.0), Tensor::<3>::from_data(input(0.0).into_data(), &device).require_grad());
        let grads = loss(&front, x.clone()).backward();
        let dot = |a: Vec<f32>, b: Vec<f32>| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(b)).sum::<f64>();
        struct Along<'a, F> {
            grads: &'a burn::tensor::Gradients,
            seed: F,
            sum: f64,
        }
        impl<F: Fn(&str) -> u64> params::Visit for Along<'_, F> {
            fn visit<const D: usize>(&mut self, name: &str, value: &Param<Tensor<D>>) {
                let Some(grad) = value.val().grad(self.grads) else { return assert!(params::is_buffer(name)) };
                let grad = values(grad);
                let along = values(random([grad.len()], (self.seed)(name) + 100));
                self.sum += grad.iter().zip(along).map(|(a, b)| f64::from(*a) * f64::from(b)).sum::<f64>();
            }
        }
        let mut along = Along { grads: &grads, seed, sum: 0.0 };
        params::visit(&front, "", &mut along);
        let dx = dot(values(x.grad(&grads).expect("a gradient")), values(random([2, 5, 4], 2)));
        let exact = along.sum + dx;
        let step = 2e-3;
        let numeric = (at(step) - at(-step)) / (2.0 * f64::from(step));
        assert!((numeric - exact).abs() < 5e-3 * exact.abs().max(1.0), "{numeric} {exact}");
    }

    #[test]
    fn impossible_sizes_are_named() {
        let problem = |kernel, channels| config(2, kernel, channels).problem(128, 768);
        assert_eq!(problem([128, 768], 1), None);
        let message = problem([129, 3], 4).unwrap_or_default();
        assert!(["129 x 3", "128 tokens", "768 hidden"].iter().all(|part| message.contains(part)), "{message}");
        assert!(problem([3, 769], 4).is_some());
        for zero in [config(0, [3, 3], 4), config(1, [0, 3], 4), config(1, [3, 0], 4), config(1, [3, 3], 0)] {
            assert!(zero.problem(128, 768).is_some_and(|message| message.contains("at least 1")));
        }
    }
}
