//! The best token of every frame.
//!
//! # What it computes
//! The most probable token of each frame, equal neighbours taken for one, blanks removed.
//! # Recipe
//! `[decoder.greedy]`, without keys
//! # Reference
//! Graves et al. 2006, section 3.2 (best path decoding)

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alphabet::Role;
use super::{Alphabet, Emissions, Hypothesis, Token, words};
use crate::Result;

/// `[decoder.greedy]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// The best path through the emissions; of equal tokens the lower column. Tokens that were left out count as blank.
pub fn decode(emissions: &Emissions, alphabet: &Alphabet) -> Result<Hypothesis> {
    emissions.check_width(alphabet.num_tokens())?;
    let mut tokens: Vec<Token> = Vec::new();
    let mut acoustic_score = 0.0;
    let mut before = alphabet.blank();
    for (frame, row) in (0u32..).zip(emissions.frames()) {
        let above = |best: (u32, f32), next: (u32, &f32)| if *next.1 > best.1 { (next.0, *next.1) } else { best };
        let (id, log_prob) = (0u32..).zip(row).fold((0, f32::NEG_INFINITY), above);
        acoustic_score += f64::from(log_prob);
        let confidence = log_prob.exp();
        match tokens.last_mut() {
            _ if alphabet.role(id) == Role::Silent => {}
            Some(last) if id == before => {
                last.end_frame = frame + 1;
                last.confidence = last.confidence.max(confidence);
            }
            _ => tokens.push(Token { id, start_frame: frame, end_frame: frame + 1, confidence }),
        }
        before = id;
    }
    Ok(Hypothesis::new(words(alphabet, &tokens), tokens, acoustic_score, 0.0))
}
