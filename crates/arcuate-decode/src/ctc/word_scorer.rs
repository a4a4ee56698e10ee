//! What words are worth: a language model, a score per word and hot words, added where words end.
//!
//! # What it computes
//! For each word that ends: `weight * ln p(word | words before) + word_score`, `unknown_word_score` if the language
//! model does not know it, `hot_word_weight` if it is hot; at the end of the text `weight * ln p(</s> | words)`. A word
//! that has not ended has a score that is taken back when it ends: `unknown_word_score` once no word of the model begins
//! with it, and instead of that its share of `hot_word_weight` while a hot word begins with it.
//! # Reference
//! The open-vocabulary fusion of pyctcdecode (Kensho Technologies 2021)

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use arcuate_text::ngram::{Ngram, State, WordId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alphabet::Role;
use super::trie::{NodeId, ROOT, Trie};
use super::{Alphabet, check_finite};
use crate::{Error, Result};

/// A word-level n-gram model and its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LanguageModelConfig {
    /// ARPA file, plain or compressed, or a KenLM binary with its words.
    pub path: PathBuf,
    /// Multiplies the natural log-probability of the model.
    pub weight: f64,
    /// Added for every word; above zero it favours more words.
    pub word_score: f64,
    /// Added for every word that the model does not know.
    #[serde(default = "default_unknown_word_score")]
    pub unknown_word_score: f64,
}

fn default_unknown_word_score() -> f64 {
    -10.0
}

impl LanguageModelConfig {
    pub(super) fn check(&self) -> Result<()> {
        check_finite("language_model.weight", self.weight)?;
        check_finite("language_model.word_score", self.word_score)?;
        check_finite("language_model.unknown_word_score", self.unknown_word_score)
    }
}

/// No prefix of any word.
const LOST: NodeId = NodeId::MAX;

/// Where a text stands: the words that ended, and the one that has not.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextState {
    history: Option<State>,
    /// Place of the open word among the words of the model, or `LOST`.
    known: NodeId,
    /// Place of the open word among the hot words, or `LOST`.
    hot: NodeId,
    has_open_word: bool,
    /// The score of all words that ended.
    pub(super) ended: f64,
    /// The score of the open word, until it ends.
    pub(super) open: f64,
}

impl TextState {
    /// What the text adds to the score so far.
    pub(super) fn score(&self) -> f64 {
        self.ended + self.open
    }
}

#[derive(Debug)]
pub(super) struct WordScorer {
    /// What each token does and the characters it writes.
    tokens: Vec<(Role, Box<[char]>)>,
    model: Option<Model>,
    hot: Option<HotWords>,
}

#[derive(Debug)]
struct Model {
    ngram: Arc<Ngram>,
    /// The words by their characters; the values are their numbers.
    words: Trie<char>,
    weight: f64,
    word_score: f64,
    unknown_word_score: f64,
}

#[derive(Debug)]
struct HotWords {
    words: Trie<char>,
    /// The share of the weight that each prefix earns.
    share: Vec<f64>,
    weight: f64,
}

impl WordScorer {
    /// Refuses a model that does not tell its words, and one that has no word of these tokens.
    pub(super) fn new(
        alphabet: &Alphabet,
        model: Option<(Arc<Ngram>, &LanguageModelConfig)>,
        hot_words: &[String],
        hot_word_weight: f64,
    ) -> Result<Self> {
        let tokens = (0..alphabet.num_tokens() as u32)
            .map(|id| (alphabet.role(id), alphabet.text(id).chars().collect()))
            .collect();
        let model = model.map(|(ngram, config)| Model::new(alphabet, ngram, config)).transpose()?;
        Ok(Self { tokens, model, hot: HotWords::new(hot_words, hot_word_weight) })
    }

    /// Before the first token.
    pub(super) fn begin(&self) -> TextState {
        let history = self.model.as_ref().map(|model| model.ngram.begin());
        TextState { history, known: ROOT, hot: ROOT, has_open_word: false, ended: 0.0, open: 0.0 }
    }

    /// The text with its open word ended, which is the same for every token that ends it.
    pub(super) fn end_word(&self, state: &TextState) -> TextState {
        if !state.has_open_word {
            return TextState { known: ROOT, hot: ROOT, open: 0.0, ..*state };
        }
        let mut next = TextState { known: ROOT, hot: ROOT, has_open_word: false, open: 0.0, ..*state };
        if let (Some(model), Some(history)) = (&self.model, &state.history) {
            let word = model.word(state.known);
            let (log10_prob, after) = model.ngram.score(history, word.unwrap_or(model.ngram.unknown()));
            next.history = Some(after);
            next.ended += model.weight * f64::from(log10_prob) + model.word_score;
            next.ended += if word.is_some() { 0.0 } else { model.unknown_word_score };
        }
        if let Some(hot) = self.hot.as_ref().filter(|hot| hot.is_whole(state.hot)) {
            next.ended += hot.weight;
        }
        next
    }

    /// The text with one token more; if the token ends a word, the text has it ended already.
    pub(super) fn extend(&self, state: &TextState, token: u32) -> TextState {
        let text = &self.tokens[token as usize].1;
        let mut next = *state;
        if text.is_empty() {
            return next;
        }
        let walk = |trie: Option<&Trie<char>>, from: NodeId| {
            let step = |node, label| if node == LOST { None } else { trie?.child(node, label) };
            text.iter().try_fold(from, |node, label| step(node, *label)).unwrap_or(LOST)
        };
        next.known = walk(self.model.as_ref().map(|model| &model.words), next.known);
        next.hot = walk(self.hot.as_ref().map(|hot| &hot.words), next.hot);
        next.has_open_word = true;
        next.open = match (&self.hot, &self.model) {
            (Some(hot), _) if next.hot != LOST => hot.weight * hot.share[next.hot as usize],
            (_, Some(model)) if next.known == LOST => model.unknown_word_score,
            _ => 0.0,
        };
        next
    }

    /// The score of the text if it ends here.
    pub(super) fn finish(&self, state: &TextState) -> f64 {
        let ended = self.end_word(state);
        match (&self.model, &ended.history) {
            (Some(model), Some(history)) => ended.ended + model.weight * f64::from(model.ngram.end(history)),
            _ => ended.ended,
        }
    }

    /// Whether a token ends the word before it.
    pub(super) fn ends_word(&self, token: u32) -> bool {
        matches!(self.tokens[token as usize].0, Role::Boundary | Role::Begins)
    }

    /// Whether a token may be written at all.
    pub(super) fn is_written(&self, token: u32) -> bool {
        self.tokens[token as usize].0 != Role::Silent
    }
}

impl Model {
    fn new(alphabet: &Alphabet, ngram: Arc<Ngram>, config: &LanguageModelConfig) -> Result<Self> {
        let wrong =
            |problem: &str| Err(Error::config("language_model", format!("`{}` {problem}", config.path.display())));
        let is_mark = |word: &str| matches!(word, "<s>" | "</s>" | "<unk>");
        let Some(words) = ngram.words() else {
            return wrong("was built without its words; use the ARPA file or build it with its vocabulary");
        };
        let letters: HashSet<char> =
            (0..alphabet.num_tokens() as u32).flat_map(|id| alphabet.text(id).chars()).collect();
        let words = (0..).zip(words).filter(|(_, word)| !is_mark(word));
        // Words that the tokens cannot write are never met.
        let words = words.filter(|(_, word)| word.chars().all(|letter| letters.contains(&letter)));
        let words = Trie::new(words.map(|(id, word)| (word.chars().collect(), id)).collect());
        if words.len() == 1 {
            return wrong("has no word that the tokens can write; is it of another alphabet or another case?");
        }
        Ok(Self {
            words,
            ngram,
            weight: config.weight * std::f64::consts::LN_10,
            word_score: config.word_score,
            unknown_word_score: config.unknown_word_score,
        })
    }

    fn word(&self, place: NodeId) -> Option<WordId> {
        if place == LOST { None } else { self.words.values(place).first().copied() }
    }
}

impl HotWords {
    /// Phrases count word by word.
    fn new(phrases: &[String], weight: f64) -> Option<Self> {
        let words = phrases.iter().flat_map(|phrase| phrase.split_whitespace());
        let words = Trie::new((0..).zip(words).map(|(at, word)| (word.chars().collect(), at)).collect());
        if words.len() == 1 {
            return None;
        }
        let mut depth = vec![0usize; words.len()];
        for node in 0..words.len() {
            for (_, child) in words.children(node as NodeId) {
                depth[child as usize] = depth[node] + 1;
            }
        }
        let own = |node: NodeId, values: &[u32]| if values.is_empty() { usize::MAX } else { depth[node as usize] };
        let shortest = words.best_below(usize::MAX, own, |a, b| a.min(b));
        let share = depth.iter().zip(&shortest).map(|(depth, shortest)| *depth as f64 / *shortest as f64).collect();
        Some(Self { words, share, weight })
    }

    fn is_whole(&self, place: NodeId) -> bool {
        place != LOST && !self.words.values(place).is_empty()
    }
}
