//! Character vocabularies as files: those written here, and those of published CTC checkpoints.

use arcuate_text::{Error, Normaliser, SpecialToken, Tokenizer, TokenizerConfig, chars, unknown_characters};
use serde_json::{Value, json};
use std::path::Path;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn write(dir: &Path, name: &str, content: &Value) {
    std::fs::write(dir.join(name), content.to_string()).expect("writes");
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("reads")).expect("is JSON")
}

fn trained() -> Tokenizer {
    let config = chars::Config::new(Normaliser::named("ctc").expect("a preset"));
    let texts = ["Příliš žluťoučký kůň.", "It's a TEST, isn't it?"].map(str::to_owned);
    Tokenizer::train(&TokenizerConfig::Chars(config), texts.into_iter()).expect("trains")
}

/// The vocabulary of `facebook/wav2vec2-base-960h`, shortened: capitals, specials first, ids by frequency.
fn wav2vec2(dir: &Path) {
    let tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", "E", "T", "A", "O", "H", "L", "'"];
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
    write(dir, "vocab.json", &Value::Object(vocab));
    write(
        dir,
        "tokenizer_config.json",
        &json!({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "do_lower_case": false,
            "return_attention_mask": false, "do_normalize": true}),
    );
}

#[test]
fn what_is_saved_loads_the_same_with_its_normaliser() {
    let (before, dir) = (trained(), folder());
    before.save(dir.path()).expect("saves");
    let after = Tokenizer::load(dir.path()).expect("loads");
    assert_eq!(after.hash(), before.hash());
    assert_eq!(after.normaliser(), before.normaliser());
    assert_eq!(after.word_delimiter(), Some(2));
    let text = "PŘÍLIŠ  it's!";
    assert_eq!(after.encode(text).expect("encodes"), before.encode(text).expect("encodes"));
    assert_eq!(after.decode(&after.encode(text).expect("encodes")).expect("decodes"), "příliš it's");
}

#[test]
fn the_files_have_the_public_layout() {
    let dir = folder();
    trained().save(dir.path()).expect("saves");
    let vocab = read_json(&dir.path().join("vocab.json"));
    assert_eq!(
        (&vocab["<pad>"], &vocab["<unk>"], &vocab["|"], &vocab["'"]),
        (&0.into(), &1.into(), &2.into(), &3.into())
    );
    let config = read_json(&dir.path().join("tokenizer_config.json"));
    assert_eq!(config["tokenizer_class"], "Wav2Vec2CTCTokenizer");
    assert_eq!((&config["pad_token"], &config["word_delimiter_token"]), (&"<pad>".into(), &"|".into()));
    assert_eq!((&config["do_lower_case"], &config["bos_token"]), (&false.into(), &Value::Null));
    assert_eq!(config["normalise"]["case"], "lower");
}

#[test]
fn the_vocabulary_alone_gives_the_same_tokens() {
    let (before, dir) = (trained(), folder());
    before.save(dir.path()).expect("saves");
    std::fs::remove_file(dir.path().join("tokenizer.json")).expect("was there");
    let after = Tokenizer::load(dir.path()).expect("loads");
    assert_eq!(after.to_json(), before.to_json());
    assert_eq!(after.hash(), before.hash());
}

#[test]
fn a_published_vocabulary_is_loaded_without_a_tokenizer_file() {
    let dir = folder();
    wav2vec2(dir.path());
    let tokenizer = Tokenizer::load(dir.path()).expect("loads");
    assert_eq!(tokenizer.vocab_size(), 12);
    assert_eq!(tokenizer.word_delimiter(), Some(4));
    let roles = [SpecialToken::Pad, SpecialToken::Bos, SpecialToken::Eos, SpecialToken::Unk];
    assert_eq!(roles.map(|role| tokenizer.special(role)), [Some(0), Some(1), Some(2), Some(3)]);
    let ids = tokenizer.encode("TALL  OAT X").expect("encodes");
    assert_eq!(ids, [6, 7, 10, 10, 4, 8, 7, 6, 4, 3]);
    assert_eq!(tokenizer.decode(&ids[..8]).expect("decodes"), "TALL OAT");
    assert_eq!(unknown_characters(&tokenizer, ["tall Oat"]), [('a', 2), ('l', 2), ('t', 2)]);
    let copy = folder();
    tokenizer.save(copy.path()).expect("saves");
    assert_eq!(read_json(&copy.path().join("vocab.json")), read_json(&dir.path().join("vocab.json")));
    assert_eq!(Tokenizer::load(copy.path()).expect("loads").hash(), tokenizer.hash());
}

#[test]
fn capitals_of_a_vocabulary_for_lower_case_text_are_found() {
    let dir = folder();
    wav2vec2(dir.path());
    write(dir.path(), "tokenizer_config.json", &json!({"do_lower_case": true}));
    let tokenizer = Tokenizer::load(dir.path()).expect("loads");
    assert_eq!(tokenizer.encode("tall").expect("encodes"), [6, 7, 10, 10]);
}

#[test]
fn added_tokens_and_other_names_of_fine_tuned_checkpoints_are_known() {
    let dir = folder();
    write(dir.path(), "vocab.json", &json!({"|": 0, "a": 1, "b": 2, "[UNK]": 3, "[PAD]": 4}));
    write(dir.path(), "added_tokens.json", &json!({"<s>": 5, "</s>": 6}));
    write(
        dir.path(),
        "special_tokens_map.json",
        &json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "[UNK]", "pad_token": "[PAD]"}),
    );
    let tokenizer = Tokenizer::load(dir.path()).expect("loads");
    assert_eq!(tokenizer.vocab_size(), 7);
    assert_eq!((tokenizer.special(SpecialToken::Pad), tokenizer.special(SpecialToken::Eos)), (Some(4), Some(6)));
    assert_eq!(tokenizer.encode("ab ac").expect("encodes"), [1, 2, 0, 1, 3]);
    assert_eq!(tokenizer.decode(&[5, 1, 4, 2, 0, 6]).expect("decodes"), "ab ");
}

#[test]
fn the_vocabulary_of_gpt2_is_no_list_of_characters() {
    let dir = folder();
    wav2vec2(dir.path());
    std::fs::write(dir.path().join("merges.txt"), "#version: 0.2\n").expect("writes");
    assert!(matches!(Tokenizer::load(dir.path()), Err(Error::Missing { .. })));
}

#[test]
fn broken_vocabularies_are_named() {
    let dir = folder();
    for (content, wanted) in [
        (json!([1, 2]), "vocab.json"),
        (json!({"eng": {"a": 1}}), "several languages"),
        (json!({"a": 1}), "no padding token"),
        (json!({}), "no padding token"),
    ] {
        write(dir.path(), "vocab.json", &content);
        let error = Tokenizer::load(dir.path()).expect_err("broken");
        assert!(matches!(error, Error::Broken { .. }) && error.to_string().contains(wanted), "{error}");
    }
    wav2vec2(dir.path());
    write(dir.path(), "tokenizer_config.json", &json!({"normalise": {"case": "lowest"}}));
    let error = Tokenizer::load(dir.path()).expect_err("no such case").to_string();
    assert!(error.contains("`normalise`") && error.contains("lowest"), "{error}");
}

#[test]
fn long_and_odd_texts_are_encoded() {
    let tokenizer = trained();
    for text in ["it ".repeat(100_000), "\u{0}\u{fffd}\u{10ffff}".repeat(1000), "語".repeat(50_000)] {
        let ids = tokenizer.encode(&text).expect("encodes");
        assert!(!ids.is_empty());
        tokenizer.decode(&ids).expect("decodes");
    }
}
