//! Where given tokens lie in a recording.
//!
//! # What it computes
//! The best path among those that collapse to the given tokens (Viterbi over the blank-padded token sequence).
//! # Reference
//! Graves et al. 2006; the semantics of `forced_align` in torchaudio
// T frames, U tokens, S = 2 U + 1 states: blank, token, blank, ...

use super::{Alphabet, Emissions, Token};
use crate::{Error, Result};

/// States times frames that fit in memory, one byte for four of them.
const MAX_CELLS: usize = 1 << 31;

/// The frames of each token on the best path, and the log-probability of that path.
///
/// # Errors
/// Emissions of another width; a token that is the blank or none; fewer frames than tokens and equal neighbours; a path
/// of probability zero; more than 2^31 frames times states.
pub fn align(emissions: &Emissions, tokens: &[u32], alphabet: &Alphabet) -> Result<(Vec<Token>, f64)> {
    emissions.check_width(alphabet.num_tokens())?;
    let (num_tokens, blank) = (alphabet.num_tokens(), alphabet.blank());
    if let Some(position) = tokens.iter().position(|id| *id == blank || *id as usize >= num_tokens) {
        return Err(Error::Target { position, id: tokens[position], num_tokens });
    }
    let num_frames = emissions.num_frames();
    let num_repeats = tokens.windows(2).filter(|pair| pair[0] == pair[1]).count();
    if num_frames < tokens.len() + num_repeats {
        return Err(Error::TooFewFrames { num_frames, num_tokens: tokens.len(), num_repeats });
    }
    let num_states = 2 * tokens.len() + 1;
    if num_states.saturating_mul(num_frames) > MAX_CELLS {
        let problem =
            format!("need {num_frames} x {num_states} cells, at most {MAX_CELLS} are tried; cut the recording");
        return Err(Error::config("tokens", problem));
    }
    let steps = Steps::forward(emissions, tokens, blank);
    let (score, states) = steps.backward(num_frames)?;
    Ok((spans(emissions, tokens, &states), score))
}

/// For every frame and state how many states the best path moved on, in two bits.
struct Steps {
    moved: Vec<u8>,
    num_states: usize,
    /// Scores of the last frame.
    scores: Vec<f64>,
}

impl Steps {
    fn forward(emissions: &Emissions, tokens: &[u32], blank: u32) -> Self {
        let num_states = 2 * tokens.len() + 1;
        let row_bytes = num_states.div_ceil(4);
        let mut moved = vec![0u8; row_bytes * emissions.num_frames()];
        let mut scores = vec![f64::NEG_INFINITY; num_states];
        let mut next = scores.clone();
        scores[0] = 0.0;
        for (frame, row) in emissions.frames().enumerate() {
            let steps = &mut moved[frame * row_bytes..][..row_bytes];
            for state in 0..num_states {
                let at = state / 2;
                let is_token = state % 2 == 1;
                let (mut best, mut step) = (scores[state], 0u8);
                // The first frame begins in the first blank or the first token, both one step from before it.
                if state > 0 && scores[state - 1] > best {
                    (best, step) = (scores[state - 1], 1);
                }
                if is_token && at > 0 && tokens[at] != tokens[at - 1] && scores[state - 2] > best {
                    (best, step) = (scores[state - 2], 2);
                }
                let token = if is_token { tokens[at] } else { blank };
                next[state] = best + f64::from(row[token as usize]);
                steps[state / 4] |= step << (2 * (state % 4));
            }
            std::mem::swap(&mut scores, &mut next);
        }
        Self { moved, num_states, scores }
    }

    /// The best score and its state in every frame.
    fn backward(&self, num_frames: usize) -> Result<(f64, Vec<usize>)> {
        let last = self.num_states - 1;
        let mut state = if last > 0 && self.scores[last - 1] > self.scores[last] { last - 1 } else { last };
        let score = self.scores[state];
        if score == f64::NEG_INFINITY {
            return Err(Error::NoPath { frame: num_frames.saturating_sub(1) });
        }
        let row_bytes = self.num_states.div_ceil(4);
        let mut states = vec![0; num_frames];
        for frame in (0..num_frames).rev() {
            states[frame] = state;
            state -= usize::from(self.moved[frame * row_bytes + state / 4] >> (2 * (state % 4)) & 3);
        }
        Ok((score, states))
    }
}

fn spans(emissions: &Emissions, tokens: &[u32], states: &[usize]) -> Vec<Token> {
    let empty = |id: &u32| Token { id: *id, start_frame: 0, end_frame: 0, confidence: 0.0 };
    let mut spans: Vec<Token> = tokens.iter().map(empty).collect();
    for ((frame, row), state) in (0u32..).zip(emissions.frames()).zip(states) {
        if state % 2 == 1 {
            let span = &mut spans[state / 2];
            if span.end_frame == 0 {
                span.start_frame = frame;
            }
            span.end_frame = frame + 1;
            span.confidence = span.confidence.max(row[span.id as usize].exp());
        }
    }
    spans
}
