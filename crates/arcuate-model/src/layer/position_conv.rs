//! Positions by a convolution over many neighbours, whose weight is a direction and a length for every tap.
// B rows, T frames, C channels, K taps

use arcuate_ops::activation::{Form, activate};
use arcuate_ops::conv1d::{self, conv1d};
use arcuate_ops::weight_norm::{Keep, weight_norm};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::basic::zeros;

/// Lengths `[1, 1, K]` and directions `[C, C / groups, K]`.
#[derive(Module, Debug)]
struct Originals {
    original0: Param<Tensor<3>>,
    original1: Param<Tensor<3>>,
}

#[derive(Module, Debug)]
struct Parametrizations {
    weight: Originals,
}

#[derive(Module, Debug)]
struct Conv {
    bias: Param<Tensor<1>>,
    parametrizations: Parametrizations,
}

/// The convolution with its activation.
#[derive(Module, Debug)]
pub(crate) struct PositionConv {
    conv: Conv,
}

impl PositionConv {
    pub(crate) fn new(channels: usize, kernel: usize, groups: usize, device: &Device) -> Self {
        let weight = Originals {
            original0: zeros([1, 1, kernel], device),
            original1: zeros([channels, channels / groups, kernel], device),
        };
        Self { conv: Conv { bias: zeros([channels], device), parametrizations: Parametrizations { weight } } }
    }

    /// What is to be added to `x` `[B, T, C]`.
    pub(crate) fn forward(&self, x: Tensor<3>, groups: usize, form: Form) -> Tensor<3> {
        let weight = &self.conv.parametrizations.weight;
        let lengths = weight.original0.val();
        let kernel = lengths.dims()[2];
        let weight = weight_norm(weight.original1.val(), lengths.reshape([kernel]), Keep::Last);
        // An even number of taps gives a frame too many, and the published networks drop the last one.
        let how = conv1d::Conv1d { stride: 1, padding: [kernel / 2, (kernel - 1) / 2], groups };
        activate(conv1d(x, weight, Some(self.conv.bias.val()), how), form)
    }
}

#[cfg(test)]
mod tests {
    use arcuate_ops::gradcheck::{distance, random, values};

    use super::*;
    use crate::params::{self, Fill};

    #[test]
    fn every_frame_gets_the_normalised_sum_of_its_neighbours() {
        for kernel in [3, 4] {
            let conv = params::replace(
                PositionConv::new(4, kernel, 2, &Device::flex()),
                "",
                &mut Fill(|name: &str, shape: &[usize]| {
                    Some(values(random([shape.iter().product::<usize>()], name.len() as u64)))
                }),
            );
            let all = |name: &str| {
                let mut all = params::Values::default();
                params::visit(&conv, "", &mut all);
                all.0[name].1.clone()
            };
            let (g, v) = (all("conv.parametrizations.weight.original0"), all("conv.parametrizations.weight.original1"));
            let bias = all("conv.bias");
            let x = random([1, 6, 4], 9);
            let found = values(conv.forward(x.clone(), 2, Form::Relu));
            let x = values(x);
            let mut wanted = Vec::new();
            for t in 0..6 {
                for out in 0..4 {
                    let mut sum = bias[out];
                    for tap in 0..kernel {
                        let length = v.iter().skip(tap).step_by(kernel).map(|v| v * v).sum::<f32>().sqrt();
                        let Some(at) = (t + tap).checked_sub(kernel / 2).filter(|at| *at < 6) else { continue };
                        for channel in 0..2 {
                            let weight = v[(out * 2 + channel) * kernel + tap] * g[tap] / length;
                            sum += weight * x[at * 4 + out / 2 * 2 + channel];
                        }
                    }
                    wanted.push(sum.max(0.0));
                }
            }
            assert!(distance(&found, &wanted) < 1e-5, "{found:?} {wanted:?}");
        }
    }
}
