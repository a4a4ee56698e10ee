//! The `[data]` table: sources, split, packing, cache, and what of it can be refused without reading a file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::pack::PackingConfig;
use crate::speech::SpeechConfig;

/// The `[data]` table: which texts, how they are split and packed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Share of the documents that is kept from training and used for evaluation; chosen by a hash of the id, so that a
    /// document stays on its side when others come or go.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub held_out_fraction: f64,
    /// The sources of text by name: `[data.source.NAME]`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub source: BTreeMap<String, SourceConfig>,
    /// Recordings in place of texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speech: Option<SpeechConfig>,
    /// How documents become rows: `[data.packing.best_fit]`, `[data.packing.concatenate]` or `[data.packing.document]`. Of
    /// speech, an utterance is a row: `[data.packing.document]`.
    pub packing: PackingConfig,
    /// Folder of the token cache; may be deleted at any time and is then built again.
    #[serde(default = "default_cache_dir")]
    pub cache_dir: PathBuf,
    /// How many bad items (broken lines, bytes that are not UTF-8, empty texts, duplicate ids, ...) may be skipped and
    /// counted before the data is refused.
    #[serde(default)]
    pub max_bad_items: u64,
    /// Longest line of a JSON file and longest value of a Parquet file; longer ones are bad items. Plain text files may
    /// have any size.
    #[serde(default = "default_max_document_bytes")]
    #[schemars(range(min = 1))]
    pub max_document_bytes: u64,
}

/// A `[data.source.NAME]` table: files of one kind with one weight in the mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// A file, a folder (read recursively in sorted order) or a pattern such as `data/**/*.jsonl.zst`. JSON lines, Parquet
    /// or plain text by ending; JSON lines and text also as `.gz` or `.zst`.
    pub path: String,
    /// Share of this source in the training tokens, relative to the weights of the others.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0.0))]
    pub weight: f64,
    /// How often each row of this source may be seen at most; then the other sources take its share. Unlimited when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub max_repeats: Option<f64>,
    /// Name of the JSON key or Parquet column that holds the text.
    #[serde(default = "default_text_column")]
    pub text_column: String,
    /// Name of the JSON key or Parquet column that holds the id. When left out, `id` is used where there is one, else
    /// file name and line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_column: Option<String>,
    /// Name of the JSON key or Parquet column that holds the class of a document, for classification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// Name of the JSON key or Parquet column that holds an object with a number for each class: what another model said of the
    /// document, as `arcuate data annotate` writes it. For distillation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logits_column: Option<String>,
    /// Name of the JSON key or Parquet column that holds a list of strings: a tag for each word of the text, where words are what
    /// white space separates. For tagging.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags_column: Option<String>,
    /// Cut documents longer than this into documents of their own (ids `ID#1`, `ID#2`, ...), at line ends if possible.
    /// Sections of a JSONL or Parquet record stay on the side of the split where the record lies; those of a text file do
    /// not, so one giant text can be split into training and held-out text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 64))]
    pub split_at_bytes: Option<u64>,
}

fn default_cache_dir() -> PathBuf {
    PathBuf::from("runs/cache")
}

pub(crate) fn default_max_document_bytes() -> u64 {
    64 << 20
}

fn default_weight() -> f64 {
    1.0
}

fn default_text_column() -> String {
    "text".to_owned()
}

impl SourceConfig {
    /// A source with every default.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            weight: default_weight(),
            max_repeats: None,
            text_column: default_text_column(),
            id_column: None,
            label_column: None,
            logits_column: None,
            tags_column: None,
            split_at_bytes: None,
        }
    }
}

/// A value of `[data]` that cannot work, found without reading a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Key path, for instance `data.source.web.weight`.
    pub key: String,
    /// What is wrong, as the second half of a sentence.
    pub message: String,
    /// The remedy.
    pub help: String,
}

impl DataConfig {
    /// One source with every default; for tools and tests.
    pub fn single(name: &str, path: impl Into<String>, packing: PackingConfig) -> Self {
        Self {
            held_out_fraction: 0.0,
            source: BTreeMap::from([(name.to_owned(), SourceConfig::new(path))]),
            speech: None,
            packing,
            cache_dir: default_cache_dir(),
            max_bad_items: 0,
            max_document_bytes: default_max_document_bytes(),
        }
    }

    /// All values that cannot work, by key path.
    pub fn check(&self) -> Vec<ConfigProblem> {
        let mut found = Vec::new();
        let mut report = |key: String, message: String, help: &str| {
            found.push(ConfigProblem { key, message, help: help.to_owned() });
        };
        if !(0.0..=0.9).contains(&self.held_out_fraction) {
            let message = format!("is {}, not a share between 0 and 0.9", self.held_out_fraction);
            report("data.held_out_fraction".to_owned(), message, "0.05 holds out one document in twenty");
        }
        match &self.speech {
            None if self.source.is_empty() => report(
                "data.source".to_owned(),
                "names no source".to_owned(),
                "add a `[data.source.NAME]` table with a `path`",
            ),
            Some(_) if !self.source.is_empty() => report(
                "data.source".to_owned(),
                "has texts, but `[data.speech]` has recordings".to_owned(),
                "keep one of them: a run reads texts or hears speech",
            ),
            _ => {}
        }
        if self.speech.is_some() && !matches!(self.packing, PackingConfig::Document(_)) {
            let message = format!("is `{}`, but an utterance is a row", self.packing.name());
            report("data.packing".to_owned(), message, "use `[data.packing.document]`");
        }
        if self.max_document_bytes == 0 {
            report("data.max_document_bytes".to_owned(), "is 0".to_owned(), "leave it out for 64 MiB");
        }
        for (name, source) in &self.source {
            let key = |last: &str| format!("data.source.{name}.{last}");
            if source.path.is_empty() {
                report(key("path"), "is empty".to_owned(), "name a file, a folder or a pattern");
            }
            if !(source.weight.is_finite() && source.weight > 0.0) {
                let message = format!("is {}, not a positive number", source.weight);
                report(key("weight"), message, "remove the source to leave it out");
            }
            if let Some(repeats) = source.max_repeats
                && !(repeats.is_finite() && repeats > 0.0)
            {
                report(key("max_repeats"), format!("is {repeats}, not a positive number"), "leave it out for no limit");
            }
            if let Some(bytes) = source.split_at_bytes
                && bytes < 64
            {
                report(key("split_at_bytes"), format!("is {bytes}"), "64 is the least; 65536 is a sensible value");
            }
            if source.split_at_bytes.is_some() && source.tags_column.is_some() {
                let message = "cuts texts, but the tags of `tags_column` are for whole ones".to_owned();
                report(key("split_at_bytes"), message, "remove it, or give shorter texts with their tags");
            }
        }
        found.extend(self.speech.iter().flat_map(SpeechConfig::check));
        found
    }

    /// Weights of all sources in the mixture, by name.
    pub fn weights(&self) -> BTreeMap<&str, f64> {
        let texts = self.source.iter().map(|(name, source)| (name.as_str(), source.weight));
        let speech = self.speech.iter().flat_map(|speech| &speech.source);
        texts.chain(speech.map(|(name, source)| (name.as_str(), source.weight))).collect()
    }

    /// The `[data.speech]` table of a recipe that must have one.
    pub(crate) fn recordings(&self) -> Result<&SpeechConfig> {
        self.speech.as_ref().ok_or_else(|| {
            let (key, message) = ("data.speech".to_owned(), "is missing".to_owned());
            Error::Config { key, message, help: "add recordings".to_owned() }
        })
    }

    /// The first problem as an error, if any.
    pub(crate) fn refuse_impossible(&self) -> Result<()> {
        match self.check().into_iter().next() {
            None => Ok(()),
            Some(problem) => Err(Error::Config { key: problem.key, message: problem.message, help: problem.help }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack;

    fn config() -> DataConfig {
        DataConfig::single("a", "x.jsonl", PackingConfig::BestFit(pack::best_fit::Config {}))
    }

    #[test]
    fn a_plain_config_has_no_problem() {
        assert_eq!(config().check(), []);
    }

    #[test]
    fn every_impossible_value_is_reported_with_its_key() {
        let mut data = config();
        data.held_out_fraction = f64::NAN;
        data.max_document_bytes = 0;
        let source = data.source.get_mut("a").expect("it was just put there");
        source.weight = -1.0;
        source.max_repeats = Some(0.0);
        source.path.clear();
        source.split_at_bytes = Some(64);
        source.tags_column = Some("tags".to_owned());
        let keys: Vec<String> = data.check().into_iter().map(|p| p.key).collect();
        assert_eq!(
            keys,
            [
                "data.held_out_fraction",
                "data.max_document_bytes",
                "data.source.a.path",
                "data.source.a.weight",
                "data.source.a.max_repeats",
                "data.source.a.split_at_bytes"
            ]
        );
    }

    #[test]
    fn unknown_keys_are_refused() {
        let json = r#"{"path": "x", "wieght": 2.0}"#;
        let error = serde_json::from_str::<SourceConfig>(json).expect_err("misspelt");
        assert!(error.to_string().contains("wieght"));
    }

    #[test]
    fn packing_is_a_table_name() {
        let json = r#"{"held_out_fraction": 0.1, "source": {"a": {"path": "x"}}, "packing": {"concatenate": {}}}"#;
        let data: DataConfig = serde_json::from_str(json).expect("complete");
        assert_eq!(data.packing.name(), "concatenate");
        assert_eq!(data.source["a"].weight, 1.0);
    }
}
