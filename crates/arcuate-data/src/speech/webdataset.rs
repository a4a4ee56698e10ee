//! Shards of WebDataset: tar archives in which files with the same name but for the ending belong together. Read where they are,
//! never unpacked.
//!
//! # Recipe
//! `[data.speech.source.NAME.format.webdataset]` with `path`
//!
//! # Reference
//! The conventions of WebDataset (Aizman et al. 2019, "High Performance I/O For Large Scale Deep Learning"): `a/7.flac` with
//! `a/7.txt` or `a/7.json`. The name ends at the last dot here, so that names may have dots.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::builder::Builder;
use super::folder::{MAX_TEXT_BYTES, transcript};
use super::list::{Found, Sound};
use super::tar::{Member, each_member};
use super::{Reader, is_sound};
use crate::error::{BadItem, BadReason, Error, Result};
use crate::files;

/// The `[data.speech.source.NAME.format.webdataset]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A `.tar` archive, a folder of them (read recursively in sorted order) or a pattern.
    pub path: String,
    /// Key of the transcript in `.json` members.
    #[serde(default = "default_text_key")]
    pub text_key: String,
}

fn default_text_key() -> String {
    "text".to_owned()
}

/// What belongs to one name.
#[derive(Default)]
struct Sample {
    sound: Option<Member>,
    transcript: Option<String>,
    seconds: Option<f64>,
    speaker: Option<String>,
    language: Option<String>,
}

impl Reader for Config {
    fn read(&self, builder: &mut Builder<'_>) -> Result<()> {
        let is_archive = |path: &Path| path.extension().is_some_and(|ending| ending == "tar");
        for file in files::list(builder.name, &self.path, "`.tar`", &is_archive)? {
            self.archive(builder, &file.path, &file.name)?;
        }
        Ok(())
    }
}

impl Config {
    fn archive(&self, builder: &mut Builder<'_>, path: &Path, name: &str) -> Result<()> {
        let mut stems: HashMap<String, usize> = HashMap::new();
        let mut samples: Vec<(String, Sample)> = Vec::new();
        each_member(path, |file, member| {
            let done = member.and_then(|member| {
                let (stem, ending) = member.name.rsplit_once('.').unwrap_or((&member.name, ""));
                let is_wanted = is_sound(&member.name) || matches!(ending, "txt" | "json");
                // Files that begin with a dot are those of systems, not of people.
                if !is_wanted || stem.is_empty() || stem.rsplit('/').next().is_some_and(|last| last.starts_with('.')) {
                    return Ok(());
                }
                let index = *stems.entry(stem.to_owned()).or_insert_with(|| {
                    samples.push((stem.to_owned(), Sample::default()));
                    samples.len() - 1
                });
                self.part(path, file, &mut samples[index].1, member)
            });
            builder.count(done)
        })?;
        for (stem, sample) in &samples {
            let Some(Member { name: member, offset, len }) = &sample.sound else { continue };
            let done = builder.add(
                path,
                Found {
                    id: Some(&format!("{name}/{stem}")),
                    sound: Sound::Member { archive: path, name: member, offset: *offset, len: *len },
                    seconds: sample.seconds,
                    transcript: sample.transcript.as_deref(),
                    speaker: sample.speaker.as_deref(),
                    language: sample.language.as_deref(),
                    line: 0,
                },
            );
            builder.count(done)?;
        }
        Ok(())
    }

    /// Takes one member into its sample.
    fn part(&self, path: &Path, file: &File, sample: &mut Sample, member: Member) -> Result<()> {
        let refuse = |reason, detail: String| {
            let place = format!("{}:{}", path.display(), member.name);
            Err(Error::BadItem(BadItem { reason, place, detail }))
        };
        if is_sound(&member.name) {
            if let Some(other) = &sample.sound {
                return refuse(BadReason::DuplicateId, format!("is a second sound beside `{}`", other.name));
            }
            if member.len == 0 {
                return refuse(BadReason::EmptySound, "has 0 bytes".to_owned());
            }
            sample.sound = Some(member);
            return Ok(());
        }
        if member.len > MAX_TEXT_BYTES {
            return refuse(
                BadReason::TooLong,
                format!("is a text of {} bytes, more than {MAX_TEXT_BYTES}", member.len),
            );
        }
        let mut bytes = vec![0; member.len as usize];
        file.read_exact_at(&mut bytes, member.offset).map_err(|error| Error::read(path, error))?;
        if !member.name.ends_with(".json") {
            return match transcript(&bytes) {
                Some(text) => {
                    sample.transcript = Some(text);
                    Ok(())
                }
                None => refuse(BadReason::NonUtf8, "is not UTF-8".to_owned()),
            };
        }
        let Ok(Value::Object(object)) = serde_json::from_slice(&bytes) else {
            return refuse(BadReason::BrokenJson, "is not a JSON object".to_owned());
        };
        let text = |key: &str| match object.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        // A text file says it better than a key that may be missing.
        sample.transcript = sample.transcript.take().or_else(|| text(&self.text_key));
        sample.seconds = object.get("duration").and_then(Value::as_f64);
        sample.speaker = text("speaker");
        sample.language = text("lang");
        Ok(())
    }
}
