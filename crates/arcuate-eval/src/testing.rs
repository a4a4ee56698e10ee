//! Tiny networks, tokenizers and rows for the tests of this crate.

use arcuate_data::{IGNORED_TARGET, Row};
use arcuate_model::{Architecture, Head, ModelConfig, Network};
use arcuate_ops::device::cpu;
use arcuate_text::{Tokenizer, TokenizerConfig, byte_bpe, wordpiece};
use serde_json::{Value, json};

pub(crate) const TEXT: &str = "the people of the union, and the state of the people. the union of the state";

pub(crate) fn network(config: Value, vocab_size: usize, head: Head) -> Network {
    let config: ModelConfig = serde_json::from_value(config).expect("a model");
    Network::init(Architecture::new(&config, vocab_size, head).expect("possible"), 5, &cpu())
}

pub(crate) fn llama(max_seq_len: usize, vocab_size: usize) -> Network {
    let keys = json!({"llama": {"hidden_size": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2,
        "intermediate_size": 24, "max_seq_len": max_seq_len, "tie_word_embeddings": false, "initializer_range": 0.3}});
    network(keys, vocab_size, Head::Tokens)
}

pub(crate) fn gpt2(max_seq_len: usize, vocab_size: usize) -> Network {
    let keys = json!({"gpt2": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_seq_len": max_seq_len,
        "initializer_range": 0.3}});
    network(keys, vocab_size, Head::Tokens)
}

pub(crate) fn classifier(vocab_size: usize, labels: &[&str]) -> Network {
    let keys = json!({"bert": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 24,
        "max_seq_len": 16, "initializer_range": 0.4}});
    network(keys, vocab_size, Head::Classes(labels.iter().map(|label| (*label).to_owned()).collect()))
}

pub(crate) fn tagger(vocab_size: usize, names: &[&str], crf: bool) -> Network {
    let keys = json!({"bert": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 24,
        "max_seq_len": 16, "initializer_range": 0.4}});
    network(keys, vocab_size, Head::Tags { names: names.iter().map(|name| (*name).to_owned()).collect(), crf })
}

pub(crate) fn bytes() -> Tokenizer {
    let config = TokenizerConfig::ByteBpe(byte_bpe::Config::new(300));
    Tokenizer::train(&config, std::iter::repeat_n(TEXT.to_owned(), 5)).expect("trains")
}

pub(crate) fn words() -> Tokenizer {
    let config = TokenizerConfig::Wordpiece(wordpiece::Config::new(60));
    Tokenizer::train(&config, std::iter::repeat_n(TEXT.to_owned(), 5)).expect("trains")
}

/// The tokens as one document; every one but the first is predicted, and the last is not fed.
pub(crate) fn causal_row(source: u32, tokens: &[u32], num_bytes: u64) -> Row {
    let len = tokens.len() - 1;
    let row = crate::rows::document_row(source, 0, &tokens[..len], &[IGNORED_TARGET].repeat(len), num_bytes);
    Row { targets: tokens[1..].iter().map(|token| *token as i32).collect(), ..row }
}

pub(crate) fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-9 * b.abs().max(1e-3), "{a} is not {b}");
}
