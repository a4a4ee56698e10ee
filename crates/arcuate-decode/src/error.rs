//! What can go wrong while text is generated.

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
    /// A file beside the checkpoint could not be read.
    #[error("cannot read `{}`: {problem}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        problem: String,
    },
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
