//! Training: interpolated modified Kneser-Ney smoothing, number for number as KenLM's `lmplz` does it.
//!
//! # What it computes
//! `a(w1..wn)`: the count for the highest order and for n-grams that begin with `<s>`, else the number of distinct words
//! before it. Per order, from the numbers `n_k` of n-grams with `a = k`: `Y = n_1 / (n_1 + 2 n_2)` and the discounts
//! `D_k = k - (k + 1) Y n_(k+1) / n_k` for `k` = 1, 2, 3 or more. Then
//!
//! `p(w | h) = (a(hw) - D(a(hw))) / sum_x a(hx) + g(h) p(w | h')`, where `h'` lacks the first word of `h`,
//! `g(h) = (sum_k D_k N_k(h) + what was pruned) / sum_x a(hx)`, and below the unigrams `1 / |V|`, without `<s>`.
//! # Memory
//! All in memory: about `8 * order + 60` bytes for each distinct n-gram of the highest order, and less for lower ones.
//! # Reference
//! Chen and Goodman 1998; Heafield et al. 2013, Scalable Modified Kneser-Ney Language Model Estimation

use super::count::{Counted, Counter};
use super::table::NotSpread;
use super::vocabulary::{UNKNOWN, Vocabulary};
use super::{Entry, MAX_ORDER, Ngram, WordId};
use crate::{Error, Result};
use std::collections::HashSet;

const BEGIN: WordId = 1;
const END: WordId = 2;
/// What stands between words when characters are the units.
const BOUNDARY: &str = "|";

/// Discounts that are used where a text gives none, by custom.
pub const FALLBACK_DISCOUNTS: [f64; 3] = [0.5, 1.0, 1.5];

/// How a model is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainConfig {
    /// Length of the longest n-grams.
    pub order: usize,
    /// By order: n-grams that were seen this often or less are dropped. Never decreasing; the last one also counts for
    /// the orders above; empty drops none.
    pub prune: Vec<u64>,
    /// Discounts for orders where the text gives none (see [`FALLBACK_DISCOUNTS`]); without them that is an error.
    pub discount_fallback: Option<[f64; 3]>,
    /// Keep only n-grams of these words, such as those of a lexicon.
    pub vocabulary: Option<HashSet<String>>,
    /// What an n-gram consists of.
    pub unit: Unit,
}

/// What an n-gram consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Words, which spaces separate.
    Word,
    /// Characters; a `|` stands after each word.
    Character,
}

impl Unit {
    /// The units of a line in their order.
    pub fn cut(self, line: &str) -> Vec<&str> {
        let words = line.split([' ', '\t', '\r', '\n', '\0']).filter(|word| !word.is_empty());
        match self {
            Self::Word => words.collect(),
            Self::Character => words
                .flat_map(|word| {
                    let ends = word.char_indices().map(|(start, letter)| &word[start..start + letter.len_utf8()]);
                    ends.chain(std::iter::once(BOUNDARY))
                })
                .collect(),
        }
    }
}

impl TrainConfig {
    /// Everything that is wrong with the values, as (key, message).
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if !(1..=MAX_ORDER).contains(&self.order) {
            found.push(("order", format!("must be 1 to {MAX_ORDER}, not {}", self.order)));
        }
        if self.prune.len() > self.order {
            found.push(("prune", format!("{} thresholds for {} orders", self.prune.len(), self.order)));
        }
        if !self.prune.is_sorted() {
            found.push(("prune", "a threshold is smaller than the one before".to_owned()));
        }
        let is_discount = |(at, discount): (usize, &f64)| (0.0..=at as f64 + 1.0).contains(discount);
        if !self.discount_fallback.iter().all(|all| all.iter().enumerate().all(is_discount)) {
            let message = "the discount of n-grams seen k times must be 0 to k, for k = 1, 2, 3";
            found.push(("discount_fallback", message.to_owned()));
        }
        found
    }

    fn threshold(&self, order: usize) -> u64 {
        self.prune.get(order - 1).or(self.prune.last()).copied().unwrap_or(0)
    }
}

/// A trained model: all n-grams with their numbers, to be written or asked.
#[derive(Debug)]
pub struct Trained {
    pub(super) words: Vec<String>,
    /// By order.
    pub(super) levels: Vec<Rows>,
}

/// The n-grams of one order.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// All n-grams one after another, each with its last word first.
    pub(super) words: Vec<WordId>,
    /// `log10`
    pub(super) probs: Vec<f32>,
    /// `log10`
    pub(super) backoffs: Vec<f32>,
}

impl Trained {
    /// Trains on texts whose lines are sentences; an empty line is a sentence without words.
    pub fn train<T: AsRef<str>>(config: &TrainConfig, texts: impl IntoIterator<Item = T>) -> Result<Self> {
        if let Some((key, message)) = config.check().into_iter().next() {
            return Err(Error::NgramConfig { key, message });
        }
        let (words, counted) = count(config, texts)?;
        let is_allowed: Vec<bool> = words
            .iter()
            .zip(0..)
            .map(|(word, id)| id <= END || config.vocabulary.as_ref().is_none_or(|allowed| allowed.contains(word)))
            .collect();
        let levels = adjust(config, counted, &is_allowed);
        let discounts =
            levels.iter().zip(1..).map(|(level, order)| discounts(config, level, order)).collect::<Result<Vec<_>>>()?;
        Ok(Self { words, levels: estimate(levels, &discounts) })
    }

    /// The number of n-grams by order.
    pub fn num_ngrams(&self) -> Vec<usize> {
        self.levels.iter().map(|rows| rows.probs.len()).collect()
    }

    /// The model in the form that is asked.
    pub fn to_ngram(&self) -> Result<Ngram> {
        let collided = |_: NotSpread| Error::NgramConfig {
            key: "vocabulary",
            message: "the words collide as if made to; this text is refused".to_owned(),
        };
        let mut model = Ngram::new(self.levels.len(), |order| self.levels[order].probs.len());
        let mut ids = vec![UNKNOWN; self.words.len()];
        for (order, rows) in (1..).zip(&self.levels) {
            let numbers = rows.probs.iter().zip(&rows.backoffs).map(|(prob, backoff)| Entry::new(*prob, *backoff));
            for (ngram, entry) in rows.words.chunks_exact(order).zip(numbers) {
                match ngram {
                    [UNKNOWN] => model.unigrams[0] = entry,
                    [word] => {
                        let added = model.vocabulary.add(&self.words[*word as usize]).map_err(collided)?;
                        ids[*word as usize] = added.expect("each word has one number");
                        model.unigrams.push(entry);
                    }
                    _ => {
                        let mut renumbered = [UNKNOWN; MAX_ORDER];
                        for (new, old) in renumbered.iter_mut().zip(ngram) {
                            *new = ids[*old as usize];
                        }
                        model.add(&renumbered[..order], entry).map_err(collided)?;
                    }
                }
            }
        }
        model.finish();
        Ok(model)
    }
}

fn collided(_: NotSpread) -> Error {
    Error::NgramConfig { key: "text", message: "its words collide as if made to; it is refused".to_owned() }
}

/// The words by number, `<unk>`, `<s>` and `</s>` first, and the counts of the highest order.
fn count<T: AsRef<str>>(config: &TrainConfig, texts: impl IntoIterator<Item = T>) -> Result<(Vec<String>, Counted)> {
    let mut vocabulary = Vocabulary::with_capacity(0);
    for word in ["<s>", "</s>"] {
        vocabulary.add(word).map_err(collided)?;
    }
    let mut counter = Counter::new(config.order);
    let padding = vec![BEGIN; config.order - 1];
    let mut sentence = Vec::new();
    let mut number = 0;
    for text in texts {
        let text = text.as_ref();
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            number += 1;
            sentence.clone_from(&padding);
            for word in config.unit.cut(line) {
                let known = match vocabulary.id(word) {
                    Some(id) => Some(id),
                    None => vocabulary.add(word).map_err(collided)?,
                };
                match known {
                    Some(id) if id > END => sentence.push(id),
                    _ => return Err(Error::SpecialWord { line: number, word: word.to_owned() }),
                }
            }
            sentence.push(END);
            counter.add(&sentence);
        }
    }
    if vocabulary.len() == END as usize + 1 {
        return Err(Error::EmptyCorpus);
    }
    let words = vocabulary.words().expect("words were added as words").map(str::to_owned).collect();
    Ok((words, counter.finish()))
}

/// The n-grams of one order with their adjusted counts.
#[derive(Debug, Default)]
struct Level {
    counted: Counted,
    /// Whether each n-gram stays in the model.
    is_kept: Vec<bool>,
    /// The last n-gram enters the statistics of the discounts with its plain count, as it does in `lmplz`.
    last_count: Option<u64>,
}

/// An n-gram whose left neighbours are being counted.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    adjusted: u64,
    count: u64,
}

/// Adjusted counts of all orders from the counts of the highest, which are sorted by their ends.
fn adjust(config: &TrainConfig, counted: Counted, is_allowed: &[bool]) -> Vec<Level> {
    let highest = config.order;
    let mut levels: Vec<Level> = (0..highest).map(|_| Level::default()).collect();
    let keeps = |ngram: &[WordId], count: u64| match ngram {
        [word] if *word <= END => true,
        _ => count > config.threshold(ngram.len()) && ngram.iter().all(|word| is_allowed[*word as usize]),
    };
    for special in [UNKNOWN, BEGIN] {
        levels[0].push(&[special], 0, true);
    }
    let mut open: Vec<Open> = Vec::with_capacity(highest);
    let mut previous: &[WordId] = &[];
    for (ngram, count) in counted.words.chunks_exact(highest).zip(&counted.counts) {
        // What stands before `<s>` is padding.
        let len = ngram.iter().position(|word| *word == BEGIN).map_or(highest, |at| at + 1);
        let num_same = previous.iter().zip(&ngram[..len]).take_while(|(a, b)| a == b).count();
        for (at, open) in open.iter().enumerate().skip(num_same) {
            let words = &previous[..at + 1];
            levels[at].push(words, open.adjusted, keeps(words, open.count));
        }
        open.truncate(num_same);
        open.iter_mut().for_each(|open| open.count += count);
        if let Some(last) = open.last_mut() {
            last.adjusted += 1;
        }
        open.resize(len.min(highest - 1), Open { adjusted: 1, count: *count });
        if len < highest {
            open[len - 1].adjusted = *count;
        } else {
            levels[highest - 1].push(ngram, *count, keeps(ngram, *count));
        }
        previous = &ngram[..len];
    }
    for (at, open) in open.iter().enumerate() {
        let words = &previous[..at + 1];
        levels[at].push(words, open.adjusted, keeps(words, open.count));
        levels[at].last_count = Some(open.count);
    }
    levels
}

impl Level {
    fn push(&mut self, words: &[WordId], count: u64, is_kept: bool) {
        self.counted.push(words, count);
        self.is_kept.push(is_kept);
    }
}

/// The discounts of n-grams with adjusted count 0, 1, 2, and 3 or more.
fn discounts(config: &TrainConfig, level: &Level, order: usize) -> Result<[f64; 4]> {
    let mut numbers = [0_u64; 4];
    let (last, others) = level.counted.counts.split_last().unzip();
    let last = level.last_count.or(last.copied());
    for count in others.into_iter().flatten().copied().chain(last) {
        if (1..=4).contains(&count) {
            numbers[count as usize - 1] += 1;
        }
    }
    let n = numbers.map(|number| number as f64);
    let y = n[0] / (n[0] + 2.0 * n[1]);
    let closed = [1, 2, 3].map(|k: usize| k as f64 - (k + 1) as f64 * y * n[k] / n[k - 1]);
    let is_usable = numbers[..3].iter().all(|number| *number > 0)
        && closed.iter().zip([1.0, 2.0, 3.0]).all(|(discount, k)| (0.0..=k).contains(discount));
    let [one, two, three] = match config.discount_fallback {
        _ if is_usable => closed,
        Some(fallback) => fallback,
        None => return Err(Error::Discounts { order, numbers }),
    };
    Ok([0.0, one, two, three])
}

fn estimate(levels: Vec<Level>, discounts: &[[f64; 4]]) -> Vec<Rows> {
    let highest = levels.len();
    let num_words = levels[0].is_kept.iter().filter(|is_kept| **is_kept).count() - 1;
    let mut all_rows = Vec::with_capacity(highest);
    // Probabilities of the order below, and the n-grams they belong to.
    let mut lower: Option<(Vec<f64>, Counted)> = None;
    let mut levels = levels.into_iter().zip(discounts).peekable();
    let mut sums = Sums::new(1);
    let (first, first_discounts) = levels.peek().expect("there is an order");
    sums.add(0, first, 0..first.is_kept.len(), first_discounts);
    let mut contexts = vec![0; first.is_kept.len()];
    let mut order = 0;
    while let Some((level, discounts)) = levels.next() {
        order += 1;
        let mut probs = Vec::with_capacity(level.is_kept.len());
        let mut shorter = 0;
        for (at, ngram) in level.counted.words.chunks_exact(order).enumerate() {
            let count = level.counted.counts[at];
            let below = match &lower {
                None => 1.0 / num_words as f64,
                Some((probs, counted)) => {
                    let suffix = &ngram[..order - 1];
                    while counted.words[shorter * suffix.len()..][..suffix.len()] != *suffix {
                        shorter += 1;
                    }
                    probs[shorter]
                }
            };
            let own = (count as f64 - discounts[count.min(3) as usize]) / sums.count[contexts[at]];
            probs.push(if *ngram == [BEGIN] { 1.0 } else { own + sums.gamma(contexts[at]) * below });
        }
        let backoffs = match levels.peek() {
            None => vec![1.0; probs.len()],
            Some((longer, discounts)) => {
                (sums, contexts) = Sums::of(&level, longer, order, discounts);
                (0..probs.len()).map(|at| sums.gamma(at)).collect::<Vec<f64>>()
            }
        };
        let mut rows = Rows::default();
        for at in (0..probs.len()).filter(|at| level.is_kept[*at]) {
            rows.words.extend_from_slice(&level.counted.words[at * order..][..order]);
            rows.probs.push(probs[at].log10().min(0.0) as f32);
            rows.backoffs.push(backoffs[at].log10() as f32);
        }
        all_rows.push(rows);
        lower = Some((probs, level.counted));
    }
    all_rows
}

/// Per history: the sum of the counts of what follows, and how much of it goes to the order below.
struct Sums {
    count: Vec<f64>,
    given: Vec<f64>,
}

impl Sums {
    fn new(num_histories: usize) -> Self {
        Self { count: vec![0.0; num_histories], given: vec![0.0; num_histories] }
    }

    /// Sums over the n-grams of `longer` by their histories, which are n-grams of `level`; and those histories.
    fn of(level: &Level, longer: &Level, order: usize, discounts: &[f64; 4]) -> (Self, Vec<usize>) {
        let mut sums = Self::new(level.is_kept.len());
        let words = &level.counted.words;
        let contexts: Vec<usize> = longer
            .counted
            .words
            .chunks_exact(order + 1)
            .map(|ngram| find(words, &ngram[1..]).expect("what was seen before a word is an n-gram too"))
            .collect();
        for (at, context) in contexts.iter().enumerate() {
            sums.add(*context, longer, at..at + 1, discounts);
        }
        (sums, contexts)
    }

    fn add(&mut self, history: usize, level: &Level, ngrams: std::ops::Range<usize>, discounts: &[f64; 4]) {
        for at in ngrams {
            let count = level.counted.counts[at];
            self.count[history] += count as f64;
            self.given[history] += if level.is_kept[at] { discounts[count.min(3) as usize] } else { count as f64 };
        }
    }

    /// The weight of the order below; one where nothing follows.
    fn gamma(&self, history: usize) -> f64 {
        if self.count[history] > 0.0 { self.given[history] / self.count[history] } else { 1.0 }
    }
}

/// Where an n-gram stands among sorted ones of its order.
fn find(words: &[WordId], ngram: &[WordId]) -> Option<usize> {
    let order = ngram.len();
    let (mut low, mut high) = (0, words.len() / order);
    while low < high {
        let middle = low + (high - low) / 2;
        match words[middle * order..][..order].cmp(ngram) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Equal => return Some(middle),
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}

#[cfg(test)]
mod tests;
