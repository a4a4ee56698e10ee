//! What can go wrong while text is generated or decoded.

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
    /// A value that cannot work.
    #[error("`{key}` {problem}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A network that sees later tokens cannot generate.
    #[error("`{architecture}` is not causal and cannot generate text; use a llama, qwen2 or gpt2 checkpoint")]
    NotCausal {
        /// Name of the architecture.
        architecture: &'static str,
    },
    /// Nothing to begin with.
    #[error("the prompt is empty and the tokenizer has no `bos_token` to begin with; give a prompt")]
    EmptyPrompt,
    /// The prompt alone fills the model.
    #[error("the prompt has {num_tokens} tokens, the model takes at most {max_seq_len}; shorten the prompt")]
    PromptTooLong {
        /// Tokens of the prompt.
        num_tokens: usize,
        /// Longest sequence of the model.
        max_seq_len: usize,
    },
    /// Every logit is NaN or minus infinity.
    #[error(
        "the model gives no finite logit; its weights are damaged or the training diverged, use another checkpoint"
    )]
    NoFiniteLogit,
    /// Emissions of another alphabet.
    #[error("the emissions have {width} values per frame, the alphabet has {num_tokens} tokens")]
    Width {
        /// Values of a frame.
        width: usize,
        /// Tokens of the alphabet, the blank included.
        num_tokens: usize,
    },
    /// Values that make no whole number of frames.
    #[error("{num_values} emission values make no whole number of frames of {width} tokens")]
    Frames {
        /// All values.
        num_values: usize,
        /// Values of a frame.
        width: usize,
    },
    /// An emission that is NaN or plus infinity.
    #[error("the emission of token {token} in frame {frame} is {value}; the network diverged or its input is damaged")]
    Emission {
        /// The frame, from zero.
        frame: usize,
        /// The column, from zero.
        token: usize,
        /// What it is.
        value: f32,
    },
    /// Log-probabilities that are none.
    #[error("the probabilities of frame {frame} sum to {sum:.6}, not to 1; are these logits?")]
    NotNormalised {
        /// The frame, from zero.
        frame: usize,
        /// What they sum to.
        sum: f64,
    },
    /// No path has a probability above zero.
    #[error("at frame {frame} every path through the emissions has probability 0")]
    NoPath {
        /// The frame, from zero.
        frame: usize,
    },
    /// More tokens than the frames can hold.
    #[error(
        "{num_tokens} tokens with {num_repeats} equal neighbours need at least {} frames, there are {num_frames}",
        num_tokens + num_repeats
    )]
    TooFewFrames {
        /// Frames of the recording.
        num_frames: usize,
        /// Tokens to align.
        num_tokens: usize,
        /// Tokens equal to the one before.
        num_repeats: usize,
    },
    /// A token that cannot be aligned.
    #[error("target {position} is token {id}, which is the blank or none of the {num_tokens} tokens")]
    Target {
        /// Its place in the target, from zero.
        position: usize,
        /// The column.
        id: u32,
        /// Tokens of the alphabet, the blank included.
        num_tokens: usize,
    },
    /// A line of a lexicon that cannot be used.
    #[error("line {line} of the lexicon: {problem}")]
    Lexicon {
        /// From one.
        line: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A file beside the checkpoint could not be read.
    #[error("cannot read `{}`: {problem}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        problem: String,
    },
}

impl Error {
    pub(crate) fn config(key: &'static str, problem: impl Into<String>) -> Self {
        Self::Config { key, problem: problem.into() }
    }
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
