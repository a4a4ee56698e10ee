//! What can go wrong with a model or its files.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot read or write `{path}`: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `config.json` is not what a model needs.
    #[error("`{path}` {problem}; {remedy}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A weights file is broken.
    #[error("`{path}` is not a sound safetensors file: {problem}; copy it again from where it came")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Tensors in a file do not match the model.
    #[error("`{path}` does not hold this model\n{}", list(.missing, .unexpected, .mismatched))]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Names that the model needs.
        missing: Vec<String>,
        /// Names that the model does not know.
        unexpected: Vec<String>,
        /// Names with another shape, and both shapes.
        mismatched: Vec<String>,
    },
    /// A request that this model cannot serve.
    #[error("{0}")]
    Unsupported(String),
}

fn list(missing: &[String], unexpected: &[String], mismatched: &[String]) -> String {
    let part = |what: &str, names: &[String]| match names.len() {
        0 => String::new(),
        n => format!("  {n} {what}: {}\n", names.join(", ")),
    };
    let text = part("missing", missing) + &part("unexpected", unexpected) + &part("of another shape", mismatched);
    text.trim_end().to_string()
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
