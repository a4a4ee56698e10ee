//! Decoding while the recording goes on.

use std::sync::Arc;

use super::hypothesis::WordBuilder;
use super::prefix_beam::{PrefixBeam, Search};
use super::{Emissions, Hypothesis, Word, words};
use crate::{Error, Result};

/// What is known after some frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Partial {
    /// Words that were settled by these frames; they will not change.
    pub settled: Vec<Word>,
    /// The best words after all settled ones; they may change.
    pub pending: Vec<Word>,
}

/// A prefix beam search that takes frames as they come.
///
/// A word is settled once all texts in the beam share it and go on behind it, which is looked at every 16 frames. With a
/// limit it is settled at the latest that many frames (rounded up to 16) after its last token ended and another token
/// began, by dropping texts that disagree with the best one. Without a limit the result is that of decoding the whole
/// at once, and nothing bounds how long texts may disagree. Memory grows with what is not settled, and by 16 bytes for
/// each settled token.
#[derive(Debug)]
pub struct CtcStream {
    beam: Arc<PrefixBeam>,
    search: Search,
    builder: WordBuilder,
    num_taken: usize,
}

impl CtcStream {
    /// Before the first frame.
    pub fn new(beam: Arc<PrefixBeam>, max_pending_frames: Option<usize>) -> Result<Self> {
        if max_pending_frames == Some(0) {
            return Err(Error::config("max_pending_frames", "is 0; it must be at least 1"));
        }
        let limit = max_pending_frames.map(|frames| u32::try_from(frames).unwrap_or(u32::MAX / 2).min(u32::MAX / 2));
        let search = Search::new(&beam, limit);
        Ok(Self { beam, search, builder: WordBuilder::default(), num_taken: 0 })
    }

    /// Goes on by these frames; how a recording is cut into calls changes nothing in the end.
    pub fn push(&mut self, emissions: &Emissions) -> Result<Partial> {
        self.search.push(&self.beam, emissions)?;
        let alphabet = self.beam.alphabet();
        let committed = self.search.committed();
        let new = &committed[self.num_taken..];
        let settled = new.iter().filter_map(|token| self.builder.push(alphabet, token)).collect();
        self.num_taken = committed.len();
        let mut open = self.builder.tokens().to_vec();
        open.extend(self.search.pending());
        Ok(Partial { settled, pending: words(alphabet, &open) })
    }

    /// The hypotheses for all frames, the best first.
    pub fn finish(self) -> Vec<Hypothesis> {
        self.beam.hypotheses(&self.search)
    }

    #[cfg(test)]
    pub(super) fn num_held(&self) -> usize {
        self.search.num_held()
    }
}
