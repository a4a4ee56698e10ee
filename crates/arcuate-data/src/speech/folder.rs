//! A folder of sound files, each with a text file of the same name beside it where something is known of what was said.
//!
//! # Recipe
//! `[data.speech.source.NAME.format.folder]` with `path`
//!
//! # Reference
//! `a/b.flac` with `a/b.txt`: the layout that needs no list.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::builder::Builder;
use super::lines::bad;
use super::list::{Found, Sound, Written};
use super::{ENDINGS_SHOWN, Reader, is_sound};
use crate::error::{BadReason, Error, Result};
use crate::files;

/// Longest text of one utterance.
pub(super) const MAX_TEXT_BYTES: u64 = 1 << 20;

/// The `[data.speech.source.NAME.format.folder]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A folder (read recursively in sorted order), a pattern or one sound file.
    pub path: String,
}

impl Reader for Config {
    fn read(&self, builder: &mut Builder<'_>) -> Result<()> {
        let is_wanted = |path: &Path| path.file_name().is_some_and(|name| is_sound(&name.to_string_lossy()));
        for file in files::list(builder.name, &self.path, ENDINGS_SHOWN, &is_wanted)? {
            let transcript = text_beside(&file.path);
            let prefix = file.prefix();
            let path = file.name.strip_prefix(prefix).unwrap_or(&file.name);
            let done = transcript.and_then(|transcript| {
                let found = Found {
                    id: None,
                    sound: Sound::File(Written { base: file.folder(), prefix, path }),
                    seconds: None,
                    transcript: transcript.as_deref(),
                    speaker: None,
                    language: None,
                    line: 0,
                };
                builder.add(&file.path, found)
            });
            builder.count(done)?;
        }
        Ok(())
    }
}

/// What the text file beside a sound file says.
fn text_beside(sound: &Path) -> Result<Option<String>> {
    let path = sound.with_extension("txt");
    if !path.is_file() {
        return Ok(None);
    }
    let file = File::open(&path).map_err(|error| Error::read(&path, error))?;
    let mut bytes = Vec::new();
    file.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes).map_err(|error| Error::read(&path, error))?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(bad(BadReason::TooLong, &path, 0, format!("is longer than {MAX_TEXT_BYTES} bytes")));
    }
    transcript(&bytes).map(Some).ok_or_else(|| bad(BadReason::NonUtf8, &path, 0, "is not UTF-8"))
}

/// The text of a file as one line; none where it is not UTF-8.
pub(super) fn transcript(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).ok()?;
    Some(text.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" "))
}
