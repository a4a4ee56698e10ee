//! What is evaluated, and in what portions.

use arcuate_data::Prompt;
use arcuate_model::Network;
use arcuate_text::{SpecialToken, Tokenizer};

/// A network with its tokenizer.
#[derive(Debug, Clone, Copy)]
pub struct EvalModel<'a> {
    /// The network.
    pub network: &'a Network,
    /// The tokenizer that lies beside it.
    pub tokenizer: &'a Tokenizer,
    /// The sentence and words with which a language model classifies; none for a classifier.
    pub prompt: Option<&'a Prompt>,
    /// Rows in one forward pass; changes speed and memory, not results.
    pub microbatch: usize,
    /// Tokens by which windows over long texts move; left out: they do not overlap.
    pub stride_tokens: Option<usize>,
    /// Longest row; at most, and when left out, what the network takes.
    pub max_seq_len: Option<usize>,
    /// Stop after so many tokens of a text.
    pub max_tokens: Option<u64>,
    /// Take only so many questions or documents.
    pub max_items: Option<u64>,
    /// Seed of bootstrap draws.
    pub seed: u64,
}

impl<'a> EvalModel<'a> {
    /// Eight rows at a time, everything evaluated.
    pub fn new(network: &'a Network, tokenizer: &'a Tokenizer) -> Self {
        Self {
            network,
            tokenizer,
            prompt: None,
            microbatch: 8,
            stride_tokens: None,
            max_seq_len: None,
            max_tokens: None,
            max_items: None,
            seed: 0,
        }
    }

    /// The classes or tags that the model can tell, in the order of its logits; empty if it tells none.
    pub fn classes(&self) -> Vec<String> {
        match self.prompt {
            Some(prompt) => prompt.classes(),
            None => self.network.architecture().labels().unwrap_or_default().to_vec(),
        }
    }

    /// Longest row in tokens.
    pub fn max_seq_len(&self) -> usize {
        let most = self.network.architecture().max_seq_len();
        self.max_seq_len.map_or(most, |wanted| wanted.clamp(1, most))
    }

    /// The token that fills rows.
    pub fn pad_id(&self) -> u32 {
        self.tokenizer.special(SpecialToken::Pad).unwrap_or(0)
    }
}
