//! Masked language model: predict tokens that were hidden.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[objective.masked_lm]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Share of the tokens (or words) that are predicted; BERT: 0.15.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub mask_fraction: f64,
    /// Of these, the share that is replaced by the mask token; BERT: 0.8.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub replace_with_mask: f64,
    /// Of these, the share that is replaced by a random token; BERT: 0.1. The rest stays as it is.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub replace_with_random: f64,
    /// Choose whole words instead of single tokens.
    #[serde(default)]
    pub whole_word: bool,
}
