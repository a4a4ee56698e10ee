//! N-gram language models: reading, scoring, training, writing.
//!
//! # What it computes
//! `log10 p(w | h)`: the row of the longest end of `h` followed by `w`, plus the back-off weights of the longer ends of
//! `h` that were passed over.
//! # Memory
//! Unigrams by number; each longer n-gram is one slot of 16 bytes in a hash table of its order, keyed by a 64-bit hash
//! of its words from the last to the first. The words of a row are not stored: as in KenLM, two n-grams with one hash
//! would be taken for each other, which for a hundred million rows happens once in some thousand models.
//! # Reference
//! Heafield 2011, KenLM: Faster and Smaller Language Model Queries

mod arpa;
mod binary;
mod count;
mod table;
mod train;
mod trie;
mod vocabulary;
mod write;

pub use train::{FALLBACK_DISCOUNTS, TrainConfig, Trained, Unit};

use crate::{Error, Result};
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::path::Path;
use table::{NotSpread, Table};
use vocabulary::{UNKNOWN, Vocabulary};

/// The longest n-grams that a model may have.
pub const MAX_ORDER: usize = 8;
/// The most words of history.
const MAX_HISTORY: usize = MAX_ORDER - 1;
const READ_BYTES: usize = 1 << 18;

/// The number of a word in a model.
pub type WordId = u32;

/// Probability and back-off weight of one n-gram, both log10.
///
/// Two signs carry a mark: the probability is stored positive if a longer n-gram ends in this one, and a weight
/// of zero is stored negative if none begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Entry {
    prob: f32,
    backoff: f32,
}

impl Entry {
    fn new(prob: f32, backoff: f32) -> Self {
        Self { prob: -prob.abs(), backoff: if backoff == 0.0 { -0.0 } else { backoff } }
    }

    fn log10_prob(self) -> f32 {
        -self.prob.abs()
    }

    fn extends_left(self) -> bool {
        self.prob.is_sign_positive()
    }

    fn extends_right(self) -> bool {
        self.backoff.to_bits() != (-0.0_f32).to_bits()
    }
}

/// What a model still knows of the words before: the history, cut to what can matter.
///
/// Equal states score every continuation alike, if they come from one model.
#[derive(Debug, Clone, Copy)]
pub struct State {
    /// The last word first.
    words: [WordId; MAX_HISTORY],
    /// The weight of the last `i + 1` words.
    backoffs: [f32; MAX_HISTORY],
    num_words: u8,
}

impl State {
    const EMPTY: Self = Self { words: [0; MAX_HISTORY], backoffs: [0.0; MAX_HISTORY], num_words: 0 };

    /// The words of the history that can matter, the last first.
    pub fn words(&self) -> &[WordId] {
        &self.words[..usize::from(self.num_words)]
    }

    fn backoffs(&self) -> &[f32] {
        &self.backoffs[..usize::from(self.num_words)]
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.words() == other.words()
    }
}

impl Eq for State {}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.words().hash(hasher);
    }
}

/// A back-off n-gram model that can be asked.
#[derive(Debug, Clone)]
pub struct Ngram {
    vocabulary: Vocabulary,
    unigrams: Vec<Entry>,
    /// Of order two and up, by [`extend_key`] over the words from the last to the first.
    tables: Vec<Table<Entry>>,
    begin: State,
    end: WordId,
}

impl Ngram {
    /// Reads an ARPA file, plain or compressed with gzip or zstd, or a KenLM binary file; the content tells which.
    pub fn load(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let mut reader = BufReader::with_capacity(READ_BYTES, file);
        let start = reader.fill_buf().map_err(Error::io("read", path))?;
        if start.starts_with(binary::MAGIC) {
            binary::read(reader, path)
        } else if start.starts_with(&[0x1f, 0x8b]) {
            let decoder = flate2::bufread::MultiGzDecoder::new(reader);
            arpa::read(BufReader::with_capacity(READ_BYTES, decoder), path)
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let decoder = zstd::Decoder::with_buffer(reader).map_err(Error::io("read", path))?;
            arpa::read(BufReader::with_capacity(READ_BYTES, decoder), path)
        } else {
            arpa::read(reader, path)
        }
    }

    /// Nothing but the unknown word; `reserved` says how many rows of an order (from zero) to make room for.
    fn new(order: usize, reserved: impl Fn(usize) -> usize) -> Self {
        let unigrams = vec![Entry::new(0.0, 0.0)];
        let tables = (1..order).map(|order| Table::with_capacity(reserved(order))).collect();
        let vocabulary = Vocabulary::with_capacity(reserved(0));
        Self { vocabulary, unigrams, tables, begin: State::EMPTY, end: UNKNOWN }
    }

    /// Adds a row of order two or more, the last word first; all rows of lower orders must be there. `false` if it is
    /// there already.
    fn add(&mut self, reversed: &[WordId], entry: Entry) -> Result<bool, NotSpread> {
        let (prefix, history) = (&reversed[..reversed.len() - 1], &reversed[1..]);
        self.ensure(prefix)?;
        self.ensure(history)?;
        let suffix = self.entry_mut(prefix).expect("was made sure of");
        suffix.prob = suffix.prob.abs();
        let context = self.entry_mut(history).expect("was made sure of");
        if context.backoff == 0.0 {
            context.backoff = 0.0;
        }
        self.tables[reversed.len() - 2].insert(key(reversed), entry)
    }

    /// Puts in a row that others need and that the file lacks, with what backing off gives.
    fn ensure(&mut self, reversed: &[WordId]) -> Result<(), NotSpread> {
        if reversed.len() < 2 || self.tables[reversed.len() - 2].get(key(reversed)).is_some() {
            return Ok(());
        }
        self.ensure(&reversed[..reversed.len() - 1])?;
        let shorter = self.entry_mut(&reversed[..reversed.len() - 1]).expect("was made sure of").log10_prob();
        let backoff = self.entry_mut(&reversed[1..]).map_or(0.0, |history| history.backoff);
        self.add(reversed, Entry::new((shorter + backoff).min(0.0), 0.0)).map(|_| ())
    }

    fn entry_mut(&mut self, reversed: &[WordId]) -> Option<&mut Entry> {
        match reversed {
            [word] => self.unigrams.get_mut(*word as usize),
            _ => self.tables[reversed.len() - 2].get_mut(key(reversed)),
        }
    }

    /// Looks up the words that every model has.
    fn finish(&mut self) {
        self.end = self.vocabulary.id("</s>").unwrap_or(UNKNOWN);
        let begin = self.vocabulary.id("<s>").unwrap_or(UNKNOWN);
        let backoff = self.unigrams[begin as usize];
        if self.order() > 1 && backoff.extends_right() {
            self.begin.num_words = 1;
            self.begin.words[0] = begin;
            self.begin.backoffs[0] = backoff.backoff;
        }
    }

    /// The length of the longest n-grams.
    pub fn order(&self) -> usize {
        self.tables.len() + 1
    }

    /// How many words there are, `<unk>`, `<s>` and `</s>` included.
    pub fn num_words(&self) -> usize {
        self.vocabulary.len()
    }

    /// How many n-grams of an order (from one) are stored.
    pub fn num_ngrams(&self, order: usize) -> usize {
        match order {
            1 => self.num_words(),
            _ => self.tables.get(order.wrapping_sub(2)).map_or(0, Table::len),
        }
    }

    /// The number of a word; `None` if it is not in the vocabulary.
    pub fn word(&self, word: &str) -> Option<WordId> {
        self.vocabulary.id(word)
    }

    /// The number that stands for all words outside the vocabulary.
    pub fn unknown(&self) -> WordId {
        UNKNOWN
    }

    /// All words by number; `None` for a KenLM binary that was built without them.
    pub fn words(&self) -> Option<impl Iterator<Item = &str>> {
        self.vocabulary.words()
    }

    /// At the beginning of a sentence.
    pub fn begin(&self) -> State {
        self.begin
    }

    /// Without any history.
    pub fn empty(&self) -> State {
        State::EMPTY
    }

    /// `log10 p(word | state)` and the state after the word. A number outside the vocabulary counts as unknown.
    pub fn score(&self, state: &State, word: WordId) -> (f32, State) {
        let word = if (word as usize) < self.unigrams.len() { word } else { UNKNOWN };
        let mut entry = self.unigrams[word as usize];
        let mut next = State::EMPTY;
        let mut key = u64::from(word);
        let mut num_matched = 1;
        if !self.tables.is_empty() {
            next.words[0] = word;
            next.backoffs[0] = entry.backoff;
            next.num_words = u8::from(entry.extends_right());
        }
        for (before, table) in state.words().iter().zip(&self.tables) {
            if !entry.extends_left() {
                break;
            }
            key = extend_key(key, *before);
            let Some(longer) = table.get(key) else { break };
            entry = longer;
            if num_matched < self.tables.len() {
                next.words[num_matched] = *before;
                next.backoffs[num_matched] = entry.backoff;
                if entry.extends_right() {
                    next.num_words = num_matched as u8 + 1;
                }
            }
            num_matched += 1;
        }
        let passed_over: f32 = state.backoffs().iter().skip(num_matched - 1).sum();
        (entry.log10_prob() + passed_over, next)
    }

    /// `log10 p(</s> | state)`.
    pub fn end(&self, state: &State) -> f32 {
        self.score(state, self.end).0
    }

    /// `log10` of the probability of a whole sentence, from `<s>` to `</s>`.
    pub fn sentence(&self, words: &[&str]) -> f32 {
        let mut state = self.begin;
        let mut sum = 0.0;
        for word in words {
            let (log10_prob, next) = self.score(&state, self.word(word).unwrap_or(UNKNOWN));
            sum += log10_prob;
            state = next;
        }
        sum + self.end(&state)
    }
}

/// The key of an n-gram, the last word first.
fn key(reversed: &[WordId]) -> u64 {
    let (last, before) = reversed.split_first().expect("an n-gram has a word");
    before.iter().fold(u64::from(*last), |key, word| extend_key(key, *word))
}

/// The key of an n-gram from that of its end and the word before; the constants are those of KenLM's files.
fn extend_key(key: u64, before: WordId) -> u64 {
    key.wrapping_mul(8_978_948_897_894_561_157) ^ (u64::from(before) + 1).wrapping_mul(17_894_857_484_156_487_943)
}

#[cfg(test)]
mod tests;
