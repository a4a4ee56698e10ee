//! Next token: cross-entropy of a causal model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[objective.next_token]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Weight of `log(Z)^2`, which keeps the normaliser near 1. 0 is off.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub z_loss: f64,
    /// Probability mass spread evenly over the vocabulary. 0 is off.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub label_smoothing: f64,
}
