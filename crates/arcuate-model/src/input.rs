//! What a network reads, and what it is asked for.

use std::sync::Arc;

use arcuate_data::{Batch, Sound};

use crate::layer::{Dropout, Seen};

/// Padding that is worth leaving out: one part in so many of all tokens.
const WORTH: usize = 8;

/// Tokens of a batch as host data.
// B rows, T positions
#[derive(Debug, Clone)]
pub struct Input {
    /// Number of rows B.
    pub num_rows: usize,
    /// Length of every row T.
    pub seq_len: usize,
    /// Tokens `[B*T]`.
    pub ids: Arc<[i32]>,
    /// Position of each token inside its document `[B*T]`.
    pub positions: Arc<[i32]>,
    /// Keys [start, end) of each token's document inside the row `[B*T]`; causal networks clip it.
    pub may_attend: Arc<[[u32; 2]]>,
    /// Segment of each token (BERT) `[B*T]`.
    pub token_types: Arc<[i32]>,
    /// What a speech network hears; one with a decoder reads tokens beside it, all others read none.
    pub sound: Option<Arc<Sound>>,
    /// Identity of each row for the noise of a quantizer `[B]`.
    pub row_keys: Arc<[u64]>,
    /// Where dropout masks come from; none in evaluation.
    pub dropout: Option<Dropout>,
    /// Keep only the input of each layer for the backward pass and compute the rest again (activation checkpointing).
    pub recompute: bool,
    /// Where batch norms of a training pass leave their statistics; none: they are not kept.
    pub seen: Option<Seen>,
}

impl Input {
    /// The tokens of a batch, for evaluation.
    pub fn from_batch(batch: &Batch) -> Self {
        Self {
            num_rows: batch.num_rows,
            seq_len: batch.seq_len,
            ids: batch.input_ids.as_slice().into(),
            positions: batch.positions.as_slice().into(),
            may_attend: batch.may_attend.as_slice().into(),
            token_types: batch.token_types.as_slice().into(),
            sound: batch.sound.clone().map(Arc::new),
            row_keys: batch.row_keys.as_slice().into(),
            dropout: None,
            recompute: false,
            seen: None,
        }
    }

    /// Rows of equal length, each one document; `mask` marks the tokens that count (all when empty).
    ///
    /// The counted tokens of a row must be neighbours: padding on the left or on the right.
    pub fn from_rows(num_rows: usize, seq_len: usize, ids: Vec<i32>, mask: &[bool]) -> Option<Self> {
        let mut may_attend = Vec::with_capacity(ids.len());
        for row in 0..num_rows {
            let counts = |t: usize| mask.is_empty() || mask[row * seq_len + t];
            let start = (0..seq_len).find(|t| counts(*t)).unwrap_or(seq_len);
            let end = (start..seq_len).find(|t| !counts(*t)).unwrap_or(seq_len);
            if (end..seq_len).any(counts) {
                return None;
            }
            may_attend.extend((0..seq_len).map(|_| [start as u32, end as u32]));
        }
        Some(Self {
            num_rows,
            seq_len,
            positions: (0..ids.len()).map(|i| (i % seq_len.max(1)) as i32).collect(),
            token_types: vec![0; ids.len()].into(),
            may_attend: may_attend.into(),
            ids: ids.into(),
            sound: None,
            row_keys: [].into(),
            dropout: None,
            recompute: false,
            seen: None,
        })
    }

    /// Sound without tokens.
    pub fn of_sound(sound: Sound) -> Self {
        Self {
            num_rows: sound.num_rows(),
            seq_len: 0,
            positions: [].into(),
            token_types: [].into(),
            may_attend: [].into(),
            ids: [].into(),
            sound: Some(Arc::new(sound)),
            row_keys: [].into(),
            dropout: None,
            recompute: false,
            seen: None,
        }
    }

    /// New tokens behind the `past` tokens of each row, filled on the right to equal length with tokens that see nothing.
    ///
    /// Positions and ranges are those of the whole rows, with no token seeing a later one.
    pub(crate) fn behind(past: &[usize], new: &[&[u32]]) -> Self {
        let seq_len = new.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        let len = new.len() * seq_len;
        let (mut ids, mut positions, mut may_attend) = (vec![0; len], vec![0; len], vec![[0, 0]; len]);
        for (row, (past, tokens)) in past.iter().zip(new).enumerate() {
            for (t, token) in tokens.iter().enumerate() {
                let at = row * seq_len + t;
                // A token too large becomes negative, which no vocabulary has.
                ids[at] = *token as i32;
                positions[at] = (past + t) as i32;
                may_attend[at] = [0, (past + t + 1) as u32];
            }
        }
        Self {
            num_rows: new.len(),
            seq_len,
            ids: ids.into(),
            positions: positions.into(),
            may_attend: may_attend.into(),
            token_types: vec![0; len].into(),
            sound: None,
            row_keys: [].into(),
            dropout: None,
            recompute: false,
            seen: None,
        }
    }

    /// The tokens that matter behind one another in a single row, and where the `wanted` ones are then; none if there is
    /// little padding.
    ///
    /// What is left out is not wanted, and no other token may attend to it. Layers work on tokens one by one but for
    /// attention, whose ranges move along.
    pub(crate) fn packed(&self, wanted: &[i32]) -> Option<(Self, Vec<i32>)> {
        let (t, len) = (self.seq_len, self.ids.len());
        let mut matters = self.attended();
        wanted.iter().for_each(|place| matters[*place as usize] = true);
        // Tokens that matter before each one.
        let mut before = Vec::with_capacity(len + 1);
        let mut total = 0;
        for matters in &matters {
            before.push(total);
            total += u32::from(*matters);
        }
        before.push(total);
        if (len - total as usize) * WORTH < len {
            return None;
        }
        let kept = || (0..len).filter(|i| matters[*i]);
        let take = |from: &[i32]| -> Arc<[i32]> { kept().map(|i| from[i]).collect() };
        let input = Self {
            num_rows: 1,
            seq_len: total as usize,
            ids: take(&self.ids),
            positions: take(&self.positions),
            may_attend: kept().map(|i| self.may_attend[i].map(|at| before[i - i % t + at as usize])).collect(),
            token_types: take(&self.token_types),
            sound: self.sound.clone(),
            row_keys: self.row_keys.clone(),
            dropout: self.dropout.clone(),
            recompute: self.recompute,
            seen: self.seen.clone(),
        };
        Some((input, wanted.iter().map(|place| before[*place as usize] as i32).collect()))
    }

    /// Whether another token may attend to each one.
    fn attended(&self) -> Vec<bool> {
        let (t, len) = (self.seq_len, self.ids.len());
        // How many ranges begin at a token, less those that end there; tokens see themselves anyway.
        let mut edges = vec![0i32; len + 1];
        for (i, [start, end]) in self.may_attend.iter().enumerate() {
            let row = i - i % t;
            let (start, end) = (row + *start as usize, row + *end as usize);
            if start < end && (start, end) != (i, i + 1) {
                edges[start] += 1;
                edges[end] -= 1;
            }
        }
        let open = edges[..len].iter().scan(0, |open, edge| {
            *open += edge;
            Some(*open > 0)
        });
        open.collect()
    }

    /// Rows of `len` tokens each: behind the given tokens and in place of padding stands the filler, at its own place.
    ///
    /// What a row holds then depends on nothing but its own tokens.
    pub(crate) fn filled(&self, len: usize, filler: i32) -> Self {
        let t = self.seq_len;
        let attended = self.attended();
        let places = || (0..self.num_rows * len).map(|i| (i / len * t + i % len, i % len));
        // The first token of a row is one, even where it is alone.
        let token = |(i, at): &(usize, usize)| *at < t && (attended[*i] || *at == 0);
        let pick = |from: &[i32], other: &dyn Fn(usize) -> i32| -> Arc<[i32]> {
            places().map(|place| if token(&place) { from[place.0] } else { other(place.1) }).collect()
        };
        Self {
            num_rows: self.num_rows,
            seq_len: len,
            ids: pick(&self.ids, &|_| filler),
            positions: pick(&self.positions, &|at| at as i32),
            may_attend: places()
                .map(
                    |place| if token(&place) { self.may_attend[place.0] } else { [place.1 as u32, place.1 as u32 + 1] },
                )
                .collect(),
            token_types: pick(&self.token_types, &|_| 0),
            sound: self.sound.clone(),
            row_keys: self.row_keys.clone(),
            dropout: self.dropout.clone(),
            recompute: self.recompute,
            seen: self.seen.clone(),
        }
    }

    /// The same ranges clipped so that no token sees a later one.
    pub(crate) fn causal(&self) -> Arc<[[u32; 2]]> {
        let t = self.seq_len.max(1);
        self.may_attend
            .iter()
            .enumerate()
            .map(|(i, [start, end])| {
                let end = (*end).min((i % t) as u32 + 1);
                [(*start).min(end), end]
            })
            .collect()
    }
}

/// For which places there is an output.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// Every token, over the vocabulary or the tags: `[B*T, V]`.
    All,
    /// These tokens of the flattened batch, over the vocabulary or the tags: `[N, V]`.
    Tokens(Arc<[i32]>),
    /// Every row, over the classes: `[B, classes]`.
    Rows,
    /// Every row over the classes, and beside it these tokens over the vocabulary.
    RowsAndTokens(Arc<[i32]>),
    /// What the quantizer makes of these frames of the flattened batch, and the queries for it: `[N, D]`.
    Codes(Arc<[i32]>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causal_ranges_stay_inside_documents() {
        let mut input = Input::from_rows(1, 4, vec![1, 2, 3, 4], &[]).expect("no mask");
        input.may_attend = vec![[0, 2], [0, 2], [2, 4], [2, 4]].into();
        assert_eq!(&*input.causal(), &[[0, 1], [0, 2], [2, 3], [2, 4]]);
    }

    #[test]
    fn new_tokens_see_their_own_past_and_fillers_see_nothing() {
        let input = Input::behind(&[2, 0], &[&[7], &[8, 9]]);
        assert_eq!((input.num_rows, input.seq_len), (2, 2));
        assert_eq!(&*input.ids, &[7, 0, 8, 9]);
        assert_eq!(&*input.positions, &[2, 0, 0, 1]);
        assert_eq!(&*input.may_attend, &[[0, 3], [0, 0], [0, 1], [0, 2]]);
    }

    #[test]
    fn padding_that_nobody_reads_is_left_out() {
        let mut input = Input::from_rows(2, 4, (10..18).collect(), &[]).expect("no mask");
        // Two documents and a filler; a document of one, wanted, and fillers that see it.
        input.may_attend = vec![[0, 2], [0, 2], [2, 3], [3, 4], [0, 1], [0, 1], [0, 1], [3, 4]].into();
        let (packed, wanted) = input.packed(&[1, 2, 4]).expect("half is padding");
        assert_eq!((packed.num_rows, packed.seq_len), (1, 4));
        assert_eq!(&*packed.ids, &[10, 11, 12, 14]);
        assert_eq!(&*packed.positions, &[0, 1, 2, 0]);
        assert_eq!(&*packed.may_attend, &[[0, 2], [0, 2], [2, 3], [3, 4]]);
        assert_eq!(wanted, [1, 2, 3]);
        // Everything matters once it is wanted.
        assert!(input.packed(&[0, 1, 2, 3, 4, 5, 6, 7]).is_none());
        assert!(Input::from_rows(2, 4, (10..18).collect(), &[]).expect("no mask").packed(&[]).is_none());
    }

    #[test]
    fn filled_rows_do_not_show_how_they_were_padded() {
        let rows = |t: usize| {
            let ids = (0..2 * t).map(|i| if i % t < 3 { 10 + (i / t * 3 + i % t) as i32 } else { 99 }).collect();
            let mut input = Input::from_rows(2, t, ids, &[]).expect("no mask");
            let is_token = |i: usize| i % t < 3;
            input.may_attend =
                (0..2 * t).map(|i| if is_token(i) { [0, 3] } else { [(i % t) as u32, (i % t) as u32 + 1] }).collect();
            input.positions = (0..2 * t).map(|i| if is_token(i) { (i % t) as i32 } else { 0 }).collect();
            input.filled(6, 7)
        };
        let filled = rows(3);
        assert_eq!(&*filled.ids, &[10, 11, 12, 7, 7, 7, 13, 14, 15, 7, 7, 7]);
        assert_eq!(filled.positions[..6], [0, 1, 2, 3, 4, 5]);
        for t in [4, 6] {
            let other = rows(t);
            assert_eq!((&other.ids, &other.positions), (&filled.ids, &filled.positions));
            assert_eq!((&other.may_attend, &other.token_types), (&filled.may_attend, &filled.token_types));
        }
        let alone = Input::from_rows(1, 1, vec![5], &[]).expect("no mask").filled(2, 7);
        assert_eq!(&*alone.ids, &[5, 7]);
    }

    #[test]
    fn padding_on_either_side_is_a_range_and_holes_are_refused() {
        let input = |mask: &[bool]| Input::from_rows(1, 3, vec![1, 2, 3], mask);
        assert_eq!(input(&[false, true, true]).expect("left").may_attend[0], [1, 3]);
        assert_eq!(input(&[true, true, false]).expect("right").may_attend[0], [0, 2]);
        assert!(input(&[true, false, true]).is_none());
    }
}
