//! The stamps of Tux Paint: drawn things whose names people of many languages have read aloud.

use std::path::Path;

use super::{Manifest, Spoken, files_below, seconds_of};
use crate::Result;
use crate::fetch::convert::read;

/// Languages with recordings and the same words as text.
const LANGUAGES: [&str; 13] = ["be", "bg", "ca", "da", "el", "en", "es", "fr", "ml", "nl", "pt_BR", "ro", "ru"];
/// Longer clips are no names of things.
const MAX_SECONDS: f64 = 20.0;
const FOLDER: &str = "usr/share/tuxpaint/stamps";

/// `NAME_desc_LANG.ogg` (English: `NAME_desc.ogg`) says what `NAME.txt` writes: its first line is English, then `LANG.utf8=TEXT`.
pub(in crate::fetch) fn tux_paint(package: &Path, data: &Path) -> Result<()> {
    let sounds = files_below(&package.join(FOLDER), "stamps")?;
    for language in LANGUAGES {
        let mut manifest = Manifest::create(data, &format!("{language}.jsonl"))?;
        for (file, path) in &sounds {
            let Some((name, _)) = file.rsplit_once("_desc").filter(|(_, rest)| language_of(rest) == Some(language))
            else {
                continue;
            };
            let texts = path.with_file_name(format!("{}.txt", name.rsplit('/').next().unwrap_or(name)));
            let Some(text) = text(&texts, language)? else { continue };
            let seconds = seconds_of(path)?;
            if seconds <= MAX_SECONDS {
                manifest.moved(path, seconds, &Spoken { file, text: &text, speaker: None, language })?;
            }
        }
        manifest.finish()?;
    }
    Ok(())
}

/// The language of a clip by what follows `_desc` in its name.
fn language_of(rest: &str) -> Option<&str> {
    match rest.rsplit_once('.')? {
        ("", _) => Some("en"),
        (language, "ogg" | "wav") => language.strip_prefix('_'),
        _ => None,
    }
}

/// The text in one language; none where there is none.
fn text(path: &Path, language: &str) -> Result<Option<String>> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = read(path)?;
    let line = match language {
        "en" => text.lines().next(),
        _ => text.lines().find_map(|line| line.strip_prefix(language)?.strip_prefix(".utf8=")),
    };
    Ok(line.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()))
}
