//! Counting the words of a stream of texts, in parallel and in bounded memory.
//!
//! Sums do not depend on the order of addition, and rare words are only forgotten between batches of fixed
//! size, so the counts are a pure function of the texts.

use crate::{Error, Result};
use rayon::prelude::*;
use std::collections::HashMap;

/// Texts are counted in batches of about this size.
const BATCH_BYTES: usize = 8 << 20;
/// With more distinct words than this, those seen once are forgotten.
const MAX_WORDS: usize = 6_000_000;
/// Longer words are counted as several: text without spaces must not become one endless word.
const MAX_WORD_CHARS: usize = 128;

/// Counts the words that `cut` finds in each text; sorted by word.
pub(crate) fn count_words(
    texts: &mut (dyn Iterator<Item = String> + Send),
    cut: impl Fn(&str, &mut dyn FnMut(&str)) -> Result<()> + Sync,
) -> Result<Vec<(String, u64)>> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    loop {
        let mut batch = Vec::new();
        let mut num_bytes = 0;
        while num_bytes < BATCH_BYTES {
            let Some(text) = texts.next() else { break };
            num_bytes += text.len();
            batch.push(text);
        }
        if batch.is_empty() {
            break;
        }
        let parts: Vec<&str> = batch.iter().flat_map(|text| parts(text, PART_BYTES)).collect();
        let counted = parts
            .par_iter()
            .try_fold(HashMap::new, |mut counts, part| {
                cut(part, &mut |word| add_word(&mut counts, word))?;
                Ok::<_, Error>(counts)
            })
            .try_reduce(HashMap::new, |a, b| Ok(merge(a, b)))?;
        counts = merge(counts, counted);
        if counts.len() > MAX_WORDS {
            counts.retain(|_, count| *count > 1);
        }
    }
    if counts.is_empty() {
        return Err(Error::EmptyCorpus);
    }
    let mut words: Vec<(String, u64)> = counts.into_iter().collect();
    words.sort_unstable();
    Ok(words)
}

/// Long texts are cut into parts of about this size, so that all cores have work and memory stays small.
pub(crate) const PART_BYTES: usize = 1 << 16;

/// Cuts a text before a space that follows a visible character and precedes a letter. None of the
/// tokenizers trained here has a token that reaches over such a place.
pub(crate) fn parts(text: &str, part_bytes: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (part, tail) = rest.split_at(safe_end(rest, part_bytes));
        rest = tail;
        Some(part)
    })
}

fn safe_end(text: &str, part_bytes: usize) -> usize {
    let bytes = text.as_bytes();
    let visible = |byte: u8| byte.is_ascii_graphic();
    (part_bytes..bytes.len().saturating_sub(1))
        .find(|&at| {
            bytes[at] == b' ' && visible(bytes[at - 1]) && bytes[at + 1].is_ascii_alphabetic()
                || bytes[at] == b' '
                    && at > part_bytes * 2
                    && ends_letter(&text[..at])
                    && starts_letter(&text[at + 1..])
        })
        .unwrap_or(bytes.len())
}

fn ends_letter(text: &str) -> bool {
    text.chars().next_back().is_some_and(char::is_alphabetic)
}

fn starts_letter(text: &str) -> bool {
    text.chars().next().is_some_and(char::is_alphabetic)
}

fn add_word(counts: &mut HashMap<String, u64>, word: &str) {
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.char_indices().nth(MAX_WORD_CHARS).map_or(rest.len(), |(at, _)| at);
        let (head, tail) = rest.split_at(end);
        match counts.get_mut(head) {
            Some(count) => *count += 1,
            None => {
                counts.insert(head.to_owned(), 1);
            }
        }
        rest = tail;
    }
}

fn merge(a: HashMap<String, u64>, b: HashMap<String, u64>) -> HashMap<String, u64> {
    let (mut large, small) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    for (word, count) in small {
        *large.entry(word).or_default() += count;
    }
    large
}

/// The characters of the words with their counts, most frequent first, then by code point.
pub(crate) fn characters(words: &[(String, u64)]) -> Vec<(char, u64)> {
    let mut counts: HashMap<char, u64> = HashMap::new();
    for (word, count) in words {
        for letter in word.chars() {
            *counts.entry(letter).or_default() += count;
        }
    }
    let mut all: Vec<(char, u64)> = counts.into_iter().collect();
    all.sort_unstable_by_key(|(letter, count)| (std::cmp::Reverse(*count), *letter));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_spaces(text: &str, found: &mut dyn FnMut(&str)) -> Result<()> {
        text.split_whitespace().for_each(found);
        Ok(())
    }

    #[test]
    fn words_are_counted_over_all_texts_and_sorted() {
        let texts = ["b a", "a c a", ""].map(str::to_owned);
        let counts = count_words(&mut texts.into_iter(), by_spaces).expect("not empty");
        assert_eq!(counts, [("a".to_owned(), 3), ("b".to_owned(), 1), ("c".to_owned(), 1)]);
    }

    #[test]
    fn nothing_to_count_is_an_error() {
        let none = count_words(&mut std::iter::empty(), by_spaces);
        assert!(matches!(none, Err(Error::EmptyCorpus)));
        let blank = count_words(&mut std::iter::once(" \n ".to_owned()), by_spaces);
        assert!(matches!(blank, Err(Error::EmptyCorpus)));
    }

    #[test]
    fn an_endless_word_is_counted_in_pieces() {
        let counts = count_words(&mut std::iter::once("é".repeat(1000)), by_spaces).expect("not empty");
        assert!(counts.iter().all(|(word, _)| word.chars().count() <= MAX_WORD_CHARS));
        assert_eq!(counts.iter().map(|(w, n)| w.chars().count() as u64 * n).sum::<u64>(), 1000);
    }

    #[test]
    fn parts_join_to_the_text_and_break_before_words() {
        for text in ["one two three  four. five\n six", "жили были дед да баба", "", "aaaa"] {
            let cut: Vec<&str> = parts(text, 4).collect();
            assert_eq!(cut.concat(), text);
            for part in cut.iter().skip(1) {
                assert!(part.starts_with(' ') && starts_letter(&part[1..]), "{cut:?}");
            }
        }
        assert!(parts("жили были дед да баба", 4).count() > 1);
    }
}
