//! Keys that say how text is sampled.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[samples]`: texts that a run prints and puts in its report after training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SamplesConfig {
    /// Beginnings that the model continues, one sample each.
    pub prompts: Vec<String>,
    /// Longest continuation in tokens.
    #[schemars(range(min = 1))]
    pub max_new_tokens: usize,
    /// `[samples.sampling]`; left out: greedy.
    #[serde(default)]
    pub sampling: SamplingConfig,
}

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// Divides the logits; 0 takes the most probable token (greedy).
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub temperature: f64,
    /// Keep only the k most probable tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub top_k: Option<usize>,
    /// Keep the smallest set of tokens whose probabilities reach this sum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub top_p: Option<f64>,
    /// Keep tokens with at least this share of the best token's probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_p: Option<f64>,
    /// Divides positive and multiplies negative logits of tokens seen before; 1 is off (Keskar et al. 2019).
    #[serde(default = "one")]
    #[schemars(range(min = 0.0))]
    pub repetition_penalty: f64,
}

fn one() -> f64 {
    1.0
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: None, top_p: None, min_p: None, repetition_penalty: 1.0 }
    }
}
