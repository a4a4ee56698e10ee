//! Classification: one label for a whole row.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[objective.classification]`; the labels come from `label_column` of the sources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Probability mass spread evenly over the labels. 0 is off.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub label_smoothing: f64,
}
