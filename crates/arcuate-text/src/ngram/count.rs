//! Counting n-grams of one order: sorted arrays that are merged, so that memory follows the number of distinct n-grams.
//!
//! An n-gram is stored with its last word first, hence sorting puts those with a common end side by side.

use super::WordId;
use rayon::slice::ParallelSliceMut;

/// N-grams are collected up to this number, or half of the distinct ones so far, before they are sorted and merged.
const MIN_PENDING: usize = 1 << 22;

/// Distinct n-grams of one order, sorted, with their counts.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// All n-grams one after another, each with its last word first.
    pub(super) words: Vec<WordId>,
    pub(super) counts: Vec<u64>,
}

/// Takes n-grams in any order.
///
/// Memory: `4 * order + 8` bytes for each distinct n-gram, twice while they are merged, and `4 * order + 4` bytes for
/// each of those that wait.
pub(super) struct Counter {
    order: usize,
    pending: Vec<WordId>,
    counted: Counted,
}

impl Counter {
    pub(super) fn new(order: usize) -> Self {
        Self { order, pending: Vec::new(), counted: Counted::default() }
    }

    /// Counts all n-grams of a sentence; `words` begins with the padding that gives its first word a full history.
    pub(super) fn add(&mut self, words: &[WordId]) {
        for ngram in words.windows(self.order) {
            self.pending.extend(ngram.iter().rev());
        }
        let num_pending = self.pending.len() / self.order;
        if num_pending >= MIN_PENDING.max(self.counted.counts.len() / 2) {
            self.merge();
        }
    }

    pub(super) fn finish(mut self) -> Counted {
        self.merge();
        self.counted
    }

    fn merge(&mut self) {
        let order = self.order;
        let ngram = |at: u32| &self.pending[at as usize * order..][..order];
        let mut sorted: Vec<u32> = (0..(self.pending.len() / order) as u32).collect();
        sorted.par_sort_unstable_by(|a, b| ngram(*a).cmp(ngram(*b)));
        let mut merged = Counted::default();
        let mut old = self.counted.words.chunks_exact(order).zip(&self.counted.counts).peekable();
        for equal in sorted.chunk_by(|a, b| ngram(*a) == ngram(*b)) {
            let new = ngram(equal[0]);
            let mut count = equal.len() as u64;
            while let Some((words, num)) = old.next_if(|(words, _)| *words <= new) {
                if words == new {
                    count += num;
                } else {
                    merged.push(words, *num);
                }
            }
            merged.push(new, count);
        }
        old.for_each(|(words, count)| merged.push(words, *count));
        self.counted = merged;
        self.pending.clear();
    }
}

impl Counted {
    pub(super) fn push(&mut self, words: &[WordId], count: u64) {
        self.words.extend_from_slice(words);
        self.counts.push(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_often_counts_as_merging_once() {
        let sentences = [[1, 3, 4, 2], [1, 4, 3, 2], [1, 3, 4, 2]];
        let mut once = Counter::new(2);
        let mut often = Counter::new(2);
        for sentence in sentences {
            once.add(&sentence);
            often.add(&sentence);
            often.merge();
        }
        let (once, often) = (once.finish(), often.finish());
        assert_eq!(once.words, [2, 3, 2, 4, 3, 1, 3, 4, 4, 1, 4, 3]);
        assert_eq!(once.counts, [1, 2, 2, 1, 1, 2]);
        assert_eq!((once.words, once.counts), (often.words, often.counts));
    }
}
