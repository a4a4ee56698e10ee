//! Overlap: how much of a task's vocabulary a corpus has.
//!
//! # What it computes
//! With the tokens of the task Q and the corpus P: the share of Q's types that occur in P, and the share of Q's tokens whose type
//! occurs in P.
//! # Reference
//! Gross et al. 2025 (tiny language models).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Shares between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// Share of the task's types.
    pub types: f64,
    /// Share of the task's tokens.
    pub tokens: f64,
    /// Types of the task.
    pub num_types: u64,
    /// Tokens of the task.
    pub num_tokens: u64,
}

/// Overlap of a task with a corpus; `None` for a task without tokens.
pub fn overlap<T: Ord>(corpus: impl IntoIterator<Item = T>, task: impl IntoIterator<Item = T>) -> Option<Overlap> {
    let corpus: BTreeSet<T> = corpus.into_iter().collect();
    let mut counts: BTreeMap<T, u64> = BTreeMap::new();
    task.into_iter().for_each(|token| *counts.entry(token).or_default() += 1);
    let num_tokens: u64 = counts.values().sum();
    let shared = || counts.iter().filter(|(token, _)| corpus.contains(token));
    let shared_tokens: u64 = shared().map(|(_, count)| count).sum();
    (num_tokens > 0).then(|| Overlap {
        types: shared().count() as f64 / counts.len() as f64,
        tokens: shared_tokens as f64 / num_tokens as f64,
        num_types: counts.len() as u64,
        num_tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_tokens_are_counted_apart() {
        let found = overlap("abc".chars(), "aabd".chars()).expect("tokens");
        assert!((found.types - 2.0 / 3.0).abs() < 1e-12 && (found.tokens - 0.75).abs() < 1e-12);
        assert_eq!((found.num_types, found.num_tokens), (3, 4));
    }

    #[test]
    fn a_corpus_covers_itself_and_nothing_covers_nothing() {
        let found = overlap("xyz".chars(), "zyx".chars()).expect("tokens");
        assert_eq!((found.types, found.tokens), (1.0, 1.0));
        assert_eq!(overlap("".chars(), "a".chars()).expect("tokens").tokens, 0.0);
        assert_eq!(overlap("a".chars(), "".chars()), None);
    }
}
