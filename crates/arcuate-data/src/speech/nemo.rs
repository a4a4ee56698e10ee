//! Manifests of NeMo: JSON lines with the path of a file, how long it is, and what was said.
//!
//! # Recipe
//! `[data.speech.source.NAME.format.nemo]` with `path`
//!
//! # Reference
//! `audio_filepath` (relative to the manifest), `duration`, `offset` and `text` as in the documentation of NVIDIA NeMo; beside
//! them `id`, `speaker` and `lang`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Reader;
use super::builder::Builder;
use super::lines::{bad, each_line};
use super::list::{Found, Sound, Written};
use crate::error::{BadReason, Result};
use crate::files::{self, Listed};

/// The `[data.speech.source.NAME.format.nemo]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A manifest, a folder (read recursively in sorted order) or a pattern; they end in `.jsonl`, `.json` or `.ndjson`, also with
    /// `.gz` or `.zst`.
    pub path: String,
}

impl Reader for Config {
    fn read(&self, builder: &mut Builder<'_>) -> Result<()> {
        let wanted = "`.jsonl`, `.json` or `.ndjson`";
        for file in files::list(builder.name, &self.path, wanted, &files::is_json_lines)? {
            each_line(builder, &file.path, |builder, line, number| add(builder, &file, line, number))?;
        }
        Ok(())
    }
}

fn add(builder: &mut Builder<'_>, list: &Listed, line: &str, number: u64) -> Result<()> {
    let path = &list.path;
    let wrong = |reason, detail: String| bad(reason, path, number, detail);
    let object: Map<String, Value> = serde_json::from_str(line).map_err(|error| {
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or_default();
        wrong(BadReason::BrokenJson, format!("is not valid JSON ({said}, column {})", error.column()))
    })?;
    let text = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        // Speakers and ids are often numbers.
        Some(Value::Number(number)) if key != "text" && key != "audio_filepath" => Ok(Some(number.to_string())),
        Some(_) => Err(wrong(BadReason::WrongType, format!("has a `{key}` that is no text"))),
    };
    let seconds = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(wrong(BadReason::WrongType, format!("has a `{key}` that is no number"))),
        },
    };
    let no_path = || wrong(BadReason::MissingField, "has no `audio_filepath`".to_owned());
    let written = text("audio_filepath")?.filter(|text| !text.is_empty()).ok_or_else(no_path)?;
    let (duration, offset) = (seconds("duration")?, seconds("offset")?);
    let (id, transcript, speaker, language) = (text("id")?, text("text")?, text("speaker")?, text("lang")?);
    let file = Written { base: list.folder(), prefix: list.prefix(), path: &written };
    let sound = match offset {
        // Without an offset the seconds are those of the file.
        None => Sound::File(file),
        Some(start_seconds) => Sound::Stretch { file, start_seconds, is_to_the_end: duration.is_none() },
    };
    builder.add(
        path,
        Found {
            id: id.as_deref(),
            sound,
            seconds: duration,
            transcript: transcript.as_deref(),
            speaker: speaker.as_deref(),
            language: language.as_deref(),
            line: number,
        },
    )
}
