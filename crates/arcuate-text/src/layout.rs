//! The parts of `tokenizer.json` that all trained tokenizers share.

use crate::SpecialToken;
use crate::special::SpecialNames;
use serde_json::{Map, Value, json};

/// Special tokens in id order, one entry per distinct content.
pub(crate) fn distinct<'a>(contents: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for content in contents {
        if !all.iter().any(|known| known == content) {
            all.push(content.to_owned());
        }
    }
    all
}

/// What [`document`] puts together.
pub(crate) struct Parts {
    /// Contents of the special tokens; their ids are 0, 1, ...
    pub(crate) specials: Vec<String>,
    pub(crate) normalizer: Value,
    pub(crate) pre_tokenizer: Value,
    pub(crate) post_processor: Value,
    pub(crate) decoder: Value,
    pub(crate) model: Value,
}

/// The whole `tokenizer.json`.
pub(crate) fn document(parts: Parts) -> Value {
    let added: Vec<Value> =
        parts.specials.iter().enumerate().map(|(id, content)| special_token(id as u64, content)).collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": parts.normalizer,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": parts.post_processor,
        "decoder": parts.decoder,
        "model": parts.model,
    })
}

/// The entry of a special token among the `added_tokens`.
pub(crate) fn special_token(id: u64, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
}

/// Puts special tokens around a text, for other programs that encode with them: `before` text `after`.
pub(crate) fn template(specials: &[String], before: &str, after: Option<&str>) -> Value {
    let special = |content: &str, segment: u8| json!({"SpecialToken": {"id": content, "type_id": segment}});
    let mut single = vec![special(before, 0), json!({"Sequence": {"id": "A", "type_id": 0}})];
    single.extend(after.map(|content| special(content, 0)));
    let mut pair = single.clone();
    if after.is_none() {
        pair.push(special(before, 1));
    }
    pair.push(json!({"Sequence": {"id": "B", "type_id": 1}}));
    pair.extend(after.map(|content| special(content, 1)));
    let named: Map<String, Value> = specials
        .iter()
        .enumerate()
        .filter(|(_, content)| *content == before || Some(content.as_str()) == after)
        .map(|(id, content)| (content.clone(), json!({"id": content, "ids": [id], "tokens": [content]})))
        .collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": named})
}

/// `{token: id}` in id order.
pub(crate) fn vocabulary(tokens: &[String]) -> Value {
    Value::Object(tokens.iter().zip(0u32..).map(|(token, id)| (token.clone(), id.into())).collect())
}

/// `tokenizer_config.json` of a trained tokenizer.
pub(crate) fn tokenizer_config(specials: &SpecialNames, inputs: &[&str]) -> Map<String, Value> {
    let mut config = Map::new();
    config.insert("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into());
    for (token, name) in specials.iter() {
        config.insert(token.key().to_owned(), name.into());
    }
    config.insert("clean_up_tokenization_spaces".to_owned(), false.into());
    config.insert("model_input_names".to_owned(), inputs.into());
    config
}

/// Findings shared by all trained tokenizers: size and names of special tokens.
pub(crate) fn check_names<'a>(
    vocab_size: usize,
    smallest: usize,
    why: &str,
    names: impl IntoIterator<Item = (&'static str, &'a str)>,
) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if vocab_size < smallest {
        let message = format!("{vocab_size} is too small: {why}; use at least {smallest}");
        found.push(("vocab_size", message));
    } else if vocab_size > MAX_VOCAB {
        found.push(("vocab_size", format!("{vocab_size} is more than the {MAX_VOCAB} that are possible")));
    }
    for (key, name) in names {
        if name.trim().is_empty() {
            found.push((key, "a special token needs a name; give it one such as `<s>`".to_owned()));
        }
    }
    found
}

/// More tokens than any vocabulary has; token ids and memory stay bounded.
pub(crate) const MAX_VOCAB: usize = 4_000_000;

/// Roles and contents as a recipe names them.
pub(crate) fn names(pairs: &[(SpecialToken, &str)]) -> SpecialNames {
    SpecialNames::new(pairs.iter().map(|(token, name)| (*token, (*name).to_owned())))
}
