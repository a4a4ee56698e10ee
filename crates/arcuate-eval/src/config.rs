//! The `[evaluation]` table of a recipe.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[evaluation]`: how often and how the held-out part is evaluated during training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Evaluate after every so many steps, and after the last.
    #[schemars(range(min = 1))]
    pub every_steps: u64,
    /// At most so many held-out tokens during training; the evaluation after the last step always takes all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u64>,
    /// Tokens by which the window moves over long documents in the last evaluation: smaller gives more context and costs more.
    /// Left out: windows do not overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub stride_tokens: Option<usize>,
    /// State beside the result what LZMA, having read the training text, needs for the held-out text.
    #[serde(default)]
    pub compare_with_lzma: bool,
}
