//! The score of words that ended and of one that has not.

use super::*;
use crate::ctc::word_scorer::{LanguageModelConfig, TextState, WordScorer};

const CONFIG: (f64, f64, f64) = (0.5, 0.25, -4.0);

fn config() -> LanguageModelConfig {
    let (weight, word_score, unknown_word_score) = CONFIG;
    LanguageModelConfig { path: "toy.arpa".into(), weight, word_score, unknown_word_score }
}

fn scorer(hot_words: &[&str]) -> WordScorer {
    let hot_words: Vec<String> = hot_words.iter().map(|word| (*word).to_owned()).collect();
    WordScorer::new(&letters(), Some((toy_model(), &config())), &hot_words, 3.0).expect("fine")
}

/// The state after tokens: 1 is the boundary, 2 is a, 3 is b.
fn after(scorer: &WordScorer, tokens: &[u32]) -> TextState {
    tokens.iter().fold(scorer.begin(), |state, token| {
        let before = if scorer.ends_word(*token) { scorer.end_word(&state) } else { state };
        scorer.extend(&before, *token)
    })
}

fn known(log10_prob: f64) -> f64 {
    CONFIG.0 * log10_prob * std::f64::consts::LN_10 + CONFIG.1
}

#[test]
fn a_word_counts_when_it_ends_and_only_once() {
    let scorer = scorer(&[]);
    assert_eq!(after(&scorer, &[2]).score(), 0.0);
    let one = after(&scorer, &[2, 1]).score();
    assert!(close(one, known(-0.3)), "p(a | <s>)");
    assert_eq!(after(&scorer, &[1, 2, 1, 1]).score(), one);
    assert!(close(after(&scorer, &[2, 1, 3, 1]).score(), one + known(-0.8)), "p(b | a)");
    let end = CONFIG.0 * -0.2 * std::f64::consts::LN_10;
    assert!(close(scorer.finish(&after(&scorer, &[2, 1, 3])), one + known(-0.8) + end), "p(</s> | b)");
}

#[test]
fn a_word_that_no_known_one_begins_with_is_unknown_before_it_ends() {
    let scorer = scorer(&[]);
    assert_eq!(after(&scorer, &[2, 3]).open, 0.0);
    assert_eq!(after(&scorer, &[2, 2]).open, CONFIG.2);
    let ended = after(&scorer, &[2, 2, 1]);
    assert_eq!(ended.open, 0.0);
    assert!(close(ended.score(), known(-2.0 - 0.3) + CONFIG.2), "the unknown word after <s>, backed off");
}

#[test]
fn a_hot_word_earns_its_weight_letter_by_letter_and_is_not_unknown_meanwhile() {
    let scorer = scorer(&["bba b", "bbab"]);
    let open: Vec<f64> = (1..=4).map(|num| after(&scorer, &[3, 3, 2, 3][..num]).open).collect();
    assert!(open.iter().zip([3.0, 2.0, 3.0, 3.0]).all(|(a, b)| close(*a, b)), "{open:?}");
    let whole = after(&scorer, &[3, 3, 2, 1]).score();
    assert!(close(whole, known(-2.3) + CONFIG.2 + 3.0), "{whole}");
    let broken = after(&scorer, &[3, 3, 1]).score();
    assert!(close(broken, known(-2.3) + CONFIG.2), "nothing for a part: {broken}");
}

#[test]
fn a_model_of_another_alphabet_is_refused() {
    let upper = alphabet("- | A B", WordMarks::Boundary("|".to_owned()));
    let error = WordScorer::new(&upper, Some((toy_model(), &config())), &[], 0.0).expect_err("lower case");
    assert!(error.to_string().contains("`toy.arpa` has no word that the tokens can write"), "{error}");
    let words = Lexicon::parse("A\n", &upper).expect("fine");
    let config = lexicon_beam::Config::new("words".into());
    let error = LexiconBeam::new(&config, upper, words, Some(toy_model())).expect_err("lower case");
    assert!(error.to_string().contains("knows none of the 1 words"), "{error}");
}
