//! The byte alphabet of GPT-2 and the published ways to cut text before byte-level merges.
//!
//! A byte-level vocabulary spells every byte with one printable character, so any text can be written and
//! comes back exactly. Which pieces may merge is decided by a regular expression. Other programs
//! recognise a tokenizer by these expressions, so they are kept letter by letter as published.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How text is cut before merging; each is the published rule of a well-known model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PreTokenizer {
    /// GPT-2: words with their leading space, runs of digits, runs of punctuation.
    Gpt2,
    /// Llama 3: as GPT-2, but digits in groups of at most three and line ends kept with punctuation.
    Llama3,
    /// Qwen 2: as Llama 3, but every digit alone.
    Qwen2,
}

impl PreTokenizer {
    /// All rules.
    pub const ALL: [Self; 3] = [Self::Gpt2, Self::Llama3, Self::Qwen2];

    /// The name under which llama.cpp knows the rule (`tokenizer.ggml.pre`).
    pub fn gguf_name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt-2",
            Self::Llama3 => "llama-bpe",
            Self::Qwen2 => "qwen2",
        }
    }

    pub(crate) fn pattern(self) -> &'static str {
        match self {
            Self::Gpt2 => GPT2,
            Self::Llama3 => LLAMA3,
            Self::Qwen2 => QWEN2,
        }
    }

    /// The `pre_tokenizer` entry of `tokenizer.json`, as the model publishes it.
    pub(crate) fn to_json(self) -> Value {
        let byte_level = |trim_offsets: bool, use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": trim_offsets, "use_regex": use_regex});
        let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        match self {
            Self::Gpt2 => byte_level(true, true),
            Self::Llama3 => {
                json!({"type": "Sequence", "pretokenizers": [split(LLAMA3), byte_level(true, false)]})
            }
            Self::Qwen2 => {
                json!({"type": "Sequence", "pretokenizers": [split(QWEN2), byte_level(false, false)]})
            }
        }
    }

    /// Which rule a `pre_tokenizer` entry is, if it is one of these.
    pub(crate) fn recognise(entry: &Value) -> Option<Self> {
        if let Some(parts) = entry.get("pretokenizers").and_then(Value::as_array) {
            let [split, bytes] = parts.as_slice() else { return None };
            let plain =
                bytes["type"] == "ByteLevel" && bytes["add_prefix_space"] == false && bytes["use_regex"] == false;
            let isolated = split["type"] == "Split" && split["behavior"] == "Isolated" && split["invert"] == false;
            let pattern = split["pattern"]["Regex"].as_str()?;
            return Self::ALL.into_iter().find(|rule| plain && isolated && rule.pattern() == pattern);
        }
        let gpt2 = entry["type"] == "ByteLevel" && entry["add_prefix_space"] == false && entry["use_regex"] != false;
        gpt2.then_some(Self::Gpt2)
    }
}

/// The character that stands for each byte.
pub(crate) fn alphabet() -> [char; 256] {
    let mut table = ['\0'; 256];
    let mut extra = 256u32;
    for byte in 0..=255u8 {
        table[usize::from(byte)] = match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                extra += 1;
                char::from_u32(extra - 1).expect("256 to 323 are letters of Latin Extended-A")
            }
        };
    }
    table
}

/// Spells the bytes of a text in the byte alphabet.
pub(crate) fn spell(text: &str, alphabet: &[char; 256]) -> String {
    text.bytes().map(|byte| alphabet[usize::from(byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    #[test]
    fn the_alphabet_has_256_different_characters_of_the_published_table() {
        let ours: std::collections::HashSet<char> = alphabet().into_iter().collect();
        let published: std::collections::HashSet<char> = ByteLevel::alphabet().into_iter().collect();
        assert_eq!(ours, published);
        assert_eq!(spell(" a\n", &alphabet()), "ĠaĊ");
    }

    #[test]
    fn each_rule_recognises_its_own_entry_only() {
        for rule in PreTokenizer::ALL {
            assert_eq!(PreTokenizer::recognise(&rule.to_json()), Some(rule));
        }
        assert_eq!(PreTokenizer::recognise(&json!({"type": "Whitespace"})), None);
        assert_eq!(PreTokenizer::recognise(&Value::Null), None);
        let with_prefix = json!({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true});
        assert_eq!(PreTokenizer::recognise(&with_prefix), None);
    }
}
