//! Error rates against those of jiwer, recorded by `tools/record_wer_reference.py`.

use arcuate_eval::{Edit, EditCounts, Transcribed, TranscriptScores, diff_words};
use arcuate_record::statistics::Bootstrap;
use arcuate_text::Normaliser;
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    corpus: Corpus,
    pairs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Corpus {
    words: [u64; 4],
    wer: f64,
    characters: [u64; 4],
    cer: f64,
}

#[derive(Deserialize)]
struct Pair {
    reference: String,
    hypothesis: String,
    words: [u64; 4],
    wer: f64,
    edits: String,
    characters: [u64; 4],
    cer: f64,
}

fn recorded() -> Recorded {
    serde_json::from_str(include_str!("wer.json")).expect("the recorded pairs")
}

fn scores(pairs: &[Pair]) -> TranscriptScores {
    let transcripts: Vec<Transcribed> = pairs
        .iter()
        .map(|pair| Transcribed {
            id: String::new(),
            reference: pair.reference.clone(),
            hypothesis: pair.hypothesis.clone(),
        })
        .collect();
    let none = Normaliser::named("none").expect("a preset");
    TranscriptScores::new(&transcripts, &none, &Bootstrap { num_resamples: 10, ..Bootstrap::default() })
        .expect("scores")
}

fn listed(counts: &EditCounts) -> [u64; 4] {
    [counts.hits, counts.substitutions, counts.insertions, counts.deletions]
}

#[test]
fn every_pair_has_the_counts_of_jiwer() {
    let pairs = recorded().pairs;
    assert!(pairs.len() >= 60);
    for (pair, found) in pairs.iter().zip(&scores(&pairs).utterances) {
        let place = format!("{} / {}", pair.reference, pair.hypothesis);
        assert_eq!(listed(&found.words), pair.words, "{place}");
        assert_eq!(listed(&found.characters), pair.characters, "{place}");
        assert!((found.words.rate() - pair.wer).abs() < 1e-12, "{place}");
        assert!((found.characters.rate() - pair.cer).abs() < 1e-12, "{place}");
    }
}

#[test]
fn every_alignment_is_that_of_jiwer() {
    for pair in recorded().pairs {
        let diff = diff_words(&pair.reference, &pair.hypothesis).expect("short");
        let edits: String = diff
            .iter()
            .map(|word| match word.edit {
                Edit::Hit => '=',
                Edit::Substitution => 's',
                Edit::Insertion => 'i',
                Edit::Deletion => 'd',
            })
            .collect();
        assert_eq!(edits, pair.edits, "{} / {}", pair.reference, pair.hypothesis);
    }
}

#[test]
fn the_corpus_has_the_rates_of_jiwer() {
    let Recorded { corpus, pairs } = recorded();
    let found = scores(&pairs);
    assert_eq!((listed(&found.words.counts), listed(&found.characters.counts)), (corpus.words, corpus.characters));
    assert!((found.words.rate - corpus.wer).abs() < 1e-12 && (found.characters.rate - corpus.cer).abs() < 1e-12);
}
