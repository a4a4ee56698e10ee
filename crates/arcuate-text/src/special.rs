//! Special tokens by role, and how the files beside a `tokenizer.json` name them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a special token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpecialToken {
    /// Begin of a document.
    Bos,
    /// End of a document.
    Eos,
    /// Fills rows up; never predicted.
    Pad,
    /// Stands for what the vocabulary cannot spell.
    Unk,
    /// Hides a token from a masked language model.
    Mask,
    /// First position of a BERT row.
    Cls,
    /// Ends a segment of a BERT row.
    Sep,
}

impl SpecialToken {
    /// All roles.
    pub const ALL: [Self; 7] = [Self::Bos, Self::Eos, Self::Pad, Self::Unk, Self::Mask, Self::Cls, Self::Sep];

    /// The key in `tokenizer_config.json`, such as `bos_token`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Bos => "bos_token",
            Self::Eos => "eos_token",
            Self::Pad => "pad_token",
            Self::Unk => "unk_token",
            Self::Mask => "mask_token",
            Self::Cls => "cls_token",
            Self::Sep => "sep_token",
        }
    }

    /// Spellings that published tokenizers use for the role, the most telling first.
    fn known_spellings(self) -> &'static [&'static str] {
        match self {
            Self::Bos => &["<|begin_of_text|>", "<s>", "<bos>", "[BOS]", "<|startoftext|>", "<|endoftext|>"],
            Self::Eos => &["<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<|endoftext|>"],
            Self::Pad => &["<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>"],
            Self::Unk => &["<unk>", "[UNK]", "<|unk|>"],
            Self::Mask => &["[MASK]", "<mask>", "<|mask|>"],
            Self::Cls => &["[CLS]", "<cls>"],
            Self::Sep => &["[SEP]", "<sep>"],
        }
    }
}

/// The content of each role's token, where the tokenizer has one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SpecialNames(Vec<(SpecialToken, String)>);

impl SpecialNames {
    pub(crate) fn new(names: impl IntoIterator<Item = (SpecialToken, String)>) -> Self {
        let mut all: Vec<_> = names.into_iter().collect();
        all.sort();
        Self(all)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SpecialToken, &str)> {
        self.0.iter().map(|(token, name)| (*token, name.as_str()))
    }

    /// What the two files say, the first one first; then the known spellings among `added` tokens.
    /// A name that `exists` does not know is passed over, as the library that writes these files does.
    pub(crate) fn resolve(files: &[&Map<String, Value>], added: &[String], exists: impl Fn(&str) -> bool) -> Self {
        let named = |token: SpecialToken| {
            files.iter().filter_map(|file| content(file.get(token.key())?)).find(|name| exists(name))
        };
        let known = |token: SpecialToken| {
            let spelling = token.known_spellings().iter().find(|name| added.iter().any(|a| a == *name))?;
            Some((*spelling).to_owned())
        };
        Self::new(
            SpecialToken::ALL.into_iter().filter_map(|token| Some((token, named(token).or_else(|| known(token))?))),
        )
    }
}

/// A token is written as a string or as an object with its `content`.
fn content(value: &Value) -> Option<String> {
    let text = match value {
        Value::Object(object) => object.get("content")?.as_str()?,
        other => other.as_str()?,
    };
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resolve(config: Value, added: &[&str]) -> Vec<(SpecialToken, String)> {
        let added: Vec<String> = added.iter().map(|a| (*a).to_owned()).collect();
        let config = config.as_object().expect("an object").clone();
        SpecialNames::resolve(&[&config], &added, |name| added.iter().any(|a| a == name)).0
    }

    #[test]
    fn strings_and_objects_are_both_names() {
        let config = json!({"bos_token": "<a>", "eos_token": {"content": "<b>", "lstrip": false}});
        let found = resolve(config, &["<a>", "<b>"]);
        assert_eq!(found, [(SpecialToken::Bos, "<a>".to_owned()), (SpecialToken::Eos, "<b>".to_owned())]);
    }

    #[test]
    fn without_files_the_known_spellings_count() {
        let found = resolve(json!({}), &["[PAD]", "[CLS]", "<|endoftext|>"]);
        let roles: Vec<_> = found.iter().map(|(token, _)| *token).collect();
        assert_eq!(roles, [SpecialToken::Bos, SpecialToken::Eos, SpecialToken::Pad, SpecialToken::Cls]);
    }

    #[test]
    fn a_name_outside_the_vocabulary_is_passed_over() {
        assert_eq!(resolve(json!({"pad_token": "<nowhere>", "unk_token": null}), &["<a>"]), []);
    }
}
