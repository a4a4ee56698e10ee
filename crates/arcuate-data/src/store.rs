//! The token cache of one source: all documents as token ids in mapped files.
//!
//! `tokens.bin` holds the ids (16 bits where the vocabulary allows), `documents.bin` one [`DocumentRecord`] per document,
//! `ids.bin` the ids one after the other. Where a source has tags, `tags.bin` holds one for each token, [`NO_LABEL`] for none.

mod build;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

use crate::cache;
use crate::config::{DataConfig, SourceConfig};
use crate::encoder::Encoder;
use crate::error::{BadItem, BadReason, Error, Result};
use crate::files::{self, InputFile};
use crate::hashes::content_hashes;
use crate::mapped::Mapped;
use crate::progress::Progress;
use crate::prompt::Prompt;
use crate::row::Framing;

pub(crate) const TOKENS: &str = "tokens.bin";
pub(crate) const DOCUMENTS: &str = "documents.bin";
pub(crate) const LOGITS: &str = "logits.bin";
pub(crate) const TAGS: &str = "tags.bin";
pub(crate) const IDS: &str = "ids.bin";

/// No label.
pub(crate) const NO_LABEL: u32 = u32::MAX;
/// Reads after which touched pages are given back: each touches some tens of kilobytes, so they stay below 100 MB.
const READS_BEFORE_RELEASE: u64 = 1024;
/// More labels than this are not classes.
pub(crate) const MAX_LABELS: usize = 65_536;

/// One document in the cache.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct DocumentRecord {
    /// Decides on which side of the split it lies.
    pub(crate) side_hash: u64,
    /// Where its id ends in `ids.bin`; it begins where the one before ends.
    pub(crate) id_end: u64,
    pub(crate) token_start: u64,
    /// Bytes of its text.
    pub(crate) num_bytes: u64,
    pub(crate) num_tokens: u32,
    pub(crate) label: u32,
    /// Bytes of the first token where that is never predicted, as there is no begin mark.
    pub(crate) unpredicted_bytes: u32,
    pub(crate) unused: u32,
}

/// What the cache knows about a source as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoreDetails {
    pub(crate) num_documents: u64,
    pub(crate) num_tokens: u64,
    pub(crate) num_bytes: u64,
    pub(crate) labels: Vec<String>,
    /// The classes of the logits, sorted; empty without a column of logits.
    #[serde(default)]
    pub(crate) logit_classes: Vec<String>,
    /// The tags of words, in the order of their first use; empty without a column of tags.
    #[serde(default)]
    pub(crate) tag_names: Vec<String>,
    pub(crate) num_unlabelled: u64,
    pub(crate) first_unlabelled: Option<String>,
    pub(crate) bad_items: BTreeMap<BadReason, u64>,
    pub(crate) first_bad_item: Option<BadItem>,
    pub(crate) is_wide: bool,
    pub(crate) vocab_size: u64,
}

enum Tokens {
    Narrow(Mapped<u16>),
    Wide(Mapped<u32>),
}

/// An open token cache.
pub(crate) struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) details: StoreDetails,
    pub(crate) framing: Framing,
    /// Hash of the files' content and of what was read out of them.
    pub(crate) content: String,
    pub(crate) num_files: usize,
    /// Part of the names of everything derived from this store.
    pub(crate) key: String,
    tokens: Tokens,
    documents: Mapped<DocumentRecord>,
    ids: Mapped<u8>,
    logits: Option<Mapped<f32>>,
    tags: Option<Mapped<u32>>,
    num_reads: AtomicU64,
}

impl Store {
    /// Opens the cache of a source, after building it if need be.
    pub(crate) fn open(
        name: &str,
        config: &DataConfig,
        source: &SourceConfig,
        encoder: &dyn Encoder,
        framing: Framing,
        prompt: Option<(&Prompt, usize)>,
        progress: &Progress<'_>,
    ) -> Result<Self> {
        let files = files::resolve(name, source)?;
        let content = content_key(&files, source, config, progress)?;
        let mut hasher = blake3::Hasher::new();
        for part in [content.as_str(), &encoder.hash(), &format!("{framing:?}"), &cache::VERSION.to_string()] {
            hasher.update(part.as_bytes()).update(&[0]);
        }
        if let Some((prompt, max_tokens)) = prompt {
            hasher.update(prompt.key(max_tokens).as_bytes());
        }
        let key = hasher.finalize().to_hex()[..32].to_owned();
        let num_files = files.len();
        let job = build::Job { name, config, source, encoder, framing, prompt, progress };
        let (dir, details) =
            cache::open_or_build(&config.cache_dir, &format!("tokens-{key}"), progress, |dir| job.run(dir, files))?;
        Self::map(dir, details, framing, content, num_files, key)
    }

    fn map(
        dir: PathBuf,
        details: StoreDetails,
        framing: Framing,
        content: String,
        num_files: usize,
        key: String,
    ) -> Result<Self> {
        let at = |name: &str| dir.join(name);
        let tokens = if details.is_wide {
            Tokens::Wide(Mapped::open(&at(TOKENS))?)
        } else {
            Tokens::Narrow(Mapped::open(&at(TOKENS))?)
        };
        let documents = Mapped::open(&at(DOCUMENTS))?;
        let ids = Mapped::open(&at(IDS))?;
        let has_logits = !details.logit_classes.is_empty();
        let logits = if has_logits { Some(Mapped::open(&at(LOGITS))?) } else { None };
        let tags = if details.tag_names.is_empty() { None } else { Some(Mapped::open(&at(TAGS))?) };
        let store = Self {
            logits,
            tags,
            dir,
            details,
            framing,
            content,
            num_files,
            key,
            tokens,
            documents,
            ids,
            num_reads: AtomicU64::new(0),
        };
        if store.documents().len() as u64 != store.details.num_documents {
            return Err(store.damaged("the number of documents differs"));
        }
        Ok(store)
    }

    /// The logits of a document, if this source has some.
    pub(crate) fn logits(&self, index: u32) -> Result<Option<Vec<f32>>> {
        let Some(logits) = &self.logits else { return Ok(None) };
        let num = self.details.logit_classes.len();
        let start = index as usize * num;
        let found = logits.as_slice().get(start..start + num).ok_or_else(|| self.damaged("logits are missing"))?;
        Ok(Some(found.to_vec()))
    }

    pub(crate) fn documents(&self) -> &[DocumentRecord] {
        self.documents.as_slice()
    }

    pub(crate) fn document(&self, index: u32) -> Result<&DocumentRecord> {
        self.documents().get(index as usize).ok_or_else(|| self.damaged("a document is missing"))
    }

    /// Positions that rows are made of: predictions of a causal document, tokens of a bidirectional one.
    pub(crate) fn num_positions(&self, document: &DocumentRecord) -> u32 {
        match self.framing {
            Framing::CausalLm => document.num_tokens.saturating_sub(1),
            Framing::Bert => document.num_tokens,
        }
    }

    /// Bytes that the positions of a document stand for.
    pub(crate) fn position_bytes(&self, document: &DocumentRecord) -> u64 {
        document.num_bytes.saturating_sub(u64::from(document.unpredicted_bytes))
    }

    /// Where tokens `start..start + len` of a document lie.
    fn range(&self, document: &DocumentRecord, start: u32, len: u32) -> Result<Option<Range<usize>>> {
        if u64::from(start) + u64::from(len) > u64::from(document.num_tokens) {
            return Err(self.damaged("a row reaches beyond its document"));
        }
        let from = usize::try_from(document.token_start).ok().and_then(|at| at.checked_add(start as usize));
        Ok(from.and_then(|from| Some(from..from.checked_add(len as usize)?)))
    }

    /// Tags of tokens `start..start + len` of a document by number, [`NO_LABEL`] for none; empty if this source has none.
    pub(crate) fn tags(&self, document: &DocumentRecord, start: u32, len: u32) -> Result<&[u32]> {
        let Some(tags) = &self.tags else { return Ok(&[]) };
        let range = self.range(document, start, len)?;
        range.and_then(|range| tags.as_slice().get(range)).ok_or_else(|| self.damaged("tags are missing"))
    }

    /// Tokens `start..start + len` of a document.
    pub(crate) fn tokens(&self, document: &DocumentRecord, start: u32, len: u32, out: &mut Vec<u32>) -> Result<()> {
        out.clear();
        let range = self.range(document, start, len)?;
        let is_there = match &self.tokens {
            Tokens::Narrow(tokens) => range
                .and_then(|range| tokens.as_slice().get(range))
                .map(|found| out.extend(found.iter().map(|token| u32::from(*token)))),
            Tokens::Wide(tokens) => {
                range.and_then(|range| tokens.as_slice().get(range)).map(|found| out.extend_from_slice(found))
            }
        };
        if is_there.is_none() {
            return Err(self.damaged("a document reaches beyond the tokens"));
        }
        if self.num_reads.fetch_add(1, Ordering::Relaxed) % READS_BEFORE_RELEASE == READS_BEFORE_RELEASE - 1 {
            self.release();
        }
        if out.iter().any(|token| u64::from(*token) >= self.details.vocab_size) {
            return Err(self.damaged("a token is outside the vocabulary"));
        }
        Ok(())
    }

    /// Gives touched pages back to the system.
    pub(crate) fn release(&self) {
        match &self.tokens {
            Tokens::Narrow(tokens) => tokens.release(),
            Tokens::Wide(tokens) => tokens.release(),
        }
        self.documents.release();
    }

    /// The id of a document.
    pub(crate) fn id(&self, index: u32) -> Option<String> {
        let end = self.documents().get(index as usize)?.id_end as usize;
        let start = match index.checked_sub(1) {
            None => 0,
            Some(before) => self.documents().get(before as usize)?.id_end as usize,
        };
        Some(String::from_utf8_lossy(self.ids.as_slice().get(start..end)?).into_owned())
    }

    pub(crate) fn damaged(&self, detail: &str) -> Error {
        Error::DamagedCache { path: self.dir.clone(), detail: detail.to_owned() }
    }
}

/// A hash of everything that decides which documents there are.
fn content_key(
    files: &[InputFile],
    source: &SourceConfig,
    config: &DataConfig,
    progress: &Progress<'_>,
) -> Result<String> {
    let hashes = content_hashes(files, &config.cache_dir, progress)?;
    let mut hasher = blake3::Hasher::new();
    for (file, hash) in files.iter().zip(&hashes) {
        hasher.update(format!("{:?} {:?} {hash} {}\n", file.format, file.compression, file.name).as_bytes());
    }
    let keys = format!(
        "{} {:?} {:?} {:?} {}",
        source.text_column, source.id_column, source.label_column, source.split_at_bytes, config.max_document_bytes
    );
    let keys = match &source.logits_column {
        Some(column) => format!("{keys} {column}"),
        None => keys,
    };
    let keys = match &source.tags_column {
        Some(column) => format!("{keys} tags {column:?}"),
        None => keys,
    };
    hasher.update(keys.as_bytes());
    Ok(hasher.finalize().to_hex()[..32].to_owned())
}

/// Where a file of the cache lies, for writers.
pub(crate) fn file_in(dir: &Path, name: &str) -> PathBuf {
    dir.join(name)
}
