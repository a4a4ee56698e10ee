//! Decoding token by token, as text is generated.
//!
//! A token may end inside a character, and the spelling of a token may depend on the one before. The
//! stream therefore decodes a short window again at every step and hands out what is new and complete.

use crate::{Result, Tokenizer};

/// A character has at most four bytes, so more tokens than this cannot be waiting for its end.
const MAX_PENDING: usize = 4;

/// Turns tokens into text as they come; see [`Tokenizer::decode_stream`].
#[derive(Debug)]
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer,
    /// Tokens already handed out, kept as context, then pending ones.
    window: Vec<u32>,
    num_context: usize,
    /// Text of the context.
    context: String,
}

impl<'t> DecodeStream<'t> {
    pub(crate) fn new(tokenizer: &'t Tokenizer) -> Self {
        Self { tokenizer, window: Vec::new(), num_context: 0, context: String::new() }
    }

    /// Takes the next token; gives the text that is complete now, often empty.
    pub fn step(&mut self, id: u32) -> Result<String> {
        self.window.push(id);
        let text = self.tokenizer.decode(&self.window)?;
        let num_pending = self.window.len() - self.num_context;
        if text.ends_with('\u{fffd}') && num_pending < MAX_PENDING {
            return Ok(String::new());
        }
        self.hand_out(&text)
    }

    /// Gives what is left; an incomplete character becomes `\u{fffd}`.
    pub fn finish(&mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.window)?;
        self.hand_out(&text)
    }

    fn hand_out(&mut self, text: &str) -> Result<String> {
        let fresh = after_common_prefix(text, &self.context).to_owned();
        if fresh.is_empty() {
            return Ok(fresh);
        }
        self.window.drain(..self.num_context);
        self.num_context = self.window.len();
        self.context = self.tokenizer.decode(&self.window)?;
        Ok(fresh)
    }
}

fn after_common_prefix<'a>(text: &'a str, prefix: &str) -> &'a str {
    let mut rest = text.chars();
    for letter in prefix.chars() {
        let before = rest.clone();
        if rest.next() != Some(letter) {
            return before.as_str();
        }
    }
    rest.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TokenizerConfig, byte_bpe, unigram, wordpiece};

    fn streamed(config: &TokenizerConfig, text: &str) -> (String, String) {
        let texts = std::iter::repeat_n("the people of the union, and the state".to_owned(), 9);
        let tokenizer = Tokenizer::train(config, texts).expect("trains");
        let ids = tokenizer.encode(text).expect("encodes");
        let mut stream = tokenizer.decode_stream();
        let mut all = String::new();
        for id in &ids {
            all += &stream.step(*id).expect("decodes");
        }
        all += &stream.finish().expect("decodes");
        (all, tokenizer.decode(&ids).expect("decodes"))
    }

    #[test]
    fn a_stream_says_what_decoding_at_once_says() {
        let configs = [
            TokenizerConfig::ByteBpe(byte_bpe::Config::new(300)),
            TokenizerConfig::Unigram(unigram::Config::new(340)),
            TokenizerConfig::Wordpiece(wordpiece::Config::new(60)),
        ];
        for config in configs {
            for text in ["the people", "  the\n\n state ", "日本 👩‍👩‍👧‍👦é", "\u{fffd}\u{fffd}x\u{fffd}", ""]
            {
                let (stream, whole) = streamed(&config, text);
                assert_eq!(stream, whole, "{config:?}");
            }
        }
    }

    #[test]
    fn only_complete_characters_come_out() {
        let config = TokenizerConfig::ByteBpe(byte_bpe::Config::new(258));
        let tokenizer = Tokenizer::train(&config, std::iter::once("a".to_owned())).expect("trains");
        let ids = tokenizer.encode("é👍").expect("encodes");
        let mut stream = tokenizer.decode_stream();
        let steps: Vec<String> = ids.iter().map(|id| stream.step(*id).expect("decodes")).collect();
        assert_eq!(steps, ["", "é", "", "", "", "👍"]);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_block_the_stream() {
        let config = TokenizerConfig::ByteBpe(byte_bpe::Config::new(258));
        let tokenizer = Tokenizer::train(&config, std::iter::once("a".to_owned())).expect("trains");
        let half = tokenizer.encode("é").expect("encodes")[0];
        let letter = tokenizer.encode("b").expect("encodes")[0];
        let mut stream = tokenizer.decode_stream();
        let mut all = String::new();
        for id in [half, half, half, half, half, half, letter] {
            all += &stream.step(id).expect("decodes");
        }
        assert!(all.ends_with('b') && all.starts_with('\u{fffd}'), "{all}");
    }

    #[test]
    fn an_incomplete_end_is_handed_out_at_last() {
        let config = TokenizerConfig::ByteBpe(byte_bpe::Config::new(258));
        let tokenizer = Tokenizer::train(&config, std::iter::once("a".to_owned())).expect("trains");
        let half = tokenizer.encode("é").expect("encodes")[0];
        let mut stream = tokenizer.decode_stream();
        assert_eq!(stream.step(half).expect("decodes"), "");
        assert_eq!(stream.finish().expect("decodes"), "\u{fffd}");
    }
}
