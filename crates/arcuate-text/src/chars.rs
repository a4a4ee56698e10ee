//! Single characters, as CTC recognisers use them; the layout of wav2vec 2.0 vocabularies.
//!
//! # What it computes
//! The vocabulary is `<pad>` (id 0, the blank of CTC), `<unk>` (1), `|` (2, between words, in place of the space), then the characters
//! of the normalised training transcripts by code point. Encoding normalises, puts `|` between words, none at the ends, and gives one
//! token for each character; what the vocabulary does not have becomes `<unk>`. Decoding gives the normalised text back. Beside
//! `tokenizer.json`, `vocab.json` is written, which is all that published checkpoints have; a folder with that alone can be loaded.
//! # Recipe
//! `[tokenizer.chars]` with `normalise`; `min_count`, `max_characters`
//! # Reference
//! Baevski et al. 2020; the `Wav2Vec2CTCTokenizer` layout of the Hugging Face `transformers` library

use crate::normalise::{Case, UnicodeForm};
use crate::special::SpecialNames;
use crate::{Error, Normaliser, Result, SpecialToken, Tokenizer};
use crate::{count, layout};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Stands between words.
pub(crate) const DELIMITER: &str = "|";
/// The key of `tokenizer_config.json` that names what stands between words; with it, `vocab.json` is written too.
pub(crate) const DELIMITER_KEY: &str = "word_delimiter_token";
/// The key of `tokenizer_config.json` under which the normaliser is kept.
pub(crate) const NORMALISE_KEY: &str = "normalise";
const PAD: &str = "<pad>";
const UNK: &str = "<unk>";
const CLASS: &str = "Wav2Vec2CTCTokenizer";

/// The `[tokenizer.chars]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How transcripts are brought into one spelling before they are cut into characters.
    pub normalise: Normaliser,
    /// Characters that occur less often become unknown.
    #[serde(default = "one")]
    pub min_count: u64,
    /// More different characters are an error: as a rule, they come from another language or a wrong encoding.
    #[serde(default = "default_characters")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_characters: usize,
}

fn one() -> u64 {
    1
}
fn default_characters() -> usize {
    8192
}

impl Config {
    /// The given normaliser and the defaults.
    pub fn new(normalise: Normaliser) -> Self {
        Self { normalise, min_count: one(), max_characters: default_characters() }
    }

    /// The transcripts decide.
    pub(crate) fn vocab_size(&self) -> Option<usize> {
        None
    }

    pub(crate) fn check(&self) -> Vec<(&'static str, String)> {
        let mut found: Vec<_> = self.normalise.check().into_iter().map(|(_, message)| ("normalise", message)).collect();
        if !(1..=1_000_000).contains(&self.max_characters) {
            let message = format!("{} is not possible; use 1 to 1000000", self.max_characters);
            found.push(("max_characters", message));
        }
        found
    }
}

pub(crate) fn train(config: &Config, texts: &mut (dyn Iterator<Item = String> + Send)) -> Result<Tokenizer> {
    let failed = |message: String| Error::Training { table: "chars", message };
    let words = count::count_words(texts, |text, found| {
        words_of(&config.normalise.apply(text)).for_each(found);
        Ok(())
    })?;
    let mut letters = count::characters(&words);
    letters.retain(|(_, count)| *count >= config.min_count);
    if letters.len() > config.max_characters {
        let rarest: String = letters.iter().rev().take(10).map(|(letter, _)| *letter).collect();
        return Err(failed(format!(
            "the transcripts have {} different characters, more than `max_characters` = {}; the rarest are `{rarest}`; leave such \
             transcripts out, raise `min_count` or raise the limit",
            letters.len(),
            config.max_characters
        )));
    }
    if letters.is_empty() {
        return Err(failed(format!("no character occurs `min_count` = {} times; lower it", config.min_count)));
    }
    letters.sort_unstable();
    with_characters(&config.normalise, letters.iter().map(|(letter, _)| letter.to_string())).map_err(failed)
}

/// A tokenizer to which every text is unknown.
pub(crate) fn without_characters() -> Result<Tokenizer> {
    let names = layout::names(&[(SpecialToken::Pad, PAD), (SpecialToken::Unk, UNK)]);
    let file = layout::tokenizer_config(&names, &["input_values", "attention_mask"]);
    let tokens = vec![(PAD.to_owned(), 0), (UNK.to_owned(), 1)];
    assemble(tokens, names, file).map_err(|message| Error::Training { table: "none", message })
}

fn with_characters(normaliser: &Normaliser, letters: impl Iterator<Item = String>) -> Result<Tokenizer, String> {
    let mut tokens = [PAD, UNK, DELIMITER].map(str::to_owned).to_vec();
    tokens.extend(letters);
    let names = layout::names(&[(SpecialToken::Pad, PAD), (SpecialToken::Unk, UNK)]);
    let mut file = layout::tokenizer_config(&names, &["input_ids", "attention_mask"]);
    // The library adds tokens of its own for the begin and the end of a text unless it is told that there are none.
    let own = json!({
        "tokenizer_class": CLASS, DELIMITER_KEY: DELIMITER, "replace_word_delimiter_char": " ", "do_lower_case": false,
        "bos_token": null, "eos_token": null, NORMALISE_KEY: normaliser,
    });
    file.extend(own.as_object().cloned().unwrap_or_default());
    let vocabulary = (0..).zip(tokens).map(|(id, token)| (token, id)).collect();
    assemble(vocabulary, names, file)
}

/// The words of a normalised text.
fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '|']).filter(|word| !word.is_empty())
}

/// A tokenizer of the files of a published checkpoint without a `tokenizer.json`: `vocab.json`, `added_tokens.json`,
/// `tokenizer_config.json`, `special_tokens_map.json`; the last three may be missing.
pub(crate) fn from_vocabulary(
    vocabulary: &Map<String, Value>,
    added: &Map<String, Value>,
    mut config: Map<String, Value>,
    special: &Map<String, Value>,
) -> Result<Tokenizer, String> {
    let mut tokens: Vec<(String, u32)> = Vec::with_capacity(vocabulary.len() + added.len());
    for (token, id) in vocabulary.iter().chain(added) {
        let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id < layout::MAX_VOCAB as u32)
        else {
            let several =
                if id.is_object() { ": it has one vocabulary for each of several languages; keep one" } else { "" };
            return Err(format!("the id of `{token}` is no small number{several}"));
        };
        tokens.push((token.clone(), id));
    }
    tokens.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    if let Some(pair) = tokens.windows(2).find(|pair| pair[0].1 == pair[1].1 && pair[0].0 != pair[1].0) {
        return Err(format!("`{}` and `{}` have one id, {}", pair[0].0, pair[1].0, pair[0].1));
    }
    tokens.dedup();
    let mut ids = HashMap::new();
    // A token of two files with two ids would silently lose one of them.
    if let Some((token, _)) = tokens.iter().find(|(token, id)| ids.insert(token, id).is_some()) {
        return Err(format!("`{token}` has two ids"));
    }
    let known: Vec<String> = tokens.iter().map(|(token, _)| token.clone()).collect();
    let names = SpecialNames::resolve(&[&config, special], &known, |name| ids.contains_key(&name.to_owned()));
    if !names.iter().any(|(role, _)| role == SpecialToken::Pad) {
        return Err("it has no padding token such as `<pad>`, which is the blank of CTC".to_owned());
    }
    config.entry("tokenizer_class").or_insert_with(|| CLASS.into());
    config.entry(DELIMITER_KEY).or_insert_with(|| DELIMITER.into());
    // Such a tokenizer takes lower-case text for a vocabulary of capitals.
    if config.get("do_lower_case") == Some(&Value::Bool(true)) && !config.contains_key(NORMALISE_KEY) {
        let upper = Normaliser { case: Case::Upper, ..Normaliser::named("none").expect("a preset") };
        config.insert(NORMALISE_KEY.to_owned(), json!(upper));
    }
    assemble(tokens, names, config)
}

fn assemble(tokens: Vec<(String, u32)>, names: SpecialNames, config: Map<String, Value>) -> Result<Tokenizer, String> {
    let ids: HashMap<&str, u32> = tokens.iter().map(|(token, id)| (token.as_str(), *id)).collect();
    let mut specials: Vec<(u32, &str)> = names.iter().filter_map(|(_, name)| Some((*ids.get(name)?, name))).collect();
    specials.sort_unstable();
    specials.dedup();
    let unknown = names.iter().find(|(role, _)| *role == SpecialToken::Unk).map_or(UNK, |(_, name)| name);
    let delimiter = config.get(DELIMITER_KEY).and_then(Value::as_str).unwrap_or(DELIMITER);
    let vocabulary: Map<String, Value> = tokens.iter().map(|(token, id)| (token.clone(), (*id).into())).collect();
    let mut document = layout::document(layout::Parts {
        specials: Vec::new(),
        normalizer: normalizer(&config, delimiter)?,
        pre_tokenizer: json!({"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": false}),
        post_processor: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": delimiter}, "content": " "}, {"type": "Fuse"},
        ]}),
        model: json!({"type": "WordLevel", "unk_token": unknown, "vocab": vocabulary}),
    });
    document["added_tokens"] = specials.iter().map(|(id, name)| layout::special_token(u64::from(*id), name)).collect();
    Tokenizer::from_parts(&document, names, config).map_err(|error| error.to_string())
}

/// What other programs do to a text before they cut it: as much of the normaliser as their library has, so that a text
/// that is normalised already comes to the same tokens.
fn normalizer(config: &Map<String, Value>, delimiter: &str) -> Result<Value, String> {
    let mut steps = Vec::new();
    if let Some(normaliser) = normaliser(config)? {
        match normaliser.unicode {
            UnicodeForm::Nfc => steps.push(json!({"type": "NFC"})),
            UnicodeForm::Nfkc => steps.push(json!({"type": "NFKC"})),
            UnicodeForm::None => {}
        }
        if normaliser.case == Case::Lower {
            steps.push(json!({"type": "Lowercase"}));
        }
    }
    steps.push(json!({"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}));
    steps.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
    steps.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": delimiter}));
    Ok(json!({"type": "Sequence", "normalizers": steps}))
}

/// The normaliser that `tokenizer_config.json` carries.
pub(crate) fn normaliser(config: &Map<String, Value>) -> Result<Option<Normaliser>, String> {
    let read = |value: &Value| serde_json::from_value(value.clone());
    config
        .get(NORMALISE_KEY)
        .map(read)
        .transpose()
        .map_err(|error| format!("`{NORMALISE_KEY}` in tokenizer_config.json: {error}"))
}

/// The characters of normalised texts that a character tokenizer does not have, most frequent first, then by code point.
pub fn unknown_characters(tokenizer: &Tokenizer, texts: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<(char, u64)> {
    let mut known: HashMap<char, bool> = HashMap::new();
    let mut counts: HashMap<char, u64> = HashMap::new();
    for text in texts {
        let text = tokenizer.normalise(text.as_ref());
        for letter in text.chars().filter(|letter| !letter.is_whitespace()) {
            let is_known = *known
                .entry(letter)
                .or_insert_with(|| tokenizer.token_to_id(letter.encode_utf8(&mut [0; 4])).is_some());
            if !is_known {
                *counts.entry(letter).or_default() += 1;
            }
        }
    }
    let mut all: Vec<(char, u64)> = counts.into_iter().collect();
    all.sort_unstable_by_key(|(letter, count)| (std::cmp::Reverse(*count), *letter));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenizerConfig;

    fn config() -> Config {
        Config::new(Normaliser::named("ctc").expect("a preset"))
    }

    fn trained(config: Config, texts: &[&str]) -> Result<Tokenizer> {
        Tokenizer::train(&TokenizerConfig::Chars(config), texts.iter().map(|text| (*text).to_owned()))
    }

    fn english() -> Tokenizer {
        trained(config(), &["Hello, world!", "It's a | test."]).expect("trains")
    }

    #[test]
    fn the_vocabulary_is_blank_unknown_boundary_and_characters_by_code_point() {
        let tokenizer = english();
        let tokens: Vec<String> =
            (0..tokenizer.vocab_size() as u32).map(|id| tokenizer.id_to_token(id).expect("no holes")).collect();
        assert_eq!(tokens, ["<pad>", "<unk>", "|", "'", "a", "d", "e", "h", "i", "l", "o", "r", "s", "t", "w"]);
        assert_eq!(tokenizer.special(SpecialToken::Pad), Some(0));
        assert_eq!(tokenizer.special(SpecialToken::Unk), Some(1));
        assert_eq!(tokenizer.special(SpecialToken::Bos), None);
        assert_eq!(tokenizer.word_delimiter(), Some(2));
        assert!(tokenizer.is_special(0) && tokenizer.is_special(1) && !tokenizer.is_special(2));
    }

    #[test]
    fn a_transcript_has_a_boundary_between_words_and_none_at_the_ends() {
        let tokenizer = english();
        let ids = tokenizer.encode("  HELLO\nIt's, ").expect("encodes");
        assert_eq!(ids, [7, 6, 9, 9, 10, 2, 8, 13, 3, 12]);
        assert_eq!(tokenizer.decode(&ids).expect("decodes"), "hello it's");
        assert_eq!(tokenizer.encode(" ... ").expect("encodes"), Vec::<u32>::new());
        assert_eq!(tokenizer.decode(&[]).expect("decodes"), "");
    }

    #[test]
    fn repeated_letters_are_kept_and_blanks_are_no_text() {
        let tokenizer = english();
        assert_eq!(tokenizer.decode(&[7, 0, 9, 9, 0, 2, 4]).expect("decodes"), "hll a");
    }

    #[test]
    fn characters_outside_the_vocabulary_are_unknown_and_counted() {
        let tokenizer = english();
        assert_eq!(tokenizer.encode("hé<unk>z").expect("encodes"), [7, 1, 2, 1]);
        let found = unknown_characters(&tokenizer, ["Zé é", "hello", "ž z!"]);
        assert_eq!(found, [('z', 2), ('é', 2), ('ž', 1)]);
    }

    #[test]
    fn marks_of_brahmic_scripts_are_characters_of_their_own() {
        let tokenizer = trained(config(), &["हिन्दी \u{958}।"]).expect("trains");
        let ids = tokenizer.encode("हिन्दी क़").expect("encodes");
        assert_eq!(ids.len(), 9);
        assert_eq!(tokenizer.decode(&ids).expect("decodes"), "हिन्दी \u{915}\u{93c}");
        assert!(unknown_characters(&tokenizer, ["\u{915}\u{93c}"]).is_empty());
    }

    #[test]
    fn rare_characters_become_unknown() {
        let tokenizer = trained(Config { min_count: 2, ..config() }, &["aab bc"]).expect("trains");
        assert_eq!(tokenizer.vocab_size(), 5);
        assert_eq!(tokenizer.encode("abc").expect("encodes"), [3, 4, 1]);
    }

    #[test]
    fn too_many_characters_are_named() {
        let error = trained(Config { max_characters: 3, ..config() }, &["aabbccdde"]).expect_err("five characters");
        let message = error.to_string();
        assert!(message.contains("5 different characters") && message.contains("`edcba`"), "{message}");
        let none = trained(Config { min_count: 9, ..config() }, &["ab"]).expect_err("nothing left");
        assert!(none.to_string().contains("`min_count` = 9"), "{none}");
        let wrong = Config { max_characters: 0, ..config() };
        assert!(matches!(trained(wrong, &["a"]), Err(Error::Config { key: "max_characters", .. })));
    }

    #[test]
    fn transcripts_without_characters_are_no_corpus() {
        assert!(matches!(trained(config(), &["...", "[noise]"]), Err(Error::EmptyCorpus)));
    }

    #[test]
    fn another_normaliser_is_another_tokenizer() {
        let upper = Normaliser { case: Case::Upper, ..config().normalise };
        let (a, b) = (trained(config(), &["123"]), trained(Config::new(upper), &["123"]));
        assert_ne!(a.expect("trains").hash(), b.expect("trains").hash());
    }

    #[test]
    fn published_vocabularies_that_disagree_are_refused() {
        let build = |vocab: Value, added: Value| {
            let map = |value: Value| value.as_object().cloned().expect("an object");
            from_vocabulary(&map(vocab), &map(added), Map::new(), &Map::new()).map(|_| ()).expect_err("wrong")
        };
        let none = json!({});
        assert!(build(json!({"a": 0, "b": 0, "<pad>": 1}), none.clone()).contains("`a` and `b` have one id"));
        assert!(build(json!({"a": 0, "<pad>": 1}), json!({"a": 3})).contains("`a` has two ids"));
        assert!(build(json!({"a": 0}), none.clone()).contains("no padding token"));
        assert!(build(json!({"a": -1}), none.clone()).contains("no small number"));
        assert!(build(json!({"eng": {"a": 1}}), none.clone()).contains("several languages"));
        assert!(build(json!({"a": 4_000_000_000u32}), none).contains("no small number"));
    }
}
