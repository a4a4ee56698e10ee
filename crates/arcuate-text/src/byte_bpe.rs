//! Byte-level BPE: every text can be written, and comes back exactly.
//!
//! # What it computes
//! Text is cut by a published rule, its bytes are spelled in 256 printable characters, and the most
//! frequent neighbours are merged until the vocabulary is full. Equal counts fall to the lowest ids.
//! # Recipe
//! `[tokenizer.byte_bpe]` with `vocab_size`; `pre_tokenizer = "llama3"`, `"gpt2"` or `"qwen2"`
//! # Reference
//! Radford et al. 2019 (GPT-2); Sennrich et al. 2016 for merges

use crate::byte_level::{self, PreTokenizer};
use crate::{Error, Result, SpecialToken, Tokenizer};
use crate::{count, layout, merge};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokenizers::utils::SysRegex;

/// The `[tokenizer.byte_bpe]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Number of tokens, special tokens and the 256 bytes included. A small corpus may fill less.
    #[schemars(range(min = 258, max = 4_000_000))]
    pub vocab_size: usize,
    /// The published rule that cuts text before merging.
    #[serde(default = "default_pre_tokenizer")]
    pub pre_tokenizer: PreTokenizer,
    /// Pairs that occur less often are not merged.
    #[serde(default = "one")]
    pub min_count: u64,
    /// Begins a document.
    #[serde(default = "default_end")]
    pub bos_token: String,
    /// Ends a document; may be the same token.
    #[serde(default = "default_end")]
    pub eos_token: String,
    /// Fills rows up.
    #[serde(default = "default_pad")]
    pub pad_token: String,
}

fn default_pre_tokenizer() -> PreTokenizer {
    PreTokenizer::Llama3
}

fn one() -> u64 {
    1
}

fn default_end() -> String {
    "<|endoftext|>".to_owned()
}

fn default_pad() -> String {
    "<|pad|>".to_owned()
}

impl Config {
    /// The given size and the defaults.
    pub fn new(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            pre_tokenizer: default_pre_tokenizer(),
            min_count: one(),
            bos_token: default_end(),
            eos_token: default_end(),
            pad_token: default_pad(),
        }
    }

    pub(crate) fn vocab_size(&self) -> Option<usize> {
        Some(self.vocab_size)
    }

    pub(crate) fn check(&self) -> Vec<(&'static str, String)> {
        let why = format!("256 bytes and {} special tokens come first", self.specials().len());
        let names =
            [("bos_token", self.bos_token.as_str()), ("eos_token", &self.eos_token), ("pad_token", &self.pad_token)];
        layout::check_names(self.vocab_size, 256 + self.specials().len(), &why, names)
    }

    fn specials(&self) -> Vec<String> {
        layout::distinct([self.bos_token.as_str(), &self.eos_token, &self.pad_token])
    }
}

pub(crate) fn train(config: &Config, texts: &mut (dyn Iterator<Item = String> + Send)) -> Result<Tokenizer> {
    let failed = |message: String| Error::Training { table: "byte_bpe", message };
    let regex = SysRegex::new(config.pre_tokenizer.pattern()).map_err(|e| failed(e.to_string()))?;
    let words = count::count_words(texts, |text, found| {
        cut(&regex, text, found);
        Ok(())
    })?;
    let alphabet = byte_level::alphabet();
    let mut words: Vec<(String, u64)> =
        words.iter().map(|(word, count)| (byte_level::spell(word, &alphabet), *count)).collect();
    words.sort_unstable();
    let specials = config.specials();
    let mut letters = alphabet;
    letters.sort_unstable();
    let vocab = specials.iter().cloned().chain(letters.iter().map(char::to_string)).collect();
    let limits = merge::Limits { vocab_size: config.vocab_size, min_count: config.min_count, continuation: "" };
    let learnt = merge::learn(&words, vocab, &limits);
    let document = layout::document(layout::Parts {
        normalizer: Value::Null,
        pre_tokenizer: config.pre_tokenizer.to_json(),
        post_processor: layout::template(&specials, &config.bos_token, None),
        decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        model: json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": layout::vocabulary(&learnt.vocab),
            "merges": learnt.merges,
        }),
        specials,
    });
    let names = layout::names(&[
        (SpecialToken::Bos, &config.bos_token),
        (SpecialToken::Eos, &config.eos_token),
        (SpecialToken::Pad, &config.pad_token),
    ]);
    let files = layout::tokenizer_config(&names, &["input_ids", "attention_mask"]);
    Tokenizer::from_parts(&document, names, files).map_err(|error| failed(error.to_string()))
}

/// Calls `found` with every piece of the text, those between matches included.
pub(crate) fn cut<'t>(regex: &SysRegex, text: &'t str, mut found: impl FnMut(&'t str)) {
    let mut end_of_last = 0;
    for (start, end) in regex.find_iter(text) {
        if start > end_of_last {
            found(&text[end_of_last..start]);
        }
        if end > start {
            found(&text[start..end]);
        }
        end_of_last = end;
    }
    if end_of_last < text.len() {
        found(&text[end_of_last..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenizerConfig;

    const TEXT: &str = "The people of the United States, in 1790 and 2021; we've seen the Union's state.\n\n  The union isn't 12345 states!\r\n\tIt is   one.";

    fn trained(config: Config) -> Tokenizer {
        let texts = std::iter::repeat_n(TEXT.to_owned(), 20);
        Tokenizer::train(&TokenizerConfig::ByteBpe(config), texts).expect("trains")
    }

    #[test]
    fn the_vocabulary_has_exactly_the_size_asked_for() {
        assert_eq!(trained(Config::new(300)).vocab_size(), 300);
        assert_eq!(trained(Config::new(258)).vocab_size(), 258);
    }

    #[test]
    fn every_script_comes_back_exactly_under_every_rule() {
        let texts = [
            TEXT,
            "",
            " ",
            "  leading, trailing  \n",
            "Ελληνικά, русский, עברית, العربية, हिन्दी, ไทย, 日本語の文, 한국어, አማርኛ",
            "👩‍👩‍👧‍👦 🇫🇷 e\u{301} \u{200b}\u{feff}\0\u{7f} \u{10ffff}",
            "Ġ ▁ <0x41> <|pad|> <|endoftext|>",
            "a\u{a0}b\u{3000}c\u{2028}d\r\n\r\n  e",
        ];
        for rule in PreTokenizer::ALL {
            let tokenizer = trained(Config { pre_tokenizer: rule, ..Config::new(320) });
            for text in texts {
                let ids = tokenizer.encode(text).expect("encodes");
                assert_eq!(tokenizer.decode(&ids).expect("decodes"), text, "{rule:?}");
            }
        }
    }

    #[test]
    fn the_same_text_gives_the_same_file() {
        let a = trained(Config::new(400));
        let b = trained(Config::new(400));
        assert_eq!(a.to_json(), b.to_json());
        assert_eq!(a.hash(), b.hash());
        assert_ne!(a.hash(), trained(Config::new(300)).hash());
    }

    #[test]
    fn special_tokens_come_first_and_can_be_renamed() {
        let tokenizer = trained(Config::new(300));
        assert_eq!(tokenizer.special(SpecialToken::Bos), Some(0));
        assert_eq!(tokenizer.special(SpecialToken::Eos), Some(0));
        assert_eq!(tokenizer.special(SpecialToken::Pad), Some(1));
        assert_eq!(tokenizer.special(SpecialToken::Unk), None);
        let renamed =
            trained(Config { bos_token: "<go>".to_owned(), eos_token: "<stop>".to_owned(), ..Config::new(300) });
        assert_eq!(renamed.id_to_token(0).as_deref(), Some("<go>"));
        assert_eq!(renamed.special(SpecialToken::Eos), Some(1));
    }

    #[test]
    fn a_vocabulary_without_room_for_the_bytes_is_refused() {
        let config = TokenizerConfig::ByteBpe(Config::new(100));
        let error = Tokenizer::train(&config, std::iter::once("a".to_owned())).expect_err("too small");
        assert!(error.to_string().contains("at least 258"), "{error}");
    }

    #[test]
    fn nameless_special_tokens_are_refused() {
        let config = Config { pad_token: " ".to_owned(), ..Config::new(300) };
        assert_eq!(config.check()[0].0, "pad_token");
    }

    #[test]
    fn the_published_rule_is_recognised_in_the_file() {
        for rule in PreTokenizer::ALL {
            let tokenizer = trained(Config { pre_tokenizer: rule, ..Config::new(270) });
            assert_eq!(tokenizer.pre_tokenizer(), Some(rule));
        }
    }

    #[test]
    fn digits_are_grouped_as_the_rule_says() {
        let pieces = |rule| {
            let regex = SysRegex::new(PreTokenizer::pattern(rule)).expect("a published pattern");
            let mut all = Vec::new();
            cut(&regex, "in 12345", |piece| all.push(piece.to_owned()));
            all
        };
        assert_eq!(pieces(PreTokenizer::Gpt2), ["in", " 12345"]);
        assert_eq!(pieces(PreTokenizer::Llama3), ["in", " ", "123", "45"]);
        assert_eq!(pieces(PreTokenizer::Qwen2), ["in", " ", "1", "2", "3", "4", "5"]);
    }
}
