//! JSON lines: one object a line, plain or compressed.

use std::io::BufRead;

use serde_json::{Map, Value};

use super::lines::{Line, next_line};
use super::{Context, Document, bad, record, too_long};
use crate::error::{BadReason, Error, Result};
use crate::files::InputFile;

/// Documents of one file.
pub(super) struct JsonLines {
    file: InputFile,
    context: Context,
    reader: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    number: u64,
    is_over: bool,
    is_checked: bool,
}

impl JsonLines {
    pub(super) fn open(file: InputFile, context: Context) -> Result<Self> {
        let reader = file.open(&context.progress)?;
        Ok(Self { file, context, reader, line: Vec::new(), number: 0, is_over: false, is_checked: false })
    }

    fn place(&self) -> String {
        format!("{}:{}", self.file.path.display(), self.number)
    }

    fn parse(&mut self) -> Result<Document> {
        let bytes =
            if self.number == 1 { self.line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.line) } else { &self.line };
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let detail = format!("is not UTF-8 (byte {} of the line)", error.valid_up_to() + 1);
            bad(BadReason::NonUtf8, self.place(), detail)
        })?;
        let object: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
            let hint =
                if text.trim_start().starts_with('[') { "; one object a line is expected, not one list" } else { "" };
            // The line number inside the message would always be 1.
            let said = error.to_string();
            let said = said.split(" at line ").next().unwrap_or_default().to_owned();
            let detail = format!("is not valid JSON ({said}, column {}){hint}", error.column());
            bad(BadReason::BrokenJson, self.place(), detail)
        })?;
        let source = &self.context.source;
        // A wrong name in the recipe shows in the first object: that is not the data's fault.
        let wanted = [
            ("text_column", Some(&source.text_column)),
            ("id_column", source.id_column.as_ref()),
            ("label_column", source.label_column.as_ref()),
            ("tags_column", source.tags_column.as_ref()),
        ];
        if !self.is_checked {
            for (key, column) in wanted {
                if let Some(column) = column
                    && !object.contains_key(column)
                {
                    return Err(Error::MissingColumn {
                        name: self.context.name.clone(),
                        place: self.place(),
                        column: column.clone(),
                        key,
                        available: object.keys().cloned().collect(),
                    });
                }
            }
            self.is_checked = true;
        }
        let number = self.number;
        let name = &self.file.name;
        record::document(object, &self.context, self.place(), || format!("{name}:{number}"))
    }
}

impl Iterator for JsonLines {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over {
            let limit = self.context.max_document_bytes;
            match next_line(&mut self.reader, limit, &mut self.line) {
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(self.file.read_error(error, self.number)));
                }
                Ok(Line::End) => self.is_over = true,
                Ok(Line::TooLong) => {
                    self.number += 1;
                    return Some(Err(Error::BadItem(too_long(self.place(), limit))));
                }
                Ok(Line::Whole) => {
                    self.number += 1;
                    if !self.line.iter().all(u8::is_ascii_whitespace) {
                        return Some(self.parse());
                    }
                }
            }
        }
        None
    }
}
