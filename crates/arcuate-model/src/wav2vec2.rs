//! wav2vec 2.0: convolutions over samples and a transformer; pretrained by telling quantized frames apart, or with CTC.
//!
//! # Recipe
//! `[model.wav2vec2]`; the objective decides which head it gets; `[model.wav2vec2.quantizer]` for pretraining
//! # Reference
//! Baevski et al. 2020; adapters: Babu et al. 2021 (convolutions), Pratap et al. 2023 (languages)

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::network::Head;
use crate::speech::{
    Activation, AdapterForm, AdapterSizes, Architecture, Blocks, ConvLayer, FeatureNorm, Front, Kind, PositionSizes,
    QuantizerConfig, Rates,
};

/// `[model.wav2vec2]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the residual stream.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Number of encoder layers.
    #[schemars(range(min = 1))]
    pub num_layers: usize,
    /// Number of heads; divides `hidden_size`.
    #[schemars(range(min = 1))]
    pub num_heads: usize,
    /// Width of the feed-forward layers.
    #[schemars(range(min = 1))]
    pub intermediate_size: usize,
    /// Channels of every convolution over samples.
    #[schemars(range(min = 1))]
    pub conv_channels: usize,
    /// Taps of each convolution; left out: the published 10, 3, 3, 3, 3, 2, 2, a frame of 25 ms at 16 kHz.
    #[serde(default = "default_conv_kernels")]
    pub conv_kernels: Vec<usize>,
    /// Stride of each convolution; left out: the published 5, 2, 2, 2, 2, 2, 2, a frame every 20 ms at 16 kHz.
    #[serde(default = "default_conv_strides")]
    pub conv_strides: Vec<usize>,
    /// Whether the convolutions have a bias (published: with `feature_norm = "layer"`).
    pub conv_bias: bool,
    /// The norm between convolutions: `group` (BASE) or `layer` (LARGE).
    pub feature_norm: FeatureNorm,
    /// Norms before attention and feed-forward (LARGE) instead of after (BASE).
    pub pre_norm: bool,
    /// Taps of the convolution that carries positions.
    #[serde(default = "default_position_kernel")]
    #[schemars(range(min = 1))]
    pub position_kernel: usize,
    /// Groups of that convolution; divides `hidden_size`.
    #[serde(default = "default_position_groups")]
    #[schemars(range(min = 1))]
    pub position_groups: usize,
    /// Probability of dropping what attention and feed-forward layers add, and what goes into the first layer in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub dropout: f64,
    /// Probability of dropping an attention probability in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub attention_dropout: f64,
    /// Probability of dropping an inner activation of feed-forward layers in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub activation_dropout: f64,
    /// Probability of dropping a projected feature in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub projection_dropout: f64,
    /// Probability of dropping what goes into the map over the vocabulary in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub head_dropout: f64,
    /// Probability of dropping a whole layer in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub layer_drop: f64,
    /// Epsilon of LayerNorm.
    #[serde(default = "default_layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// Standard deviation of initial weights.
    #[serde(default = "crate::llama::default_initializer_range")]
    pub initializer_range: f64,
    /// Factor of the gradients of the convolutions over samples (published: 0.1 in BASE, 1 in LARGE); 0: frozen.
    #[serde(default = "default_one")]
    #[schemars(range(min = 0.0))]
    pub feature_gradient_scale: f64,
    /// Probability of dropping a feature before the quantizer in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub quantizer_dropout: f64,
    /// The quantizer of pretraining; a network with another head leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantizer: Option<QuantizerConfig>,
    /// Layers behind the encoder that make fewer frames; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterConfig>,
    /// Width of a small adapter in every layer, as one for each language; only with `pre_norm`; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub attention_adapter_size: Option<usize>,
}

/// Layers behind an encoder that make fewer frames of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// Number of layers.
    #[schemars(range(min = 1))]
    pub num_layers: usize,
    /// Frames from one output to the next, in each layer.
    #[schemars(range(min = 1))]
    pub stride: usize,
    /// Width of the result; left out: that of the encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub output_size: Option<usize>,
}

impl AdapterConfig {
    pub(crate) fn sizes(&self, form: AdapterForm, hidden_size: usize) -> AdapterSizes {
        let output_size = self.output_size.unwrap_or(hidden_size);
        AdapterSizes { form, num_layers: self.num_layers, stride: self.stride, output_size }
    }
}

pub(crate) fn default_conv_kernels() -> Vec<usize> {
    vec![10, 3, 3, 3, 3, 2, 2]
}
pub(crate) fn default_conv_strides() -> Vec<usize> {
    vec![5, 2, 2, 2, 2, 2, 2]
}
pub(crate) fn default_position_kernel() -> usize {
    128
}
pub(crate) fn default_position_groups() -> usize {
    16
}
pub(crate) fn default_one() -> f64 {
    1.0
}
pub(crate) fn default_layer_norm_eps() -> f64 {
    1e-5
}

/// Convolutions with as many channels each; what is left of the longer list of taps or strides is a layer without.
pub(crate) fn waves((channels, kernels, strides): (usize, &[usize], &[usize]), norm: FeatureNorm, bias: bool) -> Front {
    let get = |list: &[usize], i: usize| list.get(i).copied().unwrap_or(0);
    let layers = (0..kernels.len().max(strides.len()))
        .map(|i| ConvLayer { channels, kernel: get(kernels, i), stride: get(strides, i) })
        .collect();
    Front::Waves { layers, norm, bias }
}

/// The network of a recipe.
pub(crate) fn architecture(config: &Config, vocab_size: usize, head: Head) -> Architecture {
    Architecture {
        kind: Kind::Wav2Vec2,
        front: waves(
            (config.conv_channels, &config.conv_kernels, &config.conv_strides),
            config.feature_norm,
            config.conv_bias,
        ),
        hidden_size: config.hidden_size,
        num_layers: config.num_layers,
        num_heads: config.num_heads,
        intermediate_size: config.intermediate_size,
        blocks: Blocks::Transformer {
            pre_norm: config.pre_norm,
            attention_adapter: config.attention_adapter_size.filter(|_| config.pre_norm),
        },
        positions: Some(PositionSizes { kernel: config.position_kernel, groups: config.position_groups }),
        activation: Activation::Gelu,
        feature_activation: Activation::Gelu,
        projection_norm: true,
        layer_norm_eps: config.layer_norm_eps,
        initializer_range: config.initializer_range,
        rates: Rates {
            hidden: config.dropout,
            attention: config.attention_dropout,
            activation: config.activation_dropout,
            projection: config.projection_dropout,
            features: config.quantizer_dropout,
            last: config.head_dropout,
            conv: 0.0,
            layer: config.layer_drop,
        },
        mask_vector: true,
        hides: true,
        intermediate_ffn: false,
        adapter: config.adapter.map(|adapter| adapter.sizes(AdapterForm::Conv, config.hidden_size)),
        quantizer: config.quantizer,
        feature_gradient_scale: config.feature_gradient_scale,
        vocab_size,
        head,
    }
}

#[cfg(test)]
mod tests;
