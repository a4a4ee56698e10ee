//! Parquet: columns of text, id, label and tags, read row by row without the rest of the table.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::{Context, Document, bad, record, too_long};
use crate::error::{BadReason, Error, Result};
use crate::files::InputFile;

/// Documents of one file.
pub(super) struct ParquetRows {
    file: InputFile,
    context: Context,
    rows: RowIter<'static>,
    number: u64,
    num_rows: u64,
    is_over: bool,
}

impl ParquetRows {
    pub(super) fn open(file: InputFile, context: Context) -> Result<Self> {
        let handle = File::open(&file.path).map_err(|source| Error::read(&file.path, source))?;
        // The library checks much, not everything: a damaged file must not end the program.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::start(handle, &file, &context)));
        let (rows, num_rows) = opened.unwrap_or_else(|_| Err(damaged(&file, 0, "its structure makes no sense")))?;
        Ok(Self { file, context, rows, number: 0, num_rows, is_over: false })
    }

    fn start(handle: File, file: &InputFile, context: &Context) -> Result<(RowIter<'static>, u64)> {
        let reader = SerializedFileReader::new(handle).map_err(|error| damaged(file, 0, error))?;
        let metadata = reader.metadata().file_metadata();
        let schema = metadata.schema();
        let num_rows = u64::try_from(metadata.num_rows()).unwrap_or(0);
        let available: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
        let source = &context.source;
        let mut wanted = Vec::new();
        let columns = [
            ("text_column", Some(&source.text_column)),
            ("id_column", source.id_column.as_ref()),
            ("label_column", source.label_column.as_ref()),
            ("tags_column", source.tags_column.as_ref()),
        ];
        for (key, column) in columns {
            let Some(column) = column else { continue };
            match schema.get_fields().iter().find(|field| field.name() == column) {
                Some(field) => wanted.push(Arc::clone(field)),
                None => {
                    return Err(Error::MissingColumn {
                        name: context.name.clone(),
                        place: file.path.display().to_string(),
                        column: column.clone(),
                        key,
                        available,
                    });
                }
            }
        }
        if source.id_column.is_none() {
            wanted.extend(schema.get_fields().iter().find(|field| field.name() == "id").cloned());
        }
        wanted.sort_by(|a, b| a.name().cmp(b.name()));
        wanted.dedup_by(|a, b| a.name() == b.name());
        let projection = Type::group_type_builder(schema.name())
            .with_fields(wanted)
            .build()
            .map_err(|error| damaged(file, 0, error))?;
        let rows = RowIter::from_file_into(Box::new(reader))
            .project(Some(projection))
            .map_err(|error| damaged(file, 0, error))?;
        Ok((rows, num_rows))
    }

    fn parse(&self, row: Row) -> Result<Document> {
        let place = format!("{}:{}", self.file.path.display(), self.number);
        let mut columns = Map::new();
        for (name, field) in row.into_columns() {
            let value = match field {
                Field::Null => Value::Null,
                Field::Str(text) => Value::String(text),
                Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
                    Ok(text) => Value::String(text.to_owned()),
                    Err(_) => {
                        return Err(bad(BadReason::NonUtf8, place, format!("is not UTF-8 in `{name}`")));
                    }
                },
                other => scalar(&other),
            };
            if let Value::String(text) = &value
                && text.len() as u64 > self.context.max_document_bytes
            {
                return Err(Error::BadItem(too_long(place, self.context.max_document_bytes)));
            }
            columns.insert(name, value);
        }
        record::document(columns, &self.context, place, || format!("{}:{}", self.file.name, self.number))
    }
}

impl Iterator for ParquetRows {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = catch_unwind(AssertUnwindSafe(|| self.rows.next()));
        match next {
            Ok(Some(Ok(row))) => {
                let share = |number: u64| {
                    let bytes = u128::from(self.file.num_bytes) * u128::from(number.min(self.num_rows));
                    (bytes / u128::from(self.num_rows.max(1))) as u64
                };
                let read = share(self.number + 1) - share(self.number);
                self.context.progress.fetch_add(read, Ordering::Relaxed);
                self.number += 1;
                Some(self.parse(row))
            }
            Ok(None) => {
                self.is_over = true;
                None
            }
            Ok(Some(Err(error))) => {
                self.is_over = true;
                Some(Err(damaged(&self.file, self.number, error)))
            }
            Err(_) => {
                self.is_over = true;
                Some(Err(damaged(&self.file, self.number, "its pages make no sense")))
            }
        }
    }
}

/// Ids and labels may be numbers, tags are a list; anything deeper is only told apart from them.
fn scalar(field: &Field) -> Value {
    match field {
        Field::Bool(value) => Value::from(*value),
        Field::Byte(value) => Value::from(*value),
        Field::Short(value) => Value::from(*value),
        Field::Int(value) => Value::from(*value),
        Field::Long(value) => Value::from(*value),
        Field::UByte(value) => Value::from(*value),
        Field::UShort(value) => Value::from(*value),
        Field::UInt(value) => Value::from(*value),
        Field::ULong(value) => Value::from(*value),
        Field::Float(value) => Value::from(*value),
        Field::Double(value) => Value::from(*value),
        Field::Group(_) | Field::MapInternal(_) => Value::Object(Map::new()),
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(scalar).collect()),
        Field::Str(text) => Value::String(text.clone()),
        Field::Null => Value::Null,
        other => Value::String(other.to_string()),
    }
}

fn damaged(file: &InputFile, line: u64, detail: impl ToString) -> Error {
    let detail = detail.to_string();
    let detail = detail.strip_prefix("Parquet error: ").unwrap_or(&detail).to_owned();
    Error::DamagedFile { path: file.path.clone(), line, detail }
}
