//! How a text is cut, to look at.

use serde::Serialize;
use std::ops::Range;

/// One token of an inspected text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InspectedToken {
    /// Its id.
    pub id: u32,
    /// Its spelling in the vocabulary, such as `Ġthe` or `##ing`.
    pub piece: String,
    /// The bytes of the text that it covers. Tokens that share the bytes of one character share its range.
    pub range: Range<usize>,
}

/// How a text is cut.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The tokens in order.
    pub tokens: Vec<InspectedToken>,
    /// Length of the text in bytes.
    pub num_bytes: usize,
    /// Length of the text in characters.
    pub num_chars: usize,
    /// Bytes for each token; 0 for an empty text.
    pub bytes_per_token: f64,
}

impl Inspection {
    pub(crate) fn new(text: &str, tokens: Vec<InspectedToken>) -> Self {
        let bytes_per_token = if tokens.is_empty() { 0.0 } else { text.len() as f64 / tokens.len() as f64 };
        Self { num_bytes: text.len(), num_chars: text.chars().count(), bytes_per_token, tokens }
    }
}
