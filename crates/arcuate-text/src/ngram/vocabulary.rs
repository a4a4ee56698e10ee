//! Words and their numbers. A KenLM binary may hold only the hashes of its words, so hashes are what is looked up.

use super::WordId;
use super::table::{NotSpread, Table};

/// The number of the unknown word.
pub(super) const UNKNOWN: WordId = 0;

/// Words by number and numbers by word.
#[derive(Debug, Clone)]
pub(super) struct Vocabulary {
    ids: Table<WordId>,
    /// All words one after another; empty if only hashes are known.
    text: String,
    /// Where each word ends in `text`.
    ends: Vec<usize>,
    /// One more than the largest number.
    num_words: usize,
}

impl Vocabulary {
    /// Only the unknown word, with the given room for more.
    pub(super) fn with_capacity(num_words: usize) -> Self {
        let text = "<unk>".to_owned();
        Self { ids: Table::with_capacity(num_words), ends: vec![text.len()], text, num_words: 1 }
    }

    /// Numbers of which only the hashes of the words are known, and the words themselves if the file has them.
    pub(super) fn from_hashes(ids: Table<WordId>, num_words: usize, words: Option<(String, Vec<usize>)>) -> Self {
        let (text, ends) = words.unwrap_or_default();
        Self { ids, text, ends, num_words }
    }

    /// Adds a word; `None` if it is there already.
    pub(super) fn add(&mut self, word: &str) -> Result<Option<WordId>, NotSpread> {
        let id = self.num_words as WordId;
        if !self.ids.insert(hash(word.as_bytes()), id)? {
            return Ok(None);
        }
        self.text.push_str(word);
        self.ends.push(self.text.len());
        self.num_words += 1;
        Ok(Some(id))
    }

    pub(super) fn len(&self) -> usize {
        self.num_words
    }

    pub(super) fn id(&self, word: &str) -> Option<WordId> {
        if is_unknown(word) { Some(UNKNOWN) } else { self.ids.get(hash(word.as_bytes())) }
    }

    /// All words by number, the unknown one first; `None` if only their hashes are known.
    pub(super) fn words(&self) -> Option<impl Iterator<Item = &str>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        (!self.ends.is_empty()).then(|| starts.zip(&self.ends).map(|(start, end)| &self.text[start..*end]))
    }
}

/// Whether a word stands for all unknown words; some files write it in capitals.
pub(super) fn is_unknown(word: &str) -> bool {
    word == "<unk>" || word == "<UNK>"
}

/// MurmurHash64A with seed 0, which KenLM's files use for words.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |word: u64| {
        let word = word.wrapping_mul(FACTOR);
        (word ^ (word >> 47)).wrapping_mul(FACTOR)
    };
    let mut hash = (bytes.len() as u64).wrapping_mul(FACTOR);
    let (blocks, tail) = bytes.as_chunks::<8>();
    for block in blocks {
        hash = (hash ^ mix(u64::from_le_bytes(*block))).wrapping_mul(FACTOR);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(FACTOR);
    }
    hash = (hash ^ (hash >> 47)).wrapping_mul(FACTOR);
    hash ^ (hash >> 47)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_get_numbers_in_order_and_are_found_again() {
        let mut vocabulary = Vocabulary::with_capacity(2);
        assert_eq!(vocabulary.add("a"), Ok(Some(1)));
        assert_eq!(vocabulary.add("ä longer word"), Ok(Some(2)));
        assert_eq!(vocabulary.add("a"), Ok(None));
        assert_eq!(vocabulary.id("ä longer word"), Some(2));
        assert_eq!((vocabulary.id("<UNK>"), vocabulary.id("b")), (Some(0), None));
        let words: Vec<&str> = vocabulary.words().expect("known").collect();
        assert_eq!(words, ["<unk>", "a", "ä longer word"]);
    }
}
