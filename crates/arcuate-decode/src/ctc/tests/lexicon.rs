//! The lexicon beam.

use super::*;
use lexicon_beam::Config;

/// Nothing is pruned.
fn exhaustive() -> Config {
    Config {
        beam_width: 100_000,
        beam_threshold: f64::INFINITY,
        num_hypotheses: 100_000,
        language_model_weight: 0.0,
        ..Config::new("words".into())
    }
}

fn beam(config: &Config, alphabet: &Arc<Alphabet>, lexicon: &str, has_model: bool) -> LexiconBeam {
    let words = Lexicon::parse(lexicon, alphabet).expect("a good lexicon");
    LexiconBeam::new(config, alphabet.clone(), words, has_model.then(toy_model)).expect("fine")
}

fn decode(config: &Config, lexicon: &str, has_model: bool, emissions: &Emissions) -> Vec<Hypothesis> {
    beam(config, &letters(), lexicon, has_model).decode(emissions).expect("decodes")
}

/// Word sequences that a path spells, by trying every word at every place.
fn sequences(tokens: &[u32], lexicon: &[(&str, &[u32])]) -> Vec<String> {
    if tokens.is_empty() {
        return vec![String::new()];
    }
    let mut found = Vec::new();
    for (word, spelling) in lexicon {
        if let Some(rest) = tokens.strip_prefix(*spelling) {
            found.extend(sequences(rest, lexicon).iter().map(|rest| format!("{word} {rest}").trim().to_owned()));
        }
    }
    found
}

/// The best path of every word sequence; boundaries between words may repeat if there are any.
fn best_paths(emissions: &Emissions, lexicon: &[(&str, &[u32])], boundary: Option<u32>) -> HashMap<String, f64> {
    let mut found: HashMap<String, f64> = HashMap::new();
    for (mut tokens, (_, best)) in enumerate(emissions, 0) {
        if boundary.is_some() {
            tokens.dedup_by(|a, b| a == b && Some(*a) == boundary);
            if tokens.first().copied() == boundary {
                tokens.remove(0);
            }
        }
        for text in sequences(&tokens, lexicon) {
            let entry = found.entry(text).or_insert(f64::NEG_INFINITY);
            *entry = entry.max(best);
        }
    }
    found
}

const WORDS: &str = "a\nab\nb\naa\n";
const SPELLINGS: [(&str, &[u32]); 4] = [("a", &[2, 1]), ("ab", &[2, 3, 1]), ("b", &[3, 1]), ("aa", &[2, 2, 1])];

#[test]
fn without_a_model_it_is_the_best_path_among_sentences_that_can_be_spelled() {
    for seed in 0..8 {
        let emissions = noise(seed, 6, 4);
        let wanted = best_paths(&emissions, &SPELLINGS, Some(1));
        let found = decode(&exhaustive(), WORDS, false, &emissions);
        assert_eq!(found.len(), wanted.len());
        for hypothesis in &found {
            assert!(close(hypothesis.score, wanted[&hypothesis.text]), "{hypothesis:?}");
        }
        assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score), "the best first");
        let one = decode(&Config { num_hypotheses: 1, ..exhaustive() }, WORDS, false, &emissions);
        assert!(one.len() == 1 && one[0].text == found[0].text && close(one[0].score, found[0].score));
    }
}

#[test]
fn a_score_is_its_emissions_its_words_and_its_end_whatever_looked_ahead() {
    let model = toy_model();
    for seed in 0..6 {
        let emissions = noise(seed, 6, 4);
        let config = Config { language_model_weight: 1.7, word_score: -0.4, ..exhaustive() };
        let wanted = best_paths(&emissions, &SPELLINGS, Some(1));
        let found = decode(&config, WORDS, true, &emissions);
        assert_eq!(found.len(), wanted.len());
        for hypothesis in &found {
            let words: Vec<&str> = hypothesis.text.split_whitespace().collect();
            let lm = 1.7 * f64::from(model.sentence(&words)) - 0.4 * words.len() as f64;
            assert!(close(hypothesis.lm_score, lm), "{hypothesis:?} {lm}");
            assert!(close(hypothesis.acoustic_score, wanted[&hypothesis.text]));
            assert!(close(hypothesis.score, hypothesis.acoustic_score + hypothesis.lm_score));
            let ids: Vec<u32> = hypothesis.tokens.iter().map(|token| token.id).collect();
            let (spans, path) = super::super::align(&emissions, &ids, &letters()).expect("possible");
            assert!(close(path, hypothesis.acoustic_score), "the tokens are those of the path");
            assert_eq!(spans.len(), hypothesis.tokens.len());
        }
        // One sequence is wanted: histories that the model cannot tell apart are one, and the best stays the best.
        let one = decode(&Config { num_hypotheses: 1, ..config }, WORDS, true, &emissions);
        assert!(close(one[0].score, found[0].score) && one[0].text == found[0].text);
    }
}

#[test]
fn without_a_boundary_the_last_token_lasts_and_equal_neighbours_need_a_blank() {
    let phones = labels(2);
    let lexicon = "x 1\ny 1 2\nz 2 1\nsame 1 2\n";
    let spellings: [(&str, &[u32]); 4] = [("x", &[1]), ("y", &[1, 2]), ("z", &[2, 1]), ("same", &[1, 2])];
    for seed in 0..8 {
        let emissions = noise(seed, 6, 3);
        let wanted = best_paths(&emissions, &spellings, None);
        let found = beam(&exhaustive(), &phones, lexicon, false).decode(&emissions).expect("decodes");
        assert_eq!(found.len(), wanted.len());
        for hypothesis in &found {
            assert!(close(hypothesis.score, wanted[&hypothesis.text]), "{hypothesis:?}");
        }
    }
    // Seven frames of one phone are one word, not seven.
    let emissions = rows(&[0.1, 0.8, 0.1].repeat(7), 3);
    let config = Config { num_hypotheses: 1, ..exhaustive() };
    let found = beam(&config, &phones, lexicon, false).decode(&emissions).expect("decodes");
    assert_eq!((found[0].text.as_str(), found[0].words[0].start_frame, found[0].words[0].end_frame), ("x", 0, 7));
}

#[test]
fn the_best_path_ranks_other_than_the_sum() {
    let words = "one 1\ntwo 2\n";
    let emissions = rows(&p4()[..9], 3);
    let found = beam(&exhaustive(), &labels(2), words, false).decode(&emissions).expect("decodes");
    let prob = |text: &str| found.iter().find(|other| other.text == text).expect("possible").score.exp();
    assert!((prob("one two") - 0.125).abs() < 1e-6);
    assert!((prob("two") - 0.075).abs() < 1e-6 && (prob("one") - 0.1).abs() < 1e-6);
}

#[test]
fn added_paths_are_worth_more_than_the_best_and_less_than_all() {
    for seed in 0..4 {
        let emissions = noise(seed, 5, 4);
        let best = best_paths(&emissions, &SPELLINGS, Some(1));
        let all = decode(&Config { log_add: true, ..exhaustive() }, WORDS, false, &emissions);
        let mut sums: HashMap<String, f64> = HashMap::new();
        for (tokens, (sum, _)) in enumerate(&emissions, 0) {
            let mut tokens = tokens;
            tokens.dedup_by(|a, b| a == b && *a == 1);
            tokens.splice(..usize::from(tokens.first() == Some(&1)), []);
            for text in sequences(&tokens, &SPELLINGS) {
                let entry = sums.entry(text).or_insert(f64::NEG_INFINITY);
                *entry = log_add(*entry, sum);
            }
        }
        assert_eq!(all.len(), best.len());
        for found in all {
            assert!(found.score >= best[&found.text] - 1e-4 && found.score <= sums[&found.text] + 1e-4, "{found:?}");
        }
    }
}

#[test]
fn a_doubled_letter_needs_a_blank() {
    // l is a here: l l | | and hardly a blank.
    let probs = [0.01, 0.01, 0.97, 0.01, 0.01, 0.01, 0.97, 0.01, 0.01, 0.97, 0.01, 0.01, 0.01, 0.97, 0.01, 0.01];
    let found = decode(&exhaustive(), "a\naa\n", false, &rows(&probs, 4));
    assert_eq!(found[0].text, "a");
    let doubled = found.iter().find(|other| other.text == "aa").expect("possible");
    assert!(doubled.score < found[0].score - 4.0);
}

#[test]
fn no_frames_give_the_empty_sentence_and_its_score() {
    let config = Config { language_model_weight: 2.0, ..exhaustive() };
    let found = decode(&config, WORDS, true, &noise(1, 0, 4));
    let model = toy_model();
    assert_eq!((found.len(), found[0].text.as_str(), found[0].is_complete), (1, "", true));
    assert!(close(found[0].score, 2.0 * f64::from(model.end(&model.begin()))));
}

#[test]
fn without_a_word_at_the_end_the_best_unfinished_path_is_marked() {
    // The boundary never comes, and the beam is too narrow to keep anything at the root.
    let probs = [0.01, 0.01, 0.97, 0.01, 0.01, 0.01, 0.01, 0.97];
    let config = Config { beam_width: 1, num_hypotheses: 1, ..exhaustive() };
    let found = decode(&config, "ab\nb\n", false, &rows(&probs, 4));
    assert_eq!((found[0].text.as_str(), found[0].is_complete), ("ab", false));
    assert_eq!((found[0].words[0].start_frame, found[0].words[0].end_frame), (0, 2));
}

#[test]
fn unknown_words_come_only_if_they_have_a_score() {
    // b a |, which is no word, though bb is.
    let path = [3, 2, 1];
    let probs: Vec<f32> =
        path.iter().flat_map(|best| (0..4).map(move |id| if id == *best { 0.97 } else { 0.01 })).collect();
    let emissions = rows(&probs, 4);
    let closed = decode(&Config { num_hypotheses: 1, ..exhaustive() }, "a\nb\n", false, &emissions);
    assert!(!closed[0].text.contains("<unk>"));
    let open = |score| {
        let config = Config { unknown_word_score: Some(score), num_hypotheses: 1, ..exhaustive() };
        decode(&config, "bab\n", false, &emissions)[0].clone()
    };
    assert!(open(-2.0).text.contains("<unk>"), "{:?}", open(-2.0));
    assert!(!open(-100.0).text.contains("<unk>"));
}

#[test]
fn a_higher_word_score_never_makes_fewer_words() {
    let mut before = 0;
    for step in 0..10 {
        let config = Config { word_score: f64::from(step) - 5.0, num_hypotheses: 1, ..exhaustive() };
        let num = decode(&config, WORDS, false, &noise(2, 9, 4))[0].words.len();
        assert!(num >= before, "{num} after {before}");
        before = num;
    }
    assert!(before >= 3);
}

#[test]
fn the_boundary_score_counts_for_each_of_its_frames() {
    let path = [2, 1, 1, 1];
    let probs: Vec<f32> =
        path.iter().flat_map(|best| (0..4).map(move |id| if id == *best { 0.97 } else { 0.01 })).collect();
    let config = Config { boundary_score: 0.25, num_hypotheses: 1, ..exhaustive() };
    let found = decode(&config, WORDS, false, &rows(&probs, 4));
    assert!(found[0].text == "a" && close(found[0].lm_score, 0.75), "{:?}", found[0]);
}

#[test]
fn the_defaults_are_those_of_torchaudio() {
    let config = Config::new("words".into());
    assert_eq!((config.num_hypotheses, config.beam_width, config.num_tokens), (1, 50, None));
    assert_eq!((config.beam_threshold, config.language_model_weight, config.word_score), (50.0, 2.0, 0.0));
    assert_eq!((config.unknown_word_score, config.boundary_score, config.log_add), (None, 0.0, false));
}

#[test]
fn only_the_best_tokens_of_a_frame_are_followed() {
    let emissions = noise(5, 6, 4);
    let best = |num_tokens| decode(&Config { num_tokens, ..exhaustive() }, WORDS, false, &emissions)[0].score;
    assert_eq!(best(None), best(Some(4)));
    assert!(best(Some(1)) <= best(Some(2)) && best(Some(2)) <= best(None));
}

#[test]
fn long_recordings_keep_their_words_and_times() {
    // Long enough for the chains to be cleaned several times.
    let word = [2, 3, 1, 0];
    let path: Vec<usize> = word.iter().copied().cycle().take(400).collect();
    let probs: Vec<f32> =
        path.iter().flat_map(|best| (0..4).map(move |id| if id == *best { 0.91 } else { 0.03 })).collect();
    let found = &decode(&Config::new("words".into()), WORDS, false, &rows(&probs, 4))[0];
    assert_eq!(found.words.len(), 100);
    for (at, word) in (0u32..).zip(&found.words) {
        assert_eq!((word.text.as_str(), word.start_frame, word.end_frame), ("ab", 4 * at, 4 * at + 2));
    }
}

#[test]
fn forgetting_dead_hypotheses_changes_nothing() {
    // The same recording, cut so that what is forgotten is forgotten elsewhere: frames that are surely blank go before.
    let silence = |num: usize| [1.0, 0.0, 0.0, 0.0].repeat(num);
    let speech: Vec<f32> = noise(8, 90, 4).frames().flatten().map(|value| value.exp()).collect();
    for num_hypotheses in [1, 4] {
        let config =
            Config { num_hypotheses, beam_width: 30, language_model_weight: 1.0, ..Config::new("words".into()) };
        let found = |num: usize| {
            let probs = [silence(num), speech.clone()].concat();
            let found = decode(&config, WORDS, true, &rows(&probs, 4));
            found.into_iter().map(|hypothesis| (hypothesis.text, (hypothesis.score * 1e3).round())).collect::<Vec<_>>()
        };
        let wanted = found(0);
        assert_eq!(wanted.len(), num_hypotheses);
        assert!([1, 17, 40, 63].iter().all(|num| found(*num) == wanted));
    }
}
