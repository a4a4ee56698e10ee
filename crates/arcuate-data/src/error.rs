//! What can go wrong between a file on disk and a row of tokens, with the place and the remedy.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn of_class(class: Option<&str>) -> String {
    class.map_or_else(String::new, |class| format!(" of class `{class}`"))
}

/// An error of the tokenizer, carried along with the place of the text.
pub(crate) type EncodeError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why one item of a corpus cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadReason {
    /// A line that is not one JSON object.
    BrokenJson,
    /// Bytes that are not UTF-8.
    NonUtf8,
    /// A text without a visible character.
    EmptyText,
    /// An id that an earlier document of the same source has.
    DuplicateId,
    /// A line without the text, id or label that the recipe names.
    MissingField,
    /// A text, id or label of another type than expected.
    WrongType,
    /// A line or value above `data.max_document_bytes`, or a sound above the limits of decoding.
    TooLong,
    /// A text of which the tokenizer keeps nothing.
    NoTokens,
    /// A sound file that does not exist.
    MissingFile,
    /// A sound that cannot be decoded.
    BrokenSound,
    /// A sound without a sample.
    EmptySound,
    /// A sound with samples that are no finite numbers.
    NotFinite,
    /// A sound that is not as long as its list says.
    WrongSeconds,
    /// A sound with fewer frames than its transcript needs, or with none.
    TooShort,
    /// A transcript with characters outside of the vocabulary.
    UnknownCharacters,
    /// A command in place of a file: lists run nothing.
    Command,
    /// A member of an archive whose name leads out of it, or that is a link.
    UnsafeMember,
    /// An utterance without units.
    MissingUnits,
    /// An utterance with more or fewer units than it is long.
    WrongUnits,
}

impl fmt::Display for BadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BrokenJson => "broken JSON",
            Self::NonUtf8 => "not UTF-8",
            Self::EmptyText => "empty text",
            Self::DuplicateId => "duplicate id",
            Self::MissingField => "missing field",
            Self::WrongType => "wrong type",
            Self::TooLong => "too long",
            Self::NoTokens => "no tokens",
            Self::MissingFile => "missing file",
            Self::BrokenSound => "broken sound",
            Self::EmptySound => "empty sound",
            Self::NotFinite => "samples that are no numbers",
            Self::WrongSeconds => "wrong seconds",
            Self::TooShort => "too short",
            Self::UnknownCharacters => "unknown characters",
            Self::Command => "command in place of a file",
            Self::UnsafeMember => "unsafe member of an archive",
            Self::MissingUnits => "no units",
            Self::WrongUnits => "units of another length",
        })
    }
}

/// One item of a corpus that cannot be used, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadItem {
    /// Why.
    pub reason: BadReason,
    /// `file:line`, or the file alone for text files.
    pub place: String,
    /// What was seen, as the second half of a sentence.
    pub detail: String,
}

impl fmt::Display for BadItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.place, self.detail)
    }
}

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder that cannot be read or written.
    #[error("cannot {action} `{}`: {source}{}", path.display(), io_remedy(source))]
    Io {
        /// What was tried: `read`, `write`, ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A source path that names nothing.
    #[error(
        "`{path}` of the source `{name}` does not exist; correct `path`, which is a file, a folder or a pattern, relative to the current directory"
    )]
    NotFound {
        /// The source's name in the recipe.
        name: String,
        /// The path as written.
        path: String,
    },
    /// A folder or pattern without a single readable file.
    #[error("`{path}` of the source `{name}` has no file that ends in {wanted}; correct `path`")]
    NoFiles {
        /// The source's name in the recipe.
        name: String,
        /// The path as written.
        path: String,
        /// How the files end that were looked for.
        wanted: &'static str,
    },
    /// A pattern that is not one.
    #[error("`{path}` of the source `{name}` is not a valid pattern ({detail}); correct `path`")]
    BadPattern {
        /// The source's name in the recipe.
        name: String,
        /// The path as written.
        path: String,
        /// What the pattern parser said.
        detail: String,
    },
    /// A file whose name does not say its format.
    #[error(
        "`{}` has no known ending; rename it so that it ends in {SUPPORTED}", path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// Compressed data that stops before its end.
    #[error(
        "`{}` is truncated: its compressed data ends too early{}; obtain or compress the file again", path.display(), after_line(*line)
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The last whole line, 0 when unknown.
        line: u64,
    },
    /// A file that is not what its ending says.
    #[error(
        "`{}` is damaged or not what its ending says{}: {detail}; obtain or write the file again", path.display(), after_line(*line)
    )]
    DamagedFile {
        /// The file.
        path: PathBuf,
        /// The last whole line, 0 when unknown.
        line: u64,
        /// What the decoder said.
        detail: String,
    },
    /// A column that no record of the file has.
    #[error(
        "`{place}` has no column `{column}`; its columns are {}; set `{key}` of `[data.source.{name}]` to one of them",
        list(available)
    )]
    MissingColumn {
        /// The source's name in the recipe.
        name: String,
        /// The file, with the line if it has lines.
        place: String,
        /// The column that was asked for.
        column: String,
        /// The recipe key that names it.
        key: &'static str,
        /// The columns there are.
        available: Vec<String>,
    },
    /// A column asked of files that have none.
    #[error(
        "`{}` is plain text and has no column `{column}`; remove `{key}` of `[data.source.{name}]` or use JSON lines", path.display()
    )]
    NoColumns {
        /// The source's name in the recipe.
        name: String,
        /// The file.
        path: PathBuf,
        /// The column that was asked for.
        column: String,
        /// The recipe key that names it.
        key: &'static str,
    },
    /// One bad item, where none is allowed.
    #[error("{0}; correct or remove it, or set `data.max_bad_items` to skip that many")]
    BadItem(BadItem),
    /// More bad items than the recipe allows.
    #[error(
        "more than {limit} bad items ({}), the first: {first}; correct or remove them, or raise `data.max_bad_items`",
        counts(by_reason)
    )]
    TooManyBadItems {
        /// `data.max_bad_items`.
        limit: u64,
        /// How many of each kind.
        by_reason: BTreeMap<BadReason, u64>,
        /// The first one.
        first: BadItem,
    },
    /// A source without a document.
    #[error("`[data.source.{name}]` (`{path}`) has no document; add text or remove the source")]
    EmptySource {
        /// The source's name in the recipe.
        name: String,
        /// The path as written.
        path: String,
    },
    /// A speech source without an utterance.
    #[error("the source `{name}` (`{path}`) has no utterance; add sound or remove the source")]
    NoUtterances {
        /// The source's name in the recipe.
        name: String,
        /// The path as written.
        path: String,
    },
    /// Two lists that belong together and do not fit.
    #[error("`{}` {detail}; write both lists again", path.display())]
    ListsDiffer {
        /// The list.
        path: PathBuf,
        /// How it differs from the other.
        detail: String,
    },
    /// A source of which nothing is left for training.
    #[error(
        "the source `{name}` has {documents} documents and all of them are held out or too short; lower `data.held_out_fraction`, add documents, or cut long ones with `split_at_bytes`"
    )]
    NothingToTrainOn {
        /// The source's name in the recipe.
        name: String,
        /// All of its documents.
        documents: u64,
    },
    /// A label is needed and a document has none.
    #[error("`[data.source.{name}]`: {detail}")]
    MissingLabel {
        /// The source's name in the recipe.
        name: String,
        /// Which documents, and the remedy.
        detail: String,
    },
    /// A draw that wants more documents than there are.
    #[error("part `{part}` wants {wanted} documents{}, but {available} are left; ask for fewer, or give more data", of_class(class.as_deref()))]
    TooFewToDraw {
        /// Name of the part.
        part: String,
        /// The class, where the part takes so many of each.
        class: Option<String>,
        /// Wanted documents.
        wanted: u64,
        /// Documents that no earlier part has taken.
        available: u64,
    },
    /// A draw by class from documents without one.
    #[error(
        "part `{part}` takes documents by class, but {place} has none; name the column that holds it with `--label-column`"
    )]
    UnlabelledDraw {
        /// The first such document.
        place: String,
        /// Name of the part.
        part: String,
    },
    /// More classes than a classifier can sensibly have.
    #[error(
        "`{column}` of `[data.source.{name}]` has more than {limit} different values; choose a `{key}` that holds {}", if *key == "tags_column" { "tags" } else { "a class" }
    )]
    TooManyLabels {
        /// The source's name in the recipe.
        name: String,
        /// The label column.
        column: String,
        /// The key that names it.
        key: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A number beyond what the cache can hold.
    #[error("`{place}` {detail}")]
    TooLarge {
        /// The document or source.
        place: String,
        /// What is too large, and the remedy.
        detail: String,
    },
    /// A value in `[data]` that cannot work.
    #[error("`{key}` {message}; {help}")]
    Config {
        /// The key path.
        key: String,
        /// What is wrong with it.
        message: String,
        /// The remedy.
        help: String,
    },
    /// A tokenizer that lacks what the framing needs.
    #[error(
        "the tokenizer has no {missing} token, which rows of a bidirectional model begin and end with; use `[tokenizer.wordpiece]` or a tokenizer file that has it"
    )]
    MissingSpecial {
        /// The name of the special token.
        missing: &'static str,
    },
    /// A text that the tokenizer refuses.
    #[error("cannot tokenise `{place}`: {source}; remove the document or use another tokenizer")]
    Encode {
        /// The document.
        place: String,
        /// What the tokenizer said.
        source: EncodeError,
    },
    /// A cache that does not fit together.
    #[error("the cache `{}` is damaged ({detail}); delete that folder and run again", path.display())]
    DamagedCache {
        /// The folder.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// A package that cannot be downloaded or unpacked.
    #[error("cannot fetch `{set}`: `{command}` failed ({said}); {remedy}")]
    Package {
        /// The data set.
        set: &'static str,
        /// The command.
        command: String,
        /// What it said.
        said: String,
        /// What to do.
        remedy: String,
    },
    /// Files of the Hugging Face hub that cannot be had.
    #[error("cannot fetch `{set}` from {url}: {said}; {remedy}")]
    Hub {
        /// The data set.
        set: String,
        /// Where it should be.
        url: String,
        /// What went wrong.
        said: String,
        /// What to do.
        remedy: String,
    },
    /// A package that holds other data than expected.
    #[error(
        "`{file}` of `{set}` ({documents} documents) differs from what this program knows: the package has another version or is damaged; fetch it again, or keep it with `--any-version`"
    )]
    OtherData {
        /// The data set.
        set: &'static str,
        /// The file.
        file: String,
        /// How many documents it has.
        documents: u64,
    },
    /// Rows that cannot be clustered.
    #[error("cannot make units: {0}")]
    Units(String),
    /// A folder of units that cannot be used.
    #[error("`{place}` {detail}")]
    UnitsFile {
        /// The file or folder, with a line where it is about one.
        place: String,
        /// What is wrong, and the remedy.
        detail: String,
    },
    /// The caller asked to stop.
    #[error("preparing the data was interrupted; run the same command again")]
    Interrupted,
    /// All sources have reached their `max_repeats`.
    #[error(
        "all sources have reached `max_repeats` after {rows} rows ({tokens} tokens); shorten the horizon, raise `max_repeats` or add data"
    )]
    Exhausted {
        /// Rows drawn so far.
        rows: u64,
        /// Tokens drawn so far.
        tokens: u64,
    },
    /// The state of a sampler over other data.
    #[error(
        "the saved order does not belong to this data: {detail}; resume with the recipe and data of the checkpoint"
    )]
    ForeignState {
        /// What differs.
        detail: String,
    },
    /// A stride that cannot walk over the held-out text.
    #[error("stride {stride} is impossible: {detail}")]
    BadStride {
        /// The stride asked for.
        stride: usize,
        /// Why, and the remedy.
        detail: String,
    },
}

/// File endings that are read, for messages.
pub(crate) const SUPPORTED: &str =
    "`.jsonl`, `.ndjson`, `.json`, `.txt` (each also with `.gz` or `.zst`) or `.parquet`";

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        Self::io("read", path, source)
    }

    pub(crate) fn write(path: &Path, source: std::io::Error) -> Self {
        Self::io("write", path, source)
    }

    /// True for one item that may be skipped; everything else ends the reading.
    pub fn is_bad_item(&self) -> bool {
        matches!(self, Self::BadItem(_))
    }
}

fn io_remedy(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; free some space, or point `data.cache_dir` to another disk"
        }
        ErrorKind::ReadOnlyFilesystem => "; point `data.cache_dir` to a folder that can be written",
        ErrorKind::PermissionDenied => "; change its permissions, or point the recipe to another place",
        ErrorKind::NotFound => "; the file vanished or the path is wrong",
        _ => "",
    }
}

fn after_line(line: u64) -> String {
    if line == 0 { String::new() } else { format!(" after line {line}") }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<String> = names.iter().take(30).map(|n| format!("`{n}`")).collect();
    let more = names.len().saturating_sub(30);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn counts(by_reason: &BTreeMap<BadReason, u64>) -> String {
    by_reason.iter().map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ")
}

/// Counts bad items by reason and stops at the limit.
#[derive(Debug, Clone)]
pub(crate) struct BadItems {
    limit: u64,
    pub(crate) by_reason: BTreeMap<BadReason, u64>,
    pub(crate) first: Option<BadItem>,
}

impl BadItems {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, by_reason: BTreeMap::new(), first: None }
    }

    pub(crate) fn total(&self) -> u64 {
        self.by_reason.values().sum()
    }

    /// Counts one more; an error once there are more than the limit.
    pub(crate) fn add(&mut self, item: BadItem) -> Result<()> {
        *self.by_reason.entry(item.reason).or_default() += 1;
        let first = self.first.get_or_insert(item).clone();
        self.check(first)
    }

    /// Adds those of another source.
    pub(crate) fn merge(&mut self, by_reason: &BTreeMap<BadReason, u64>, first: Option<&BadItem>) -> Result<()> {
        let Some(first) = first else { return Ok(()) };
        for (reason, count) in by_reason {
            *self.by_reason.entry(*reason).or_default() += count;
        }
        let first = self.first.get_or_insert_with(|| first.clone()).clone();
        self.check(first)
    }

    fn check(&self, first: BadItem) -> Result<()> {
        if self.total() <= self.limit {
            Ok(())
        } else if self.limit == 0 {
            Err(Error::BadItem(first))
        } else {
            Err(Error::TooManyBadItems { limit: self.limit, by_reason: self.by_reason.clone(), first })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(reason: BadReason) -> BadItem {
        BadItem { reason, place: "a.jsonl:3".to_owned(), detail: "is empty".to_owned() }
    }

    #[test]
    fn the_first_bad_item_is_an_error_when_none_is_allowed() {
        let error = BadItems::new(0).add(item(BadReason::EmptyText)).expect_err("limit 0");
        assert!(error.to_string().starts_with("`a.jsonl:3` is empty; correct or remove it"));
    }

    #[test]
    fn bad_items_up_to_the_limit_are_counted_by_reason() {
        let mut bad = BadItems::new(2);
        bad.add(item(BadReason::EmptyText)).expect("first of two");
        bad.add(item(BadReason::NonUtf8)).expect("second of two");
        let error = bad.add(item(BadReason::NonUtf8)).expect_err("third of two");
        let text = error.to_string();
        assert!(text.contains("2 not UTF-8, 1 empty text"), "{text}");
        assert!(text.contains("`a.jsonl:3`"), "{text}");
    }

    #[test]
    fn the_columns_there_are_get_listed() {
        let error = Error::MissingColumn {
            name: "a".to_owned(),
            place: "a.jsonl:1".to_owned(),
            column: "text".to_owned(),
            key: "text_column",
            available: vec!["body".to_owned(), "id".to_owned()],
        };
        assert!(error.to_string().contains("its columns are `body`, `id`"));
    }
}
