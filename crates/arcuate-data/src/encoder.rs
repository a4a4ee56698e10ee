//! The tokenizer as this crate sees it: a few questions, so that tests can do with bytes.

use arcuate_text::{SpecialToken, Tokenizer};

use crate::error::EncodeError;

/// What a corpus asks of a tokenizer.
pub(crate) trait Encoder: Sync {
    fn encode(&self, text: &str) -> Result<Vec<u32>, EncodeError>;
    /// Bytes of text that these tokens stand for.
    fn decoded_bytes(&self, ids: &[u32]) -> Result<usize, EncodeError>;
    fn vocab_size(&self) -> usize;
    fn special(&self, token: SpecialToken) -> Option<u32>;
    fn token_to_id(&self, token: &str) -> Option<u32>;
    fn hash(&self) -> String;
}

impl Encoder for Tokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, EncodeError> {
        Ok(Tokenizer::encode(self, text)?)
    }

    fn decoded_bytes(&self, ids: &[u32]) -> Result<usize, EncodeError> {
        Ok(Tokenizer::decode(self, ids)?.len())
    }

    fn vocab_size(&self) -> usize {
        Tokenizer::vocab_size(self)
    }

    fn special(&self, token: SpecialToken) -> Option<u32> {
        Tokenizer::special(self, token)
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        Tokenizer::token_to_id(self, token)
    }

    fn hash(&self) -> String {
        Tokenizer::hash(self).to_string()
    }
}
