//! Wav2Vec2-BERT (w2v-BERT 2.0): conformer layers over mel features, two frames of which come stacked.
//!
//! # Recipe
//! `[model.wav2vec2_bert]`
//! # Reference
//! Barrault et al. 2023; Chung et al. 2021 (w2v-BERT)

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::network::Head;
use crate::speech::{Activation, AdapterForm, Architecture, Blocks, Front, Kind, Positions, Rates};
use crate::wav2vec2::{AdapterConfig, default_layer_norm_eps};
use crate::wav2vec2_conformer::default_kernel;

/// `[model.wav2vec2_bert]`
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
    /// Numbers of a frame of features; left out: 160, two stacked frames of 80 mel bins.
    #[serde(default = "default_num_features")]
    #[schemars(range(min = 1))]
    pub num_features: usize,
    /// Taps of the convolution in every layer; odd.
    #[serde(default = "default_kernel")]
    #[schemars(range(min = 1))]
    pub conv_depthwise_kernel: usize,
    /// The farthest earlier frame that attention tells from others.
    #[serde(default = "default_left")]
    pub max_left_distance: usize,
    /// The farthest later frame that attention tells from others.
    #[serde(default = "default_right")]
    pub max_right_distance: usize,
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
    /// Layers behind the encoder that make fewer frames; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterConfig>,
}

fn default_num_features() -> usize {
    160
}
fn default_left() -> usize {
    64
}
fn default_right() -> usize {
    8
}

/// The network of a recipe.
pub(crate) fn architecture(config: &Config, vocab_size: usize, head: Head) -> Architecture {
    let attending = AdapterForm::Attending { form: Activation::Relu };
    Architecture {
        kind: Kind::Wav2Vec2Bert,
        front: Front::Frames(config.num_features),
        hidden_size: config.hidden_size,
        num_layers: config.num_layers,
        num_heads: config.num_heads,
        intermediate_size: config.intermediate_size,
        blocks: Blocks::Conformer {
            positions: Positions::Key { left: config.max_left_distance, right: config.max_right_distance },
            max_positions: 5000,
            kernel: config.conv_depthwise_kernel,
        },
        positions: None,
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
            features: 0.0,
            last: config.head_dropout,
            conv: config.conv_dropout,
            layer: config.layer_drop,
        },
        mask_vector: true,
        hides: true,
        intermediate_ffn: false,
        adapter: config.adapter.map(|adapter| adapter.sizes(attending, config.hidden_size)),
        quantizer: None,
        feature_gradient_scale: 1.0,
        vocab_size,
        head,
    }
}
