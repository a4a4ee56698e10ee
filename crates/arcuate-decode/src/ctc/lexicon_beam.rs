//! Words of a list: the best sequence of listed words by its best path.
//!
//! # What it computes
//! `score = sum_t e_t(path_t) + language_model_weight * log10 p(words) + word_score * num_words`, over paths that spell
//! words of the lexicon one after another; the maximum over the paths of a word sequence, or with `log_add` a sum in which
//! the last token stays part of what is told apart. While a word is open, the best score that any word below its place in
//! the tree has after `<s>` stands for that of the language model.
//!
//! With a boundary token, spellings end in it, and between words it or the blank may last. Without one, the last token of
//! a word may last, and a word that begins with that token needs a blank before.
//! # Recipe
//! `[decoder.lexicon_beam]`; the language model counts in log10, other than in `[decoder.prefix_beam]`
//! # Reference
//! Kahn et al. 2022, Flashlight: Enabling Innovation in Tools for Machine Learning (its lexicon decoder)

mod search;

use std::path::PathBuf;
use std::sync::Arc;

use arcuate_text::ngram::{Ngram, State, WordId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lexicon::Lexicon;
use super::trie::Trie;
use super::{Alphabet, Emissions, Hypothesis, check_count, check_finite, check_positive};
use crate::{Error, Result};
use search::Search;

/// What is written for a word outside the lexicon.
const UNKNOWN_TEXT: &str = "<unk>";

/// `[decoder.lexicon_beam]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// File with a word and its tokens per line, or only a word, which is then spelled by its characters.
    pub lexicon: PathBuf,
    /// ARPA file, plain or compressed, or a KenLM binary; left out: every word is as probable as any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_model: Option<PathBuf>,
    /// Multiplies the log10 probability of the language model.
    #[serde(default = "default_language_model_weight")]
    pub language_model_weight: f64,
    /// Added for every word; above zero it favours more words.
    #[serde(default)]
    pub word_score: f64,
    /// Added for every word outside the lexicon, which may be any tokens that begin a word; left out: there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_word_score: Option<f64>,
    /// Added for every frame of the boundary token.
    #[serde(default)]
    pub boundary_score: f64,
    /// How many hypotheses are followed at once.
    #[serde(default = "default_beam_width")]
    #[schemars(range(min = 1))]
    pub beam_width: usize,
    /// How many of the best tokens of a frame are followed; left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub num_tokens: Option<usize>,
    /// Hypotheses whose score is lower than the best by more than this are dropped.
    #[serde(default = "default_beam_threshold")]
    pub beam_threshold: f64,
    /// Whether paths that meet are added; left out: the better one counts.
    #[serde(default)]
    pub log_add: bool,
    /// How many word sequences are returned.
    #[serde(default = "default_num_hypotheses")]
    #[schemars(range(min = 1))]
    pub num_hypotheses: usize,
}

fn default_language_model_weight() -> f64 {
    2.0
}

fn default_beam_width() -> usize {
    50
}

fn default_beam_threshold() -> f64 {
    50.0
}

fn default_num_hypotheses() -> usize {
    1
}

impl Config {
    /// The defaults, for this lexicon.
    pub fn new(lexicon: PathBuf) -> Self {
        Self {
            lexicon,
            language_model: None,
            language_model_weight: default_language_model_weight(),
            word_score: 0.0,
            unknown_word_score: None,
            boundary_score: 0.0,
            beam_width: default_beam_width(),
            num_tokens: None,
            beam_threshold: default_beam_threshold(),
            log_add: false,
            num_hypotheses: default_num_hypotheses(),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        check_finite("language_model_weight", self.language_model_weight)?;
        check_finite("word_score", self.word_score)?;
        check_finite("boundary_score", self.boundary_score)?;
        self.unknown_word_score.map_or(Ok(()), |score| check_finite("unknown_word_score", score))?;
        check_count("beam_width", self.beam_width)?;
        self.num_tokens.map_or(Ok(()), |num| check_count("num_tokens", num))?;
        check_positive("beam_threshold", self.beam_threshold)?;
        check_count("num_hypotheses", self.num_hypotheses)
    }
}

/// A lexicon beam search that is ready.
#[derive(Debug)]
pub struct LexiconBeam {
    alphabet: Arc<Alphabet>,
    config: Config,
    words: Vec<String>,
    /// Spellings; the values are words.
    trie: Trie<u32>,
    /// For each node the best score after `<s>` of the words below, weighted; zero at the root.
    look_ahead: Vec<f64>,
    model: Option<Model>,
}

#[derive(Debug)]
struct Model {
    ngram: Arc<Ngram>,
    /// The number of each word of the lexicon in the model.
    ids: Vec<WordId>,
}

impl LexiconBeam {
    /// Reads the lexicon and the language model.
    pub fn load(config: &Config, alphabet: Arc<Alphabet>) -> Result<Self> {
        config.check()?;
        let lexicon = Lexicon::load(&config.lexicon, &alphabet)?;
        let ngram = config.language_model.as_ref().map(|path| Ngram::load(path)).transpose()?;
        Self::new(config, alphabet, lexicon, ngram.map(Arc::new))
    }

    /// Takes the lexicon and the language model as they were read before, instead of the files of `config`.
    pub fn new(config: &Config, alphabet: Arc<Alphabet>, lexicon: Lexicon, ngram: Option<Arc<Ngram>>) -> Result<Self> {
        config.check()?;
        let Lexicon { words, spellings } = lexicon;
        if ngram.as_ref().is_some_and(|ngram| words.iter().all(|word| ngram.word(word).is_none())) {
            let problem = format!("knows none of the {} words of the lexicon; is it of another language?", words.len());
            return Err(Error::config("language_model", problem));
        }
        let model = ngram.map(|ngram| {
            let id = |word: &String| ngram.word(word).unwrap_or(ngram.unknown());
            Model { ids: words.iter().map(id).collect(), ngram }
        });
        let trie = Trie::new(spellings);
        let mut beam = Self { alphabet, config: config.clone(), words, trie, look_ahead: Vec::new(), model };
        let begin = beam.model.as_ref().map(|model| model.ngram.begin());
        let scores: Vec<f64> = (0..beam.words.len() as u32).map(|word| beam.word_score(&begin, Some(word)).0).collect();
        let own = |_, words: &[u32]| words.iter().map(|word| scores[*word as usize]).fold(f64::NEG_INFINITY, f64::max);
        beam.look_ahead = beam.trie.best_below(f64::NEG_INFINITY, own, f64::max);
        beam.look_ahead[0] = 0.0;
        Ok(beam)
    }

    /// The best word sequences, the best first; if no path ends with a word, unfinished ones, marked as such.
    pub fn decode(&self, emissions: &Emissions) -> Result<Vec<Hypothesis>> {
        emissions.check_width(self.alphabet.num_tokens())?;
        let mut search = Search::new(self);
        for row in emissions.frames() {
            search.step(row)?;
        }
        Ok(search.finish())
    }

    /// Weighted score of a word (`None`: an unknown one) after others, and the state after it.
    fn word_score(&self, history: &Option<State>, word: Option<u32>) -> (f64, Option<State>) {
        match (&self.model, history) {
            (Some(model), Some(history)) => {
                let id = word.map_or(model.ngram.unknown(), |word| model.ids[word as usize]);
                let (log10_prob, next) = model.ngram.score(history, id);
                (self.config.language_model_weight * f64::from(log10_prob), Some(next))
            }
            _ => (0.0, None),
        }
    }

    /// Weighted score of the end after these words.
    fn end_score(&self, history: &Option<State>) -> f64 {
        match (&self.model, history) {
            (Some(model), Some(history)) => self.config.language_model_weight * f64::from(model.ngram.end(history)),
            _ => 0.0,
        }
    }
}
