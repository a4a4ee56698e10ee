//! Hand-computed rates, invariances and comparisons.

use super::*;

fn transcripts(pairs: &[(&str, &str)]) -> Vec<Transcribed> {
    let transcribed = |(at, (reference, hypothesis)): (usize, &(&str, &str))| Transcribed {
        id: format!("u{at}"),
        reference: (*reference).to_owned(),
        hypothesis: (*hypothesis).to_owned(),
    };
    pairs.iter().enumerate().map(transcribed).collect()
}

fn bootstrap() -> Bootstrap {
    Bootstrap { num_resamples: 400, ..Bootstrap::default() }
}

fn scores(pairs: &[(&str, &str)], normaliser: &str) -> TranscriptScores {
    let normaliser = Normaliser::named(normaliser).expect("a preset");
    TranscriptScores::new(&transcripts(pairs), &normaliser, &bootstrap()).expect("scores")
}

const PAIRS: &[(&str, &str)] =
    &[("the cat sat", "the cat sit"), ("a b c d", "a c d"), ("yes", "yes yes"), ("no", "no")];

#[test]
fn rates_are_of_all_utterances_together() {
    let found = scores(PAIRS, "none");
    // One substitution, one deletion, one insertion in 9 words; a mean of rates would be (1/3 + 1/4 + 1 + 0) / 4.
    assert_eq!(found.words.counts, EditCounts { hits: 7, substitutions: 1, insertions: 1, deletions: 1 });
    assert_eq!(found.words.rate, 3.0 / 9.0);
    assert_eq!(found.sentence_error_rate, 0.75);
    // a for i; "b " missing; " yes" too much; 11 + 7 + 3 + 2 characters.
    assert_eq!(found.characters.counts.num_errors(), 7);
    assert_eq!(found.characters.rate, 7.0 / 23.0);
    assert!(found.words.interval.low <= found.words.rate && found.words.rate <= found.words.interval.high);
}

#[test]
fn the_normaliser_is_applied_to_both_sides_and_named() {
    let pairs = &[("Kůň, hřebec!", "ku\u{30a}n\u{30c} HŘEBEC")];
    let found = scores(pairs, "ctc");
    assert_eq!((found.words.rate, found.characters.rate, found.normaliser.as_str()), (0.0, 0.0, "ctc"));
    assert_eq!(scores(pairs, "none").words.rate, 1.0);
}

#[test]
fn confusions_are_counted_and_sorted() {
    let found = scores(&[("a b", "a x"), ("b", "x"), ("c", "y"), ("b", "y")], "none");
    let words: Vec<_> =
        found.confusions.iter().map(|word| (word.reference.as_str(), word.hypothesis.as_str(), word.count)).collect();
    assert_eq!(words, [("b", "x", 2), ("b", "y", 1), ("c", "y", 1)]);
}

#[test]
fn the_worst_come_first() {
    let worst: Vec<_> = scores(PAIRS, "none").worst_first().iter().map(|score| score.id.clone()).collect();
    assert_eq!(worst, ["u2", "u0", "u1", "u3"]);
}

#[test]
fn a_diff_shows_both_sides() {
    let diff = diff_words("a b c", "a x c d").expect("short");
    let shown: Vec<_> = diff
        .iter()
        .map(|word| (word.reference.as_deref().unwrap_or("-"), word.hypothesis.as_deref().unwrap_or("-")))
        .collect();
    assert_eq!(shown, [("a", "a"), ("b", "x"), ("c", "c"), ("-", "d")]);
}

#[test]
fn silence_counts_as_an_empty_reference() {
    let found = scores(&[("", ""), ("", "x y"), ("a", "a")], "none");
    assert_eq!((found.num_empty_references, found.words.rate), (2, 2.0));
    assert_eq!(scores(&[("", "x y")], "none").words.rate, 2.0);
    assert_eq!(scores(&[("", "")], "none").words.rate, 0.0);
}

#[test]
fn no_utterance_is_an_error() {
    let normaliser = Normaliser::named("none").expect("a preset");
    assert!(matches!(TranscriptScores::new(&[], &normaliser, &bootstrap()), Err(Error::Empty { .. })));
}

#[test]
fn an_endless_utterance_is_named() {
    let long = "x ".repeat(200_000);
    let normaliser = Normaliser::named("none").expect("a preset");
    let error = TranscriptScores::new(&transcripts(&[(&long, &long)]), &normaliser, &bootstrap());
    assert!(error.expect_err("too long").to_string().contains("`u0`"));
}

#[test]
fn any_tokens_have_a_rate() {
    let phones = [(vec!["p", "i"], vec!["b", "i"]), (vec!["a:"], vec!["a:"])];
    let counts: Vec<EditCounts> =
        phones.iter().map(|(said, heard)| EditCounts::of(&align(said, heard).expect("short"))).collect();
    assert_eq!(ErrorRate::new(&counts, &bootstrap()).expect("utterances").rate, 1.0 / 3.0);
    assert_eq!(ErrorRate::new(&[], &bootstrap()), None);
}

#[test]
fn the_order_of_utterances_changes_no_rate() {
    let reversed: Vec<_> = PAIRS.iter().rev().copied().collect();
    let (a, b) = (scores(PAIRS, "none"), scores(&reversed, "none"));
    assert_eq!((a.words.rate, a.characters.counts), (b.words.rate, b.characters.counts));
}

#[test]
fn two_systems_are_compared_on_the_same_draws() {
    let pairs: Vec<(&str, &str)> =
        std::iter::repeat_n([("a b c d", "a b c x"), ("e f", "e f")], 20).flatten().collect();
    let better: Vec<(&str, &str)> = pairs.iter().map(|(said, _)| (*said, *said)).collect();
    let (first, second) = (scores(&pairs, "none"), scores(&better, "none"));
    let compared = compare_scores(&first, &second, &bootstrap()).expect("the same utterances");
    assert_eq!(compared.words.difference, -20.0 / 120.0);
    assert_eq!((compared.words.share_better, compared.words.share_worse), (1.0, 0.0));
    assert!(compared.words.interval.high < 0.0 && compared.words.interval.low < compared.words.difference);
    let itself = compare_scores(&first, &first, &bootstrap()).expect("the same utterances").words;
    assert_eq!((itself.interval.low, itself.interval.high, itself.share_better), (0.0, 0.0, 0.0));
}

#[test]
fn systems_on_other_utterances_are_not_compared() {
    let compared = |a: &[(&str, &str)], b: &[(&str, &str)]| {
        compare_scores(&scores(a, "none"), &scores(b, "none"), &bootstrap()).expect_err("differ").to_string()
    };
    assert!(compared(&[("a", "a")], &[("b", "a")]).contains("references of `u0`"));
    assert!(compared(&[("a", "a")], &[("a", "a"), ("b", "b")]).contains("1 utterances stand against 2"));
}
