//! For tests: a tokenizer whose tokens are bytes, and folders with corpora.

use std::path::{Path, PathBuf};

use arcuate_text::SpecialToken;

use crate::config::DataConfig;
use crate::corpus::Corpus;
use crate::encoder::Encoder;
use crate::error::{EncodeError, Result};
use crate::pack::{self, PackingConfig};
use crate::progress::Progress;
use crate::row::Framing;
use crate::text_corpus::CorpusOptions;

pub(crate) const BOS: u32 = 256;
pub(crate) const EOS: u32 = 257;
pub(crate) const CLS: u32 = 258;
pub(crate) const SEP: u32 = 259;
pub(crate) const UNK: u32 = 260;
pub(crate) const MASK: u32 = 261;

/// One token per byte; `#` is unknown and `\u{1}` vanishes.
pub(crate) struct Bytes {
    pub(crate) has_marks: bool,
    pub(crate) vocab_size: usize,
}

impl Default for Bytes {
    fn default() -> Self {
        Self { has_marks: true, vocab_size: 262 }
    }
}

impl Encoder for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        let kept = text.bytes().filter(|byte| *byte != 1);
        Ok(kept.map(|byte| if byte == b'#' { UNK } else { u32::from(byte) }).collect())
    }

    fn decoded_bytes(&self, ids: &[u32]) -> Result<usize, EncodeError> {
        Ok(ids.len())
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn special(&self, token: SpecialToken) -> Option<u32> {
        self.has_marks.then_some(())?;
        match token {
            SpecialToken::Bos => Some(BOS),
            SpecialToken::Eos => Some(EOS),
            SpecialToken::Cls => Some(CLS),
            SpecialToken::Sep => Some(SEP),
            SpecialToken::Unk => Some(UNK),
            SpecialToken::Mask => Some(MASK),
            _ => None,
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        let place: u32 = token.strip_prefix("[prompt ")?.strip_suffix(']')?.parse().ok()?;
        Some(300 + place).filter(|_| place < 10)
    }

    fn hash(&self) -> String {
        format!("bytes {} {}", self.has_marks, self.vocab_size)
    }
}

pub(crate) struct Folder(pub(crate) tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder above")).expect("writable");
        std::fs::write(&path, content).expect("writable");
        path
    }

    /// A config with one source `a`, its cache in this folder.
    pub(crate) fn config(&self, name: &str, packing: PackingConfig) -> DataConfig {
        let mut config = DataConfig::single("a", self.path().join(name).display().to_string(), packing);
        config.cache_dir = self.path().join("cache");
        config
    }
}

pub(crate) fn best_fit() -> PackingConfig {
    PackingConfig::BestFit(pack::best_fit::Config {})
}

pub(crate) fn concatenate() -> PackingConfig {
    PackingConfig::Concatenate(pack::concatenate::Config {})
}

pub(crate) fn document() -> PackingConfig {
    PackingConfig::Document(pack::document::Config {})
}

pub(crate) fn causal(max_seq_len: usize) -> CorpusOptions {
    CorpusOptions { max_seq_len, framing: Framing::CausalLm, labels: false, logits: false, tags: false, prompt: None }
}

pub(crate) fn open(config: &DataConfig, options: &CorpusOptions) -> Result<Corpus> {
    Corpus::open_with(config, &Bytes::default(), options, &Progress::none())
}

/// JSON lines of `num` documents of different lengths, labelled by `i % 3`.
pub(crate) fn lines(prefix: &str, num: usize) -> String {
    (0..num)
        .map(|i| {
            let text = format!("{prefix} {i} ") + &"word ".repeat((i * 7) % 23);
            format!(
                "{}\n",
                serde_json::json!({"id": format!("{prefix}-{i}"), "text": text, "kind": format!("k{}", i % 3)})
            )
        })
        .collect()
}
