//! Tables of Common Voice: tab-separated, with a line of column names, beside a folder of clips.
//!
//! # Recipe
//! `[data.speech.source.NAME.format.common_voice]` with `path`
//!
//! # Reference
//! Ardila et al. 2020, "Common Voice: A Massively-Multilingual Speech Corpus". Columns are found by name, since releases order
//! them differently: `path` and `sentence` are needed, `client_id` and `locale` used. Where `clip_durations.tsv` lies beside the
//! table, no clip has to be opened.

use std::collections::HashMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Reader;
use super::builder::Builder;
use super::lines::{bad, each_line};
use super::list::{Found, Sound, Written};
use crate::error::{BadReason, Error, Result};
use crate::files::{self, Listed};

const DURATIONS: &str = "clip_durations.tsv";

/// The `[data.speech.source.NAME.format.common_voice]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A table such as `cv/cs/validated.tsv`, or a pattern.
    pub path: String,
    /// Folder of the clips, relative to the table.
    #[serde(default = "default_clips")]
    pub clips: String,
}

fn default_clips() -> String {
    "clips".to_owned()
}

impl Reader for Config {
    fn read(&self, builder: &mut Builder<'_>) -> Result<()> {
        let is_table = |path: &Path| path.extension().is_some_and(|ending| ending == "tsv");
        for file in files::list(builder.name, &self.path, "`.tsv`", &is_table)? {
            let durations = durations(builder, &file.folder().join(DURATIONS))?;
            self.table(builder, &file, &durations)?;
        }
        Ok(())
    }
}

impl Config {
    fn table(&self, builder: &mut Builder<'_>, file: &Listed, durations: &HashMap<String, f64>) -> Result<()> {
        let base = file.folder().join(&self.clips);
        let mut columns: Option<Columns> = None;
        each_line(builder, &file.path, |builder, line, number| {
            let Some(columns) = &columns else {
                columns = Some(Columns::of(builder.name, &file.path, line)?);
                return Ok(());
            };
            let cells: Vec<&str> = line.split('\t').collect();
            if cells.len() != columns.num {
                let detail = format!("has {} columns where the first line names {}", cells.len(), columns.num);
                return Err(bad(BadReason::MissingField, &file.path, number, detail));
            }
            let cell = |column: Option<usize>| column.map(|at| cells[at].trim());
            let written = cells[columns.path].trim();
            if written.is_empty() {
                return Err(bad(BadReason::MissingField, &file.path, number, "has an empty `path`"));
            }
            // The first releases left the ending out.
            let path = if super::is_sound(written) { written.to_owned() } else { format!("{written}.mp3") };
            let sound = Sound::File(Written { base: &base, prefix: file.prefix(), path: &path });
            builder.add(
                &file.path,
                Found {
                    id: None,
                    sound,
                    seconds: durations.get(written).copied(),
                    transcript: Some(cells[columns.sentence].trim()),
                    speaker: cell(columns.client_id),
                    language: cell(columns.locale),
                    line: number,
                },
            )
        })
    }
}

/// Where the columns are.
struct Columns {
    num: usize,
    path: usize,
    sentence: usize,
    client_id: Option<usize>,
    locale: Option<usize>,
}

impl Columns {
    fn of(name: &str, path: &Path, line: &str) -> Result<Self> {
        let names: Vec<&str> = line.split('\t').map(str::trim).collect();
        let find = |column: &str| names.iter().position(|name| *name == column);
        let need = |column: &'static str| {
            find(column).ok_or_else(|| Error::MissingColumn {
                name: name.to_owned(),
                place: format!("{}:1", path.display()),
                column: column.to_owned(),
                key: "speech.common_voice.path",
                available: names.iter().map(|name| (*name).to_owned()).collect(),
            })
        };
        Ok(Self {
            num: names.len(),
            path: need("path")?,
            sentence: need("sentence")?,
            client_id: find("client_id"),
            locale: find("locale"),
        })
    }
}

/// Seconds by clip, as far as a table beside the other says them.
fn durations(builder: &mut Builder<'_>, path: &Path) -> Result<HashMap<String, f64>> {
    let mut found = HashMap::new();
    if !path.exists() {
        return Ok(found);
    }
    each_line(builder, path, |_, line, number| {
        let cells = line.split_once('\t');
        let milliseconds = cells.and_then(|(clip, value)| Some((clip, value.trim().parse::<f64>().ok()?)));
        match milliseconds {
            Some((clip, value)) => {
                found.insert(clip.to_owned(), value / 1000.0);
                Ok(())
            }
            None if number == 1 => Ok(()),
            None => Err(bad(BadReason::WrongType, path, number, "is not a clip and its milliseconds")),
        }
    })?;
    Ok(found)
}
