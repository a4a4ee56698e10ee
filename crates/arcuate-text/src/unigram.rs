//! Unigram: pieces with probabilities, the most probable cut wins (as SentencePiece does).
//!
//! # What it computes
//! Candidates are all frequent substrings; expectation maximisation gives them probabilities and the least
//! useful go, until the vocabulary fits. A space is written as `▁` before the word. Characters outside the
//! alphabet fall back to bytes, so any text can be written; it comes back exactly except for a literal `▁`.
//! # Recipe
//! `[tokenizer.unigram]` with `vocab_size`; `byte_fallback`, `character_coverage`
//! # Reference
//! Kudo 2018; Kudo and Richardson 2018 (SentencePiece)

use crate::{Error, Result, SpecialToken, Tokenizer};
use crate::{count, layout};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};

/// Stands for a space, at the beginning of a word.
pub(crate) const SPACE: char = '▁';
/// Training looks at this many of the most frequent words.
const MAX_WORDS: usize = 1_000_000;
/// Counts are scaled below this, because the trainer adds them up in 32 bits.
const MAX_TOTAL: u64 = 1 << 31;
/// Must have pieces of their own, as the letters of special tokens, so that a literal `<0x41>` is never taken for a byte.
const BYTE_SPELLING: &str = "<0x123456789ABCDEF>";

/// The `[tokenizer.unigram]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Number of tokens, special tokens and (with `byte_fallback`) the 256 bytes included. A small corpus may fill less.
    #[schemars(range(min = 64, max = 4_000_000))]
    pub vocab_size: usize,
    /// Write characters outside the alphabet as bytes instead of as unknown.
    #[serde(default = "yes")]
    pub byte_fallback: bool,
    /// The alphabet covers this part of all characters of the text; the rarest are left out.
    #[serde(default = "default_coverage")]
    #[schemars(range(min = 0.5, max = 1.0))]
    pub character_coverage: f64,
    /// Longest piece, in characters.
    #[serde(default = "default_length")]
    #[schemars(range(min = 1, max = 64))]
    pub max_piece_chars: usize,
    /// Begins a document.
    #[serde(default = "bos")]
    pub bos_token: String,
    /// Ends a document.
    #[serde(default = "eos")]
    pub eos_token: String,
    /// Stands for what cannot be spelled.
    #[serde(default = "unk")]
    pub unk_token: String,
    /// Fills rows up.
    #[serde(default = "pad")]
    pub pad_token: String,
}

fn yes() -> bool {
    true
}
fn default_coverage() -> f64 {
    0.9999
}
fn default_length() -> usize {
    16
}
fn bos() -> String {
    "<s>".to_owned()
}
fn eos() -> String {
    "</s>".to_owned()
}
fn unk() -> String {
    "<unk>".to_owned()
}
fn pad() -> String {
    "<pad>".to_owned()
}

impl Config {
    /// The given size and the defaults.
    pub fn new(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            byte_fallback: yes(),
            character_coverage: default_coverage(),
            max_piece_chars: default_length(),
            bos_token: bos(),
            eos_token: eos(),
            unk_token: unk(),
            pad_token: pad(),
        }
    }

    pub(crate) fn vocab_size(&self) -> Option<usize> {
        Some(self.vocab_size)
    }

    /// Roles in id order.
    fn names(&self) -> [(SpecialToken, &str); 4] {
        [
            (SpecialToken::Unk, &self.unk_token),
            (SpecialToken::Bos, &self.bos_token),
            (SpecialToken::Eos, &self.eos_token),
            (SpecialToken::Pad, &self.pad_token),
        ]
    }

    pub(crate) fn check(&self) -> Vec<(&'static str, String)> {
        let (smallest, why) = if self.byte_fallback {
            (320, "256 bytes, special tokens and an alphabet must fit")
        } else {
            (64, "special tokens and an alphabet must fit")
        };
        let names = self.names().map(|(token, name)| (token.key(), name));
        let mut found = layout::check_names(self.vocab_size, smallest, why, names);
        if !(0.5..=1.0).contains(&self.character_coverage) {
            let message = format!("{} is not between 0.5 and 1", self.character_coverage);
            found.push(("character_coverage", message));
        }
        if !(1..=64).contains(&self.max_piece_chars) {
            found.push(("max_piece_chars", format!("{} is not between 1 and 64", self.max_piece_chars)));
        }
        found
    }
}

pub(crate) fn train(config: &Config, texts: &mut (dyn Iterator<Item = String> + Send)) -> Result<Tokenizer> {
    let failed = |message: String| Error::Training { table: "unigram", message };
    let words = count::count_words(texts, |text, found| {
        cut(text, found);
        Ok(())
    })?;
    let specials = layout::distinct(config.names().map(|(_, name)| name));
    let bytes: Vec<String> =
        if config.byte_fallback { (0..256).map(|byte| format!("<0x{byte:02X}>")).collect() } else { Vec::new() };
    let room = config.vocab_size - specials.len() - bytes.len();
    let alphabet = alphabet(&words, config, room);
    let pieces = learn(&words, &alphabet, room, config).map_err(failed)?;
    let lowest = pieces.iter().map(|(_, score)| *score).fold(0.0, f64::min);
    // Literal text such as `<0x41>` or `<s>` must be spelled out, so those pieces are less likely than their letters together.
    let longest = specials.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(6);
    let reserved_score = (longest + 2) as f64 * lowest - 100.0;
    let vocab: Vec<(String, f64)> = specials
        .iter()
        .cloned()
        .chain(bytes)
        .map(|name| (name, reserved_score))
        .chain(pieces.into_iter().filter(|(piece, _)| !specials.contains(piece)))
        .collect();
    let unk_id = specials.iter().position(|name| *name == config.unk_token);
    let document = layout::document(layout::Parts {
        normalizer: json!({"type": "Prepend", "prepend": SPACE}),
        pre_tokenizer: json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": true}),
        post_processor: layout::template(&specials, &config.bos_token, None),
        decoder: json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]}),
        model: json!({"type": "Unigram", "unk_id": unk_id, "vocab": vocab, "byte_fallback": config.byte_fallback}),
        specials,
    });
    let names = layout::names(&config.names());
    let files = layout::tokenizer_config(&names, &["input_ids", "attention_mask"]);
    Tokenizer::from_parts(&document, names, files)
        .map_err(|error| Error::Training { table: "unigram", message: error.to_string() })
}

/// Whether a `tokenizer.json` cuts text as the ones trained here do.
pub(crate) fn is_own_layout(normalizer: &Value, pre_tokenizer: &Value) -> bool {
    normalizer["type"] == "Prepend"
        && normalizer["prepend"] == SPACE.to_string()
        && pre_tokenizer["type"] == "Metaspace"
        && pre_tokenizer["prepend_scheme"] == "never"
        && pre_tokenizer["split"] == true
}

/// Calls `found` with each word, its space written as `▁`; line ends and tabs stand alone.
fn cut(text: &str, found: &mut dyn FnMut(&str)) {
    let mut word = String::from(SPACE);
    let text = text.strip_prefix(' ').unwrap_or(text);
    for letter in text.chars() {
        if letter == ' ' || letter == SPACE {
            found(&word);
            word.clear();
            word.push(SPACE);
        } else if letter.is_control() {
            found(&word);
            found(letter.encode_utf8(&mut [0; 4]));
            word.clear();
        } else {
            word.push(letter);
        }
    }
    if !word.is_empty() && !text.is_empty() {
        found(&word);
    }
}

/// The characters that get pieces of their own.
fn alphabet(words: &[(String, u64)], config: &Config, room: usize) -> HashSet<char> {
    let counted = count::characters(words);
    let total: u64 = counted.iter().map(|(_, count)| count).sum();
    let wanted = (total as f64 * config.character_coverage).ceil() as u64;
    let mut covered = 0;
    let names = config.names();
    let reserved = names.iter().flat_map(|(_, name)| name.chars());
    let mut kept: HashSet<char> = BYTE_SPELLING.chars().chain(reserved).collect();
    kept.insert(SPACE);
    for (letter, count) in counted {
        // Half of the vocabulary stays free for longer pieces.
        if covered >= wanted || kept.len() >= room / 2 {
            break;
        }
        kept.insert(letter);
        covered += count;
    }
    kept
}

fn learn(
    words: &[(String, u64)],
    alphabet: &HashSet<char>,
    room: usize,
    config: &Config,
) -> Result<Vec<(String, f64)>, String> {
    let sentences = sentences(words, alphabet);
    if sentences.is_empty() {
        return Err("no word is left; raise `character_coverage`".to_owned());
    }
    let trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(u32::try_from(room).map_err(|e| e.to_string())?)
        .max_piece_length(config.max_piece_chars)
        .initial_alphabet(alphabet.iter().copied().collect())
        .build()
        .map_err(|error| error.to_string())?;
    // Sums of floating-point numbers depend on how many threads share them: one thread, one result.
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|e| e.to_string())?;
    let mut model = Unigram::default();
    alone.install(|| trainer.do_train(sentences, &mut model)).map_err(|error| error.to_string())?;
    let mut pieces: Vec<(String, f64)> = model.iter().cloned().collect();
    order_rare_characters(&mut pieces, words);
    pieces.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
    Ok(pieces)
}

/// Words cut at characters outside the alphabet, the most frequent ones, with counts that fit the trainer.
fn sentences(words: &[(String, u64)], alphabet: &HashSet<char>) -> Vec<(String, u32)> {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for (word, count) in words {
        for part in word.split(|letter| !alphabet.contains(&letter)).filter(|p| !p.is_empty()) {
            *counts.entry(part).or_default() += count;
        }
    }
    let mut all: Vec<(&str, u64)> = counts.into_iter().collect();
    all.sort_unstable_by_key(|(word, count)| (Reverse(*count), *word));
    all.truncate(MAX_WORDS);
    let total: u64 = all.iter().map(|(_, count)| count).sum();
    let scale = total.div_ceil(MAX_TOTAL).max(1);
    let mut sentences: Vec<(String, u32)> = all
        .into_iter()
        .map(|(word, count)| {
            let count = u32::try_from((count / scale).max(1)).unwrap_or(u32::MAX);
            (word.to_owned(), count)
        })
        .collect();
    sentences.sort_unstable();
    sentences
}

/// The trainer gives characters that it dropped a ladder of lowest scores, in the order of a randomly seeded set.
/// Here the more frequent character gets the higher score.
fn order_rare_characters(pieces: &mut [(String, f64)], words: &[(String, u64)]) {
    let lowest = pieces.iter().map(|(_, score)| *score).fold(f64::INFINITY, f64::min);
    let mut ladder: Vec<u64> = Vec::new();
    let mut penalty = 0.0;
    for _ in 0..pieces.len() {
        ladder.push((lowest + penalty).to_bits());
        penalty += 0.0001;
    }
    let ladder: HashSet<u64> = ladder.into_iter().collect();
    let mut places: Vec<usize> = (0..pieces.len())
        .filter(|&at| pieces[at].0.chars().nth(1).is_none() && ladder.contains(&pieces[at].1.to_bits()))
        .collect();
    let counts: HashMap<char, u64> = count::characters(words).into_iter().collect();
    let mut rare: Vec<String> = places.iter().map(|&at| pieces[at].0.clone()).collect();
    rare.sort_unstable_by_key(|piece| {
        let letter = piece.chars().next().unwrap_or(SPACE);
        (Reverse(counts.get(&letter).copied().unwrap_or(0)), letter)
    });
    places.sort_unstable_by(|&a, &b| pieces[b].1.total_cmp(&pieces[a].1).then(a.cmp(&b)));
    let scores: Vec<f64> = places.iter().map(|&at| pieces[at].1).collect();
    for ((at, piece), score) in places.into_iter().zip(rare).zip(scores) {
        pieces[at] = (piece, score);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenizerConfig;

    const TEXT: &str = "The people of the United States, in 1790 and 2021, have seen the state of the Union.\nThe union is not a state; states are in the union. Élan, naïveté, señor; Привет, мир!";

    fn trained(config: Config) -> Tokenizer {
        let texts = std::iter::repeat_n(TEXT.to_owned(), 5);
        Tokenizer::train(&TokenizerConfig::Unigram(config), texts).expect("trains")
    }

    #[test]
    fn the_same_text_gives_the_same_file() {
        let files: HashSet<String> = (0..4).map(|_| trained(Config::new(400)).to_json().to_owned()).collect();
        assert_eq!(files.len(), 1);
    }

    /// Words that occur with several endings, as in any real text: only such are candidates.
    fn varied() -> impl Iterator<Item = String> + Send {
        let stems = "the people state union nation power peace treaty commerce public service";
        let ends = ["", "s", ",", ".", "'s", "ly", "ing", "ed"];
        let words = stems.split(' ').flat_map(move |stem| ends.map(|end| format!("{stem}{end} {end}{stem} ")));
        std::iter::once(words.collect::<String>().repeat(20))
    }

    #[test]
    fn the_size_is_met_when_the_text_has_enough_pieces() {
        let size = |vocab_size| {
            let config = TokenizerConfig::Unigram(Config::new(vocab_size));
            Tokenizer::train(&config, varied()).expect("trains").vocab_size()
        };
        assert_eq!(size(330), 330);
        assert!(size(5000) < 5000);
    }

    #[test]
    fn texts_in_many_scripts_come_back_exactly() {
        let tokenizer = trained(Config::new(400));
        for text in [
            TEXT,
            "",
            " ",
            "  two before, two after  ",
            "tab\tnew\r\nline\n\n",
            "日本語 हिन्दी العربية 👩‍👩‍👧‍👦 e\u{301}",
            "<0x41> <0xFF> <s> </s> <unk>",
            "a\u{a0}b\u{0}c",
        ] {
            let ids = tokenizer.encode(text).expect("encodes");
            assert_eq!(tokenizer.decode(&ids).expect("decodes"), text);
        }
    }

    #[test]
    fn without_byte_fallback_the_unseen_is_unknown() {
        let tokenizer = trained(Config { byte_fallback: false, ..Config::new(200) });
        let ids = tokenizer.encode("state 語").expect("encodes");
        assert_eq!(ids.last(), Some(&0));
        assert_eq!(tokenizer.special(SpecialToken::Unk), Some(0));
    }

    #[test]
    fn frequent_words_are_single_pieces_with_their_space() {
        let config = TokenizerConfig::Unigram(Config::new(400));
        let tokenizer = Tokenizer::train(&config, varied()).expect("trains");
        let ids = tokenizer.encode("the state").expect("encodes");
        let pieces: Vec<_> = ids.iter().filter_map(|id| tokenizer.id_to_token(*id)).collect();
        assert_eq!(pieces.concat(), "▁the▁state");
        assert!(pieces.len() <= 3, "{pieces:?}");
        assert!(tokenizer.starts_word(ids[0]));
    }

    #[test]
    fn one_letter_is_enough_of_a_corpus() {
        let config = TokenizerConfig::Unigram(Config::new(400));
        let tokenizer = Tokenizer::train(&config, std::iter::once("a".to_owned())).expect("trains");
        let ids = tokenizer.encode("aab").expect("encodes");
        assert_eq!(tokenizer.decode(&ids).expect("decodes"), "aab");
    }

    #[test]
    fn many_characters_leave_room_for_pieces() {
        let text: String = ('\u{4e00}'..'\u{5200}').collect();
        let config = TokenizerConfig::Unigram(Config::new(600));
        let texts = [text.clone(), "the people of the people".repeat(50)];
        let tokenizer = Tokenizer::train(&config, texts.into_iter()).expect("trains");
        assert!(tokenizer.vocab_size() <= 600);
        let ids = tokenizer.encode(&text).expect("encodes");
        assert_eq!(tokenizer.decode(&ids).expect("decodes"), text);
    }

    #[test]
    fn impossible_values_are_found_together() {
        let config = Config { character_coverage: 2.0, max_piece_chars: 0, ..Config::new(10) };
        let keys: Vec<_> = config.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["vocab_size", "character_coverage", "max_piece_chars"]);
    }
}
