//! A tokenizer that exists already: any `tokenizer.json`, alone or in a model folder.
//!
//! # What it computes
//! Nothing; the file is read as it is, and special tokens are found in `tokenizer_config.json` and
//! `special_tokens_map.json` beside it, else by their well-known spellings.
//! # Recipe
//! `[tokenizer.file]` with `path`
//! # Reference
//! The `tokenizer.json` layout of the Hugging Face `tokenizers` library

use crate::{Result, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The `[tokenizer.file]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A `tokenizer.json`, or a folder that holds one.
    pub path: PathBuf,
}

impl Config {
    pub(crate) fn vocab_size(&self) -> Option<usize> {
        None
    }

    pub(crate) fn check(&self) -> Vec<(&'static str, String)> {
        if self.path.exists() {
            return Vec::new();
        }
        vec![("path", format!("`{}` does not exist", self.path.display()))]
    }
}

pub(crate) fn train(config: &Config, _texts: &mut (dyn Iterator<Item = String> + Send)) -> Result<Tokenizer> {
    Tokenizer::load(&config.path)
}
