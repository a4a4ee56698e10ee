//! Manifests of fairseq: the folder of the sound on the first line, then a file and its samples a line; labels in a list beside it.
//!
//! # Recipe
//! `[data.speech.source.NAME.format.fairseq]` with `path`, `labels`
//!
//! # Reference
//! The manifests of fairseq's wav2vec 2.0: `train.tsv` with `train.ltr` (letters, `|` ends a word), `train.wrd` (words) or
//! `train.phn` (phones).

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Reader;
use super::builder::Builder;
use super::lines::{bad, each_line};
use super::list::{Found, Sound, Written};
use crate::error::{BadReason, Error, Result};
use crate::files::{self, Listed};

/// The `[data.speech.source.NAME.format.fairseq]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A manifest such as `data/train.tsv`, or a pattern.
    pub path: String,
    /// What was said, from the file beside the manifest that ends like this; nothing when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Samples a second of the numbers in the manifest.
    #[serde(default = "default_sample_rate_hz")]
    #[schemars(range(min = 1))]
    pub sample_rate_hz: u32,
}

fn default_sample_rate_hz() -> u32 {
    16_000
}

/// The lists of labels that lie beside a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// `.ltr`: letters with blanks between them, `|` after each word.
    Ltr,
    /// `.phn`: phones with blanks between them.
    Phn,
    /// `.wrd`: words.
    Wrd,
}

impl Labels {
    fn ending(self) -> &'static str {
        match self {
            Self::Ltr => "ltr",
            Self::Phn => "phn",
            Self::Wrd => "wrd",
        }
    }

    fn text(self, line: &str) -> String {
        match self {
            Self::Ltr => line.replace(' ', "").replace('|', " ").trim().to_owned(),
            Self::Phn | Self::Wrd => line.trim().to_owned(),
        }
    }
}

impl Reader for Config {
    fn read(&self, builder: &mut Builder<'_>) -> Result<()> {
        let is_manifest = |path: &Path| path.extension().is_some_and(|ending| ending == "tsv");
        for file in files::list(builder.name, &self.path, "`.tsv`", &is_manifest)? {
            self.manifest(builder, &file)?;
        }
        Ok(())
    }
}

impl Config {
    fn manifest(&self, builder: &mut Builder<'_>, file: &Listed) -> Result<()> {
        let texts = self.labels.map(|labels| self.texts(&file.path, labels)).transpose()?;
        let mut root: Option<PathBuf> = None;
        let mut num_files = 0;
        each_line(builder, &file.path, |builder, line, number| {
            let Some(root) = &root else {
                root = Some(file.folder().join(line.trim()));
                return Ok(());
            };
            let at = num_files;
            num_files += 1;
            let cells = line.split_once('\t').map(|(path, samples)| (path.trim(), samples.trim().parse::<u64>()));
            let Some((path, Ok(num_samples))) = cells.filter(|(path, _)| !path.is_empty()) else {
                return Err(bad(BadReason::WrongType, &file.path, number, "is not a file and its samples"));
            };
            let sound = Sound::File(Written { base: root, prefix: file.prefix(), path });
            let found = Found {
                id: None,
                sound,
                seconds: Some(num_samples as f64 / f64::from(self.sample_rate_hz.max(1))),
                transcript: texts.as_ref().and_then(|texts| texts.get(at)).map(String::as_str),
                speaker: None,
                language: None,
                line: number,
            };
            builder.add(&file.path, found)
        })?;
        match (texts, self.labels) {
            (Some(texts), Some(labels)) if texts.len() != num_files => Err(Error::ListsDiffer {
                path: file.path.with_extension(labels.ending()),
                detail: format!("has {} lines where `{}` has {num_files} files", texts.len(), file.path.display()),
            }),
            _ => Ok(()),
        }
    }

    /// One text a line: an empty line is an empty text here, since lines belong to files by their number.
    fn texts(&self, manifest: &Path, labels: Labels) -> Result<Vec<String>> {
        let path = manifest.with_extension(labels.ending());
        let bytes = std::fs::read(&path).map_err(|error| Error::read(&path, error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line =
                error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            bad(BadReason::NonUtf8, &path, line as u64 + 1, "is not UTF-8")
        })?;
        Ok(text.lines().map(|line| labels.text(line)).collect())
    }
}
