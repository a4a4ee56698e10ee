//! What can go wrong in an evaluation.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The network refused its input.
    #[error(transparent)]
    Model(#[from] arcuate_model::Error),
    /// The tokenizer could not encode or decode.
    #[error(transparent)]
    Text(#[from] arcuate_text::Error),
    /// Emissions could not be decoded.
    #[error(transparent)]
    Decode(#[from] arcuate_decode::Error),
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] arcuate_data::Error),
    /// What measures a batch failed.
    #[error("cannot measure a batch: {0}")]
    Measure(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What measures a batch gave another number of rows.
    #[error("a batch of {num_rows} rows was measured as {num_results}; this is a bug")]
    RowCount {
        /// Rows of the batch.
        num_rows: usize,
        /// Results for it.
        num_results: usize,
    },
    /// Nothing to evaluate.
    #[error("{what} holds nothing to evaluate; {remedy}")]
    Empty {
        /// What was looked at.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A task or value that cannot work.
    #[error("{0}")]
    Unsupported(String),
    /// A file could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason given by the system.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason given by the system.
        source: std::io::Error,
    },
    /// A line of a task file is not what it should be.
    #[error("`{}`:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A label of the data that the classifier does not have.
    #[error("{place}: the class `{label}` is none of the model's: {}; rename it or use another model", .known.join(", "))]
    UnknownLabel {
        /// Where.
        place: String,
        /// The label.
        label: String,
        /// The classes of the model.
        known: Vec<String>,
    },
    /// The compressor failed.
    #[error("LZMA failed: {0}")]
    Lzma(String),
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
