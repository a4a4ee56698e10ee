//! Learning pair merges from counted words, for byte-level BPE and WordPiece.
//!
//! The trainers of the `tokenizers` crate walk through randomly seeded hash maps: with equal counts, and with
//! WordPiece always, two runs over the same text can give different vocabularies. Here every choice is
//! ordered (highest count, then lowest pair of ids), so the same counts give the same vocabulary,
//! and counts are 64 bits wide.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

type Pair = (u32, u32);

/// How far to merge.
pub(crate) struct Limits<'a> {
    pub(crate) vocab_size: usize,
    /// Pairs seen less often are not merged.
    pub(crate) min_count: u64,
    /// What marks a piece inside a word, such as `##`.
    pub(crate) continuation: &'a str,
}

/// The vocabulary in id order and the merges in the order they were learnt.
pub(crate) struct Merges {
    pub(crate) vocab: Vec<String>,
    pub(crate) merges: Vec<(String, String)>,
}

/// Extends `vocab`, which already spells every character of every word, by merging the most frequent pairs.
pub(crate) fn learn(words: &[(String, u64)], vocab: Vec<String>, limits: &Limits<'_>) -> Merges {
    let ids: HashMap<String, u32> = vocab.iter().zip(0u32..).map(|(token, id)| (token.clone(), id)).collect();
    let mut state = State::new(words, &ids, limits.continuation);
    let mut learnt = Merges { vocab, merges: Vec::new() };
    let mut ids = ids;
    let mut rules: HashMap<Pair, u32> = HashMap::new();
    while learnt.vocab.len() < limits.vocab_size {
        let Some((pair, count)) = state.most_frequent() else { break };
        if count < limits.min_count.max(1) {
            break;
        }
        let merged = *rules.entry(pair).or_insert_with(|| {
            let left = learnt.vocab[pair.0 as usize].clone();
            let right = learnt.vocab[pair.1 as usize].clone();
            let token = format!("{left}{}", right.strip_prefix(limits.continuation).unwrap_or(&right));
            learnt.merges.push((left, right));
            // Two ways of merging can spell the same token; it keeps its first id.
            let next = learnt.vocab.len() as u32;
            *ids.entry(token).or_insert_with_key(|token| {
                learnt.vocab.push(token.clone());
                next
            })
        });
        state.merge(pair, merged);
    }
    learnt
}

/// Words as ids, with the count and the places of each pair of neighbours.
struct State {
    words: Vec<(Vec<u32>, u64)>,
    counts: HashMap<Pair, u64>,
    places: HashMap<Pair, Vec<u32>>,
    /// May hold outdated counts; the true one is in `counts`.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl State {
    fn new(words: &[(String, u64)], ids: &HashMap<String, u32>, continuation: &str) -> Self {
        let mut state = Self {
            words: Vec::with_capacity(words.len()),
            counts: HashMap::new(),
            places: HashMap::new(),
            queue: BinaryHeap::new(),
        };
        let mut key = String::new();
        for (word, count) in words {
            let spelled = word.char_indices().filter_map(|(at, letter)| {
                key.clear();
                if at > 0 {
                    key.push_str(continuation);
                }
                key.push(letter);
                ids.get(&key).copied()
            });
            let spelled: Vec<u32> = spelled.collect();
            let place = state.words.len() as u32;
            for pair in pairs(&spelled) {
                *state.counts.entry(pair).or_default() += count;
                state.places.entry(pair).or_default().push(place);
            }
            state.words.push((spelled, *count));
        }
        state.queue = state.counts.iter().map(|(pair, count)| (*count, Reverse(*pair))).collect();
        state
    }

    fn most_frequent(&mut self) -> Option<(Pair, u64)> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let now = self.counts.get(&pair).copied().unwrap_or(0);
            if now == count && now > 0 {
                return Some((pair, count));
            }
            if now > 0 && now < count {
                self.queue.push((now, Reverse(pair)));
            }
        }
        None
    }

    fn merge(&mut self, pair: Pair, merged: u32) {
        let mut grown: Vec<Pair> = Vec::new();
        for place in self.places.remove(&pair).unwrap_or_default() {
            let (word, count) = &mut self.words[place as usize];
            if !pairs(word).any(|p| p == pair) {
                continue;
            }
            for old in pairs(word) {
                if let Some(n) = self.counts.get_mut(&old) {
                    *n -= *count;
                }
            }
            replace(word, pair, merged);
            for new in pairs(word) {
                *self.counts.entry(new).or_default() += *count;
                if new.0 == merged || new.1 == merged {
                    self.places.entry(new).or_default().push(place);
                    grown.push(new);
                }
            }
        }
        self.counts.remove(&pair);
        grown.sort_unstable();
        grown.dedup();
        for pair in grown {
            if let Some(count) = self.counts.get(&pair) {
                self.queue.push((*count, Reverse(pair)));
            }
        }
    }
}

fn pairs(word: &[u32]) -> impl Iterator<Item = Pair> {
    word.windows(2).map(|two| (two[0], two[1]))
}

fn replace(word: &mut Vec<u32>, pair: Pair, merged: u32) {
    let mut kept = 0;
    let mut at = 0;
    while at < word.len() {
        let hit = at + 1 < word.len() && (word[at], word[at + 1]) == pair;
        word[kept] = if hit { merged } else { word[at] };
        at += if hit { 2 } else { 1 };
        kept += 1;
    }
    word.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::Trainer;
    use tokenizers::models::bpe::{BPE, BpeTrainer};

    fn words(list: &[(&str, u64)]) -> Vec<(String, u64)> {
        list.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
    }

    fn letters(words: &[(String, u64)], continuation: &str) -> Vec<String> {
        let mut all: Vec<String> = words.iter().flat_map(|(w, _)| w.chars().map(String::from)).collect();
        all.sort();
        all.dedup();
        if !continuation.is_empty() {
            all.extend(all.clone().iter().map(|letter| format!("{continuation}{letter}")));
        }
        all
    }

    #[test]
    fn the_most_frequent_pair_is_merged_first() {
        let words = words(&[("hug", 10), ("pug", 5), ("pun", 12), ("bun", 4), ("hugs", 5)]);
        let limits = Limits { vocab_size: 10, min_count: 1, continuation: "" };
        let learnt = learn(&words, letters(&words, ""), &limits);
        assert_eq!(learnt.vocab[7..], ["ug", "un", "hug"]);
    }

    #[test]
    fn agrees_with_the_trainer_of_the_tokenizers_crate() {
        let list = [("banana", 17), ("bandana", 5), ("ananas", 11), ("nana", 3), ("cabana", 29), ("mmmmm", 2)];
        let words = words(&list);
        let limits = Limits { vocab_size: 24, min_count: 1, continuation: "" };
        let learnt = learn(&words, letters(&words, ""), &limits);
        let mut trainer = BpeTrainer::builder().vocab_size(24).show_progress(false).build();
        let repeated: Vec<&str> =
            list.iter().flat_map(|(word, count)| std::iter::repeat_n(*word, *count as usize)).collect();
        trainer.feed(repeated.iter(), |word| Ok(vec![word.to_owned()])).expect("words");
        let mut model = BPE::default();
        trainer.train(&mut model).expect("trains");
        for (id, token) in learnt.vocab.iter().enumerate() {
            assert_eq!(model.get_vocab().get(token), Some(&(id as u32)), "{token}");
        }
    }

    #[test]
    fn equal_counts_fall_to_the_lowest_ids() {
        let words = words(&[("ab", 2), ("cd", 2), ("ef", 2)]);
        let limits = Limits { vocab_size: 8, min_count: 1, continuation: "" };
        assert_eq!(learn(&words, letters(&words, ""), &limits).vocab[6..], ["ab", "cd"]);
    }

    #[test]
    fn rare_pairs_are_left_alone() {
        let words = words(&[("ab", 2), ("cd", 1)]);
        let limits = Limits { vocab_size: 99, min_count: 2, continuation: "" };
        assert_eq!(learn(&words, letters(&words, ""), &limits).vocab[4..], ["ab"]);
    }

    #[test]
    fn continuations_are_marked_once() {
        let words = words(&[("abc", 3), ("xbc", 3)]);
        let limits = Limits { vocab_size: 99, min_count: 1, continuation: "##" };
        let learnt = learn(&words, letters(&words, "##"), &limits);
        assert_eq!(learnt.vocab[8..], ["##bc", "abc", "xbc"]);
    }

    #[test]
    fn counts_beyond_32_bits_do_not_overflow() {
        let words = words(&[("ab", 6_000_000_000), ("cd", 5_000_000_000)]);
        let limits = Limits { vocab_size: 5, min_count: 1, continuation: "" };
        assert_eq!(learn(&words, letters(&words, ""), &limits).vocab[4..], ["ab"]);
    }

    #[test]
    fn repeated_letters_merge_from_the_left() {
        let mut word = vec![1, 1, 1, 1, 1];
        replace(&mut word, (1, 1), 2);
        assert_eq!(word, [2, 2, 1]);
    }
}
