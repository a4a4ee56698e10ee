//! Texts encoded word by word, so that what is known of a word is known of its first token.

use arcuate_text::Tokenizer;

use crate::encoder::Encoder;
use crate::error::{BadItem, BadReason, Error, Result};
use crate::reader::Document;

/// The tokens of a text and where its words begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// The tokens.
    pub ids: Vec<u32>,
    /// For each word, the index of its first token.
    pub starts: Vec<usize>,
}

impl Words {
    /// The words of a document, which are what white space separates.
    ///
    /// # Errors
    /// A word of which the tokenizer keeps nothing is a bad item.
    pub fn encode(tokenizer: &Tokenizer, document: &Document) -> Result<Self> {
        Self::encode_with(tokenizer, document)
    }

    pub(crate) fn encode_with(encoder: &dyn Encoder, document: &Document) -> Result<Self> {
        let mut words = Self::default();
        for (at, word) in document.text.split_whitespace().enumerate() {
            // As in a text: tokenizers that keep white space have it in front of a word.
            let word = if at == 0 { word.to_owned() } else { format!(" {word}") };
            let encoded = encoder.encode(&word);
            let ids = encoded.map_err(|source| Error::Encode { place: document.place.clone(), source })?;
            if ids.is_empty() {
                let detail =
                    format!("has the word {word:?} (id `{}`), of which the tokenizer keeps nothing", document.id);
                let place = document.place.clone();
                return Err(Error::BadItem(BadItem { reason: BadReason::NoTokens, place, detail }));
            }
            words.starts.push(words.ids.len());
            words.ids.extend(ids);
        }
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bytes;

    fn words(text: &str) -> Result<Words> {
        let document = Document { id: "d7".to_owned(), text: text.to_owned(), ..Document::default() };
        Words::encode_with(&Bytes::default(), &document)
    }

    #[test]
    fn words_begin_where_they_would_in_the_text() {
        let words = words(" ab\tc\n d").expect("three words");
        assert_eq!(words.ids, b"ab c d".map(u32::from));
        assert_eq!(words.starts, [0, 2, 4]);
    }

    #[test]
    fn a_word_without_tokens_is_named() {
        let error = words("\u{1} b").expect_err("nothing of the first word is kept").to_string();
        assert!(error.contains("d7") && error.contains("keeps nothing"), "{error}");
    }
}
