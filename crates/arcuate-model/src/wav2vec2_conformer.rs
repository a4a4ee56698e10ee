//! wav2vec 2.0 with conformer layers instead of transformer layers.
//!
//! # Recipe
//! `[model.wav2vec2_conformer]`; `[model.wav2vec2_conformer.quantizer]` for pretraining
//! # Reference
//! Wang et al. 2020 (fairseq S2T); Gulati et al. 2020 (conformer)

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::network::Head;
use crate::speech::{
    Activation, AdapterForm, Architecture, Blocks, FeatureNorm, Kind, PositionSizes, Positions, QuantizerConfig, Rates,
};
use crate::wav2vec2::{
    AdapterConfig, default_conv_kernels, default_conv_strides, default_layer_norm_eps, default_one, waves,
};

/// Positions of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PositionForm {
    /// Sines of distances.
    Relative,
    /// Turned queries and keys.
    Rotary,
}

/// `[model.wav2vec2_conformer]`
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
    /// Positions of attention: `relative` or `rotary`.
    pub positions: PositionForm,
    /// Taps of the convolution in every layer; odd.
    #[serde(default = "default_kernel")]
    #[schemars(range(min = 1))]
    pub conv_depthwise_kernel: usize,
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
    /// Probability of dropping what the convolution of a layer adds in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub conv_dropout: f64,
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
}

pub(crate) fn default_kernel() -> usize {
    31
}

/// The network of a recipe.
pub(crate) fn architecture(config: &Config, vocab_size: usize, head: Head) -> Architecture {
    Architecture {
        kind: Kind::Wav2Vec2Conformer,
        front: waves(
            (config.conv_channels, &config.conv_kernels, &config.conv_strides),
            config.feature_norm,
            config.conv_bias,
        ),
        hidden_size: config.hidden_size,
        num_layers: config.num_layers,
        num_heads: config.num_heads,
        intermediate_size: config.intermediate_size,
        blocks: Blocks::Conformer {
            positions: match config.positions {
                PositionForm::Relative => Positions::Relative,
                PositionForm::Rotary => Positions::Rotary { base: 10_000.0 },
            },
            max_positions: 5000,
            kernel: config.conv_depthwise_kernel,
        },
        // The published layout holds a convolution of positions that nothing reads; the smallest one will do.
        positions: Some(PositionSizes { kernel: 1, groups: config.hidden_size }),
        activation: Activation::Silu,
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
            conv: config.conv_dropout,
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
