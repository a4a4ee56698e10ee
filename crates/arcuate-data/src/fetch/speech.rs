//! From the files of a package to recorded speech: the sound as it was, and manifests that say what is said, one for each language.

mod dialogs;
mod game_archive;
mod seconds;
mod stamps;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::convert::{Lines, damaged, entries, read};
use crate::{Error, Result};

pub(super) use dialogs::fish_fillets;
pub(super) use game_archive::amazon_queen;
pub(super) use stamps::tux_paint;

/// What a manifest says of one sound.
pub(super) struct Spoken<'a> {
    /// Path of the sound file below the folder of the set.
    pub(super) file: &'a str,
    /// What is said; white space is made single blanks.
    pub(super) text: &'a str,
    pub(super) speaker: Option<&'a str>,
    pub(super) language: &'a str,
}

/// A manifest and the sounds that it lists.
pub(super) struct Manifest<'a> {
    data: &'a Path,
    lines: Lines,
}

impl<'a> Manifest<'a> {
    pub(super) fn create(data: &'a Path, name: &str) -> Result<Self> {
        Ok(Self { data, lines: Lines::create(&data.join(name))? })
    }

    /// Moves a sound file into the set and lists it, unless it has no sound.
    fn moved(&mut self, from: &Path, seconds: f64, spoken: &Spoken<'_>) -> Result<()> {
        if seconds <= 0.0 {
            return Ok(());
        }
        let to = self.place(spoken)?;
        fs::rename(from, &to).map_err(|e| Error::write(&to, e))?;
        self.line(seconds, spoken)
    }

    /// Writes a sound file into the set and lists it.
    fn written(&mut self, bytes: &[u8], seconds: f64, spoken: &Spoken<'_>) -> Result<()> {
        let to = self.place(spoken)?;
        fs::write(&to, bytes).map_err(|e| Error::write(&to, e))?;
        self.line(seconds, spoken)
    }

    fn place(&self, spoken: &Spoken<'_>) -> Result<PathBuf> {
        let to = self.data.join(spoken.file);
        let folder = to.parent().unwrap_or(self.data);
        fs::create_dir_all(folder).map_err(|e| Error::io("make", folder, e))?;
        Ok(to)
    }

    /// Lists a sound file that is in the set.
    pub(super) fn line(&mut self, seconds: f64, spoken: &Spoken<'_>) -> Result<()> {
        let mut line = Map::new();
        line.insert("audio_filepath".to_owned(), json!(spoken.file));
        line.insert("duration".to_owned(), json!((seconds * 1000.0).round() / 1000.0));
        line.insert("text".to_owned(), json!(single_blanks(spoken.text)));
        if let Some(speaker) = spoken.speaker {
            line.insert("speaker".to_owned(), json!(speaker));
        }
        line.insert("lang".to_owned(), json!(spoken.language));
        self.lines.line(Value::Object(line))
    }

    pub(super) fn finish(self) -> Result<()> {
        self.lines.finish()
    }
}

fn single_blanks(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All files below a folder that is called `name`, by their path with `/`.
fn files_below(folder: &Path, name: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    collect(folder, name, 0, &mut found)?;
    Ok(found)
}

fn collect(folder: &Path, name: &str, depth: usize, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for (entry, path) in entries(folder)? {
        let name = format!("{name}/{entry}");
        if path.is_dir() && depth < 16 {
            collect(&path, &name, depth + 1, found)?;
        } else if path.is_file() {
            found.insert(name, path);
        }
    }
    Ok(())
}

/// Seconds of a sound file of a package.
pub(super) fn seconds_of(path: &Path) -> Result<f64> {
    let bytes = fs::read(path).map_err(|e| Error::read(path, e))?;
    seconds::of(&bytes).ok_or_else(|| damaged(path, 0, "it is no WAV, Ogg Vorbis or MP3 file"))
}

/// A voice for the Festival synthesiser: `etc/txt.done.data` with lines of `( ID "TEXT" )` beside `wav/ID.wav`. A plus before a vowel
/// marks stress and goes.
pub(super) fn russian_studio(voice: &Path, data: &Path) -> Result<()> {
    let list = voice.join("etc/txt.done.data");
    let mut manifest = Manifest::create(data, "ru.jsonl")?;
    for (number, line) in read(&list)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let inner = line.trim().strip_prefix('(').and_then(|line| line.strip_suffix(')'));
        let parts = inner.and_then(|line| line.trim().split_once(' '));
        let (id, text) = parts.ok_or_else(|| damaged(&list, number, "a line that is not `( ID \"TEXT\" )`"))?;
        let text = text.trim().trim_matches('"').replace('+', "");
        let from = voice.join("wav").join(format!("{id}.wav"));
        let file = format!("wav/{id}.wav");
        let spoken = Spoken { file: &file, text: &text, speaker: Some("msu_ru_nsh"), language: "ru" };
        manifest.moved(&from, seconds_of(&from)?, &spoken)?;
    }
    manifest.finish()
}

#[cfg(test)]
mod tests;
