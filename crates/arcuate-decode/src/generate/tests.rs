//! Generation with tiny networks.

use arcuate_model::{Architecture, Head, Input, ModelConfig, Wanted};
use arcuate_ops::device::cpu;
use arcuate_text::{TokenizerConfig, byte_bpe, unigram};
use serde_json::{Value, json};

use super::*;

const TEXT: &str = "the people of the union, and the state of the people. the union of the state";

fn bytes() -> Tokenizer {
    let config = TokenizerConfig::ByteBpe(byte_bpe::Config::new(300));
    Tokenizer::train(&config, std::iter::repeat_n(TEXT.to_owned(), 5)).expect("trains")
}

fn network(config: Value, vocab_size: usize) -> Network {
    let config: ModelConfig = serde_json::from_value(config).expect("a model");
    let architecture = Architecture::new(&config, vocab_size, Head::Tokens).expect("possible");
    Network::init(architecture, 5, &cpu())
}

fn llama(max_seq_len: usize, vocab_size: usize) -> Network {
    let keys = json!({"llama": {"hidden_size": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2,
        "intermediate_size": 24, "max_seq_len": max_seq_len, "tie_word_embeddings": false, "initializer_range": 0.4}});
    network(keys, vocab_size)
}

fn all_architectures() -> Vec<Network> {
    let qwen2 = json!({"qwen2": {"hidden_size": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 1,
        "intermediate_size": 24, "max_seq_len": 32, "tie_word_embeddings": true, "initializer_range": 0.4}});
    let gpt2 = json!({"gpt2": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_seq_len": 32,
        "initializer_range": 0.4}});
    vec![llama(32, 60), network(qwen2, 60), network(gpt2, 60)]
}

fn generate(config: GenerateConfig, prompt: &str) -> (Vec<String>, Generation) {
    let tokenizer = bytes();
    let network = llama(64, tokenizer.vocab_size());
    let generator = Generator::new(&network, &tokenizer, config).expect("fits");
    let mut pieces = Vec::new();
    let generation = generator.generate(prompt, 0, |text| {
        pieces.push(text.to_owned());
        ControlFlow::Continue(())
    });
    (pieces, generation.expect("generates"))
}

fn drawn(max_new_tokens: usize, seed: u64) -> GenerateConfig {
    let sampling = SamplingConfig { temperature: 1.0, ..SamplingConfig::default() };
    GenerateConfig { sampling, seed, ignore_end: true, ..GenerateConfig::greedy(max_new_tokens) }
}

#[test]
fn cached_and_uncached_logits_agree_in_every_architecture() {
    let ids: Vec<i32> = (0..24).map(|i| (i * 37 + 11) % 60).collect();
    for network in all_architectures() {
        let name = network.architecture().name();
        let input = Input::from_rows(1, ids.len(), ids.clone(), &[]).expect("no holes");
        let whole = values(network.forward(&input, &Wanted::All).expect("runs").logits());
        for steps in [vec![1; 24], vec![24], vec![10, 1, 1, 5, 7], vec![3, 20, 1]] {
            let mut cache = KvCache::new();
            for num in steps {
                let start = cache.len();
                let logits = values(network.step(1, &ids[start..start + num], &mut cache).expect("runs"));
                let want = &whole[(start + num - 1) * 60..(start + num) * 60];
                let apart = logits.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(apart < 1e-4, "{name} differs by {apart} after {start} + {num}");
            }
        }
    }
}

#[test]
fn greedy_tokens_are_those_of_the_network_without_a_cache() {
    let tokenizer = bytes();
    let network = llama(64, tokenizer.vocab_size());
    let config = GenerateConfig { ignore_end: true, ..GenerateConfig::greedy(12) };
    let generator = Generator::new(&network, &tokenizer, config).expect("fits");
    let mut ids = generator.encode("the people").expect("encodes");
    let (new, reason) = generator.tokens(&ids, 0, |_| Ok(None)).expect("generates");
    for id in &new {
        let tokens = ids.iter().map(|id| *id as i32).collect();
        let input = Input::from_rows(1, ids.len(), tokens, &[]).expect("no holes");
        let logits = values(network.forward(&input, &Wanted::All).expect("runs").logits());
        let last = &logits[logits.len() - tokenizer.vocab_size()..];
        let mut best = 0;
        for (i, logit) in last.iter().enumerate() {
            if *logit > last[best] {
                best = i;
            }
        }
        assert_eq!(best as u32, *id);
        ids.push(*id);
    }
    assert_eq!((new.len(), reason), (12, Reason::MaxNewTokens));
}

#[test]
fn pieces_add_up_to_the_text_and_to_the_decoded_tokens() {
    let (pieces, generation) = generate(drawn(40, 3), "the union");
    assert_eq!(pieces.concat(), generation.text);
    let tokenizer = bytes();
    let prompt = tokenizer.encode("the union").expect("encodes");
    let whole = tokenizer.decode(&[prompt.as_slice(), &generation.ids].concat()).expect("decodes");
    assert_eq!(format!("the union{}", generation.text), whole);
    assert!(pieces.iter().all(|piece| !piece.is_empty()));
}

#[test]
fn the_same_seed_gives_the_same_text_and_another_one_another() {
    let text = |seed| generate(drawn(20, seed), "the").1.text;
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}

#[test]
fn items_of_a_batch_draw_differently_and_do_not_depend_on_their_neighbours() {
    let tokenizer = bytes();
    let network = llama(64, tokenizer.vocab_size());
    let generator = Generator::new(&network, &tokenizer, drawn(10, 1)).expect("fits");
    let quiet = |_: usize, _: &str| ControlFlow::Continue(());
    let batch = generator.generate_all(&["the", "the", "a much longer prompt of the union"], quiet).expect("generates");
    assert_ne!(batch[0].ids, batch[1].ids);
    for (index, prompt) in ["the", "the", "a much longer prompt of the union"].iter().enumerate() {
        let alone = generator.generate(prompt, index as u64, |_| ControlFlow::Continue(())).expect("generates");
        assert_eq!(alone, batch[index]);
    }
}

#[test]
fn the_longest_sequence_of_the_model_ends_the_text() {
    let tokenizer = bytes();
    let network = llama(8, tokenizer.vocab_size());
    let generator = Generator::new(&network, &tokenizer, drawn(100, 0)).expect("fits");
    let (new, reason) = generator.tokens(&[1, 2, 3], 0, |_| Ok(None)).expect("generates");
    // The last token is predicted from all 8 places.
    assert_eq!((new.len(), reason), (6, Reason::Length));
    let (new, reason) = generator.tokens(&[1; 8], 0, |_| Ok(None)).expect("generates");
    assert_eq!((new.len(), reason), (1, Reason::Length));
    let error = generator.tokens(&[1; 9], 0, |_| Ok(None)).expect_err("too long");
    assert_eq!(error.to_string(), "the prompt has 9 tokens, the model takes at most 8; shorten the prompt");
}

#[test]
fn an_end_token_ends_the_text_and_is_not_written() {
    let (_, free) = generate(GenerateConfig { ignore_end: true, ..GenerateConfig::greedy(6) }, "the");
    let end = free.ids[3];
    let first = free.ids.iter().position(|id| *id == end).expect("it is there");
    let (_, ended) = generate(GenerateConfig { end_tokens: vec![end], ..GenerateConfig::greedy(6) }, "the");
    assert_eq!((ended.reason, ended.ids.as_slice()), (Reason::EndToken, &free.ids[..=first]));
    assert_eq!(ended.num_new_tokens(), first + 1);
}

#[test]
fn a_stop_string_that_spans_tokens_is_cut_off() {
    let (_, free) = generate(drawn(30, 4), "the");
    let letters: Vec<char> = free.text.chars().collect();
    let stop: String = letters[8..12].iter().collect();
    let (pieces, ended) = generate(GenerateConfig { stop: vec![stop.clone()], ..drawn(30, 4) }, "the");
    let at = free.text.find(&stop).expect("it is there");
    assert_eq!((ended.text.as_str(), ended.reason), (&free.text[..at], Reason::StopString));
    assert_eq!(pieces.concat(), ended.text);
    assert!(ended.ids.len() < free.ids.len());
}

#[test]
fn the_receiver_can_break_off() {
    let tokenizer = bytes();
    let network = llama(64, tokenizer.vocab_size());
    let generator = Generator::new(&network, &tokenizer, drawn(30, 4)).expect("fits");
    let done = generator.generate_all(&["the", "of"], |_, _| ControlFlow::Break(())).expect("generates");
    assert_eq!((done.len(), done[0].reason), (1, Reason::Interrupted));
}

#[test]
fn an_empty_prompt_begins_with_the_begin_token() {
    let (_, generation) = generate(drawn(3, 0), "");
    assert_eq!((generation.num_prompt_tokens, generation.num_new_tokens()), (1, 3));
}

#[test]
fn the_begin_token_is_not_put_twice() {
    let tokenizer = bytes();
    let network = llama(64, tokenizer.vocab_size());
    let generator = Generator::new(&network, &tokenizer, GenerateConfig::greedy(1)).expect("fits");
    let bare = generator.encode("the").expect("encodes");
    assert_eq!(bare, generator.encode("<|endoftext|>the").expect("encodes"));
    assert_eq!(Some(bare[0]), tokenizer.special(SpecialToken::Bos));
}

#[test]
fn without_any_begin_token_an_empty_prompt_is_refused() {
    let mut json: Value = serde_json::from_str(bytes().to_json()).expect("JSON");
    json["added_tokens"] = json!([]);
    json["post_processor"] = Value::Null;
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).expect("writes");
    let tokenizer = Tokenizer::load(dir.path()).expect("loads");
    let network = llama(64, tokenizer.vocab_size());
    let generator = Generator::new(&network, &tokenizer, GenerateConfig::greedy(1)).expect("fits");
    assert!(matches!(generator.encode(""), Err(Error::EmptyPrompt)));
}

#[test]
fn a_continuation_keeps_the_space_before_its_first_word() {
    let config = TokenizerConfig::Unigram(unigram::Config::new(340));
    let tokenizer = Tokenizer::train(&config, std::iter::repeat_n(TEXT.to_owned(), 9)).expect("trains");
    let network = llama(64, tokenizer.vocab_size());
    let config = GenerateConfig { ignore_end: true, ..drawn(12, 2) };
    let generator = Generator::new(&network, &tokenizer, config).expect("fits");
    let generation = generator.generate("the people", 0, |_| ControlFlow::Continue(())).expect("generates");
    let prompt = generator.encode("the people").expect("encodes");
    let whole = tokenizer.decode(&[prompt.as_slice(), &generation.ids].concat()).expect("decodes");
    assert_eq!(format!("the people{}", generation.text), whole);
}

#[test]
fn a_bidirectional_network_and_impossible_values_are_refused() {
    let tokenizer = bytes();
    let bert = json!({"bert": {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "intermediate_size": 8,
        "max_seq_len": 8}});
    let error = Generator::new(&network(bert, 300), &tokenizer, GenerateConfig::greedy(1)).expect_err("BERT");
    assert!(error.to_string().starts_with("`bert` is not causal"), "{error}");
    let sampling = SamplingConfig { temperature: -1.0, ..SamplingConfig::default() };
    let config = GenerateConfig { sampling, ..GenerateConfig::greedy(1) };
    let error = Generator::new(&llama(8, 300), &tokenizer, config).expect_err("negative");
    assert_eq!(error.to_string(), "`temperature` is -1 but must be 0 or more");
}

#[test]
fn samples_of_a_recipe_become_a_configuration() {
    let samples: SamplesConfig = serde_json::from_value(json!({"prompts": ["a"], "max_new_tokens": 7,
        "sampling": {"temperature": 0.5}}))
    .expect("samples");
    let config = GenerateConfig::from_samples(&samples, 3);
    assert_eq!((config.max_new_tokens, config.sampling.temperature, config.seed), (7, 0.5, 3));
}
