//! The state of a lexicon beam search between two frames.

use arcuate_text::ngram::State;
use rustc_hash::FxHashMap;

use super::super::hypothesis::word;
use super::super::paths::{NONE, Paths};
use super::super::trie::{NodeId, ROOT};
use super::super::{Hypothesis, Token, Word, log_add};
use super::{LexiconBeam, UNKNOWN_TEXT};
use crate::{Error, Result};

/// How often tokens and words of dead hypotheses are forgotten.
const COMPACT_FRAMES: u32 = 64;

/// What two hypotheses must share to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    context: u32,
    node: NodeId,
    /// The last token, or `NONE` before the first.
    token: u32,
    after_blank: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Key,
    score: f64,
    /// The part of the score that is not from emissions, the look-ahead included.
    lm: f64,
    /// The last token on the best path, its confidence as a logarithm, and the word it ends.
    last: Option<Token>,
    word: u32,
    /// The tokens before it.
    before: u32,
    /// The chain with the last token, once a longer hypothesis needs it.
    closed: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    key: Key,
    score: f64,
    lm: f64,
    from: u32,
    last: Option<Token>,
    word: u32,
    /// Whether `last` is new, or the last token of `from` went on.
    is_new: bool,
}

/// The words before a place, numbered.
///
/// If one word sequence is wanted, and the better of two paths counts, sequences that the language model cannot tell
/// apart have one number, since the worse one can never win. Otherwise each sequence has its own.
#[derive(Debug)]
struct Contexts {
    states: Vec<Option<State>>,
    by_state: Option<FxHashMap<Option<State>, u32>>,
    by_words: FxHashMap<(u32, u32), u32>,
}

#[derive(Debug)]
pub(super) struct Search<'a> {
    beam: &'a LexiconBeam,
    paths: Paths,
    contexts: Contexts,
    entries: Vec<Entry>,
    candidates: Vec<Candidate>,
    /// Scores and places of the candidates of the next beam.
    chosen: Vec<(f64, u32)>,
    places: FxHashMap<Key, usize>,
    is_followed: Vec<bool>,
    frame: u32,
    best: f64,
}

impl Contexts {
    fn new(begin: Option<State>, merges_states: bool) -> Self {
        let by_state = merges_states.then(|| FxHashMap::from_iter([(begin, 0)]));
        Self { states: vec![begin], by_state, by_words: FxHashMap::default() }
    }

    /// The context after one word more (`NONE`: an unknown one), and the weighted score of that word.
    fn after(&mut self, beam: &LexiconBeam, context: u32, word: u32) -> (u32, f64) {
        let (score, next) =
            beam.word_score(&self.states[context as usize], if word == UNKNOWN { None } else { Some(word) });
        let states = &mut self.states;
        let number = || {
            states.push(next);
            (states.len() - 1) as u32
        };
        let after = match &mut self.by_state {
            Some(by_state) => *by_state.entry(next).or_insert_with(number),
            None => *self.by_words.entry((context, word)).or_insert_with(number),
        };
        (after, score)
    }

    /// Forgets contexts that no entry has, and renumbers those of the entries.
    fn compact(&mut self, entries: &mut [Entry]) {
        let mut renumbered = vec![NONE; self.states.len()];
        let mut kept = Vec::new();
        for entry in entries {
            let context = &mut entry.key.context;
            let number = &mut renumbered[*context as usize];
            if *number == NONE {
                *number = kept.len() as u32;
                kept.push(self.states[*context as usize]);
            }
            *context = *number;
        }
        self.states = kept;
        if let Some(by_state) = &mut self.by_state {
            *by_state = self.states.iter().copied().zip(0..).collect();
        }
        let number = |context: u32| renumbered[context as usize];
        let pairs = self.by_words.iter().map(|((before, word), after)| ((number(*before), *word), number(*after)));
        self.by_words = pairs.filter(|((before, _), after)| *before != NONE && *after != NONE).collect();
    }
}

/// The number of the unknown word.
const UNKNOWN: u32 = NONE - 1;

impl<'a> Search<'a> {
    pub(super) fn new(beam: &'a LexiconBeam) -> Self {
        let begin = beam.model.as_ref().map(|model| model.ngram.begin());
        let merges_states = beam.config.num_hypotheses == 1 && !beam.config.log_add;
        let token = beam.alphabet.boundary().unwrap_or(NONE);
        let key = Key { context: 0, node: ROOT, token, after_blank: false };
        let entry = Entry { key, score: 0.0, lm: 0.0, last: None, word: NONE, before: NONE, closed: None };
        Self {
            beam,
            paths: Paths::default(),
            contexts: Contexts::new(begin, merges_states),
            entries: vec![entry],
            candidates: Vec::new(),
            chosen: Vec::new(),
            places: FxHashMap::default(),
            is_followed: vec![true; beam.alphabet.num_tokens()],
            frame: 0,
            best: f64::NEG_INFINITY,
        }
    }

    pub(super) fn step(&mut self, row: &[f32]) -> Result<()> {
        self.choose_tokens(row);
        self.candidates.clear();
        self.best = f64::NEG_INFINITY;
        (0..self.entries.len()).for_each(|at| self.stay(at, row));
        (0..self.entries.len()).for_each(|at| self.extend(at, row));
        self.merge();
        if self.candidates.is_empty() {
            return Err(Error::NoPath { frame: self.frame as usize });
        }
        let width = self.beam.config.beam_width;
        self.chosen.clear();
        self.chosen.extend((0u32..).zip(&self.candidates).map(|(at, candidate)| (candidate.score, at)));
        if self.chosen.len() > width {
            self.chosen.select_nth_unstable_by(width - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            self.chosen.truncate(width);
        }
        self.make_entries();
        self.frame += 1;
        if self.frame.is_multiple_of(COMPACT_FRAMES) {
            self.paths.compact(self.entries.iter().map(|entry| entry.before), 0);
            self.entries.iter_mut().for_each(|entry| entry.before = self.paths.renumbered(entry.before));
            self.contexts.compact(&mut self.entries);
        }
        Ok(())
    }

    fn choose_tokens(&mut self, row: &[f32]) {
        let Some(num) = self.beam.config.num_tokens.filter(|num| *num < row.len()) else { return };
        let mut order: Vec<u32> = (0..row.len() as u32).collect();
        let by_value = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
        order.select_nth_unstable_by(num - 1, by_value);
        self.is_followed.fill(false);
        order[..num].iter().for_each(|token| self.is_followed[*token as usize] = true);
    }

    /// What a token adds in this frame, for the emissions and beside them.
    fn emission(&self, row: &[f32], token: u32) -> (f64, f64) {
        let beside = if Some(token) == self.beam.alphabet.boundary() { self.beam.config.boundary_score } else { 0.0 };
        (f64::from(row[token as usize]), beside)
    }

    /// The last token once more, the boundary between words, and the blank.
    fn stay(&mut self, at: usize, row: &[f32]) {
        let entry = self.entries[at];
        let Key { node, token, after_blank, .. } = entry.key;
        let boundary = self.beam.alphabet.boundary();
        let again = if node == ROOT && boundary.is_some() { boundary } else { Some(token) };
        if let Some(again) =
            again.filter(|again| *again != NONE && (!after_blank || (node == ROOT && boundary.is_some())))
        {
            let (emission, beside) = self.emission(row, again);
            let key = Key { token: again, after_blank: false, ..entry.key };
            match entry.last.filter(|last| last.id == again && !after_blank) {
                Some(mut last) => {
                    last.end_frame = self.frame + 1;
                    last.confidence = last.confidence.max(row[again as usize]);
                    self.offer(at, key, emission, beside, Some(last), entry.word, false);
                }
                None => {
                    let last = self.token(again, row);
                    self.offer(at, key, emission, beside, Some(last), NONE, true);
                }
            }
        }
        let (emission, beside) = self.emission(row, self.beam.alphabet.blank());
        self.offer(at, Key { after_blank: true, ..entry.key }, emission, beside, entry.last, entry.word, false);
    }

    /// The tokens that follow in the tree, and the words they end.
    fn extend(&mut self, at: usize, row: &[f32]) {
        let beam = self.beam;
        let Key { context, node, token, after_blank } = self.entries[at].key;
        let has_boundary = beam.alphabet.boundary().is_some();
        let looked_ahead = beam.look_ahead[node as usize];
        for (next, child) in beam.trie.children(node) {
            if !self.is_followed[next as usize] {
                continue;
            }
            let (emission, beside) = self.emission(row, next);
            let last = Some(self.token(next, row));
            let repeats = next == token && !after_blank;
            if !repeats && beam.trie.has_children(child) {
                let ahead = beam.look_ahead[child as usize] - looked_ahead;
                let key = Key { context, node: child, token: next, after_blank: false };
                self.offer(at, key, emission, beside + ahead, last, NONE, true);
            }
            // With a boundary only words of one token are kept from following from their own last token.
            let forbidden = if has_boundary { node == ROOT && next == token } else { repeats };
            if forbidden {
                continue;
            }
            let words = beam.trie.values(child);
            for word in words {
                self.offer_word(at, *word, next, emission, beside + beam.config.word_score, last);
            }
            if let Some(score) = beam.config.unknown_word_score.filter(|_| words.is_empty()) {
                self.offer_word(at, UNKNOWN, next, emission, beside + score, last);
            }
        }
    }

    fn offer_word(&mut self, at: usize, word: u32, token: u32, emission: f64, beside: f64, last: Option<Token>) {
        let Key { context, node, .. } = self.entries[at].key;
        let (context, lm) = self.contexts.after(self.beam, context, word);
        let key = Key { context, node: ROOT, token, after_blank: false };
        self.offer(at, key, emission, beside + lm - self.beam.look_ahead[node as usize], last, word, true);
    }

    #[expect(clippy::too_many_arguments)]
    fn offer(&mut self, at: usize, key: Key, emission: f64, beside: f64, last: Option<Token>, word: u32, is_new: bool) {
        let entry = &self.entries[at];
        let score = entry.score + emission + beside;
        if score == f64::NEG_INFINITY || score < self.best - self.beam.config.beam_threshold {
            return;
        }
        self.best = self.best.max(score);
        self.candidates.push(Candidate { key, score, lm: entry.lm + beside, from: at as u32, last, word, is_new });
    }

    fn token(&self, id: u32, row: &[f32]) -> Token {
        Token { id, start_frame: self.frame, end_frame: self.frame + 1, confidence: row[id as usize] }
    }

    /// Drops what is far from the best, then makes those one that share their key.
    fn merge(&mut self) {
        let limit = self.best - self.beam.config.beam_threshold;
        self.places.clear();
        let mut num_kept = 0;
        for at in 0..self.candidates.len() {
            let candidate = self.candidates[at];
            if candidate.score < limit {
                continue;
            }
            let place = *self.places.entry(candidate.key).or_insert(num_kept);
            if place == num_kept {
                self.candidates[num_kept] = candidate;
                num_kept += 1;
                continue;
            }
            let same = &mut self.candidates[place];
            let sum = if self.beam.config.log_add { log_add(same.score, candidate.score) } else { f64::NEG_INFINITY };
            if candidate.score > same.score {
                *same = candidate;
            }
            same.score = same.score.max(sum);
        }
        self.candidates.truncate(num_kept);
    }

    fn make_entries(&mut self) {
        let mut entries = Vec::with_capacity(self.candidates.len());
        for at in 0..self.chosen.len() {
            let Candidate { key, score, lm, from, last, word, is_new } = self.candidates[self.chosen[at].1 as usize];
            let before = if is_new { self.close(from) } else { self.entries[from as usize].before };
            entries.push(Entry { key, score, lm, last, word, before, closed: None });
        }
        self.entries = entries;
    }

    fn close(&mut self, entry: u32) -> u32 {
        let entry = &mut self.entries[entry as usize];
        let Some(last) = entry.last else { return NONE };
        *entry.closed.get_or_insert_with(|| self.paths.push(entry.before, last, entry.word))
    }

    /// The word sequences, the best first: of the hypotheses between words, else of those within one.
    pub(super) fn finish(mut self) -> Vec<Hypothesis> {
        let is_complete = self.entries.iter().any(|entry| entry.key.node == ROOT);
        if is_complete {
            self.entries.retain(|entry| entry.key.node == ROOT);
        }
        for entry in &mut self.entries {
            let end = self.beam.end_score(&self.contexts.states[entry.key.context as usize]);
            (entry.score, entry.lm) = (entry.score + end, entry.lm + end);
        }
        self.entries.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut found: Vec<Hypothesis> = Vec::new();
        let mut ends: FxHashMap<(u32, NodeId), usize> = FxHashMap::default();
        for at in 0..self.entries.len() {
            let Entry { key, score, lm, .. } = self.entries[at];
            // The same words: the better path counts, or both.
            if let Some(same) = ends.get(&(key.context, key.node)) {
                if self.beam.config.log_add {
                    let same = &mut found[*same];
                    same.score = log_add(same.score, score);
                    same.acoustic_score = same.score - same.lm_score;
                }
                continue;
            }
            ends.insert((key.context, key.node), found.len());
            let last = self.close(at as u32);
            let mut path = self.paths.collect(last);
            path.iter_mut().for_each(|(token, _)| token.confidence = token.confidence.exp());
            let mut hypothesis =
                Hypothesis::new(self.words(&path), path.into_iter().map(|(token, _)| token).collect(), score - lm, lm);
            hypothesis.is_complete = is_complete;
            found.push(hypothesis);
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(self.beam.config.num_hypotheses);
        found
    }

    /// The words of a path; an unfinished one has no text of the lexicon and is written by its tokens.
    fn words(&self, path: &[(Token, u32)]) -> Vec<Word> {
        let boundary = self.beam.alphabet.boundary();
        let mut words = Vec::new();
        let mut tokens: Vec<Token> = Vec::new();
        for (token, ended) in path {
            if Some(token.id) != boundary {
                tokens.push(*token);
            }
            if *ended != NONE {
                // A word that is spelled by the boundary alone lies there.
                let of = if tokens.is_empty() { vec![*token] } else { std::mem::take(&mut tokens) };
                let known = |word: u32| self.beam.words[word as usize].clone();
                let text = if *ended == UNKNOWN { UNKNOWN_TEXT.to_owned() } else { known(*ended) };
                words.extend(word(text, &of));
            }
        }
        let rest = tokens.iter().map(|token| self.beam.alphabet.text(token.id)).collect();
        words.extend(word(rest, &tokens));
        words
    }
}
