//! Data folders of Kaldi: `wav.scp`, and beside it `segments`, `text`, `utt2spk`, `utt2lang` and `utt2dur` where they are.
//!
//! # Recipe
//! `[data.speech.source.NAME.format.kaldi]` with `path`
//!
//! # Reference
//! "Data preparation" in the documentation of Kaldi. A `wav.scp` may hold commands there; they are never run here.

use std::collections::HashMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Reader;
use super::builder::Builder;
use super::lines::{bad, each_line};
use super::list::{Found, Sound, Written};
use crate::error::{BadReason, Result};
use crate::files::{self, Listed};

/// The `[data.speech.source.NAME.format.kaldi]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder with `wav.scp`, a folder of such folders, or a pattern of the files `wav.scp`.
    pub path: String,
    /// Folder to which the paths in `wav.scp` are relative; that of `wav.scp` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_folder: Option<String>,
}

impl Reader for Config {
    fn read(&self, builder: &mut Builder<'_>) -> Result<()> {
        let is_list = |path: &Path| path.file_name().is_some_and(|name| name == "wav.scp");
        for file in files::list(builder.name, &self.path, "`wav.scp`", &is_list)? {
            self.folder(builder, &file)?;
        }
        Ok(())
    }
}

/// What the files beside `wav.scp` say of an utterance.
struct Tables {
    text: Option<HashMap<String, String>>,
    speakers: HashMap<String, String>,
    languages: HashMap<String, String>,
    seconds: HashMap<String, f64>,
}

impl Config {
    fn folder(&self, builder: &mut Builder<'_>, list: &Listed) -> Result<()> {
        let folder = list.folder();
        let base = self.audio_folder.as_deref().map_or(folder, Path::new);
        let table = |builder: &mut Builder<'_>, name: &str| table(builder, &folder.join(name));
        let tables = Tables {
            text: table(builder, "text")?,
            speakers: table(builder, "utt2spk")?.unwrap_or_default(),
            languages: table(builder, "utt2lang")?.unwrap_or_default(),
            seconds: seconds(builder, &folder.join("utt2dur"))?,
        };
        let segments = folder.join("segments");
        if !segments.exists() {
            return each_line(builder, &list.path, |builder, line, number| {
                let (id, path) = recording(&list.path, line, number)?;
                let sound = Sound::File(Written { base, prefix: list.prefix(), path });
                tables.add(builder, &list.path, id, sound, tables.seconds.get(id).copied(), number)
            });
        }
        let mut recordings = HashMap::new();
        each_line(builder, &list.path, |_, line, number| {
            let (id, path) = recording(&list.path, line, number)?;
            recordings.insert(id.to_owned(), path.to_owned());
            Ok(())
        })?;
        each_line(builder, &segments, |builder, line, number| {
            let wrong = |reason, detail: String| Err(bad(reason, &segments, number, detail));
            let cells: Vec<&str> = line.split_whitespace().collect();
            let [id, recording, start, end, ..] = cells[..] else {
                return wrong(BadReason::MissingField, "is not `utterance recording start end`".to_owned());
            };
            let (Ok(start_seconds), Ok(end)) = (start.parse::<f64>(), end.parse::<f64>()) else {
                return wrong(BadReason::WrongType, format!("has `{start}` and `{end}`, not two numbers of seconds"));
            };
            let Some(path) = recordings.get(recording) else {
                let detail = format!("names the recording `{recording}`, which `wav.scp` does not have");
                return wrong(BadReason::MissingFile, detail);
            };
            // -1 is the end of the recording.
            let is_to_the_end = end == -1.0;
            let file = Written { base, prefix: list.prefix(), path };
            let sound = Sound::Stretch { file, start_seconds, is_to_the_end };
            let seconds = if is_to_the_end { None } else { Some(end - start_seconds) };
            tables.add(builder, &segments, id, sound, seconds, number)
        })
    }
}

impl Tables {
    fn add(
        &self,
        builder: &mut Builder<'_>,
        list: &Path,
        id: &str,
        sound: Sound<'_>,
        seconds: Option<f64>,
        line: u64,
    ) -> Result<()> {
        let found = Found {
            id: Some(id),
            sound,
            seconds,
            transcript: self.text.as_ref().and_then(|text| text.get(id)).map(String::as_str),
            speaker: self.speakers.get(id).map(String::as_str),
            language: self.languages.get(id).map(String::as_str),
            line,
        };
        builder.add(list, found)
    }
}

/// A line of `wav.scp`: the id of a recording and its file.
fn recording<'a>(list: &Path, line: &'a str, number: u64) -> Result<(&'a str, &'a str)> {
    let cells = line.trim().split_once(char::is_whitespace);
    let Some((id, path)) = cells.map(|(id, path)| (id, path.trim())) else {
        return Err(bad(BadReason::MissingField, list, number, "is not a recording and its file"));
    };
    if path.ends_with('|') || path.starts_with('|') {
        let detail = "is a command, and lists run none: run it yourself and write the name of the file that it makes";
        return Err(bad(BadReason::Command, list, number, detail));
    }
    // `archive.ark:1234` is a place in an archive of Kaldi.
    let is_place =
        |(file, place): (&str, &str)| file.ends_with(".ark") && place.bytes().all(|byte| byte.is_ascii_digit());
    if path.rsplit_once(':').is_some_and(is_place) {
        let detail = "is a place in an archive of Kaldi; write its sounds as files with `wav-copy`";
        return Err(bad(BadReason::Command, list, number, detail));
    }
    Ok((id, path))
}

/// A file of `id value` lines; none where it does not exist.
fn table(builder: &mut Builder<'_>, path: &Path) -> Result<Option<HashMap<String, String>>> {
    if !path.exists() {
        return Ok(None);
    }
    let mut found = HashMap::new();
    each_line(builder, path, |_, line, _| {
        let line = line.trim();
        let (id, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        found.insert(id.to_owned(), value.trim().to_owned());
        Ok(())
    })?;
    Ok(Some(found))
}

/// A file of `id seconds` lines.
fn seconds(builder: &mut Builder<'_>, path: &Path) -> Result<HashMap<String, f64>> {
    let found = table(builder, path)?.unwrap_or_default();
    Ok(found.into_iter().filter_map(|(id, value)| Some((id, value.parse().ok()?))).collect())
}
