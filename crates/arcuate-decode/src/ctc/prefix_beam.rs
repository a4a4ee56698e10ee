//! Any words: the best texts by the sum over all their paths, with a language model where words end.
//!
//! # What it computes
//! `score(text) = ln sum_paths prod_t p_t(path_t) + lm(text)`, the sum kept apart for paths that end in the blank and in
//! the last token; `lm` as `word_scorer` has it. Without pruning and without a language model the sum is the probability
//! that the CTC loss takes the logarithm of, except that a boundary token counts once however often it is repeated, and
//! not at all before the first word.
//! # Recipe
//! `[decoder.prefix_beam]`
//! # Reference
//! Hannun et al. 2014, First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs

mod search;

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::sync::Arc;

use arcuate_text::ngram::Ngram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::word_scorer::WordScorer;
use super::{Alphabet, Emissions, Hypothesis, Token, check_count, check_finite, check_positive, log_add, words};
use crate::{Error, Result};

pub use super::word_scorer::LanguageModelConfig;
pub(super) use search::{Final, Search};

/// `[decoder.prefix_beam]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many texts are followed at once.
    #[serde(default = "default_beam_width")]
    #[schemars(range(min = 1))]
    pub beam_width: usize,
    /// Texts whose score is lower than the best by more than this are dropped.
    #[serde(default = "default_beam_threshold")]
    pub beam_threshold: f64,
    /// Tokens less probable in a frame than this, in natural logarithm, begin nothing there; the best one always may.
    #[serde(default = "default_min_token_log_prob")]
    pub min_token_log_prob: f64,
    /// How many texts are returned.
    #[serde(default = "default_num_hypotheses")]
    #[schemars(range(min = 1))]
    pub num_hypotheses: usize,
    /// `[decoder.prefix_beam.language_model]`; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_model: Option<LanguageModelConfig>,
    /// Words to expect, such as names; phrases count word by word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hot_words: Vec<String>,
    /// Added for every hot word.
    #[serde(default = "default_hot_word_weight")]
    pub hot_word_weight: f64,
}

fn default_beam_width() -> usize {
    100
}

fn default_beam_threshold() -> f64 {
    10.0
}

fn default_min_token_log_prob() -> f64 {
    -5.0
}

fn default_num_hypotheses() -> usize {
    1
}

fn default_hot_word_weight() -> f64 {
    10.0
}

impl Default for Config {
    fn default() -> Self {
        Self {
            beam_width: default_beam_width(),
            beam_threshold: default_beam_threshold(),
            min_token_log_prob: default_min_token_log_prob(),
            num_hypotheses: default_num_hypotheses(),
            language_model: None,
            hot_words: Vec::new(),
            hot_word_weight: default_hot_word_weight(),
        }
    }
}

impl Config {
    pub(super) fn check(&self) -> Result<()> {
        check_count("beam_width", self.beam_width)?;
        check_count("num_hypotheses", self.num_hypotheses)?;
        check_positive("beam_threshold", self.beam_threshold)?;
        check_finite("hot_word_weight", self.hot_word_weight)?;
        if self.min_token_log_prob.is_nan() {
            return Err(Error::config("min_token_log_prob", "is NaN; it must be a number"));
        }
        self.language_model.as_ref().map_or(Ok(()), LanguageModelConfig::check)
    }
}

/// A prefix beam search that is ready.
#[derive(Debug)]
pub struct PrefixBeam {
    alphabet: Arc<Alphabet>,
    scorer: WordScorer,
    config: Config,
}

impl PrefixBeam {
    /// Reads the language model.
    pub fn load(config: &Config, alphabet: Arc<Alphabet>) -> Result<Self> {
        let ngram = config.language_model.as_ref().map(|model| Ngram::load(&model.path)).transpose()?;
        Self::new(config, alphabet, ngram.map(Arc::new))
    }

    /// Takes the language model of `config.language_model.path` as it was read before.
    pub fn new(config: &Config, alphabet: Arc<Alphabet>, ngram: Option<Arc<Ngram>>) -> Result<Self> {
        config.check()?;
        let model = ngram.zip(config.language_model.as_ref());
        let scorer = WordScorer::new(&alphabet, model, &config.hot_words, config.hot_word_weight)?;
        Ok(Self { alphabet, scorer, config: config.clone() })
    }

    /// The best texts, the best first.
    pub fn decode(&self, emissions: &Emissions) -> Result<Vec<Hypothesis>> {
        let mut search = Search::new(self, None);
        search.push(self, emissions)?;
        Ok(self.hypotheses(&search))
    }

    pub(super) fn alphabet(&self) -> &Alphabet {
        &self.alphabet
    }

    /// The texts of a search that has come to its end; those that read the same are one.
    pub(super) fn hypotheses(&self, search: &Search) -> Vec<Hypothesis> {
        let mut finals = search.finals(self);
        finals.sort_by(|a, b| b.score().total_cmp(&a.score()));
        let mut found: Vec<Final> = Vec::new();
        let mut by_text: HashMap<String, usize> = HashMap::new();
        for end in finals {
            match by_text.entry(self.written(&search.open_tokens(end.entry))) {
                Occupied(same) => {
                    let same = &mut found[*same.get()];
                    same.acoustic = log_add(same.acoustic, end.acoustic);
                }
                Vacant(new) => {
                    new.insert(found.len());
                    found.push(end);
                }
            }
        }
        found.sort_by(|a, b| b.score().total_cmp(&a.score()));
        found.truncate(self.config.num_hypotheses);
        let hypothesis = |end: Final| {
            let tokens = search.tokens(end.entry);
            Hypothesis::new(words(&self.alphabet, &tokens), tokens, end.acoustic, end.lm)
        };
        found.into_iter().map(hypothesis).collect()
    }

    /// What tokens write behind others, with a space wherever a word ends there.
    fn written(&self, tokens: &[Token]) -> String {
        let mut text = String::new();
        for token in tokens {
            if self.scorer.ends_word(token.id) && !text.ends_with(' ') {
                text.push(' ');
            }
            text.push_str(self.alphabet.text(token.id));
        }
        text.truncate(text.trim_end().len());
        text
    }
}
