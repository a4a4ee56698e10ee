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
        let mut number = |fields: &mut std::str::Split<'_, char>| fields.next().map_or(0.0, |n| n.parse().expect(line));
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
