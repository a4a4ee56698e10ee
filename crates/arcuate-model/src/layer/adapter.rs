//! Strided convolutions behind an encoder that make fewer frames of its frames.
//!
//! Those of wav2vec 2.0 are a convolution with a gate; those of Wav2Vec2-BERT also attend and have a feed-forward layer.
// B rows, T frames, C channels

use arcuate_ops::activation::{Form, glu};
use arcuate_ops::conv1d;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::conformer::SelfAttention;
use super::conv_encoder::Conv1d;
use super::pass::{Pass, Place};
use super::{FeedForward, LayerNorm, Linear};
use crate::speech::{ADAPTER_KERNEL, AdapterForm, AdapterSizes, Positions};

#[derive(Module, Debug)]
struct ConvLayer {
    conv: Conv1d,
}

#[derive(Module, Debug)]
struct AttendingLayer {
    residual_layer_norm: LayerNorm,
    residual_conv: Conv1d,
    self_attn_layer_norm: LayerNorm,
    self_attn_conv: Conv1d,
    self_attn: SelfAttention,
    ffn_layer_norm: LayerNorm,
    ffn: FeedForward,
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // layers are few, and tensors are handles
enum Layer {
    Conv(ConvLayer),
    Attending(AttendingLayer),
}

/// All layers, and a map before them where the width changes.
#[derive(Module, Debug)]
pub(crate) struct Adapter {
    proj: Option<Linear>,
    proj_layer_norm: Option<LayerNorm>,
    layers: Vec<Layer>,
}

/// A strided convolution to twice the channels, of which one half is the gate of the other.
fn gated(conv: &Conv1d, x: Tensor<3>, stride: usize) -> Tensor<3> {
    let y = conv.forward(x, conv1d::Conv1d { stride, padding: [1, 1], groups: 1 });
    let width = y.dims()[2] / 2;
    glu(y.clone().narrow(2, width, width), y.narrow(2, 0, width))
}

impl Adapter {
    /// For an encoder of this width; `inner` and `num_heads` are those of its layers.
    pub(crate) fn new(sizes: &AdapterSizes, [width, inner, num_heads]: [usize; 3], eps: f64, device: &Device) -> Self {
        let out = sizes.output_size;
        let is_wider = width != out;
        let conv = || Conv1d::new([2 * out, out, ADAPTER_KERNEL], true, device);
        let norm = || LayerNorm::new(out, eps, device);
        let layer = |_| match sizes.form {
            AdapterForm::Conv => Layer::Conv(ConvLayer { conv: conv() }),
            AdapterForm::Attending { .. } => Layer::Attending(AttendingLayer {
                residual_layer_norm: norm(),
                residual_conv: conv(),
                self_attn_layer_norm: norm(),
                self_attn_conv: conv(),
                self_attn: SelfAttention::new(out, num_heads, Positions::None, device),
                ffn_layer_norm: norm(),
                ffn: FeedForward::new(out, inner, device),
            }),
        };
        let proj_eps = if sizes.form == AdapterForm::Conv { 1e-5 } else { eps };
        Self {
            proj: is_wider.then(|| Linear::new(width, out, true, device)),
            proj_layer_norm: is_wider.then(|| LayerNorm::new(out, proj_eps, device)),
            layers: (0..sizes.num_layers).map(layer).collect(),
        }
    }

    /// `x` `[B, T, C]` with fewer frames; `first` is the number of the first layer here among all layers, and `frames` how
    /// many frames of each row are no padding.
    pub(crate) fn forward(
        &self,
        mut x: Tensor<3>,
        sizes: &AdapterSizes,
        first: usize,
        mut frames: Vec<usize>,
        pass: &Pass,
    ) -> Tensor<3> {
        if let (Some(proj), Some(norm)) = (&self.proj, &self.proj_layer_norm) {
            x = norm.forward(proj.forward(x));
        }
        for (i, layer) in self.layers.iter().enumerate() {
            frames.iter_mut().for_each(|frames| *frames = sizes.num_frames(*frames));
            x = match layer {
                Layer::Conv(layer) => gated(&layer.conv, x, sizes.stride),
                Layer::Attending(layer) => layer.forward(x, sizes, first + i, &frames, pass),
            };
        }
        x
    }
}

impl AttendingLayer {
    fn forward(&self, x: Tensor<3>, sizes: &AdapterSizes, i: usize, frames: &[usize], pass: &Pass) -> Tensor<3> {
        let AdapterForm::Attending { form } = sizes.form else { return x };
        let residual = gated(&self.residual_conv, self.residual_layer_norm.forward(x.clone()), sizes.stride);
        let h = gated(&self.self_attn_conv, self.self_attn_layer_norm.forward(x), sizes.stride);
        let [_, t, width] = h.dims();
        let mut pass = pass.clone();
        pass.attention.scale = ((width / pass.attention.num_heads) as f32).sqrt().recip();
        pass.attention.may_attend =
            frames.iter().flat_map(|frames| std::iter::repeat_n([0, *frames as u32], t)).collect();
        let h = self.self_attn.forward(h, i, &pass);
        let x = pass.drop(h, pass.rates.conv, i, Place::Attention) + residual;
        let h = self.ffn_layer_norm.forward(x.clone());
        self.ffn.forward(h, Some(x), Form::from(form), &pass, i, [Place::Activation, Place::FeedForward])
    }
}
