//! Batches: rows padded to one length, in the types that go to a device.

use crate::row::{IGNORED_TARGET, Row};
use crate::sound::Sound;

/// Rows side by side. Arrays of rows times tokens are row-major.
// B rows, T tokens
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// B.
    pub num_rows: usize,
    /// T.
    pub seq_len: usize,
    /// Tokens, B times T; the pad token where padding.
    pub input_ids: Vec<i32>,
    /// What each position should predict, B times T: a token or a tag; -100 where nothing.
    pub targets: Vec<i32>,
    /// Weight of each target, B times T; all 1 when left out.
    pub weights: Option<Vec<f32>>,
    /// Position within the document, B times T; 0 where padding.
    pub positions: Vec<i32>,
    /// Range of keys, start and end, that each position may attend to, B times T: its document. A causal model uses the part up to itself.
    /// Padding may attend to itself only.
    pub may_attend: Vec<[u32; 2]>,
    /// Segment of each token for BERT, B times T; 0 throughout.
    pub token_types: Vec<i32>,
    /// Class of each row, -100 where unknown.
    pub labels: Vec<i32>,
    /// What another model said of each row, a logit for each class, B times C; none unless every row has them.
    pub logits: Option<Vec<f32>>,
    /// What is heard, where rows are speech; then the tokens of a row are what was said.
    pub sound: Option<Sound>,
    /// True where padding, B times T.
    pub is_padding: Vec<bool>,
    /// Identity of each row for random streams.
    pub row_keys: Vec<u64>,
    /// Source of each row.
    pub sources: Vec<u32>,
    /// Bytes of text that the targets stand for, all rows together.
    pub num_bytes: u64,
}

impl Batch {
    /// Number of predicted tokens.
    pub fn num_targets(&self) -> usize {
        self.targets.iter().filter(|target| **target != IGNORED_TARGET).count()
    }

    /// Positions that a network computes and that are not padding: frames of the sound, or tokens.
    pub fn num_tokens(&self) -> usize {
        match &self.sound {
            Some(sound) => sound.frames.iter().sum(),
            None => self.is_padding.iter().filter(|is_padding| !**is_padding).count(),
        }
    }

    /// The same with padding.
    pub fn num_positions(&self) -> usize {
        self.sound.as_ref().map_or(self.input_ids.len(), |sound| sound.num_rows() * sound.num_frames)
    }
}

/// Pads `rows` to `pad_to` tokens, or to the longest row where that is longer or `pad_to` is left out.
pub fn collate(rows: &[Row], pad_id: u32, pad_to: Option<usize>) -> Batch {
    let longest = rows.iter().map(Row::len).max().unwrap_or(0);
    let seq_len = pad_to.unwrap_or(0).max(longest);
    let num_rows = rows.len();
    let size = num_rows * seq_len;
    let mut batch = Batch {
        num_rows,
        seq_len,
        input_ids: vec![pad_id as i32; size],
        targets: vec![IGNORED_TARGET; size],
        weights: None,
        positions: vec![0; size],
        may_attend: vec![[0, 0]; size],
        token_types: vec![0; size],
        labels: rows.iter().map(|row| row.label.map_or(IGNORED_TARGET, |label| label as i32)).collect(),
        logits: rows.iter().map(|row| row.logits.as_deref()).collect::<Option<Vec<_>>>().map(|all| all.concat()),
        sound: Sound::of_rows(rows),
        is_padding: vec![true; size],
        row_keys: rows.iter().map(|row| row.key).collect(),
        sources: rows.iter().map(|row| row.source).collect(),
        num_bytes: rows.iter().map(|row| row.num_bytes).sum(),
    };
    for (index, row) in rows.iter().enumerate() {
        let start = index * seq_len;
        for at in 0..seq_len {
            let to = start + at;
            if at < row.len() {
                batch.input_ids[to] = row.input_ids[at] as i32;
                batch.targets[to] = row.targets[at];
                batch.positions[to] = row.positions[at] as i32;
                batch.may_attend[to] = [row.spans[at].0, row.spans[at].1];
                batch.is_padding[to] = false;
            } else {
                batch.may_attend[to] = [at as u32, at as u32 + 1];
            }
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::Piece;

    fn row(tokens: &[u32], label: Option<u32>) -> Row {
        let mut row = Row::empty(3, 77);
        row.push_causal(Piece { document: 0, start: 0, len: tokens.len() as u32 - 1 }, tokens, 0);
        row.label = label;
        row.num_bytes = 5;
        row
    }

    #[test]
    fn short_rows_are_padded_and_padding_sees_only_itself() {
        let batch = collate(&[row(&[1, 2, 3], Some(4)), row(&[6, 7], None)], 9, None);
        assert_eq!((batch.num_rows, batch.seq_len), (2, 2));
        assert_eq!(batch.input_ids, [1, 2, 6, 9]);
        assert_eq!(batch.targets, [2, 3, 7, -100]);
        assert_eq!(batch.may_attend, [[0, 2], [0, 2], [0, 1], [1, 2]]);
        assert_eq!(batch.is_padding, [false, false, false, true]);
        assert_eq!(batch.labels, [4, -100]);
        assert_eq!((batch.row_keys.as_slice(), batch.sources.as_slice()), (&[77, 77][..], &[3, 3][..]));
        assert_eq!((batch.num_bytes, batch.num_targets(), batch.num_tokens()), (10, 3, 3));
    }

    #[test]
    fn a_fixed_length_is_kept_unless_a_row_is_longer() {
        let rows = [row(&[1, 2, 3], None)];
        assert_eq!(collate(&rows, 0, Some(5)).seq_len, 5);
        assert_eq!(collate(&rows, 0, Some(1)).seq_len, 2);
    }

    #[test]
    fn no_rows_make_an_empty_batch() {
        let batch = collate(&[], 0, None);
        assert_eq!((batch.num_rows, batch.seq_len, batch.input_ids.len()), (0, 0, 0));
    }
}
