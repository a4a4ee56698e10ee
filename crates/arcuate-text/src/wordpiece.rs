//! WordPiece, as BERT uses it: whole words where possible, pieces marked with `##` inside a word.
//!
//! # What it computes
//! Text is cleaned, optionally lower-cased and stripped of accents, cut at spaces and punctuation (and around
//! Chinese characters); the most frequent neighbours are merged; encoding takes the longest piece first.
//! Not reversible: case, spacing and unknown words are lost.
//! # Recipe
//! `[tokenizer.wordpiece]` with `vocab_size`; `lowercase`, `strip_accents`
//! # Reference
//! Devlin et al. 2019; Schuster and Nakajima 2012

use crate::{Error, Result, SpecialToken, Tokenizer};
use crate::{count, layout, merge};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashSet;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

const CONTINUATION: &str = "##";

/// The `[tokenizer.wordpiece]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Number of tokens, special tokens included. A small corpus may fill less.
    #[schemars(range(min = 32, max = 4_000_000))]
    pub vocab_size: usize,
    /// Lower-case all text.
    #[serde(default = "yes")]
    pub lowercase: bool,
    /// Remove accents; without this key, accents go exactly when `lowercase` is on.
    #[serde(default)]
    pub strip_accents: Option<bool>,
    /// Pairs that occur less often are not merged.
    #[serde(default = "one")]
    pub min_count: u64,
    /// At most this many different characters; rarer ones become unknown.
    #[serde(default = "default_alphabet")]
    pub max_alphabet: usize,
    /// Fills rows up.
    #[serde(default = "pad")]
    pub pad_token: String,
    /// Stands for words that cannot be spelled.
    #[serde(default = "unk")]
    pub unk_token: String,
    /// First position of a row.
    #[serde(default = "cls")]
    pub cls_token: String,
    /// Ends a segment.
    #[serde(default = "sep")]
    pub sep_token: String,
    /// Hides a token.
    #[serde(default = "mask")]
    pub mask_token: String,
}

fn yes() -> bool {
    true
}
fn one() -> u64 {
    1
}
fn default_alphabet() -> usize {
    1000
}
fn pad() -> String {
    "[PAD]".to_owned()
}
fn unk() -> String {
    "[UNK]".to_owned()
}
fn cls() -> String {
    "[CLS]".to_owned()
}
fn sep() -> String {
    "[SEP]".to_owned()
}
fn mask() -> String {
    "[MASK]".to_owned()
}

impl Config {
    /// The given size and the defaults.
    pub fn new(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            lowercase: yes(),
            strip_accents: None,
            min_count: one(),
            max_alphabet: default_alphabet(),
            pad_token: pad(),
            unk_token: unk(),
            cls_token: cls(),
            sep_token: sep(),
            mask_token: mask(),
        }
    }

    pub(crate) fn vocab_size(&self) -> Option<usize> {
        Some(self.vocab_size)
    }

    fn names(&self) -> [(SpecialToken, &str); 5] {
        [
            (SpecialToken::Pad, &self.pad_token),
            (SpecialToken::Unk, &self.unk_token),
            (SpecialToken::Cls, &self.cls_token),
            (SpecialToken::Sep, &self.sep_token),
            (SpecialToken::Mask, &self.mask_token),
        ]
    }

    pub(crate) fn check(&self) -> Vec<(&'static str, String)> {
        let names = self.names().map(|(token, name)| (token.key(), name));
        let why = "special tokens and an alphabet must fit";
        let mut found = layout::check_names(self.vocab_size, 32, why, names);
        if self.max_alphabet == 0 {
            found.push(("max_alphabet", "0 leaves no character; use 1000 or so".to_owned()));
        }
        found
    }
}

pub(crate) fn train(config: &Config, texts: &mut (dyn Iterator<Item = String> + Send)) -> Result<Tokenizer> {
    let failed = |message: String| Error::Training { table: "wordpiece", message };
    let normalizer = BertNormalizer::new(true, true, config.strip_accents, config.lowercase);
    let words = count::count_words(texts, |text, found| {
        cut(&normalizer, text, found).map_err(|error| failed(error.to_string()))
    })?;
    let specials = layout::distinct(config.names().map(|(_, name)| name));
    let mut vocab = specials.clone();
    vocab.extend(alphabet(&words, config, specials.len()));
    let limits =
        merge::Limits { vocab_size: config.vocab_size, min_count: config.min_count, continuation: CONTINUATION };
    let learnt = merge::learn(&spellable(words, &vocab), vocab, &limits);
    let document = layout::document(layout::Parts {
        normalizer: json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": config.strip_accents, "lowercase": config.lowercase}),
        pre_tokenizer: json!({"type": "BertPreTokenizer"}),
        post_processor: layout::template(&specials, &config.cls_token, Some(&config.sep_token)),
        decoder: json!({"type": "WordPiece", "prefix": CONTINUATION, "cleanup": true}),
        model: json!({
            "type": "WordPiece",
            "unk_token": config.unk_token,
            "continuing_subword_prefix": CONTINUATION,
            "max_input_chars_per_word": 100,
            "vocab": layout::vocabulary(&learnt.vocab),
        }),
        specials,
    });
    let names = layout::names(&config.names());
    let inputs = ["input_ids", "token_type_ids", "attention_mask"];
    let mut files = layout::tokenizer_config(&names, &inputs);
    files.insert("do_lower_case".to_owned(), config.lowercase.into());
    Tokenizer::from_parts(&document, names, files).map_err(|error| failed(error.to_string()))
}

/// Calls `found` with every word of the text, normalised.
fn cut(normalizer: &BertNormalizer, text: &str, found: &mut dyn FnMut(&str)) -> tokenizers::Result<()> {
    let mut normalized = NormalizedString::from(text);
    normalizer.normalize(&mut normalized)?;
    let mut pieces = PreTokenizedString::from(normalized);
    BertPreTokenizer.pre_tokenize(&mut pieces)?;
    for (word, _, _) in pieces.get_splits(OffsetReferential::Original, OffsetType::None) {
        found(word);
    }
    Ok(())
}

/// Characters that begin words, then, with the mark, those inside words; as many as half the vocabulary holds.
fn alphabet(words: &[(String, u64)], config: &Config, num_specials: usize) -> Vec<String> {
    let room = (config.vocab_size.saturating_sub(num_specials) / 2).min(config.max_alphabet);
    let kept: HashSet<char> = count::characters(words).into_iter().take(room).map(|(letter, _)| letter).collect();
    let mut first: Vec<char> = kept.iter().copied().collect();
    first.sort_unstable();
    let mut inside: Vec<char> = words
        .iter()
        .flat_map(|(word, _)| word.chars().skip(1))
        .filter(|letter| kept.contains(letter))
        .collect::<HashSet<char>>()
        .into_iter()
        .collect();
    inside.sort_unstable();
    let marked = inside.into_iter().map(|letter| format!("{CONTINUATION}{letter}"));
    first.iter().map(char::to_string).chain(marked).collect()
}

/// Words with a character outside the alphabet become unknown, so nothing is learnt from them.
fn spellable(words: Vec<(String, u64)>, vocab: &[String]) -> Vec<(String, u64)> {
    let letters: HashSet<char> = vocab
        .iter()
        .filter_map(|token| {
            let mut letters = token.chars();
            letters.next().filter(|_| letters.next().is_none())
        })
        .collect();
    words.into_iter().filter(|(word, _)| word.chars().all(|c| letters.contains(&c))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenizerConfig;

    const TEXT: &str = "Unaffable people are playing; players played plays. Café déjà vu, naïve coöperation: 中文字!";

    fn trained(config: Config) -> Tokenizer {
        let texts = std::iter::repeat_n(TEXT.to_owned(), 10);
        Tokenizer::train(&TokenizerConfig::Wordpiece(config), texts).expect("trains")
    }

    fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        let ids = tokenizer.encode(text).expect("encodes");
        ids.iter().map(|id| tokenizer.id_to_token(*id).expect("in the vocabulary")).collect()
    }

    #[test]
    fn the_same_text_gives_the_same_file() {
        assert_eq!(trained(Config::new(120)).to_json(), trained(Config::new(120)).to_json());
    }

    #[test]
    fn the_size_is_met_exactly() {
        assert_eq!(trained(Config::new(85)).vocab_size(), 85);
    }

    #[test]
    fn known_words_are_whole_and_others_are_cut() {
        let tokenizer = trained(Config::new(400));
        assert_eq!(pieces(&tokenizer, "People played"), ["people", "played"]);
        let cut = pieces(&tokenizer, "playful");
        assert!(cut.len() > 1 && cut[1..].iter().all(|piece| piece.starts_with("##")), "{cut:?}");
    }

    #[test]
    fn case_and_accents_follow_their_keys() {
        assert_eq!(pieces(&trained(Config::new(400)), "CAFÉ"), ["cafe"]);
        let kept = Config { lowercase: false, ..Config::new(400) };
        assert_eq!(pieces(&trained(kept), "Café"), ["Café"]);
        let accents = Config { strip_accents: Some(false), ..Config::new(400) };
        assert_eq!(pieces(&trained(accents), "CAFÉ"), ["café"]);
    }

    #[test]
    fn special_tokens_have_the_published_names() {
        let tokenizer = trained(Config::new(100));
        for (id, token) in
            [SpecialToken::Pad, SpecialToken::Unk, SpecialToken::Cls, SpecialToken::Sep, SpecialToken::Mask]
                .into_iter()
                .enumerate()
        {
            assert_eq!(tokenizer.special(token), Some(id as u32));
        }
        assert_eq!(tokenizer.id_to_token(4).as_deref(), Some("[MASK]"));
    }

    #[test]
    fn unknown_characters_become_the_unknown_token() {
        let tokenizer = trained(Config::new(200));
        assert_eq!(tokenizer.encode("ж").expect("encodes"), [1]);
    }

    #[test]
    fn words_begin_where_there_is_no_mark() {
        let tokenizer = trained(Config::new(100));
        for id in 0..tokenizer.vocab_size() as u32 {
            let token = tokenizer.id_to_token(id).expect("no holes");
            assert_eq!(tokenizer.starts_word(id), !token.starts_with("##"), "{token}");
        }
    }
}
