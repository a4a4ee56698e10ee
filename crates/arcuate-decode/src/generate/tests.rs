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

/// Logits after every token, without a cache.
fn uncached(network: &Network, ids: &[u32]) -> Vec<f32> {
    let input = Input::from_rows(1, ids.len(), ids.iter().map(|id| *id as i32).collect(), &[]).expect("no holes");
    values(network.forward(&input, &Wanted::All).expect("runs").logits())
}

#[test]
fn cached_and_uncached_logits_agree_in_every_architecture() {
    let ids: Vec<u32> = (0..24).map(|i| (i * 37 + 11) % 60).collect();
    for network in all_architectures() {
        let name = network.architecture().name();
        let whole = uncached(&network, &ids);
        for steps in [vec![1; 24], vec![24], vec![10, 1, 1, 5, 7], vec![3, 20, 1]] {
            let mut cache = KvCache::new(1);
            for num in steps {
                let start = cache.lengths()[0];
                let logits = network.step(&[&ids[start..start + num]], &mut cache).expect("runs");
                same(name, &values(logits), &whole[(start + num - 1) * 60..(start + num) * 60]);
            }
        }
    }
}

fn same(name: &str, logits: &[f32], want: &[f32]) {
    let apart = logits.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(logits.len() == want.len() && apart < 1e-4, "{name} differs by {apart}");
}

#[test]
fn rows_of_different_length_agree_with_rows_alone_and_survive_the_end_of_others() {
    let texts: Vec<Vec<u32>> = [20, 9, 14].iter().map(|len| (0..*len).map(|i| (i * 31 + len) % 60).collect()).collect();
    for network in all_architectures() {
        let name = network.architecture().name();
        let whole: Vec<Vec<f32>> = texts.iter().map(|text| uncached(&network, text)).collect();
        let mut cache = KvCache::new(3);
        let mut rows = vec![0, 1, 2];
        // (tokens of each row, rows that end afterwards)
        for (counts, ended) in
            [(vec![7, 2, 11], None), (vec![1, 1, 1], None), (vec![2, 6, 1], Some(1)), (vec![10, 1], None)]
        {
            let before = cache.lengths().to_vec();
            let new: Vec<&[u32]> = rows
                .iter()
                .zip(&before)
                .zip(&counts)
                .map(|((row, from), num)| &texts[*row][*from..from + num])
                .collect();
            let logits = values(network.step(&new, &mut cache).expect("runs"));
            for (place, row) in rows.iter().enumerate() {
                let at = before[place] + counts[place] - 1;
                same(name, &logits[place * 60..(place + 1) * 60], &whole[*row][at * 60..(at + 1) * 60]);
            }
            if let Some(ended) = ended {
                let left: Vec<usize> = (0..rows.len()).filter(|place| rows[*place] != ended).collect();
                cache.keep(&left);
                rows = left.iter().map(|place| rows[*place]).collect();
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
        let logits = uncached(&network, &ids);
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
fn items_of_a_batch_draw_differently_and_do_not_depend_on_the_size_of_the_batch() {
    let tokenizer = bytes();
    let network = llama(64, tokenizer.vocab_size());
    let (_, free) = generate(drawn(10, 1), "the");
    // One of them ends early, so rows leave the batch while others go on.
    let end_tokens = vec![free.ids[2]];
    let config = GenerateConfig { end_tokens, ignore_end: false, ..drawn(10, 1) };
    let generator = Generator::new(&network, &tokenizer, config).expect("fits");
    let prompts = ["the", "the", "a much longer prompt of the union", "of"];
    let alone: Vec<Generation> = (0..)
        .zip(prompts)
        .map(|(item, prompt)| generator.generate(prompt, item, |_| ControlFlow::Continue(())).expect("generates"))
        .collect();
    assert_ne!(alone[0].ids, alone[1].ids);
    assert_eq!(alone[0].reason, Reason::EndToken);
    for batch_size in 0..6 {
        assert_eq!(generator.generate_all(&prompts, batch_size).expect("generates"), alone);
    }
}

#[test]
fn every_row_of_a_batch_has_its_own_stop_strings_and_pieces() {
    let tokenizer = bytes();
    let network = llama(64, tokenizer.vocab_size());
    let (_, free) = generate(drawn(30, 4), "the");
    let letters: Vec<char> = free.text.chars().collect();
    let stop: String = letters[8..12].iter().collect();
    let config = GenerateConfig { stop: vec![stop], ..drawn(30, 4) };
    let generator = Generator::new(&network, &tokenizer, config).expect("fits");
    let mut pieces = vec![String::new(); 3];
    let batch = [("the", 0), ("of", 7), ("the union", 2)];
    let all = generator
        .generate_batch(&batch, |index, text| {
            pieces[index].push_str(text);
            ControlFlow::Continue(())
        })
        .expect("generates");
    assert_eq!(all[0].reason, Reason::StopString);
    assert!(all[1].ids.len() > all[0].ids.len());
    for ((one, (prompt, item)), pieces) in all.iter().zip(batch).zip(pieces) {
        assert_eq!(one.text, pieces);
        assert_eq!(*one, generator.generate(prompt, item, |_| ControlFlow::Continue(())).expect("generates"));
    }
}

#[test]
fn no_prompts_are_no_continuations() {
    let tokenizer = bytes();
    let network = llama(64, tokenizer.vocab_size());
    let generator = Generator::new(&network, &tokenizer, drawn(3, 4)).expect("fits");
    assert!(generator.generate_all::<&str>(&[], 4).expect("nothing to do").is_empty());
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
    let done = generator.generate_batch(&[("the", 0), ("of", 1)], |_, _| ControlFlow::Break(())).expect("generates");
    assert!(done.iter().all(|one| one.reason == Reason::Interrupted), "{done:?}");
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
