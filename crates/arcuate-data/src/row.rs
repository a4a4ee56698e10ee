//! Rows: what one position of a batch holds, before padding; and how stored documents become rows.

use serde::{Deserialize, Serialize};

use crate::pack::Piece;
use crate::sound::RowSound;

/// A target that is not predicted.
pub const IGNORED_TARGET: i32 = -100;

/// How a document is framed by special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// Begin mark, text, end mark (as far as the tokenizer has them); the target is the next token.
    CausalLm,
    /// `[CLS]` piece `[SEP]`; the objective chooses what is predicted.
    Bert,
}

/// One row of tokens out of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Index of the source, in the order of names.
    pub source: u32,
    /// Identity for random streams: the same for the same row of the same source, whatever the order.
    pub key: u64,
    /// The tokens.
    pub input_ids: Vec<u32>,
    /// What is predicted at each: the token after it, never one of another document, or the tag of the word that it begins.
    /// [`IGNORED_TARGET`] where nothing is.
    pub targets: Vec<i32>,
    /// Position within the piece of a document; restarts with each.
    pub positions: Vec<u32>,
    /// For each token, the stretch of this row that holds its document: start and end.
    pub spans: Vec<(u32, u32)>,
    /// The class of the first document, if it has one.
    pub label: Option<u32>,
    /// What another model said of the first document: a logit for each class of the corpus.
    pub logits: Option<Vec<f32>>,
    /// What is heard; then the tokens are what was said.
    pub sound: Option<RowSound>,
    /// Bytes of text that the predicted tokens stand for (for bidirectional rows: that all tokens stand for).
    pub num_bytes: u64,
    /// Indices of the documents in their source, one per piece.
    pub documents: Vec<u32>,
}

impl Row {
    pub(crate) fn empty(source: u32, key: u64) -> Self {
        Self {
            source,
            key,
            input_ids: Vec::new(),
            targets: Vec::new(),
            positions: Vec::new(),
            spans: Vec::new(),
            label: None,
            logits: None,
            sound: None,
            num_bytes: 0,
            documents: Vec::new(),
        }
    }

    /// Positions that a network computes: frames of the sound, or tokens.
    pub fn num_positions(&self) -> usize {
        self.sound.as_ref().map_or(self.len(), |sound| sound.num_frames)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// True without a single token.
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }

    /// Number of predicted tokens.
    pub fn num_targets(&self) -> usize {
        self.targets.iter().filter(|target| **target != IGNORED_TARGET).count()
    }

    /// Appends a causal piece: `tokens` is one longer than the piece, `num_context` targets at its start are ignored.
    pub(crate) fn push_causal(&mut self, piece: Piece, tokens: &[u32], num_context: u32) {
        let len = tokens.len() - 1;
        self.input_ids.extend_from_slice(&tokens[..len]);
        self.targets.extend(
            (0u32..).zip(&tokens[1..]).map(|(at, token)| if at < num_context { IGNORED_TARGET } else { *token as i32 }),
        );
        self.push_places(piece, len as u32);
    }

    /// Appends a bidirectional piece; without tags nothing is predicted yet.
    pub(crate) fn push_bert(&mut self, piece: Piece, tokens: &[u32], tags: &[i32], (cls, sep): (u32, u32)) {
        self.targets.resize(self.input_ids.len() + 1, IGNORED_TARGET);
        self.targets.extend_from_slice(tags);
        self.input_ids.push(cls);
        self.input_ids.extend_from_slice(tokens);
        self.input_ids.push(sep);
        self.targets.resize(self.input_ids.len(), IGNORED_TARGET);
        self.push_places(piece, tokens.len() as u32 + 2);
    }

    fn push_places(&mut self, piece: Piece, len: u32) {
        let start = self.positions.len() as u32;
        self.positions.extend(0..len);
        self.spans.resize(self.positions.len(), (start, start + len));
        self.documents.push(piece.document);
    }
}

/// Bytes of positions `start..end` out of `num_positions` that share `num_bytes`: pieces add up exactly.
pub(crate) fn bytes_between(num_bytes: u64, num_positions: u32, start: u32, end: u32) -> u64 {
    let before = |at: u32| {
        let at = at.min(num_positions);
        (u128::from(num_bytes) * u128::from(at) / u128::from(num_positions.max(1))) as u64
    };
    before(end) - before(start.min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_share_all_bytes_of_a_document() {
        let cuts = [0, 3, 4, 9, 17, 31];
        let total: u64 = cuts.windows(2).map(|cut| bytes_between(1001, 31, cut[0], cut[1])).sum();
        assert_eq!(total, 1001);
        assert_eq!(bytes_between(5, 0, 0, 0), 0);
    }

    #[test]
    fn a_causal_piece_is_shifted_and_its_context_ignored() {
        let mut row = Row::empty(0, 0);
        row.push_causal(Piece { document: 4, start: 0, len: 3 }, &[9, 8, 7, 6], 1);
        row.push_causal(Piece { document: 5, start: 0, len: 1 }, &[3, 2], 0);
        assert_eq!(row.input_ids, [9, 8, 7, 3]);
        assert_eq!(row.targets, [IGNORED_TARGET, 7, 6, 2]);
        assert_eq!(row.positions, [0, 1, 2, 0]);
        assert_eq!(row.spans, [(0, 3), (0, 3), (0, 3), (3, 4)]);
        assert_eq!((row.num_targets(), row.documents), (3, vec![4, 5]));
    }

    #[test]
    fn tags_stand_at_their_tokens() {
        let mut row = Row::empty(0, 0);
        row.push_bert(Piece { document: 0, start: 0, len: 2 }, &[7, 8], &[3, IGNORED_TARGET], (1, 2));
        row.push_bert(Piece { document: 1, start: 0, len: 1 }, &[9], &[], (1, 2));
        assert_eq!(row.input_ids, [1, 7, 8, 2, 1, 9, 2]);
        assert_eq!(row.targets, [-100, 3, -100, -100, -100, -100, -100]);
    }
}
