//! Parquet with the sound inside: a column of `{bytes, path}` as the Hugging Face hub stores it, and columns of text beside it.
//!
//! # Recipe
//! `[data.speech.source.NAME.format.parquet]` with `path`
//!
//! # Reference
//! The audio feature of Hugging Face `datasets`: a struct of the encoded file and its name.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::Type;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::builder::Builder;
use super::lines::bad;
use super::list::{Found, Sound};
use super::{Reader, audio};
use crate::error::{BadReason, Error, Result};
use crate::files::{self, Listed};

/// Sounds that are measured at a time.
const BATCH: usize = 16;

/// The `[data.speech.source.NAME.format.parquet]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A file, a folder (read recursively in sorted order) or a pattern; files end in `.parquet`.
    pub path: String,
    /// Name of the column with `{bytes, path}`.
    #[serde(default = "default_audio_column")]
    pub audio_column: String,
    /// Name of the column that holds what was said; nothing when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_column: Option<String>,
    /// Name of the column that holds the id. When left out, the name of the sound file in the audio column, or file and row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_column: Option<String>,
    /// Name of the column that says who speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker_column: Option<String>,
    /// Name of the column that names the language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_column: Option<String>,
    /// Name of the column that holds the seconds. When left out, every sound is looked at once when the source is opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_column: Option<String>,
}

fn default_audio_column() -> String {
    "audio".to_owned()
}

impl Reader for Config {
    fn read(&self, builder: &mut Builder<'_>) -> Result<()> {
        let is_table = |path: &Path| path.extension().is_some_and(|ending| ending == "parquet");
        for file in files::list(builder.name, &self.path, "`.parquet`", &is_table)? {
            guarded(&file.path, || self.file(builder, &file))?;
        }
        Ok(())
    }
}

/// The library checks much, not everything: a damaged file must not end the program.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(damaged(path, "its structure makes no sense")))
}

fn damaged(path: &Path, detail: impl ToString) -> Error {
    let detail = detail.to_string();
    let detail = detail.strip_prefix("Parquet error: ").unwrap_or(&detail).to_owned();
    Error::DamagedFile { path: path.to_owned(), line: 0, detail }
}

fn open(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(|error| Error::read(path, error))?;
    SerializedFileReader::new(file).map_err(|error| damaged(path, error))
}

impl Config {
    fn file(&self, builder: &mut Builder<'_>, file: &Listed) -> Result<()> {
        let reader = open(&file.path)?;
        let schema = reader.metadata().file_metadata().schema();
        let projection = self.projection(builder.name, &file.path, schema)?;
        let mut line = 0;
        for group in 0..reader.num_row_groups() {
            let said = |error: ParquetError| damaged(&file.path, error);
            let row_group = reader.get_row_group(group).map_err(said)?;
            let mut seconds = match self.seconds_column {
                Some(_) => None,
                None => Some(Measured::new(self, &file.path, &*row_group)?),
            };
            let rows = row_group.get_row_iter(Some(projection.clone())).map_err(said)?;
            for (row, columns) in rows.enumerate() {
                line += 1;
                let columns = columns.map_err(said)?;
                let measured = match &mut seconds {
                    Some(seconds) => seconds.next(line)?,
                    None => Ok(f64::NAN),
                };
                let done = measured
                    .and_then(|seconds| self.row(builder, file, (group as u32, row as u32, line), &columns, seconds));
                builder.count(done)?;
            }
        }
        Ok(())
    }

    /// The columns that are read for the list: all but the bytes.
    fn projection(&self, name: &str, path: &Path, schema: &Type) -> Result<Type> {
        let available: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
        let find = |key, column: &str| match schema.get_fields().iter().find(|field| field.name() == column) {
            Some(field) => Ok(Arc::clone(field)),
            None => Err(Error::MissingColumn {
                name: name.to_owned(),
                place: path.display().to_string(),
                column: column.to_owned(),
                key,
                available: available.clone(),
            }),
        };
        let audio = find("speech.parquet.audio_column", &self.audio_column)?;
        let has = |part: &str| audio.is_group() && audio.get_fields().iter().any(|field| field.name() == part);
        if !has("bytes") {
            let detail = format!("its column `{}` is no struct of `bytes` and `path`", self.audio_column);
            return Err(damaged(path, detail));
        }
        let mut wanted = Vec::new();
        for (key, column) in [
            ("speech.parquet.text_column", &self.text_column),
            ("speech.parquet.id_column", &self.id_column),
            ("speech.parquet.speaker_column", &self.speaker_column),
            ("speech.parquet.language_column", &self.language_column),
            ("speech.parquet.seconds_column", &self.seconds_column),
        ] {
            if let Some(column) = column {
                wanted.push(find(key, column)?);
            }
        }
        let build = |error: ParquetError| damaged(path, error);
        // One part of the struct has to be read, or there would be no rows.
        let part = if has("path") { "path" } else { "bytes" };
        let part = audio.get_fields().iter().find(|field| field.name() == part).cloned();
        let slim = Type::group_type_builder(audio.name())
            .with_repetition(audio.get_basic_info().repetition())
            .with_fields(part.into_iter().collect())
            .build()
            .map_err(build)?;
        wanted.push(Arc::new(slim));
        wanted.sort_by(|a, b| a.name().cmp(b.name()));
        wanted.dedup_by(|a, b| a.name() == b.name());
        Type::group_type_builder(schema.name()).with_fields(wanted).build().map_err(build)
    }

    fn row(
        &self,
        builder: &mut Builder<'_>,
        file: &Listed,
        (row_group, row, line): (u32, u32, u64),
        columns: &Row,
        measured: f64,
    ) -> Result<()> {
        let field = |column: &str| columns.get_column_iter().find(|(name, _)| *name == column).map(|(_, field)| field);
        let text = |column: &Option<String>| {
            column.as_deref().and_then(field).map_or(Ok(None), |field| {
                scalar(field).map_err(|what| bad(BadReason::WrongType, &file.path, line, what))
            })
        };
        let inner = match field(&self.audio_column) {
            Some(Field::Group(audio)) => audio.get_column_iter().find(|(name, _)| *name == "path"),
            _ => None,
        };
        let id = match (text(&self.id_column)?, inner) {
            (Some(id), _) => id,
            (None, Some((_, Field::Str(name)))) if !name.is_empty() => name.clone(),
            _ => format!("{}:{line}", file.name),
        };
        let seconds = match text(&self.seconds_column)? {
            None => measured,
            Some(seconds) => seconds.parse().map_err(|_| {
                bad(BadReason::WrongType, &file.path, line, format!("has `{seconds}` in place of seconds"))
            })?,
        };
        let (transcript, speaker, language) =
            (text(&self.text_column)?, text(&self.speaker_column)?, text(&self.language_column)?);
        let found = Found {
            id: Some(&id),
            sound: Sound::Row { path: &file.path, row_group, row, column: &self.audio_column },
            seconds: Some(seconds).filter(|seconds| !seconds.is_nan()),
            transcript: transcript.as_deref(),
            speaker: speaker.as_deref(),
            language: language.as_deref(),
            line,
        };
        builder.add(&file.path, found)
    }
}

/// A text or number as text; none where it is null.
fn scalar(field: &Field) -> std::result::Result<Option<String>, &'static str> {
    match field {
        Field::Null => Ok(None),
        Field::Str(text) => Ok(Some(text.clone())),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err("has a text that is not UTF-8"),
        },
        Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => Err("has a list in place of a text"),
        other => Ok(Some(other.to_string())),
    }
}

/// The seconds of all sounds of a row group, some at a time.
struct Measured<'a> {
    path: &'a Path,
    bytes: BytesColumn,
    ready: std::collections::VecDeque<std::result::Result<f64, (BadReason, String)>>,
}

impl<'a> Measured<'a> {
    fn new(config: &Config, path: &'a Path, group: &dyn RowGroupReader) -> Result<Self> {
        let bytes = BytesColumn::open(group, &config.audio_column).map_err(|error| damaged(path, error))?;
        Ok(Self { path, bytes, ready: std::collections::VecDeque::new() })
    }

    /// The seconds of the next row, or why it has none.
    fn next(&mut self, line: u64) -> Result<Result<f64>> {
        if self.ready.is_empty() {
            let values = self.bytes.read(BATCH).map_err(|error| damaged(self.path, error))?;
            let measured: Vec<_> = values
                .into_par_iter()
                .map(|value| match value {
                    None => {
                        Err((BadReason::MissingField, "has no bytes of sound; store the files in the table".to_owned()))
                    }
                    Some(bytes) => audio::seconds_of_bytes(bytes.data().to_vec())
                        .map_err(|error| (BadReason::BrokenSound, format!("has a sound that cannot be used: {error}"))),
                })
                .collect();
            self.ready.extend(measured);
        }
        let next = self.ready.pop_front().ok_or_else(|| damaged(self.path, "its columns have different lengths"))?;
        Ok(next.map_err(|(reason, detail)| bad(reason, self.path, line, detail)))
    }
}

/// The bytes of the sounds in one row group.
struct BytesColumn {
    reader: ColumnReaderImpl<ByteArrayType>,
    max_level: i16,
}

impl BytesColumn {
    fn open(group: &dyn RowGroupReader, column: &str) -> std::result::Result<Self, ParquetError> {
        let schema = group.metadata().schema_descr();
        let is_bytes = |leaf: &usize| schema.column(*leaf).path().parts() == [column, "bytes"];
        let leaf = (0..schema.num_columns()).find(is_bytes);
        let leaf = leaf.ok_or_else(|| ParquetError::General(format!("there is no column `{column}.bytes`")))?;
        let descriptor = schema.column(leaf);
        if descriptor.max_rep_level() > 0 {
            return Err(ParquetError::General(format!("`{column}.bytes` is a list")));
        }
        match group.get_column_reader(leaf)? {
            ColumnReader::ByteArrayColumnReader(reader) => Ok(Self { reader, max_level: descriptor.max_def_level() }),
            _ => Err(ParquetError::General(format!("`{column}.bytes` holds no bytes"))),
        }
    }

    /// The next values, at most so many; null where there is none.
    fn read(&mut self, num: usize) -> std::result::Result<Vec<Option<ByteArray>>, ParquetError> {
        let (mut values, mut levels) = (Vec::new(), Vec::new());
        let (num_rows, _, _) = self.reader.read_records(num, Some(&mut levels), None, &mut values)?;
        if self.max_level == 0 {
            levels = vec![0; num_rows];
        }
        let mut values = values.into_iter();
        Ok(levels.into_iter().map(|level| if level == self.max_level { values.next() } else { None }).collect())
    }
}

/// Rows of a file.
#[cfg(feature = "hub")]
pub(crate) fn num_rows(path: &Path) -> Result<u64> {
    guarded(path, || Ok(u64::try_from(open(path)?.metadata().file_metadata().num_rows()).unwrap_or(0)))
}

/// The sound file in one row; none where it is null.
pub(super) fn value(path: &Path, row_group: u32, row: u32, column: &str) -> Result<Option<Vec<u8>>> {
    guarded(path, || {
        let said = |error: ParquetError| damaged(path, error);
        let reader = open(path)?;
        // The file may have changed since its list was read.
        if row_group as usize >= reader.num_row_groups() {
            return Err(damaged(path, "it has fewer row groups than before"));
        }
        let group = reader.get_row_group(row_group as usize).map_err(said)?;
        let mut bytes = BytesColumn::open(&*group, column).map_err(said)?;
        bytes.reader.skip_records(row as usize).map_err(said)?;
        let value = bytes.read(1).map_err(said)?.pop().flatten();
        Ok(value.map(|bytes| bytes.data().to_vec()))
    })
}
