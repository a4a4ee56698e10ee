//! N-gram models beside KenLM: what it trains, packs and scores, recorded by `tools/record_ngram.py`.

use arcuate_text::ngram::{FALLBACK_DISCOUNTS, Ngram, State, TrainConfig, Trained, Unit};
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ngram").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(fixture(name)).expect(name)
}

fn unpacked(name: &str) -> Vec<u8> {
    let file = std::fs::File::open(fixture(name)).expect(name);
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect(name);
    bytes
}

fn config(order: usize, prune: &[u64]) -> TrainConfig {
    TrainConfig { order, prune: prune.to_vec(), discount_fallback: None, vocabulary: None, unit: Unit::Word }
}

fn train(config: &TrainConfig, num_lines: usize) -> Trained {
    Trained::train(config, text("text.txt").lines().take(num_lines)).expect("trains")
}

fn written(trained: &Trained) -> String {
    let mut bytes = Vec::new();
    trained.write_arpa(&mut bytes).expect("writes to memory");
    String::from_utf8(bytes).expect("ARPA is text")
}

/// Rows of an ARPA file: words to probability and back-off weight.
fn rows(arpa: &str) -> BTreeMap<&str, (f32, f32)> {
    let mut rows = BTreeMap::new();
    for line in arpa.lines().filter(|line| line.contains('\t')) {
        let mut fields = line.split('\t');
        let number = |fields: &mut std::str::Split<'_, char>| fields.next().map_or(0.0, |n| n.parse().expect(line));
        let prob = number(&mut fields);
        let words = fields.next().expect(line);
        assert!(rows.insert(words, (prob, number(&mut fields))).is_none(), "{line}");
    }
    rows
}

fn check_against_lmplz(name: &str, config: &TrainConfig, num_lines: usize) {
    let theirs = String::from_utf8(unpacked(&format!("{name}.arpa.gz"))).expect("text");
    let ours = written(&train(config, num_lines));
    let header = |arpa: &str| -> Vec<String> {
        arpa.lines().filter(|line| line.starts_with("ngram ")).map(str::to_owned).collect()
    };
    assert_eq!(header(&ours), header(&theirs));
    let (ours, theirs) = (rows(&ours), rows(&theirs));
    assert_eq!(ours.len(), theirs.len());
    for (words, (prob, backoff)) in &theirs {
        let (our_prob, our_backoff) = ours[words];
        assert!((our_prob - prob).abs() < 1e-5, "{name} `{words}`: {our_prob} is not {prob}");
        assert!((our_backoff - backoff).abs() < 1e-5, "{name} `{words}`: weight {our_backoff} is not {backoff}");
    }
}

#[test]
fn training_equals_lmplz() {
    let fallback = |config| TrainConfig { discount_fallback: Some(FALLBACK_DISCOUNTS), ..config };
    check_against_lmplz("unigram", &fallback(config(1, &[])), 300);
    check_against_lmplz("bigram", &config(2, &[]), 300);
    check_against_lmplz("trigram", &config(3, &[]), 300);
    check_against_lmplz("pruned", &config(4, &[0, 0, 1]), 300);
    check_against_lmplz("sixgram", &fallback(config(6, &[0, 0, 0, 0, 1, 2])), 60);
    let vocabulary: HashSet<String> = text("allowed.txt").lines().map(str::to_owned).collect();
    check_against_lmplz("limited", &TrainConfig { vocabulary: Some(vocabulary), ..config(3, &[]) }, 300);
}

/// The state after words, each by its number or as unknown.
fn after(model: &Ngram, words: &[&str]) -> State {
    let ids = words.iter().map(|word| model.word(word).unwrap_or(model.unknown()));
    ids.fold(model.begin(), |state, word| model.score(&state, word).1)
}

/// The sum of the probabilities of all that may follow.
fn mass(model: &Ngram, state: &State) -> f64 {
    let begin = model.word("<s>").expect("every model has it");
    let followers = (0..model.num_words() as u32).filter(|word| *word != begin);
    followers.map(|word| 10_f64.powf(f64::from(model.score(state, word).0))).sum()
}

#[test]
fn every_history_has_probabilities_that_sum_to_one() {
    let fallback = TrainConfig { discount_fallback: Some(FALLBACK_DISCOUNTS), ..config(6, &[0, 0, 0, 0, 1, 2]) };
    let characters =
        TrainConfig { unit: Unit::Character, discount_fallback: Some(FALLBACK_DISCOUNTS), ..config(5, &[]) };
    let allowed: HashSet<String> = text("allowed.txt").lines().map(str::to_owned).collect();
    let limited = TrainConfig { vocabulary: Some(allowed), ..config(3, &[0, 1]) };
    let lines = text("text.txt");
    for config in [config(3, &[]), config(4, &[0, 0, 1]), fallback, characters, limited] {
        let model = train(&config, 300).to_ngram().expect("makes a model");
        for line in lines.lines().step_by(6) {
            let words = config.unit.cut(line);
            for state in [after(&model, &words[..words.len() / 2]), after(&model, &[words[0]]), after(&model, &["zyx"])]
            {
                let sum = mass(&model, &state);
                assert!((sum - 1.0).abs() < 1e-5, "{config:?} `{line}`: {sum}");
            }
        }
        assert!((mass(&model, &model.empty()) - 1.0).abs() < 1e-5);
    }
}

#[test]
fn a_written_model_scores_as_the_trained_one() {
    let trained = train(&config(3, &[0, 0, 1]), 300);
    let model = trained.to_ngram().expect("makes a model");
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["lm.arpa", "lm.arpa.gz", "lm.arpa.zst"] {
        let path = folder.path().join(name);
        trained.save(&path).expect("writes");
        let read = Ngram::load(&path).expect("reads");
        for line in text("text.txt").lines().chain(["zyx the", ""]) {
            let words = Unit::Word.cut(line);
            assert!((read.sentence(&words) - model.sentence(&words)).abs() < 1e-6, "{line}");
        }
        let counts: Vec<usize> = (1..=3).map(|order| read.num_ngrams(order)).collect();
        assert_eq!(counts, trained.num_ngrams());
        let listed: Vec<&str> = read.words().expect("ARPA files have words").collect();
        assert_eq!(listed.len(), read.num_words());
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 3, "nothing is left aside");
}

#[derive(serde::Deserialize)]
struct Scores {
    sentences: Vec<String>,
    scores: BTreeMap<String, Vec<f32>>,
}

#[test]
fn files_of_kenlm_score_as_kenlm_does() {
    let recorded: Scores = serde_json::from_str(&text("scores.json")).expect("recorded");
    assert_eq!(recorded.scores.len(), 12);
    let folder = tempfile::tempdir().expect("a folder");
    for (name, scores) in &recorded.scores {
        let packed = if name.ends_with(".arpa") { format!("{name}.gz") } else { format!("{name}.bin.gz") };
        let path = folder.path().join(name);
        std::fs::write(&path, unpacked(&packed)).expect("writes");
        let model = Ngram::load(&path).expect(name);
        assert_eq!(model.words().is_some(), name != "probing_no_words");
        for (sentence, score) in recorded.sentences.iter().zip(scores) {
            let found = model.sentence(&Unit::Word.cut(sentence));
            assert!((found - score).abs() < 1e-5 * score.abs().max(1.0), "{name} `{sentence}`: {found} is not {score}");
        }
    }
}

#[test]
fn words_of_a_binary_have_their_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["probing", "trie"] {
        let path = folder.path().join(name);
        std::fs::write(&path, unpacked(&format!("{name}.bin.gz"))).expect("writes");
        let model = Ngram::load(&path).expect("reads");
        for (id, word) in (0..).zip(model.words().expect("built with words")) {
            assert_eq!(model.word(word), Some(id), "{name} `{word}`");
        }
    }
}

/// A small generator, so that the same files are tried each time.
struct Draws(u64);

impl Draws {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end.max(1)
    }
}

/// Loads many versions of a file with something wrong in them; each must give a model that can be asked, or an error.
fn check_hostile(name: &str, original: &[u8], front_bytes: usize, num_tries: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    let mut draws = Draws(original.len() as u64);
    let mut num_loaded = 0;
    for at in 0..num_tries {
        let mut bytes = original.to_vec();
        match at % 4 {
            0 => bytes.truncate(draws.below(original.len())),
            1 => bytes[draws.below(front_bytes)] = draws.below(256) as u8,
            2 => {
                for _ in 0..8 {
                    bytes[draws.below(original.len())] = draws.below(256) as u8;
                }
            }
            _ => {
                let (from, to) = (draws.below(original.len()), draws.below(original.len()));
                let piece = original[from..(from + 40).min(original.len())].to_vec();
                bytes.splice(to..(to + draws.below(60)).min(original.len()), piece);
            }
        }
        std::fs::write(&path, &bytes).expect("writes");
        if let Ok(model) = Ngram::load(&path) {
            num_loaded += 1;
            model.sentence(&["of", "the", "zyx", "united", "states"]);
        }
    }
    assert!(num_loaded < num_tries, "{name}: nothing was found wrong");
}

#[test]
fn files_with_anything_wrong_in_them_never_panic() {
    let arpa = written(&train(&TrainConfig { discount_fallback: Some(FALLBACK_DISCOUNTS), ..config(3, &[]) }, 20));
    check_hostile("arpa", arpa.as_bytes(), arpa.len(), 200);
    for name in ["probing", "rest_probing", "trie", "trie_quantized", "trie_array", "trie_quantized_array"] {
        check_hostile(name, &unpacked(&format!("{name}.bin.gz")), 200, 60);
    }
}

#[test]
fn headers_that_promise_the_moon_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    for name in ["probing", "trie", "trie_array"] {
        let original = unpacked(&format!("{name}.bin.gz"));
        for order in 0..4 {
            for count in [u64::MAX, u64::MAX / 16, 1 << 40, 1 << 31] {
                let mut bytes = original.clone();
                bytes[108 + 8 * order..116 + 8 * order].copy_from_slice(&count.to_le_bytes());
                std::fs::write(&path, &bytes).expect("writes");
                Ngram::load(&path).expect_err("too large");
            }
        }
    }
}
