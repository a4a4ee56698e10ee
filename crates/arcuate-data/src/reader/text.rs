//! Plain text: one document a file, of any size, plain or compressed.
//!
//! A file is read twice: once to see that it is UTF-8 and not empty, so that a bad file is skipped as a whole, once for its text.

use std::io::{BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::{Context, Document, PART_BYTES, Part, bad, cut_point};
use crate::error::{BadReason, Error, Result};
use crate::files::InputFile;

const READ_BYTES: usize = 64 << 10;

/// Parts of one file.
pub(super) struct TextParts {
    file: InputFile,
    reader: Box<dyn BufRead + Send>,
    /// Checked text that was not given out yet.
    text: String,
    /// Bytes of a character that is not complete yet.
    tail: Vec<u8>,
    has_more: bool,
    is_over: bool,
    split_at: Option<usize>,
    /// Parts given out of the current document.
    in_section: usize,
    section: u64,
    is_first: bool,
}

impl TextParts {
    pub(super) fn open(file: InputFile, context: Context) -> Result<Self> {
        let source = &context.source;
        let columns = [
            ("id_column", &source.id_column),
            ("label_column", &source.label_column),
            ("tags_column", &source.tags_column),
        ];
        for (key, column) in columns {
            if let Some(column) = column {
                return Err(Error::NoColumns {
                    name: context.name.clone(),
                    path: file.path.clone(),
                    column: column.clone(),
                    key,
                });
            }
        }
        let num_bytes = check(&file)?;
        let split_at = source.split_at_bytes.filter(|limit| num_bytes > *limit);
        let reader = file.open(&context.progress)?;
        Ok(Self {
            file,
            reader,
            text: String::new(),
            tail: Vec::new(),
            has_more: true,
            is_over: false,
            split_at: split_at.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            in_section: 0,
            section: 1,
            is_first: true,
        })
    }

    /// Fills `text` to more than `wanted` bytes if the file has as many.
    fn fill(&mut self, wanted: usize) -> Result<()> {
        while self.has_more && self.text.len() <= wanted {
            let at = self.tail.len();
            self.tail.resize(at + READ_BYTES, 0);
            let read =
                read_some(&mut self.reader, &mut self.tail[at..]).map_err(|error| self.file.read_error(error, 0))?;
            self.tail.truncate(at + read);
            self.has_more = read > 0;
            let valid = match std::str::from_utf8(&self.tail) {
                Ok(text) => text,
                Err(error) if error.error_len().is_none() && self.has_more => {
                    let whole = &self.tail[..error.valid_up_to()];
                    std::str::from_utf8(whole).expect("this much was found valid")
                }
                Err(_) => return Err(changed(&self.file)),
            };
            let used = valid.len();
            self.text.push_str(valid);
            self.tail.drain(..used);
        }
        Ok(())
    }

    fn next_part(&mut self) -> Result<Option<Part>> {
        let section_room = self.split_at.map_or(usize::MAX, |limit| limit - self.in_section);
        let limit = section_room.min(PART_BYTES);
        self.fill(limit)?;
        if self.text.is_empty() {
            return Ok(None);
        }
        let at = if self.text.len() <= limit { self.text.len() } else { cut_point(&self.text, limit) };
        let rest = self.text.split_off(at);
        let text = std::mem::replace(&mut self.text, rest);
        let is_end = self.text.is_empty() && !self.has_more;
        self.in_section += text.len();
        // The next part of a section would be a scrap: end the section here.
        let is_section_full = self.split_at.is_some_and(|limit| limit - self.in_section.min(limit) < limit / 4 + 4);
        let name = &self.file.name;
        let id = if self.split_at.is_some() { format!("{name}#{}", self.section) } else { name.clone() };
        let place = self.file.path.display().to_string();
        let document = Document { id, text, place, ..Document::default() };
        let is_last = is_end || is_section_full;
        let part = Part { document, is_first: self.is_first, is_last };
        self.is_first = is_last;
        if is_last {
            self.section += 1;
            self.in_section = 0;
        }
        Ok(Some(part))
    }
}

impl Iterator for TextParts {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over {
            match self.next_part() {
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
                Ok(None) => self.is_over = true,
                // A section of nothing but blank lines is no document.
                Ok(Some(part)) if part.is_first && part.is_last && part.document.text.trim().is_empty() => {}
                Ok(Some(part)) => return Some(Ok(part)),
            }
        }
        None
    }
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn changed(file: &InputFile) -> Error {
    Error::DamagedFile { path: file.path.clone(), line: 0, detail: "it changed while it was read".to_owned() }
}

/// The number of bytes of text, if all of it is UTF-8 and some of it visible.
fn check(file: &InputFile) -> Result<u64> {
    // Only the second reading counts as progress.
    let mut reader = file.open(&Arc::new(AtomicU64::new(0)))?;
    let mut buffer: Vec<u8> = Vec::with_capacity(2 * READ_BYTES);
    let (mut num_bytes, mut line, mut is_blank) = (0u64, 1u64, true);
    loop {
        let at = buffer.len();
        buffer.resize(at + READ_BYTES, 0);
        let read = read_some(&mut reader, &mut buffer[at..]).map_err(|error| file.read_error(error, line - 1))?;
        buffer.truncate(at + read);
        num_bytes += read as u64;
        let (valid, is_wrong) = match std::str::from_utf8(&buffer) {
            Ok(text) => (text.len(), false),
            Err(error) => (error.valid_up_to(), error.error_len().is_some() || read == 0),
        };
        let text = std::str::from_utf8(&buffer[..valid]).expect("this much was found valid");
        line += text.bytes().filter(|byte| *byte == b'\n').count() as u64;
        is_blank = is_blank && text.trim().is_empty();
        if is_wrong {
            let place = format!("{}:{line}", file.path.display());
            return Err(bad(BadReason::NonUtf8, place, "is not UTF-8; convert the file, for instance with iconv"));
        }
        buffer.drain(..valid);
        if read == 0 {
            break;
        }
    }
    if is_blank {
        return Err(bad(BadReason::EmptyText, file.path.display().to_string(), "has an empty text"));
    }
    Ok(num_bytes)
}
