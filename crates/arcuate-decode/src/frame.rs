//! Which tokens begin and end a text for a model.

use std::path::Path;

use arcuate_text::{SpecialToken, Tokenizer};
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result};

/// No `generation_config.json` is larger.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
struct PostProcessor {
    #[serde(default)]
    post_processor: Value,
}

/// The special tokens that the tokenizer itself puts before a text: the template in its `tokenizer.json`.
///
/// GPT-2 and Qwen2 have none, Llama has `bos_token`; tokenizers trained here begin with theirs.
pub fn begin_tokens(tokenizer: &Tokenizer) -> Vec<u32> {
    let parsed: Option<PostProcessor> = serde_json::from_str(tokenizer.to_json()).ok();
    let names = parsed.map(|parsed| before(&parsed.post_processor)).unwrap_or_default();
    names.iter().filter_map(|name| tokenizer.token_to_id(name)).collect()
}

fn before(processor: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match processor["type"].as_str() {
        Some("TemplateProcessing") => {
            let parts = processor["single"].as_array().map(Vec::as_slice).unwrap_or_default();
            parts.iter().map_while(|part| text(&part["SpecialToken"]["id"])).collect()
        }
        Some("BertProcessing" | "RobertaProcessing") => text(&processor["cls"][0]).into_iter().collect(),
        Some("Sequence") => {
            let inner = processor["processors"].as_array().map(Vec::as_slice).unwrap_or_default();
            inner.iter().flat_map(before).collect()
        }
        _ => Vec::new(),
    }
}

/// What stands before a text that has no context: as [`begin_tokens`], else `bos_token`, else `eos_token`.
pub fn empty_context(tokenizer: &Tokenizer) -> Vec<u32> {
    let begin = begin_tokens(tokenizer);
    if !begin.is_empty() {
        return begin;
    }
    let first = [SpecialToken::Bos, SpecialToken::Eos].into_iter().find_map(|token| tokenizer.special(token));
    first.into_iter().collect()
}

/// The tokens that end a text by the `generation_config.json` in a checkpoint folder; none without such a file.
pub fn end_tokens(dir: &Path) -> Result<Vec<u32>> {
    let path = dir.join("generation_config.json");
    let failed = |problem: String| Error::File { path: path.clone(), problem };
    let size = match std::fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error.to_string())),
    };
    if size > MAX_CONFIG_BYTES {
        return Err(failed(format!("it has {size} bytes, more than any such file; is it another file?")));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    let config: Value = serde_json::from_str(&text).map_err(|error| failed(format!("{error}; it must be JSON")))?;
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    Ok(match &config["eos_token_id"] {
        Value::Array(ids) => ids.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_text::{TokenizerConfig, byte_bpe};
    use serde_json::json;

    fn tokenizer(post_processor: Value) -> Tokenizer {
        let config = TokenizerConfig::ByteBpe(byte_bpe::Config::new(260));
        let trained = Tokenizer::train(&config, std::iter::once("a b".to_owned())).expect("trains");
        let mut json: Value = serde_json::from_str(trained.to_json()).expect("JSON");
        json["post_processor"] = post_processor;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, json.to_string()).expect("writes");
        Tokenizer::load(&path).expect("loads")
    }

    #[test]
    fn a_tokenizer_trained_here_begins_with_its_mark() {
        let config = TokenizerConfig::ByteBpe(byte_bpe::Config::new(260));
        let tokenizer = Tokenizer::train(&config, std::iter::once("a b".to_owned())).expect("trains");
        assert_eq!(begin_tokens(&tokenizer), [tokenizer.special(SpecialToken::Bos).expect("has one")]);
    }

    #[test]
    fn without_a_template_a_text_begins_bare_but_an_empty_context_does_not() {
        let tokenizer =
            tokenizer(json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}));
        assert!(begin_tokens(&tokenizer).is_empty());
        assert_eq!(empty_context(&tokenizer), [tokenizer.special(SpecialToken::Bos).expect("has one")]);
    }

    #[test]
    fn templates_inside_sequences_and_of_older_kinds_are_understood() {
        let template = json!({"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<|pad|>", "type_id": 0}}]});
        assert_eq!(before(&template), ["<|endoftext|>"]);
        let sequence = json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, template]});
        assert_eq!(before(&sequence), ["<|endoftext|>"]);
        assert_eq!(before(&json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]})), ["<s>"]);
        assert!(before(&Value::Null).is_empty());
    }

    #[test]
    fn end_tokens_are_a_number_or_a_list_or_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let read = |text: &str| {
            std::fs::write(dir.path().join("generation_config.json"), text).expect("writes");
            end_tokens(dir.path())
        };
        assert!(end_tokens(dir.path()).expect("no file").is_empty());
        assert_eq!(read(r#"{"eos_token_id": 7}"#).expect("number"), [7]);
        assert_eq!(read(r#"{"eos_token_id": [7, 9]}"#).expect("list"), [7, 9]);
        assert!(read(r#"{"eos_token_id": null}"#).expect("null").is_empty());
        assert!(read("{").expect_err("broken").to_string().contains("generation_config.json"));
    }
}
