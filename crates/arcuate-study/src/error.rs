//! What can go wrong while a study is planned or summed up.

use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of a study: one lower-case sentence with place and remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No arm has this name.
    #[error("there is no arm `{name}`; the arms are {known}")]
    UnknownArm {
        /// The name as given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A shard that cannot be.
    #[error("`{text}` is not a shard; write `i/n` with i from 1 to n, such as `1/4`")]
    BadShard {
        /// The text as given.
        text: String,
    },
    /// A file that a run depends on cannot be read.
    #[error("cannot read `{}`: {cause}; check the path", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// The answer of the operating system.
        cause: std::io::Error,
    },
    /// The recipe of a run, or what it starts from.
    #[error(transparent)]
    Build(#[from] arcuate_recipe::build::Error),
    /// The record of runs.
    #[error(transparent)]
    Record(#[from] arcuate_record::Error),
    /// The recipe of a run is wrong.
    #[error(transparent)]
    Recipe(#[from] arcuate_recipe::Diagnostics),
}
