//! Qwen2: the Llama network with biases on queries, keys and values only.
//!
//! # Recipe
//! `[model.qwen2]`
//! # Reference
//! Yang et al. 2024

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::llama::{self, RopeScaling, default_initializer_range, default_rope_theta};

/// `[model.qwen2]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the residual stream.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Number of decoder layers.
    #[schemars(range(min = 1))]
    pub num_layers: usize,
    /// Number of query heads; divides `hidden_size`.
    #[schemars(range(min = 1))]
    pub num_heads: usize,
    /// Number of key and value heads; divides `num_heads`. Left out: as many as `num_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub num_kv_heads: Option<usize>,
    /// Width of the gated feed-forward layer.
    #[schemars(range(min = 1))]
    pub intermediate_size: usize,
    /// Longest sequence in tokens that the model is made for.
    #[schemars(range(min = 1))]
    pub max_seq_len: usize,
    /// Share the input embedding with the output projection.
    pub tie_word_embeddings: bool,
    /// Base of the rotary frequencies.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f64,
    /// Stretches the rotary positions for sequences longer than those of pretraining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Epsilon of RMSNorm.
    #[serde(default = "default_rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Standard deviation of the initial weights.
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f64,
}

fn default_rms_norm_eps() -> f64 {
    1e-6
}

impl Config {
    /// The Llama network with these sizes.
    pub(crate) fn architecture(&self, vocab_size: usize) -> llama::Architecture {
        llama::Architecture {
            config: llama::Config {
                hidden_size: self.hidden_size,
                num_layers: self.num_layers,
                num_heads: self.num_heads,
                num_kv_heads: self.num_kv_heads,
                head_dim: None,
                intermediate_size: self.intermediate_size,
                max_seq_len: self.max_seq_len,
                tie_word_embeddings: self.tie_word_embeddings,
                rope_theta: self.rope_theta,
                rope_scaling: self.rope_scaling.clone(),
                attention_bias: false,
                mlp_bias: false,
                rms_norm_eps: self.rms_norm_eps,
                initializer_range: self.initializer_range,
            },
            vocab_size,
            qkv_bias: true,
            output_bias: false,
            filler: None,
        }
    }
}
