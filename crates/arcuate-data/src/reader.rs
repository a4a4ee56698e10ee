//! Readers: files of any supported format to documents, streaming, with the place of everything that is wrong.
//!
//! A document comes in parts of some hundred kilobytes, so that one giant text needs no more memory than many small ones.

mod jsonl;
mod lines;
mod parquet;
mod record;
mod text;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::{Map, Value};

use crate::config::{DataConfig, SourceConfig, default_max_document_bytes};
use crate::error::{BadItem, BadReason, Error, Result};
use crate::files::{self, Format, InputFile};
use crate::split::id_hash;
pub(crate) use lines::{Line, next_line};

/// Longest stretch of text that is tokenised at once.
pub(crate) const PART_BYTES: usize = 256 << 10;

/// One text of a corpus.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    /// The id given, or file name and line.
    pub id: String,
    /// The record that this is a section of, where `split_at_bytes` cut it: sections of a record stay on one side of the split.
    pub parent: Option<String>,
    /// The text.
    pub text: String,
    /// The class, where the recipe names a label column and the document has one.
    pub label: Option<String>,
    /// A number for each class by name, sorted by name, where the recipe names a column of logits.
    pub logits: Option<Vec<(String, f32)>>,
    /// A tag for each word, where the recipe names a column of tags.
    pub tags: Option<Vec<String>>,
    /// Everything else that a JSON line holds.
    pub attributes: Map<String, Value>,
    /// `file:line`, or the file alone for text files.
    pub place: String,
}

/// A stretch of a document; the first part has its attributes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) document: Document,
    pub(crate) is_first: bool,
    pub(crate) is_last: bool,
}

/// What readers need to know beside the source.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) name: String,
    pub(crate) source: SourceConfig,
    pub(crate) max_document_bytes: u64,
    /// Bytes read from disk so far.
    pub(crate) progress: Arc<AtomicU64>,
}

type PartStream = Box<dyn Iterator<Item = Result<Part>> + Send>;

/// All parts of all documents of a source. Ends after an error that is not a bad item.
pub(crate) struct Parts {
    context: Context,
    files: std::vec::IntoIter<InputFile>,
    current: Option<PartStream>,
    total_bytes: u64,
    is_over: bool,
}

impl Parts {
    pub(crate) fn open(name: &str, source: &SourceConfig, max_document_bytes: u64) -> Result<Self> {
        Ok(Self::of_files(name, source, max_document_bytes, files::resolve(name, source)?))
    }

    pub(crate) fn of_files(name: &str, source: &SourceConfig, max_document_bytes: u64, files: Vec<InputFile>) -> Self {
        let context =
            Context { name: name.to_owned(), source: source.clone(), max_document_bytes, progress: Arc::default() };
        let total_bytes = files.iter().map(|file| file.num_bytes).sum();
        Self { context, files: files.into_iter(), current: None, total_bytes, is_over: false }
    }

    /// Bytes read from disk so far; keeps counting while others read.
    pub(crate) fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.context.progress)
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    fn open_next(&mut self) -> Result<bool> {
        let Some(file) = self.files.next() else { return Ok(false) };
        let context = self.context.clone();
        self.current = Some(match file.format {
            Format::JsonLines => in_parts(jsonl::JsonLines::open(file, context.clone())?, &context.source),
            Format::Parquet => in_parts(parquet::ParquetRows::open(file, context.clone())?, &context.source),
            Format::Text => Box::new(text::TextParts::open(file, context)?),
        });
        Ok(true)
    }
}

impl Iterator for Parts {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_over {
            let next = match &mut self.current {
                Some(current) => current.next(),
                None => match self.open_next() {
                    Ok(true) => continue,
                    Ok(false) => {
                        self.is_over = true;
                        return None;
                    }
                    // A text file that is bad as a whole is one bad item among others.
                    Err(error) => Some(Err(error)),
                },
            };
            match next {
                None => self.current = None,
                Some(Err(error)) => {
                    self.is_over = !error.is_bad_item();
                    return Some(Err(error));
                }
                some => return some,
            }
        }
        None
    }
}

/// Whole documents of a source.
pub struct Documents {
    parts: Parts,
    max_document_bytes: u64,
}

/// The documents of the source called `name` in `config`, in the order of the sorted files.
pub fn open(config: &DataConfig, name: &str) -> Result<Documents> {
    let source = config.source.get(name).ok_or_else(|| Error::Config {
        key: format!("data.source.{name}"),
        message: "does not exist".to_owned(),
        help: format!("the sources are {:?}", config.source.keys().collect::<Vec<_>>()),
    })?;
    let parts = Parts::open(name, source, config.max_document_bytes)?;
    Ok(Documents { parts, max_document_bytes: config.max_document_bytes })
}

/// The documents of a source that belongs to no recipe; `name` is for messages.
pub fn open_source(name: &str, source: &SourceConfig) -> Result<Documents> {
    let max_document_bytes = default_max_document_bytes();
    Ok(Documents { parts: Parts::open(name, source, max_document_bytes)?, max_document_bytes })
}

impl Iterator for Documents {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut whole: Option<Document> = None;
        loop {
            let part = match self.parts.next()? {
                Ok(part) => part,
                Err(error) => return Some(Err(error)),
            };
            match &mut whole {
                None => whole = Some(part.document),
                Some(document) => document.text.push_str(&part.document.text),
            }
            if let Some(document) = &whole
                && document.text.len() as u64 > self.max_document_bytes
            {
                let item = too_long(document.place.clone(), self.max_document_bytes);
                let mut is_last = part.is_last;
                while !is_last {
                    match self.parts.next()? {
                        Ok(part) => is_last = part.is_last,
                        Err(error) => return Some(Err(error)),
                    }
                }
                return Some(Err(Error::BadItem(item)));
            }
            if part.is_last {
                return whole.map(Ok);
            }
        }
    }
}

/// Cuts every document of `documents` into parts, or into documents of their own.
fn in_parts(documents: impl Iterator<Item = Result<Document>> + Send + 'static, source: &SourceConfig) -> PartStream {
    let split_at = source.split_at_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    Box::new(documents.flat_map(move |document| -> Box<dyn Iterator<Item = Result<Part>> + Send> {
        match document {
            Err(error) => Box::new(std::iter::once(Err(error))),
            Ok(document) => match split_at {
                Some(limit) if document.text.len() > limit => {
                    Box::new(sections(document, limit).flat_map(Cut::new).map(Ok))
                }
                _ => Box::new(Cut::new(document).map(Ok)),
            },
        }
    }))
}

/// Documents of at most `limit` bytes with ids `ID#1`, `ID#2`, ...
fn sections(mut document: Document, limit: usize) -> impl Iterator<Item = Document> {
    let mut number = 0;
    std::iter::from_fn(move || {
        loop {
            let text = take_front(&mut document.text, limit)?;
            number += 1;
            if !text.trim().is_empty() {
                return Some(section(&document, number, text));
            }
        }
    })
}

fn section(of: &Document, number: u64, text: String) -> Document {
    let parent = Some(of.id.clone());
    Document { id: format!("{}#{number}", of.id), parent, text, ..of.clone_without_text() }
}

impl Document {
    /// The hash that decides on which side of the split it lies.
    pub(crate) fn side_hash(&self) -> u64 {
        id_hash(self.parent.as_ref().unwrap_or(&self.id))
    }

    fn clone_without_text(&self) -> Self {
        Self {
            id: self.id.clone(),
            parent: self.parent.clone(),
            text: String::new(),
            label: self.label.clone(),
            logits: self.logits.clone(),
            tags: self.tags.clone(),
            attributes: self.attributes.clone(),
            place: self.place.clone(),
        }
    }
}

/// Parts of one document.
struct Cut {
    document: Document,
    rest: String,
    is_first: bool,
}

impl Cut {
    fn new(mut document: Document) -> Self {
        let rest = std::mem::take(&mut document.text);
        Self { document, rest, is_first: true }
    }
}

impl Iterator for Cut {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let text = take_front(&mut self.rest, PART_BYTES)?;
        let (is_first, is_last) = (std::mem::take(&mut self.is_first), self.rest.is_empty());
        let mut document =
            if is_last { std::mem::take(&mut self.document) } else { self.document.clone_without_text() };
        document.text = text;
        if !is_first {
            document.attributes.clear();
        }
        Some(Part { document, is_first, is_last })
    }
}

/// Takes at most `limit` bytes off the front of `text`; `None` when there is nothing left.
pub(crate) fn take_front(text: &mut String, limit: usize) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    if text.len() <= limit {
        return Some(std::mem::take(text));
    }
    let at = cut_point(text, limit);
    // A string of its own: one that is split off keeps the memory of the whole, and readers hold thousands of sections.
    let front = text[..at].to_owned();
    text.drain(..at);
    Some(front)
}

/// Where to cut `text` into a front of at most `limit` bytes: after the last line end, else before the last space, both within the last
/// quarter, else between two characters. Tokenizers rarely join across the first two.
pub(crate) fn cut_point(text: &str, limit: usize) -> usize {
    let bytes = text.as_bytes();
    let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let lowest = end - end / 4;
    let line_end = (lowest..end)
        .rev()
        .find(|at| bytes[*at] == b'\n' && bytes.get(at + 1).is_none_or(|next| !next.is_ascii_whitespace()));
    if let Some(at) = line_end {
        return at + 1;
    }
    let space = (lowest.max(1)..end).rev().find(|at| bytes[*at] == b' ' && bytes[at - 1] != b' ');
    // A limit below the width of one character still has to make progress.
    space.unwrap_or(end).max(text.chars().next().map_or(1, char::len_utf8))
}

fn bad(reason: BadReason, place: String, detail: impl Into<String>) -> Error {
    Error::BadItem(BadItem { reason, place, detail: detail.into() })
}

fn too_long(place: String, limit: u64) -> BadItem {
    BadItem {
        reason: BadReason::TooLong,
        place,
        detail: format!("is longer than `data.max_document_bytes` ({limit}); raise that or split the text"),
    }
}

#[cfg(test)]
mod tests;
