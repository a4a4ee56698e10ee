//! What is known about a source once its cache is open.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::BadReason;

/// Numbers of one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceSummary {
    /// Name in the recipe.
    pub name: String,
    /// Number of files.
    pub files: u64,
    /// Usable documents.
    pub documents: u64,
    /// Their tokens, with begin and end marks.
    pub tokens: u64,
    /// Their bytes of text.
    pub bytes: u64,
    /// Documents trained on.
    pub train_documents: u64,
    /// Tokens of the documents trained on.
    pub train_tokens: u64,
    /// Bytes of the documents trained on.
    pub train_bytes: u64,
    /// Documents held out.
    pub held_out_documents: u64,
    /// Tokens of the documents held out.
    pub held_out_tokens: u64,
    /// Bytes of the documents held out.
    pub held_out_bytes: u64,
    /// Rows in one pass over the training documents.
    pub epoch_rows: u64,
    /// Tokens in these rows.
    pub epoch_tokens: u64,
    /// Tokens in the longest row, held out or not.
    pub max_row_tokens: u64,
    /// Share of the training tokens that the weights ask for.
    pub target_share: f64,
    /// `max_repeats` of the recipe.
    pub max_repeats: Option<f64>,
    /// Documents without a label, where a label column is named.
    pub unlabelled_documents: u64,
    /// Seconds of the utterances trained on; 0 for texts.
    pub train_seconds: f64,
    /// Seconds of the utterances held out; 0 for texts.
    pub held_out_seconds: f64,
    /// Utterances that the recipe leaves out for their length.
    pub left_out: u64,
    /// Items that were skipped, by reason.
    pub bad_items: BTreeMap<BadReason, u64>,
}

impl SourceSummary {
    /// Bytes of text per token.
    pub fn bytes_per_token(&self) -> f64 {
        self.bytes as f64 / self.tokens.max(1) as f64
    }
}
