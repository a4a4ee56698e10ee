//! From the emissions of a CTC network to words: greedy, prefix beam, lexicon beam, streaming, alignment.
//!
//! Everything here works on plain slices of log-probabilities, one row per frame. A [`CtcDecoderConfig`] says how, an
//! [`Alphabet`] says what the columns mean, a [`CtcDecoder`] is both with the files they name.

mod align;
mod alphabet;
mod emissions;
pub mod greedy;
mod hypothesis;
mod lexicon;
pub mod lexicon_beam;
mod paths;
pub mod prefix_beam;
mod stream;
mod trie;
mod word_scorer;

pub use align::align;
pub use alphabet::{Alphabet, WordMarks};
pub use emissions::Emissions;
pub use hypothesis::{Hypothesis, Token, Word, words};
pub use lexicon::Lexicon;
pub use lexicon_beam::LexiconBeam;
pub use prefix_beam::PrefixBeam;
pub use stream::{CtcStream, Partial};

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How CTC emissions become words; exactly one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CtcDecoderConfig {
    /// The best token of every frame.
    Greedy(greedy::Config),
    /// Words of a list only, with or without a language model.
    LexiconBeam(lexicon_beam::Config),
    /// Any words, with or without a language model and hot words.
    PrefixBeam(prefix_beam::Config),
}

impl CtcDecoderConfig {
    /// The first key that cannot work, without reading any file.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Greedy(_) => Ok(()),
            Self::LexiconBeam(config) => config.check(),
            Self::PrefixBeam(config) => config.check(),
        }
    }
}

/// A decoder that is ready: its files are read.
#[derive(Debug)]
pub struct CtcDecoder {
    alphabet: Arc<Alphabet>,
    search: Search,
}

#[derive(Debug)]
enum Search {
    Greedy,
    Lexicon(Box<LexiconBeam>),
    Prefix(Arc<PrefixBeam>),
}

impl CtcDecoder {
    /// Checks the keys and reads the language model and the lexicon.
    pub fn load(config: &CtcDecoderConfig, alphabet: Arc<Alphabet>) -> Result<Self> {
        config.check()?;
        let search = match config {
            CtcDecoderConfig::Greedy(_) => Search::Greedy,
            CtcDecoderConfig::LexiconBeam(config) => {
                Search::Lexicon(Box::new(LexiconBeam::load(config, alphabet.clone())?))
            }
            CtcDecoderConfig::PrefixBeam(config) => {
                Search::Prefix(Arc::new(PrefixBeam::load(config, alphabet.clone())?))
            }
        };
        Ok(Self { alphabet, search })
    }

    /// A prefix beam with the language model of its keys, which was read before.
    pub fn with_language_model(
        config: &prefix_beam::Config,
        alphabet: Arc<Alphabet>,
        ngram: Arc<arcuate_text::Ngram>,
    ) -> Result<Self> {
        let beam = PrefixBeam::new(config, alphabet.clone(), Some(ngram))?;
        Ok(Self { alphabet, search: Search::Prefix(Arc::new(beam)) })
    }

    /// The hypotheses of one recording, the best first; never none, for no frames the empty one.
    pub fn decode(&self, emissions: &Emissions) -> Result<Vec<Hypothesis>> {
        match &self.search {
            Search::Greedy => Ok(vec![greedy::decode(emissions, &self.alphabet)?]),
            Search::Lexicon(beam) => beam.decode(emissions),
            Search::Prefix(beam) => beam.decode(emissions),
        }
    }

    /// Decodes frames as they come; see [`CtcStream`]. Only the prefix beam can.
    pub fn stream(&self, max_pending_frames: Option<usize>) -> Result<CtcStream> {
        match &self.search {
            Search::Prefix(beam) => CtcStream::new(beam.clone(), max_pending_frames),
            Search::Greedy | Search::Lexicon(_) => {
                Err(Error::config("decoder", "cannot decode a stream; choose `prefix_beam`"))
            }
        }
    }
}

/// `ln(e^a + e^b)`.
fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    // Below 2^-53 of the larger one nothing changes; this also keeps two infinities apart.
    if low < high - 37.0 || low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// Refuses a number that is not finite.
fn check_finite(key: &'static str, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::config(key, format!("is {value}; it must be a finite number"))) }
}

/// Refuses a distance that is not above zero.
fn check_positive(key: &'static str, value: f64) -> Result<()> {
    if value > 0.0 { Ok(()) } else { Err(Error::config(key, format!("is {value}; it must be above 0"))) }
}

/// Refuses a count of zero.
fn check_count(key: &'static str, value: usize) -> Result<()> {
    if value > 0 { Ok(()) } else { Err(Error::config(key, "is 0; it must be at least 1")) }
}

#[cfg(test)]
mod tests;
