//! Tests of training against values computed by hand, and of what cannot be trained.

use super::*;
use crate::ngram::Ngram;

fn config(order: usize) -> TrainConfig {
    let discount_fallback = Some(FALLBACK_DISCOUNTS);
    TrainConfig { order, prune: Vec::new(), discount_fallback, vocabulary: None, unit: Unit::Word }
}

fn model(config: &TrainConfig, lines: &[&str]) -> Ngram {
    Trained::train(config, lines).expect("trains").to_ngram().expect("makes a model")
}

/// `p(word | history)`, the history as it stands; `<s>` is the beginning.
fn prob(model: &Ngram, history: &str, word: &str) -> f32 {
    let id = |word: &str| model.word(word).unwrap_or(model.unknown());
    let mut state = model.empty();
    for word in history.split_whitespace() {
        state = if word == "<s>" { model.begin() } else { model.score(&state, id(word)).1 };
    }
    10_f32.powf(model.score(&state, id(word)).0)
}

#[track_caller]
fn near(found: f32, wanted: f32) {
    assert!((found - wanted).abs() < 1e-6, "{found} is not {wanted}");
}

#[test]
fn two_sentences_give_the_values_computed_by_hand() {
    let model = model(&config(2), &["a b", "a c"]);
    for (history, word, wanted) in [
        ("", "a", 0.2),
        ("", "b", 0.2),
        ("", "c", 0.2),
        ("", "</s>", 0.3),
        ("", "<unk>", 0.1),
        ("<s>", "a", 0.6),
        ("a", "b", 0.35),
        ("a", "c", 0.35),
        ("a", "a", 0.1),
        ("a", "</s>", 0.15),
        ("b", "</s>", 0.65),
    ] {
        near(prob(&model, history, word), wanted);
    }
    assert!((model.sentence(&["a", "b"]) + 0.864_867).abs() < 1e-6);
}

#[test]
fn every_line_is_a_sentence_and_the_last_line_end_begins_none() {
    let wanted = model(&config(2), &["a b", "", "a c"]).sentence(&["a", "b"]);
    for texts in [vec!["a b\n\na c\n"], vec!["a b\n\n", "a c"], vec!["a b\r\n\r\na c"]] {
        assert_eq!(model(&config(2), &texts).sentence(&["a", "b"]), wanted, "{texts:?}");
    }
    assert_ne!(model(&config(2), &["a b", "a c"]).sentence(&["a", "b"]), wanted);
}

#[test]
fn characters_are_units_with_a_boundary_after_each_word() {
    assert_eq!(Unit::Character.cut("aé  b\t"), ["a", "é", "|", "b", "|"]);
    assert_eq!(Unit::Word.cut("  aé\tb\r"), ["aé", "b"]);
    let model = model(&TrainConfig { unit: Unit::Character, ..config(2) }, &["ab a"]);
    assert_eq!(model.num_words(), 6);
    assert!(prob(&model, "b", "|") > prob(&model, "b", "a"));
}

#[test]
fn pruned_n_grams_are_scored_by_backing_off() {
    let lines = ["a b", "a b", "a c"];
    let pruned = model(&TrainConfig { prune: vec![0, 1], ..config(2) }, &lines);
    assert_eq!((model(&config(2), &lines).num_ngrams(2), pruned.num_ngrams(2)), (5, 3));
    // Bigrams seen once, twice, three times: 2, 2, 1. Hence Y = 1/3, and the discount of two is 2 - 3/3/2 = 3/2. After
    // `a`: b twice, and c once and pruned; 3/2 and 1 of 3 go to the order below.
    near(prob(&pruned, "a", "c"), 5.0 / 6.0 * prob(&pruned, "", "c"));
    near(prob(&pruned, "a", "b"), 1.0 / 6.0 + 5.0 / 6.0 * prob(&pruned, "", "b"));
}

#[test]
fn other_words_than_those_allowed_are_unknown() {
    let vocabulary = Some(["a".to_owned(), "b".to_owned()].into());
    let model = model(&TrainConfig { vocabulary, ..config(2) }, &["a b", "a c"]);
    assert_eq!(model.word("c"), None);
    assert_eq!(model.num_words(), 5);
    near(prob(&model, "", "a") + prob(&model, "", "b") + prob(&model, "", "</s>") + prob(&model, "", "<unk>"), 1.0);
}

#[test]
fn text_without_discounts_is_an_error_that_counts() {
    let without = TrainConfig { discount_fallback: None, ..config(2) };
    match Trained::train(&without, ["a b", "a c"]).expect_err("too small") {
        Error::Discounts { order: 1, numbers } => assert_eq!(numbers, [3, 1, 0, 0]),
        other => panic!("{other}"),
    }
    let message = Trained::train(&without, ["a b", "a c"]).expect_err("too small").to_string();
    assert!(message.contains("1-grams") && message.contains("3, 1, 0, 0"), "{message}");
    assert!(message.contains("`discount_fallback`"), "{message}");
}

#[test]
fn sentences_shorter_than_the_order_do_for_a_model() {
    let model = model(&config(6), &["a", "", "a b"]);
    assert_eq!(model.order(), 6);
    assert_eq!(model.num_ngrams(6), 0);
    assert!(model.sentence(&["a", "b"]).is_finite());
}

#[test]
fn reserved_words_and_empty_texts_are_refused() {
    for word in ["<s>", "</s>", "<unk>"] {
        match Trained::train(&config(2), ["a b", &format!("a {word}")]).expect_err("reserved") {
            Error::SpecialWord { line: 2, word: found } => assert_eq!(found, word),
            other => panic!("{other}"),
        }
    }
    assert!(matches!(Trained::train(&config(2), ["", " "]), Err(Error::EmptyCorpus)));
}

#[test]
fn impossible_values_are_named() {
    let wrong = TrainConfig { prune: vec![1, 0, 0], discount_fallback: Some([0.5, 3.0, 1.0]), ..config(2) };
    let keys: Vec<&str> = wrong.check().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["prune", "prune", "discount_fallback"]);
    assert_eq!(config(9).check()[0].0, "order");
    assert!(matches!(Trained::train(&config(0), ["a"]), Err(Error::NgramConfig { key: "order", .. })));
}
