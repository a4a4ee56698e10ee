//! From the files of a package to JSON lines with `id`, `text` and `label`, or to recorded speech.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::speech;
use crate::{Error, Result};

/// Kinds of synset in the order of their numbers in the data files.
const KINDS: [&str; 45] = [
    "all",
    "pertainym",
    "all",
    "top",
    "act",
    "animal",
    "artifact",
    "attribute",
    "body",
    "cognition",
    "communication",
    "event",
    "feeling",
    "food",
    "group",
    "location",
    "motive",
    "object",
    "person",
    "phenomenon",
    "plant",
    "possession",
    "process",
    "quantity",
    "relation",
    "shape",
    "state",
    "substance",
    "time",
    "body",
    "change",
    "cognition",
    "communication",
    "competition",
    "consumption",
    "contact",
    "creation",
    "emotion",
    "motion",
    "perception",
    "possession",
    "social",
    "stative",
    "weather",
    "participle",
];
/// Data files of WordNet, the files they become, and the first letter of the ids.
const PARTS_OF_SPEECH: [(&str, &str, char); 4] = [
    ("data.adj", "adjectives.jsonl", 'a'),
    ("data.adv", "adverbs.jsonl", 'r'),
    ("data.noun", "nouns.jsonl", 'n'),
    ("data.verb", "verbs.jsonl", 'v'),
];

/// What is done with the files of a package.
#[derive(Debug, Clone, Copy)]
pub(super) enum Convert {
    /// Glosses by lexicographer file.
    WordNet,
    /// `FOLDER/CLASS/NAME.txt`.
    ClassFolders(&'static str),
    /// A table of sentences with a class, packed with bzip2.
    FilmReviews(&'static str),
    /// `FOLDER/GROUP/NAME.json` with a message as it was sent.
    Mail(&'static str),
    /// The recordings of a voice for a synthesiser, in this folder.
    RussianStudio(&'static str),
    /// Names of drawn things, read aloud.
    TuxPaint,
    /// Dialogues of a puzzle game.
    FishFillets,
    /// Dialogues of an adventure game.
    AmazonQueen,
}

impl Convert {
    /// Reads below `package` and writes into the folder `data`.
    pub(super) fn run(self, package: &Path, data: &Path) -> Result<()> {
        match self {
            Self::WordNet => PARTS_OF_SPEECH.iter().try_for_each(|(from, to, letter)| {
                glosses(&package.join("usr/share/wordnet").join(from), *letter, &data.join(to))
            }),
            Self::ClassFolders(folder) => class_folders(&package.join(folder), &data.join("stories.jsonl")),
            Self::FilmReviews(file) => film_reviews(&package.join(file), &data.join("reviews.jsonl")),
            Self::Mail(folder) => mail(&package.join(folder), &data.join("mail.jsonl")),
            Self::RussianStudio(folder) => speech::russian_studio(&package.join(folder), data),
            Self::TuxPaint => speech::tux_paint(package, data),
            Self::FishFillets => speech::fish_fillets(package, data),
            Self::AmazonQueen => speech::amazon_queen(package, data),
        }
    }
}

/// A file of JSON lines.
pub(super) struct Lines {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Lines {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|e| Error::write(path, e))?;
        Ok(Self { path: path.to_path_buf(), file: BufWriter::new(file) })
    }

    /// Adds a document; a text without a visible character is none.
    fn add(&mut self, id: String, text: &str, label: &str, more: Map<String, Value>) -> Result<()> {
        if text.trim().is_empty() {
            return Ok(());
        }
        let mut line = Map::new();
        line.insert("id".to_owned(), json!(id));
        line.insert("text".to_owned(), json!(text));
        line.insert("label".to_owned(), json!(label));
        line.extend(more);
        self.line(Value::Object(line))
    }

    /// Adds an object as it is.
    pub(super) fn line(&mut self, line: Value) -> Result<()> {
        writeln!(self.file, "{line}").map_err(|e| Error::write(&self.path, e))
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(|e| Error::write(&self.path, e))
    }
}

/// Bytes as text: UTF-8, or where they are not, Latin-1, in which every byte is a character.
fn decoded(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

pub(super) fn read(path: &Path) -> Result<String> {
    fs::read(path).map(|bytes| decoded(&bytes)).map_err(|e| Error::read(path, e))
}

pub(super) fn damaged(path: &Path, line: usize, detail: impl Into<String>) -> Error {
    Error::DamagedFile { path: path.to_path_buf(), line: line as u64, detail: detail.into() }
}

/// A data file of WordNet, whose format `wndb(5WN)` describes: a synset a line, its gloss behind `|`.
fn glosses(from: &Path, letter: char, to: &Path) -> Result<()> {
    let mut lines = Lines::create(to)?;
    let text = read(from)?;
    // The licence stands first, indented by two blanks.
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with("  ")) {
        let wrong = |detail: &str| damaged(from, number, detail);
        let (head, gloss) = line.split_once(" | ").ok_or_else(|| wrong("a synset without a gloss"))?;
        let mut fields = head.split(' ');
        let mut field = || fields.next().ok_or_else(|| wrong("a synset that ends too early"));
        let (offset, kind, _, count) = (field()?, field()?, field()?, field()?);
        let kind = kind.parse().ok().and_then(|kind: usize| KINDS.get(kind));
        let kind = kind.ok_or_else(|| wrong("a synset of unknown kind"))?;
        let count = usize::from_str_radix(count, 16).map_err(|_| wrong("a number of words that is none"))?;
        let mut words = Vec::new();
        for _ in 0..count {
            words.push(field()?.replace('_', " "));
            field()?;
        }
        let more = Map::from_iter([("words".to_owned(), json!(words))]);
        lines.add(format!("{letter}{offset}"), gloss.trim(), kind, more)?;
    }
    lines.finish()
}

/// The entries of a folder by name.
pub(super) fn entries(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|e| Error::read(folder, e))?;
    Ok(entries.flatten().map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect())
}

fn class_folders(from: &Path, to: &Path) -> Result<()> {
    let mut lines = Lines::create(to)?;
    for (class, folder) in entries(from)?.into_iter().filter(|(_, path)| path.is_dir()) {
        for (name, path) in entries(&folder)? {
            let Some(stem) = name.strip_suffix(".txt") else { continue };
            lines.add(format!("{class}/{stem}"), read(&path)?.trim(), &class, Map::new())?;
        }
    }
    lines.finish()
}

fn film_reviews(from: &Path, to: &Path) -> Result<()> {
    let mut lines = Lines::create(to)?;
    let file = File::open(from).map_err(|e| Error::read(from, e))?;
    let mut table = csv::Reader::from_reader(bzip2::read::BzDecoder::new(file));
    let wrong = |number: usize, cause: csv::Error| damaged(from, number, cause.to_string());
    let head = table.headers().map_err(|cause| wrong(0, cause))?.clone();
    let column = |name: &str| {
        head.iter().position(|head| head == name).ok_or_else(|| damaged(from, 1, format!("no column `{name}`")))
    };
    let (class, text, film) = (column("category")?, column("text")?, column("movie_name")?);
    for (number, record) in table.records().enumerate() {
        let record = record.map_err(|cause| wrong(number, cause))?;
        // Rows of the third class are plots, not opinions.
        if matches!(&record[class], "fresh" | "rotten") {
            let more = Map::from_iter([("film".to_owned(), json!(record[film]))]);
            lines.add(format!("review-{number}"), record[text].trim(), &record[class], more)?;
        }
    }
    lines.finish()
}

fn mail(from: &Path, to: &Path) -> Result<()> {
    let mut lines = Lines::create(to)?;
    for (group, folder) in entries(from)?.into_iter().filter(|(_, path)| path.is_dir()) {
        let label = if group.starts_with("spam") { "spam" } else { "ham" };
        for path in entries(&folder)?.into_values().filter(|path| path.extension().is_some_and(|e| e == "json")) {
            let message: Value = serde_json::from_str(&read(&path)?).map_err(|e| damaged(&path, 0, e.to_string()))?;
            let part = |key: &str| {
                message[key].as_str().ok_or_else(|| damaged(&path, 0, format!("a message without `{key}`")))
            };
            lines.add(format!("{group}/{}", part("id")?), &subject_and_body(part("text")?), label, Map::new())?;
        }
    }
    lines.finish()
}

/// The subject line and what follows the headers.
fn subject_and_body(message: &str) -> String {
    let message = message.replace("\r\n", "\n");
    let (headers, body) = message.split_once("\n\n").unwrap_or((&message, ""));
    let subject = headers.lines().find_map(|line| line.strip_prefix("Subject:")).unwrap_or_default();
    format!("{}\n{}", subject.trim(), body.trim()).trim().to_owned()
}
