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
        let mut root: Option<(PathBuf, u64)> = None;
        let mut num_files = 0;
        each_line(builder, &file.path, |builder, line, number| {
            let Some((root, root_line)) = &root else {
                root = Some((file.folder().join(line.trim()), number));
                return Ok(());
            };
            // By its line, so that a line that cannot be used does not move the labels of those after it.
            let at = (number - root_line - 1) as usize;
            num_files = at + 1;
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
        let (Some(texts), Some(labels)) = (texts, self.labels) else { return Ok(()) };
        let num_texts = texts.iter().rposition(|text| !text.is_empty()).map_or(0, |last| last + 1);
        if texts.len() < num_files || num_texts > num_files {
            let manifest = file.path.display();
            let detail = format!("has {num_texts} texts where `{manifest}` has {num_files} files");
            return Err(Error::ListsDiffer { path: file.path.with_extension(labels.ending()), detail });
        }
        Ok(())
    }

    /// One text a line: an empty line is an empty text here, since lines belong to files by their number.
    fn texts(&self, manifest: &Path, labels: Labels) -> Result<Vec<String>> {
        let path = manifest.with_extension(labels.ending());
        let bytes = std::fs::read(&path).map_err(|error| Error::read(&path, error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line =
                error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            Error::DamagedFile { path: path.clone(), line: line as u64, detail: "it is not UTF-8".to_owned() }
        })?;
        Ok(text.lines().map(|line| labels.text(line)).collect())
    }
}
