//! A corpus: all sources of a recipe, split and laid into rows; of texts or of speech.

use std::collections::BTreeMap;
use std::sync::Arc;

use arcuate_text::Tokenizer;

use crate::config::DataConfig;
use crate::encoder::Encoder;
use crate::error::Result;
use crate::held_out::HeldOut;
use crate::mixture::LedgerEntry;
use crate::progress::Progress;
use crate::row::Row;
use crate::rows::{Draw, Rows};
use crate::sampler::{MicrobatchLimits, Sampler};
use crate::speech::Utterance;
use crate::speech::scan::SpeechScanReport;
use crate::speech_corpus::{SpeechCorpus, SpeechOptions};
use crate::split::Split;
use crate::summary::SourceSummary;
use crate::text_corpus::{CorpusOptions, TextCorpus};

/// The documents or utterances of all sources as rows. Cheap to clone.
#[derive(Clone)]
pub struct Corpus(Kind);

#[derive(Clone)]
enum Kind {
    Text(TextCorpus),
    Speech(SpeechCorpus),
}

macro_rules! each {
    ($self:expr, $corpus:ident => $body:expr) => {
        match &$self.0 {
            Kind::Text($corpus) => $body,
            Kind::Speech($corpus) => $body,
        }
    };
}

impl Corpus {
    /// Opens all sources of texts, building or completing the cache where needed.
    pub fn open(
        config: &DataConfig,
        tokenizer: &Tokenizer,
        options: &CorpusOptions,
        progress: &Progress<'_>,
    ) -> Result<Self> {
        Self::open_with(config, tokenizer, options, progress)
    }

    pub(crate) fn open_with(
        config: &DataConfig,
        encoder: &dyn Encoder,
        options: &CorpusOptions,
        progress: &Progress<'_>,
    ) -> Result<Self> {
        Ok(Self(Kind::Text(TextCorpus::open(config, encoder, options, progress)?)))
    }

    /// Opens all sources of speech: their lists are read, their sound only when a row is drawn.
    ///
    /// # Errors
    /// Where a list cannot be read, too many items cannot be used, or a source has nothing to train on.
    pub fn open_speech(
        config: &DataConfig,
        tokenizer: Tokenizer,
        options: &SpeechOptions,
        progress: &Progress<'_>,
    ) -> Result<Self> {
        Self::open_speech_with(config, Box::new(tokenizer), options, progress)
    }

    pub(crate) fn open_speech_with(
        config: &DataConfig,
        encoder: Box<dyn Encoder + Send>,
        options: &SpeechOptions,
        progress: &Progress<'_>,
    ) -> Result<Self> {
        Ok(Self(Kind::Speech(SpeechCorpus::open(config, encoder, options, progress)?)))
    }

    /// The utterance of a row, by its key; none of texts.
    pub fn utterance(&self, key: u64) -> Option<Utterance> {
        match &self.0 {
            Kind::Text(_) => None,
            Kind::Speech(corpus) => corpus.utterance(key),
        }
    }

    /// The samples of a row by its key, as they were recorded; none of texts.
    pub fn samples(&self, key: u64) -> Result<Option<Arc<[f32]>>> {
        match &self.0 {
            Kind::Text(_) => Ok(None),
            Kind::Speech(corpus) => corpus.samples(key),
        }
    }

    /// Looks through the used utterances of each source of speech, by name, and hears up to `max_heard` of each, chosen evenly; all
    /// when left out. Errors in the data are findings, not errors. Of texts there is nothing.
    ///
    /// # Errors
    /// When the caller asks to stop.
    pub fn scan_speech(
        &self,
        max_heard: Option<usize>,
        progress: &Progress<'_>,
    ) -> Result<BTreeMap<String, SpeechScanReport>> {
        match &self.0 {
            Kind::Text(_) => Ok(BTreeMap::new()),
            Kind::Speech(corpus) => corpus.scan(max_heard, progress),
        }
    }

    /// Training rows that fill a microbatch as much as any will: the longest of speech, the first of a seed of texts.
    pub fn largest_microbatch(&self, seed: u64, limits: MicrobatchLimits) -> Result<Vec<Row>> {
        match &self.0 {
            Kind::Text(_) => self.sampler(seed).next_microbatch(limits),
            Kind::Speech(corpus) => corpus.largest_rows(limits),
        }
    }

    fn rows(&self) -> Arc<dyn Rows> {
        each!(self, corpus => corpus.rows())
    }

    /// Numbers of each source, in the order of names, which is the order of source indices.
    pub fn summary(&self) -> Vec<SourceSummary> {
        each!(self, corpus => corpus.summary())
    }

    /// Names of the sources by index.
    pub fn source_names(&self) -> Vec<String> {
        self.rows().sources().iter().map(|source| source.name.clone()).collect()
    }

    /// Changes whenever any row of this corpus could.
    pub fn fingerprint(&self) -> &str {
        each!(self, corpus => corpus.fingerprint())
    }

    /// A hash of the content of each source by name, to say which one has changed.
    pub fn source_fingerprints(&self) -> BTreeMap<String, String> {
        each!(self, corpus => corpus.source_fingerprints())
    }

    /// The classes or tags, sorted; the label of a row and the targets of a tagged one are indices into these.
    pub fn label_names(&self) -> &[String] {
        each!(self, corpus => corpus.label_names())
    }

    /// Rows in one pass over the training documents of a source.
    pub fn epoch_rows(&self, source: usize) -> u64 {
        self.rows().sources().get(source).map_or(0, |source| source.num_rows)
    }

    /// Tokens in one pass over the training rows of a source; frames of speech.
    pub fn train_tokens(&self, source: usize) -> u64 {
        each!(self, corpus => corpus.train_tokens(source))
    }

    /// Tokens in the longest row, held out or not; frames of speech.
    pub fn max_row_tokens(&self) -> usize {
        each!(self, corpus => corpus.max_row_tokens())
    }

    /// Bad items that were skipped.
    pub fn num_bad_items(&self) -> u64 {
        each!(self, corpus => corpus.num_bad_items())
    }

    /// The order of training rows for a seed.
    pub fn sampler(&self, seed: u64) -> Sampler {
        Sampler::new(self.rows(), seed)
    }

    /// Rows of the held-out documents. Without a stride they are packed (classification: one document a row). With a stride every
    /// prediction but the first ones of a document has at least `max_seq_len - stride` tokens of context.
    pub fn held_out(&self, stride: Option<usize>) -> Result<HeldOut> {
        each!(self, corpus => corpus.held_out(stride))
    }

    /// Every training row once, in the same order every time: for lists that are only evaluated.
    pub fn in_order(&self) -> HeldOut {
        let rows = self.rows();
        let sources: Vec<(String, u64)> =
            rows.sources().iter().map(|source| (source.name.clone(), source.num_rows)).collect();
        let counts = sources.iter().map(|(name, num_rows)| (name.as_str(), *num_rows));
        HeldOut::new(counts, move |source, index| {
            rows.row(Draw { source, split: Split::Train, index, seed: 0, k: index, is_varied: false })
        })
    }

    /// What each source would give in a run of `tokens` tokens: repeats, and shares after `max_repeats`.
    pub fn expected_ledger(&self, tokens: u64) -> Vec<LedgerEntry> {
        each!(self, corpus => corpus.expected_ledger(tokens))
    }

    /// The id of a document, for messages.
    pub fn document_id(&self, source: u32, document: u32) -> Option<String> {
        each!(self, corpus => corpus.document_id(source, document))
    }

    /// Source and ids of the documents in a row, by its key, for messages. `None` for keys of other corpora and of strided rows.
    pub fn describe_row(&self, key: u64) -> Option<(String, Vec<String>)> {
        each!(self, corpus => corpus.describe_row(key))
    }
}
