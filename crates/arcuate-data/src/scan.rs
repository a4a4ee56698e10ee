//! The scan: looks through all sources before a run and reports everything that is wrong, with the first places of each kind.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;

use arcuate_text::{SpecialToken, Tokenizer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::config::{DataConfig, SourceConfig};
use crate::encoder::Encoder;
use crate::error::{BadReason, Error, Result};
use crate::progress::{Progress, Stage};
use crate::reader::{PART_BYTES, Part, Parts};
use crate::split::{Split, id_hash};

/// Places listed for each kind of finding.
const MAX_PLACES: usize = 5;
const BATCH_BYTES: usize = 16 * PART_BYTES;

/// How thorough a scan is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// Documents with more tokens are reported as over-long.
    pub max_seq_len: Option<usize>,
    /// Stop after this much text of each source; all of it when left out.
    pub max_bytes_per_source: Option<u64>,
    /// Tokenise this much text of each source; all that is read when left out.
    pub max_tokenised_bytes_per_source: Option<u64>,
}

/// A kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The source cannot be read to its end.
    Unreadable,
    /// Items that cannot be used.
    BadItem(BadReason),
    /// Documents of more than `max_seq_len` tokens: they are cut, or cut off with `[data.packing.document]`.
    OverLong,
    /// Documents with characters that the tokenizer does not know.
    UnknownToTokenizer,
}

/// Everything of one kind in one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanFinding {
    /// What.
    pub kind: FindingKind,
    /// Name of the source.
    pub source: String,
    /// How many.
    pub count: u64,
    /// Where the first few are: `file:line`.
    pub places: Vec<String>,
    /// The first one as a sentence with its remedy.
    pub message: String,
}

/// Numbers of one source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceScan {
    /// Usable documents.
    pub documents: u64,
    /// Of these, held out.
    pub held_out_documents: u64,
    /// Their bytes of text.
    pub bytes: u64,
    /// Bytes of the text that was tokenised.
    pub tokenised_bytes: u64,
    /// Tokens of that text, without marks.
    pub tokens: u64,
    /// Bytes of the longest document.
    pub longest_bytes: u64,
    /// False when the scan stopped early.
    pub is_complete: bool,
}

/// What a scan found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScanReport {
    /// Numbers by name of the source.
    pub sources: BTreeMap<String, SourceScan>,
    /// All findings, by source and kind.
    pub findings: Vec<ScanFinding>,
    /// Bad items in all sources.
    pub num_bad_items: u64,
    /// True when the run would refuse this data.
    pub is_refused: bool,
}

/// Looks through all sources. Errors in the data are findings, not errors.
pub fn scan(
    config: &DataConfig,
    tokenizer: Option<&Tokenizer>,
    options: &ScanOptions,
    progress: &Progress<'_>,
) -> Result<ScanReport> {
    scan_with(config, tokenizer.map(|tokenizer| tokenizer as &dyn Encoder), options, progress)
}

pub(crate) fn scan_with(
    config: &DataConfig,
    encoder: Option<&dyn Encoder>,
    options: &ScanOptions,
    progress: &Progress<'_>,
) -> Result<ScanReport> {
    let mut report = ScanReport::default();
    for (name, source) in &config.source {
        let mut one = SourceScanner::new(name, config, encoder, options);
        match one.run(source, progress) {
            Ok(()) => {}
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => one.found(FindingKind::Unreadable, source.path.clone(), || error.to_string()),
        }
        report.sources.insert(name.clone(), one.sums);
        report.findings.extend(one.findings.into_values());
    }
    let is_bad = |finding: &&ScanFinding| matches!(finding.kind, FindingKind::BadItem(_));
    report.num_bad_items = report.findings.iter().filter(is_bad).map(|finding| finding.count).sum();
    report.is_refused = report.num_bad_items > config.max_bad_items
        || report.findings.iter().any(|finding| finding.kind == FindingKind::Unreadable);
    Ok(report)
}

struct SourceScanner<'a> {
    name: &'a str,
    config: &'a DataConfig,
    encoder: Option<&'a dyn Encoder>,
    unk: Option<u32>,
    options: &'a ScanOptions,
    sums: SourceScan,
    findings: BTreeMap<FindingKind, ScanFinding>,
    seen: HashSet<u64>,
    /// Tokens and bytes of the document at hand, and whether its unknown characters were counted.
    document: (u64, u64, bool),
    is_refused: bool,
}

/// Tokens of a part and how many of them are unknown; `None` where it was not tokenised.
type Counted = Option<std::result::Result<(u64, u64), String>>;

impl<'a> SourceScanner<'a> {
    fn new(name: &'a str, config: &'a DataConfig, encoder: Option<&'a dyn Encoder>, options: &'a ScanOptions) -> Self {
        Self {
            name,
            config,
            encoder,
            unk: encoder.and_then(|encoder| encoder.special(SpecialToken::Unk)),
            options,
            sums: SourceScan::default(),
            findings: BTreeMap::new(),
            seen: HashSet::new(),
            document: (0, 0, false),
            is_refused: false,
        }
    }

    fn run(&mut self, source: &SourceConfig, progress: &Progress<'_>) -> Result<()> {
        let mut parts = Parts::open(self.name, source, self.config.max_document_bytes)?;
        let (done, total) = (parts.progress(), parts.total_bytes());
        loop {
            let mut batch = Vec::new();
            let mut bytes = 0;
            for part in parts.by_ref() {
                bytes += part.as_ref().map_or(64, |part| part.document.text.len());
                batch.push(part);
                if bytes >= BATCH_BYTES {
                    break;
                }
            }
            if batch.is_empty() {
                break;
            }
            self.batch(batch)?;
            progress.report(Stage::Scan, done.load(Ordering::Relaxed).min(total), total)?;
            if self.options.max_bytes_per_source.is_some_and(|most| self.sums.bytes >= most) {
                return Ok(());
            }
        }
        self.sums.is_complete = true;
        if self.sums.documents == 0 {
            let (name, path) = (self.name.to_owned(), source.path.clone());
            return Err(Error::EmptySource { name, path });
        }
        Ok(())
    }

    fn batch(&mut self, batch: Vec<Result<Part>>) -> Result<()> {
        let most = self.options.max_tokenised_bytes_per_source;
        let is_tokenised = most.is_none_or(|most| self.sums.tokenised_bytes < most);
        let encoder = self.encoder.filter(|_| is_tokenised);
        let unk = self.unk;
        let counted: Vec<Result<(Part, Counted)>> = batch
            .into_par_iter()
            .map(|part| {
                let part = part?;
                let counted = encoder.map(|encoder| match encoder.encode(&part.document.text) {
                    Ok(tokens) => {
                        let unknown = tokens.iter().filter(|token| Some(**token) == unk).count();
                        Ok((tokens.len() as u64, unknown as u64))
                    }
                    Err(error) => Err(error.to_string()),
                });
                Ok((part, counted))
            })
            .collect();
        for item in counted {
            match item {
                Ok((part, counted)) => self.part(&part, counted)?,
                Err(Error::BadItem(item)) => {
                    let place = item.place.clone();
                    self.found(FindingKind::BadItem(item.reason), place, || Error::BadItem(item).to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn part(&mut self, part: &Part, counted: Counted) -> Result<()> {
        let document = &part.document;
        if part.is_first {
            self.document = (0, 0, false);
            let hash = id_hash(&document.id);
            self.is_refused = !self.seen.insert(hash);
            if self.is_refused {
                let kind = FindingKind::BadItem(BadReason::DuplicateId);
                self.found(kind, document.place.clone(), || {
                    format!("`{}` has the id `{}` of an earlier document", document.place, document.id)
                });
            } else {
                self.sums.documents += 1;
                let side = Split::of_hash(document.side_hash(), self.config.held_out_fraction);
                self.sums.held_out_documents += u64::from(side == Split::HeldOut);
            }
        }
        if self.is_refused {
            return Ok(());
        }
        let bytes = document.text.len() as u64;
        self.sums.bytes += bytes;
        self.document.1 += bytes;
        self.sums.longest_bytes = self.sums.longest_bytes.max(self.document.1);
        match counted {
            None => {}
            Some(Err(message)) => {
                let source = message.into();
                return Err(Error::Encode { place: document.place.clone(), source });
            }
            Some(Ok((tokens, unknown))) => {
                self.sums.tokens += tokens;
                self.sums.tokenised_bytes += bytes;
                self.document.0 += tokens;
                if unknown > 0 && !std::mem::replace(&mut self.document.2, true) {
                    self.found(FindingKind::UnknownToTokenizer, document.place.clone(), || {
                        format!(
                            "`{}` has {unknown} stretches that the tokenizer does not know; train the tokenizer on this text or use `[tokenizer.byte_bpe]`",
                            document.place
                        )
                    });
                }
            }
        }
        if part.is_last {
            self.end(document.place.clone());
        }
        Ok(())
    }

    fn end(&mut self, place: String) {
        let (tokens, bytes, _) = self.document;
        if let Some(most) = self.options.max_seq_len
            && tokens > most as u64
        {
            self.found(FindingKind::OverLong, place.clone(), || {
                format!("`{place}` has {tokens} tokens, more than the {most} of a row; it is cut")
            });
        } else if tokens == 0 && self.encoder.is_some() && self.sums.tokenised_bytes >= self.sums.bytes && bytes > 0 {
            self.found(FindingKind::BadItem(BadReason::NoTokens), place.clone(), || {
                format!("`{place}` has a text of which the tokenizer keeps nothing")
            });
        }
    }

    fn found(&mut self, kind: FindingKind, place: String, message: impl FnOnce() -> String) {
        let finding = self.findings.entry(kind).or_insert_with(|| ScanFinding {
            kind,
            source: self.name.to_owned(),
            count: 0,
            places: Vec::new(),
            message: message(),
        });
        finding.count += 1;
        if finding.places.len() < MAX_PLACES {
            finding.places.push(place);
        }
    }
}

#[cfg(test)]
mod tests;
