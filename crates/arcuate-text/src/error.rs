//! What can go wrong with a tokenizer or a language model, each case with the place and the remedy.

use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a tokenizer or a language model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason given by the system.
        source: std::io::Error,
    },
    /// There is no `tokenizer.json` where one was expected.
    #[error("no `tokenizer.json` in `{}`; name a folder that holds one, or the file itself", path.display())]
    Missing {
        /// The folder that was searched.
        path: PathBuf,
    },
    /// A file is larger than any tokenizer.
    #[error("`{}` has {num_bytes} bytes, more than the {limit_bytes} that a tokenizer may have; is it another file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        num_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A file could not be understood.
    #[error("`{}` is not a usable tokenizer file: {message}; save it again with the library that made it", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column where known.
        message: String,
    },
    /// A key of the recipe's tokenizer table has an impossible value.
    #[error("`{key}` in `[tokenizer.{table}]`: {message}")]
    Config {
        /// The table's last name.
        table: &'static str,
        /// The key.
        key: &'static str,
        /// What is wrong and what would do.
        message: String,
    },
    /// There was no text to train on.
    #[error(
        "the training text is empty, so there is nothing to make a vocabulary of; check the paths and text columns of the sources"
    )]
    EmptyCorpus,
    /// The training itself failed.
    #[error("training the `{table}` tokenizer failed: {message}")]
    Training {
        /// The table's last name.
        table: &'static str,
        /// The reason.
        message: String,
    },
    /// A file of transcripts could not be understood.
    #[error("line {line} of the {format} file: {message}")]
    Transcript {
        /// The format it was taken for.
        format: &'static str,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what would be right.
        message: String,
    },
    /// An ARPA file is wrong.
    #[error("`{}`, line {line}, section {section}: {message}", path.display())]
    Arpa {
        /// The file.
        path: PathBuf,
        /// The line, from one.
        line: u64,
        /// The title of the section.
        section: String,
        /// What is wrong.
        message: String,
    },
    /// A lexicon is wrong.
    #[error("`{}`, line {line}: {message}", path.display())]
    Lexicon {
        /// The file.
        path: PathBuf,
        /// The line, from one.
        line: u64,
        /// What is wrong.
        message: String,
    },
    /// A word of a transcript has a letter that the tokens lack.
    #[error(
        "the word `{word}` has the letter `{letter}`, which is not among the tokens; clean the transcripts or add it"
    )]
    UnknownLetter {
        /// The word.
        word: String,
        /// The letter.
        letter: char,
    },
    /// A KenLM binary file is wrong, or of a kind that is not read.
    #[error("`{}` is not a usable KenLM binary file: {message}", path.display())]
    KenlmBinary {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A value of a language model's training is impossible.
    #[error("`{key}`: {message}")]
    NgramConfig {
        /// The key.
        key: &'static str,
        /// What is wrong and what would do.
        message: String,
    },
    /// The text of a language model holds a word that stands for something else.
    #[error("line {line}: `{word}` is reserved for the language model itself and may not stand in its text; remove it")]
    SpecialWord {
        /// The line, from one.
        line: u64,
        /// The word.
        word: String,
    },
    /// A text gives no discounts for the n-grams of an order.
    #[error(
        "the text is too small or too regular for the discounts of {order}-grams: of adjusted count 1, 2, 3, 4 there are {}, {}, {}, {}; \
        give more text, remove repeated lines, or allow fallback discounts (`discount_fallback`)",
        numbers[0], numbers[1], numbers[2], numbers[3]
    )]
    Discounts {
        /// Length of the n-grams.
        order: usize,
        /// How many n-grams have an adjusted count of one, two, three, four.
        numbers: [u64; 4],
    },
    /// A text could not be encoded.
    #[error("cannot encode a text of {num_bytes} bytes: {message}")]
    Encode {
        /// Length of the text.
        num_bytes: usize,
        /// The reason.
        message: String,
    },
    /// Token ids could not be decoded.
    #[error("cannot decode {num_tokens} tokens: {message}")]
    Decode {
        /// How many tokens.
        num_tokens: usize,
        /// The reason.
        message: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
