//! Tokenizers as files: what is saved, what is loaded, and what is wrong with a file.

use arcuate_text::{Error, SpecialToken, Tokenizer, TokenizerConfig, byte_bpe, file, unigram, wordpiece};
use serde_json::{Value, json};
use std::path::Path;

const TEXT: &str =
    "The people of the United States have seen the state of the Union in 1790, and they'd see it again. ";

fn configs() -> Vec<TokenizerConfig> {
    vec![
        TokenizerConfig::ByteBpe(byte_bpe::Config::new(330)),
        TokenizerConfig::Unigram(unigram::Config::new(360)),
        TokenizerConfig::Wordpiece(wordpiece::Config::new(90)),
    ]
}

fn trained(config: &TokenizerConfig) -> Tokenizer {
    Tokenizer::train(config, std::iter::repeat_n(TEXT.to_owned(), 7)).expect("trains")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::write(path, content).expect("writes");
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("reads")).expect("is JSON")
}

/// A small file in the style of Llama 2: BPE over `▁`, bytes as a fallback, no rule that cuts words.
fn llama2_style() -> Value {
    let letters = ["<unk>", "<s>", "</s>", "<0x0A>", "<0xC3>", "<0xA9>", "▁", "a", "b", "▁a", "▁ab"];
    let vocab: serde_json::Map<String, Value> =
        letters.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
    let added = |id: u32, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"},
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>"), added(40, "<extra>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": [["▁", "a"], ["▁a", "b"]]},
    })
}

#[test]
fn what_is_saved_loads_the_same() {
    for config in configs() {
        let before = trained(&config);
        let dir = folder();
        before.save(dir.path()).expect("saves");
        let after = Tokenizer::load(dir.path()).expect("loads");
        assert_eq!(after.hash(), before.hash());
        assert_eq!(after.to_json(), before.to_json());
        assert_eq!(after.vocab_size(), before.vocab_size());
        for token in SpecialToken::ALL {
            assert_eq!(after.special(token), before.special(token), "{token:?}");
        }
        let text = "the people again, 1791 é語";
        assert_eq!(after.encode(text).expect("encodes"), before.encode(text).expect("encodes"));
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let texts: Vec<String> = (0..400).map(|n| format!("{TEXT} {n} {}", TEXT.repeat(n % 7))).collect();
    let with_threads = |config: &TokenizerConfig, num_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads).build().expect("threads");
        let trained = pool.install(|| Tokenizer::train(config, texts.iter().cloned()));
        trained.expect("trains").hash().to_owned()
    };
    for config in configs() {
        assert_eq!(with_threads(&config, 1), with_threads(&config, 5), "{config:?}");
    }
}

#[test]
fn saving_again_changes_nothing() {
    let (first, second) = (folder(), folder());
    trained(&configs()[0]).save(first.path()).expect("saves");
    Tokenizer::load(first.path()).expect("loads").save(second.path()).expect("saves");
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        assert_eq!(read_json(&first.path().join(name)), read_json(&second.path().join(name)));
    }
}

#[test]
fn the_files_carry_the_public_names() {
    let dir = folder();
    trained(&configs()[0]).with_model_max_length(256).save(dir.path()).expect("saves");
    let config = read_json(&dir.path().join("tokenizer_config.json"));
    assert_eq!(config["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!(config["eos_token"], "<|endoftext|>");
    assert_eq!(config["model_max_length"], 256);
    assert_eq!(read_json(&dir.path().join("special_tokens_map.json"))["pad_token"], "<|pad|>");
}

#[test]
fn a_folder_and_its_file_are_the_same() {
    let dir = folder();
    trained(&configs()[2]).save(dir.path()).expect("saves");
    let path = dir.path().join("tokenizer.json");
    let config = TokenizerConfig::File(file::Config { path: path.clone() });
    let by_recipe = Tokenizer::train(&config, std::iter::empty()).expect("loads");
    assert_eq!(by_recipe.hash(), Tokenizer::load(dir.path()).expect("loads").hash());
    assert_eq!(by_recipe.hash(), Tokenizer::load(&path).expect("loads").hash());
}

#[test]
fn a_missing_file_is_named() {
    let dir = folder();
    let missing = Tokenizer::load(dir.path()).expect_err("empty folder");
    assert!(matches!(missing, Error::Missing { .. }), "{missing}");
    let nowhere = dir.path().join("nowhere.json");
    let config = TokenizerConfig::File(file::Config { path: nowhere.clone() });
    let error = Tokenizer::train(&config, std::iter::empty()).expect_err("no file");
    assert!(error.to_string().contains("nowhere.json"), "{error}");
    assert!(matches!(Tokenizer::load(&nowhere), Err(Error::Io { .. })));
}

#[test]
fn broken_files_are_refused_with_their_path() {
    let dir = folder();
    let path = dir.path().join("tokenizer.json");
    let whole = trained(&configs()[0]).to_json().to_owned();
    let no_model = json!({"added_tokens": []}).to_string();
    let wrong_merge = whole.replace("\"merges\": [", "\"merges\": [[\"zz\", \"qq\"],");
    let cases: [&[u8]; 7] = [
        b"",
        b"[1, 2]",
        &whole.as_bytes()[..whole.len() / 2],
        b"{\"model\": 3}",
        no_model.as_bytes(),
        wrong_merge.as_bytes(),
        b"\xff\xfe\x00",
    ];
    for case in cases {
        write(&path, case);
        let error = Tokenizer::load(dir.path()).expect_err("broken");
        assert!(matches!(error, Error::Broken { .. }), "{error}");
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }
}

#[test]
fn a_broken_file_beside_it_is_named() {
    let dir = folder();
    trained(&configs()[0]).save(dir.path()).expect("saves");
    write(&dir.path().join("tokenizer_config.json"), "{\"bos_token\": ");
    let error = Tokenizer::load(dir.path()).expect_err("broken");
    assert!(error.to_string().contains("tokenizer_config.json"), "{error}");
}

#[test]
fn a_file_of_another_size_class_is_not_read() {
    let dir = folder();
    let path = dir.path().join("tokenizer.json");
    let large = std::fs::File::create(&path).expect("creates");
    large.set_len(600 << 20).expect("a sparse file");
    assert!(matches!(Tokenizer::load(&path), Err(Error::TooLarge { .. })));
}

#[test]
fn files_of_published_models_are_read_whole() {
    let dir = folder();
    write(&dir.path().join("tokenizer.json"), llama2_style().to_string());
    let tokenizer = Tokenizer::load(dir.path()).expect("loads");
    // The file asks to cut rows to 3 and to fill them to 8 tokens; neither happens here.
    assert_eq!(tokenizer.encode("ab").expect("encodes"), [10]);
    let text = "ab a\né b";
    let ids = tokenizer.encode(text).expect("encodes");
    assert_eq!(ids.len(), 7);
    assert_eq!(tokenizer.decode(&ids).expect("decodes"), text);
    assert_eq!(tokenizer.special(SpecialToken::Bos), Some(1));
    assert_eq!(tokenizer.pre_tokenizer(), None);
}

#[test]
fn holes_between_ids_count_as_rows() {
    let dir = folder();
    let mut holes = llama2_style();
    holes["model"]["vocab"]["far"] = 99.into();
    write(&dir.path().join("tokenizer.json"), holes.to_string());
    assert_eq!(Tokenizer::load(dir.path()).expect("loads").vocab_size(), 100);
}

#[test]
fn special_tokens_are_named_by_the_files_beside() {
    let dir = folder();
    write(&dir.path().join("tokenizer.json"), llama2_style().to_string());
    let config = json!({"eos_token": {"content": "<s>"}, "pad_token": null, "chat_template": "{{ x }}"});
    write(&dir.path().join("tokenizer_config.json"), config.to_string());
    write(&dir.path().join("special_tokens_map.json"), json!({"pad_token": "</s>"}).to_string());
    let tokenizer = Tokenizer::load(dir.path()).expect("loads");
    assert_eq!(tokenizer.special(SpecialToken::Eos), Some(1));
    assert_eq!(tokenizer.special(SpecialToken::Pad), Some(2));
    assert_eq!(tokenizer.special_name(SpecialToken::Pad), Some("</s>"));
    let copy = folder();
    tokenizer.save(copy.path()).expect("saves");
    let config = read_json(&copy.path().join("tokenizer_config.json"));
    assert_eq!(config["chat_template"], "{{ x }}");
    assert_eq!(Tokenizer::load(copy.path()).expect("loads").hash(), tokenizer.hash());
}

#[test]
fn other_special_tokens_give_another_hash() {
    let dir = folder();
    trained(&configs()[0]).save(dir.path()).expect("saves");
    let before = Tokenizer::load(dir.path()).expect("loads");
    let renamed = json!({"eos_token": "<|pad|>"}).to_string();
    write(&dir.path().join("tokenizer_config.json"), renamed);
    assert_ne!(Tokenizer::load(dir.path()).expect("loads").hash(), before.hash());
}

#[test]
fn text_never_becomes_a_special_token_unless_asked() {
    for config in configs() {
        let tokenizer = trained(&config);
        let role = if tokenizer.special(SpecialToken::Eos).is_some() { SpecialToken::Eos } else { SpecialToken::Mask };
        let name = tokenizer.special_name(role).expect("has a name").to_owned();
        let id = tokenizer.special(role).expect("has an id");
        let text = format!("the{name} people{name}");
        assert!(!tokenizer.encode(&text).expect("encodes").contains(&id));
        let ids = tokenizer.encode_with_special(&text).expect("encodes");
        assert_eq!(ids.iter().filter(|found| **found == id).count(), 2);
        assert_eq!(ids.last(), Some(&id));
        assert!(tokenizer.is_special(id));
        assert!(!tokenizer.decode(&ids).expect("decodes").contains(&name));
        assert!(tokenizer.decode_with_special(&ids).expect("decodes").contains(&name));
    }
}

#[test]
fn a_long_text_in_parts_is_the_same_as_in_one() {
    let long = format!("{}\n\n  and é語 1234 ", TEXT.repeat(3)).repeat(450);
    for config in configs() {
        let tokenizer = trained(&config);
        let ids = tokenizer.encode(&long).expect("encodes");
        let whole: Vec<u32> = tokenizer.inspect(&long).expect("inspects").tokens.iter().map(|t| t.id).collect();
        assert!(ids == whole, "{config:?}");
    }
}

#[test]
fn one_endless_word_comes_back_exactly() {
    let tokenizer = trained(&configs()[0]);
    for text in ["a".repeat(1_000_000), "é語".repeat(60_000), " ".repeat(500_000)] {
        let ids = tokenizer.encode(&text).expect("encodes");
        assert!(tokenizer.decode(&ids).expect("decodes") == text);
    }
}

#[test]
fn threads_may_share_a_tokenizer() {
    fn shared<T: Send + Sync + 'static>(_: &T) {}
    shared(&trained(&configs()[0]));
}

#[test]
fn a_batch_is_the_same_as_one_by_one() {
    let tokenizer = trained(&configs()[0]);
    let texts = ["the people", "", "of\n1790"];
    let batch = tokenizer.encode_batch(&texts).expect("encodes");
    for (text, ids) in texts.iter().zip(&batch) {
        assert_eq!(&tokenizer.encode(text).expect("encodes"), ids);
    }
}

#[test]
fn inspection_covers_the_text() {
    for config in configs() {
        let tokenizer = trained(&config);
        let inspection = tokenizer.inspect(TEXT.trim()).expect("inspects");
        let words = inspection.tokens.iter().map(|token| &TEXT[token.range.clone()]);
        let joined: String = words.collect();
        let visible = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(visible(&joined), visible(TEXT));
        assert_eq!(inspection.num_bytes, TEXT.trim().len());
        assert!(inspection.bytes_per_token > 1.0);
    }
    let empty = trained(&configs()[0]).inspect("").expect("inspects");
    assert_eq!((empty.tokens.len(), empty.bytes_per_token), (0, 0.0));
}

#[test]
fn ids_outside_the_vocabulary_are_passed_over() {
    let tokenizer = trained(&configs()[0]);
    let mut ids = tokenizer.encode("the people").expect("encodes");
    ids.insert(1, 4_000_000_000);
    assert_eq!(tokenizer.decode(&ids).expect("decodes"), "the people");
    assert_eq!(tokenizer.id_to_token(4_000_000_000), None);
}

#[test]
fn words_start_with_their_space() {
    let tokenizer = trained(&configs()[0]);
    let starts = |token: &str| tokenizer.starts_word(tokenizer.token_to_id(token).expect(token));
    assert!(starts("Ġthe") && starts("<|endoftext|>") && starts(",") && starts("Ċ"));
    assert!(!starts("e") && !starts("a"));
}

#[test]
fn an_empty_corpus_is_an_error() {
    for config in configs() {
        for texts in [vec![], vec![String::new()]] {
            let error = Tokenizer::train(&config, texts.into_iter()).expect_err("nothing to learn");
            assert!(matches!(error, Error::EmptyCorpus), "{error}");
        }
    }
}

#[test]
fn odd_texts_do_not_stop_the_training() {
    let texts = [
        "a".repeat(50_000),
        " ".repeat(20_000),
        "\u{0}\u{fffd}\u{10ffff}".repeat(1000),
        "語".repeat(20_000),
        "\r\n\t".repeat(1000),
    ];
    for config in configs() {
        let tokenizer = Tokenizer::train(&config, texts.clone().into_iter()).expect("trains");
        for text in &texts {
            tokenizer.encode(text).expect("encodes");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = folder();
    let in_the_way = dir.path().join("file");
    write(&in_the_way, "");
    let error = trained(&configs()[0]).save(&in_the_way.join("sub")).expect_err("not a folder");
    assert!(matches!(error, Error::Io { action: "create", .. }), "{error}");
}

#[test]
fn tokens_can_be_added_and_stay_apart_from_text() {
    for config in configs() {
        let plain = trained(&config);
        let (size, ids) = (plain.vocab_size(), plain.encode(TEXT).expect("encodes"));
        let names = ["[prompt 0]".to_owned(), "[class a b]".to_owned()];
        let grown = plain.with_tokens(names.clone()).expect("grows");
        assert_eq!(grown.vocab_size(), size + 2);
        assert_eq!(grown.token_to_id(&names[1]), Some(size as u32 + 1));
        assert!(grown.is_special(size as u32));
        assert_eq!(grown.encode(TEXT).expect("encodes"), ids);
        // A text that happens to name the token is text.
        assert!(!grown.encode("[prompt 0]").expect("encodes").contains(&(size as u32)));
        let dir = folder();
        grown.save(dir.path()).expect("saves");
        let again = Tokenizer::load(dir.path()).expect("loads");
        assert_eq!(again.hash(), grown.hash());
        assert_eq!(again.token_to_id(&names[0]), Some(size as u32));
        let hash = again.hash().to_owned();
        assert_eq!(again.with_tokens(names).expect("has them").hash(), hash);
    }
}
