//! The held-out part of a corpus, measured with a tiny network.

use std::ops::ControlFlow;

use arcuate_data::{Corpus, CorpusOptions, DataConfig, Framing, PackingConfig, Progress, SourceConfig};
use arcuate_eval::{Done, HeldOutOptions, HeldOutResult, causal_rows, evaluate};
use arcuate_model::{Architecture, Head, ModelConfig, Network};
use arcuate_text::{Tokenizer, TokenizerConfig, byte_bpe};
use serde_json::json;

const TEXT: &str = "the people of the union, and the state of the people. ";

struct Bench {
    corpus: Corpus,
    network: Network,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().expect("a folder");
    let tokenizer = TokenizerConfig::ByteBpe(byte_bpe::Config::new(280));
    let tokenizer = Tokenizer::train(&tokenizer, std::iter::repeat_n(TEXT.to_owned(), 5)).expect("trains");
    let write = |name: &str, num: usize| {
        let line = |i: usize| json!({"id": format!("{name}{i}"), "text": TEXT.repeat(1 + i % 4)}).to_string() + "\n";
        let path = dir.path().join(name);
        std::fs::write(&path, (0..num).map(line).collect::<String>()).expect("writes");
        path.to_string_lossy().into_owned()
    };
    let packing: PackingConfig = serde_json::from_value(json!({"best_fit": {}})).expect("a packing");
    let mut data = DataConfig::single("web", write("web.jsonl", 20), packing);
    data.source.insert("books".to_owned(), SourceConfig::new(write("books.jsonl", 12)));
    data.held_out_fraction = 0.5;
    data.cache_dir = dir.path().join("cache");
    let options = CorpusOptions {
        max_seq_len: 24,
        framing: Framing::CausalLm,
        labels: false,
        logits: false,
        tags: false,
        prompt: None,
    };
    let corpus = Corpus::open(&data, &tokenizer, &options, &Progress::none()).expect("opens");
    let model: ModelConfig =
        serde_json::from_value(json!({"llama": {"hidden_size": 16, "num_layers": 1, "num_heads": 2,
        "intermediate_size": 16, "max_seq_len": 24, "tie_word_embeddings": true, "initializer_range": 0.3}}))
        .expect("a model");
    let architecture = Architecture::new(&model, tokenizer.vocab_size(), Head::Tokens).expect("possible");
    let network = Network::init(architecture, 1, &arcuate_ops::device::cpu());
    Bench { corpus, network, _dir: dir }
}

fn run(bench: &Bench, microbatch: usize, stride: Option<usize>, max_tokens: Option<u64>) -> HeldOutResult {
    let options = HeldOutOptions { microbatch, pad_id: 0, max_tokens, covers_text: true };
    let rows = bench.corpus.held_out(stride).expect("opens");
    let mut quiet = |_: Done| ControlFlow::Continue(());
    let names = bench.corpus.source_names();
    evaluate(rows, &names, &options, &mut quiet, |batch| causal_rows(&bench.network, batch)).expect("runs")
}

#[test]
fn the_loss_is_the_same_for_every_microbatch() {
    let bench = bench();
    for stride in [None, Some(6)] {
        let one = run(&bench, 1, stride, None);
        assert_eq!(one.sources.keys().collect::<Vec<_>>(), ["books", "web"]);
        for microbatch in [3, 8, 64] {
            let many = run(&bench, microbatch, stride, None);
            assert!((many.total.loss / one.total.loss - 1.0).abs() < 1e-6, "{microbatch}");
            assert_eq!((many.total.tokens, many.total.bytes), (one.total.tokens, one.total.bytes));
        }
    }
}

#[test]
fn a_stride_predicts_the_same_tokens_with_more_context() {
    let bench = bench();
    let (plain, strided) = (run(&bench, 4, None, None), run(&bench, 4, Some(6), None));
    assert_eq!((plain.total.tokens, plain.total.bytes), (strided.total.tokens, strided.total.bytes));
    assert!(strided.num_rows > plain.num_rows);
    assert_ne!(strided.total.loss, plain.total.loss);
}

#[test]
fn a_part_of_the_tokens_is_a_part_of_the_rows_of_both_sources() {
    let bench = bench();
    let part = run(&bench, 3, None, Some(100));
    assert!(part.is_partial && part.total.tokens < run(&bench, 3, None, None).total.tokens);
    let again = run(&bench, 1, None, Some(100));
    assert_eq!((part.sources.len(), part.num_rows, part.total.tokens), (2, again.num_rows, again.total.tokens));
}
