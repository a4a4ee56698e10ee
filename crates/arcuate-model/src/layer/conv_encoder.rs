//! Convolutions over a waveform: samples to frames.
//!
//! The first layer sees one channel; each layer is a convolution without padding, a norm (or none) and GELU. Rows stay
//! channels-last throughout.
// B rows, L positions, C channels

use arcuate_ops::activation::{Form, activate};
use arcuate_ops::conv1d;
use arcuate_ops::group_norm::{group_norm, group_norm_gelu};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::LayerNorm;
use super::basic::zeros;
use crate::speech::{ConvLayer as Sizes, FeatureNorm};

/// Epsilon of the norms; PyTorch's default, whatever the rest of the network has.
const EPS: f64 = 1e-5;

/// A convolution; the weight is [out, in / groups, taps].
#[derive(Module, Debug)]
pub(crate) struct Conv1d {
    weight: Param<Tensor<3>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Conv1d {
    pub(crate) fn new(shape: [usize; 3], bias: bool, device: &Device) -> Self {
        Self { weight: zeros(shape, device), bias: bias.then(|| zeros([shape[0]], device)) }
    }

    pub(crate) fn weight(&self) -> Tensor<3> {
        self.weight.val()
    }

    pub(crate) fn forward(&self, x: Tensor<3>, how: conv1d::Conv1d) -> Tensor<3> {
        conv1d::conv1d(x, self.weight.val(), self.bias.as_ref().map(|bias| bias.val()), how)
    }
}

#[derive(Module, Debug)]
struct ConvLayer {
    conv: Conv1d,
    layer_norm: Option<LayerNorm>,
}

/// All layers.
#[derive(Module, Debug)]
pub(crate) struct ConvEncoder {
    conv_layers: Vec<ConvLayer>,
}

impl ConvEncoder {
    pub(crate) fn new(layers: &[Sizes], norm: FeatureNorm, bias: bool, device: &Device) -> Self {
        let inputs = std::iter::once(1).chain(layers.iter().map(|layer| layer.channels));
        let layer = |(i, (inputs, sizes)): (usize, (usize, &Sizes))| ConvLayer {
            conv: Conv1d::new([sizes.channels, inputs, sizes.kernel], bias, device),
            layer_norm: (norm == FeatureNorm::Layer || i == 0).then(|| LayerNorm::new(sizes.channels, EPS, device)),
        };
        Self { conv_layers: inputs.zip(layers).enumerate().map(layer).collect() }
    }

    /// Frames `[B, T, C]` of samples `[B, S, 1]`; S is enough for one frame.
    pub(crate) fn forward(&self, x: Tensor<3>, layers: &[Sizes], norm: FeatureNorm, form: Form) -> Tensor<3> {
        self.conv_layers.iter().zip(layers).fold(x, |x, (layer, sizes)| {
            let x = layer.conv.forward(x, conv1d::Conv1d { stride: sizes.stride, padding: [0, 0], groups: 1 });
            let Some(affine) = &layer.layer_norm else { return activate(x, form) };
            match norm {
                FeatureNorm::Layer => activate(affine.forward(x), form),
                FeatureNorm::Group => {
                    let (weight, bias) = affine.parts();
                    if form == Form::GeluErf {
                        group_norm_gelu(x, weight, bias, sizes.channels, EPS)
                    } else {
                        activate(group_norm(x, weight, bias, sizes.channels, EPS), form)
                    }
                }
            }
        })
    }
}
