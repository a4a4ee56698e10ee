//! The prefix beam.

use super::*;
use prefix_beam::{Config, LanguageModelConfig};

/// Nothing is pruned.
fn exhaustive() -> Config {
    Config {
        beam_width: 100_000,
        beam_threshold: f64::INFINITY,
        min_token_log_prob: f64::NEG_INFINITY,
        num_hypotheses: 100_000,
        ..Config::default()
    }
}

fn model_config(weight: f64, word_score: f64) -> LanguageModelConfig {
    LanguageModelConfig { path: "toy.arpa".into(), weight, word_score, unknown_word_score: -1.5 }
}

fn decode(config: &Config, alphabet: Arc<Alphabet>, emissions: &Emissions) -> Vec<Hypothesis> {
    let ngram = config.language_model.as_ref().map(|_| toy_model());
    let beam = PrefixBeam::new(config, alphabet, ngram).expect("fine");
    beam.decode(emissions).expect("decodes")
}

fn ids(hypothesis: &Hypothesis) -> Vec<u32> {
    hypothesis.tokens.iter().map(|token| token.id).collect()
}

#[test]
fn without_pruning_scores_are_the_ctc_probabilities() {
    let check = |probs: &[f32], width: usize, wanted: &[(&[u32], f64)]| {
        let found = decode(&exhaustive(), labels(width - 1), &rows(probs, width));
        for (tokens, loss) in wanted {
            let same = found.iter().find(|hypothesis| ids(hypothesis) == *tokens).expect("every sequence is found");
            assert!((-same.score - loss).abs() < 1e-5, "{tokens:?}: {} {loss}", -same.score);
        }
    };
    check(&[0.6, 0.4, 0.6, 0.4], 2, &[(&[1], 0.446_287), (&[], 1.021_651)]);
    check(&[0.6, 0.4, 0.6, 0.4, 0.6, 0.4], 2, &[(&[1], 0.373_966), (&[1, 1], 2.343_407)]);
    let wanted: [(&[u32], f64); 7] = [
        (&[], 4.605_170),
        (&[1], 2.513_306),
        (&[1, 2], 1.101_868),
        (&[2, 2], 2.733_368),
        (&[1, 1], 3.015_935),
        (&[1, 2, 1], 2.497_991),
        (&[2, 1, 2], 2.590_267),
    ];
    check(&p4(), 3, &wanted);
    check(&[0.2; 20], 5, &[(&[1, 2], 3.729_701)]);
    check(&[0.2; 25], 5, &[(&[1, 1], 5.339_139)]);
    check(&[0.2; 30], 5, &[(&[1, 2, 3], 5.225_811)]);
}

#[test]
fn the_three_frames_of_the_worked_example_give_its_nine_sequences_in_order() {
    let found = decode(&exhaustive(), labels(2), &rows(&p4()[..9], 3));
    let probs: Vec<f64> = found.iter().map(|hypothesis| hypothesis.score.exp()).collect();
    let wanted = [0.311, 0.255, 0.234, 0.075, 0.05, 0.04, 0.02, 0.009, 0.006];
    assert_eq!(probs.len(), 9);
    assert!(probs.iter().zip(wanted).all(|(prob, want)| (prob - want).abs() < 1e-6), "{probs:?}");
    assert_eq!(found[..3].iter().map(ids).collect::<Vec<_>>(), [vec![1, 2], vec![2], vec![1]]);
    assert!((probs.iter().sum::<f64>() - 1.0).abs() < 1e-6);
}

#[test]
fn the_same_probabilities_come_out_whatever_the_noise() {
    for seed in 0..10 {
        let emissions = noise(seed, 6, 3);
        let all = enumerate(&emissions, 0);
        let found = decode(&exhaustive(), labels(2), &emissions);
        assert_eq!(found.len(), all.len());
        assert!(found.iter().all(|hypothesis| close(hypothesis.score, all[&ids(hypothesis)].0)));
        assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score), "the best first");
    }
}

/// All texts with the log-probability of their paths, by splitting what each path writes at the boundaries.
fn texts(emissions: &Emissions, alphabet: &Alphabet) -> HashMap<String, f64> {
    let mut found: HashMap<String, f64> = HashMap::new();
    for (tokens, (sum, _)) in enumerate(emissions, alphabet.blank()) {
        let written: String = tokens.iter().map(|id| if *id == 1 { " " } else { alphabet.text(*id) }).collect();
        let text = written.split_whitespace().collect::<Vec<_>>().join(" ");
        let entry = found.entry(text).or_insert(f64::NEG_INFINITY);
        *entry = log_add(*entry, sum);
    }
    found
}

fn model_score(text: &str, config: &LanguageModelConfig) -> f64 {
    let model = toy_model();
    let words: Vec<&str> = text.split_whitespace().collect();
    let num_unknown = words.iter().filter(|word| model.word(word).is_none()).count() as f64;
    let log_prob = f64::from(model.sentence(&words)) * std::f64::consts::LN_10;
    config.weight * log_prob + config.word_score * words.len() as f64 + config.unknown_word_score * num_unknown
}

#[test]
fn with_a_language_model_the_ranking_is_that_of_exhaustive_search() {
    for (seed, weight, word_score) in [(1, 0.5, 1.5), (2, 1.0, 0.0), (3, 2.0, -0.5), (4, 0.0, 0.0), (5, 0.8, 3.0)] {
        let emissions = noise(seed, 6, 4);
        let model = model_config(weight, word_score);
        let config = Config { language_model: Some(model.clone()), ..exhaustive() };
        let found = decode(&config, letters(), &emissions);
        let wanted = texts(&emissions, &letters());
        assert_eq!(found.len(), wanted.len());
        for hypothesis in &found {
            let acoustic = wanted[&hypothesis.text];
            let lm = model_score(&hypothesis.text, &model);
            assert!(close(hypothesis.acoustic_score, acoustic), "{hypothesis:?} {acoustic}");
            assert!(close(hypothesis.lm_score, lm), "{hypothesis:?} {lm}");
            assert!(close(hypothesis.score, acoustic + lm));
        }
        assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score), "the best first");
        // A narrow beam cannot find more than there is.
        let narrow = Config { beam_width: 4, num_hypotheses: 1, ..config.clone() };
        let best = &decode(&narrow, letters(), &emissions)[0];
        assert!(best.score <= found[0].score + 1e-9);
    }
}

#[test]
fn marked_pieces_that_write_the_same_text_are_one_hypothesis() {
    let pieces = alphabet("- ▁a ▁ab b", WordMarks::Begin("▁".to_owned()));
    let emissions = noise(9, 5, 4);
    let model = model_config(1.0, 0.5);
    let config = Config { language_model: Some(model.clone()), ..exhaustive() };
    let found = decode(&config, pieces.clone(), &emissions);
    let mut wanted: HashMap<String, f64> = HashMap::new();
    for (tokens, (sum, _)) in enumerate(&emissions, 0) {
        let written: String = tokens.iter().map(|id| ["", " a", " ab", "b"][*id as usize]).collect();
        let entry = wanted.entry(written.trim().to_owned()).or_insert(f64::NEG_INFINITY);
        *entry = log_add(*entry, sum);
    }
    assert_eq!(found.len(), wanted.len());
    for hypothesis in found {
        let want = wanted[&hypothesis.text] + model_score(&hypothesis.text, &model);
        assert!(close(hypothesis.score, want), "{hypothesis:?} {want}");
    }
}

#[test]
fn hot_words_are_worth_their_weight_once_each_and_nothing_while_unfinished() {
    let emissions = noise(7, 6, 4);
    let plain = decode(&exhaustive(), letters(), &emissions);
    let hot_words = vec!["ab b".to_owned()];
    let config = Config { hot_words, hot_word_weight: 2.0, ..exhaustive() };
    let found = decode(&config, letters(), &emissions);
    assert_eq!(found.len(), plain.len());
    for hypothesis in &found {
        let before = plain.iter().find(|other| other.text == hypothesis.text).expect("the same texts");
        let num_hot = hypothesis.text.split(' ').filter(|word| ["ab", "b"].contains(word)).count() as f64;
        assert!(close(hypothesis.lm_score, 2.0 * num_hot), "{hypothesis:?}");
        assert!(close(hypothesis.acoustic_score, before.acoustic_score));
    }
}

#[test]
fn a_heavier_hot_word_or_word_score_never_makes_it_rarer() {
    let (mut num_hot, mut num_words) = (0, 0);
    for step in 0..8 {
        let weight = f64::from(step);
        let hot = Config { hot_words: vec!["ba".to_owned()], hot_word_weight: weight, ..exhaustive() };
        let text = decode(&hot, letters(), &noise(3, 7, 4))[0].text.clone();
        let num = text.split(' ').filter(|word| *word == "ba").count();
        assert!(num >= num_hot, "{text} at {weight}");
        num_hot = num;
        let words = Config { language_model: Some(model_config(0.3, weight - 3.0)), ..exhaustive() };
        let num = decode(&words, letters(), &noise(4, 7, 4))[0].words.len();
        assert!(num >= num_words, "{num} words at {weight}");
        num_words = num;
    }
    assert!(num_hot > 0 && num_words > 1, "the weights matter");
}

#[test]
fn a_language_model_changes_a_close_call() {
    // "b" and "ab" are as probable in sound; the model has seen "b ab".
    let say = |path: &[(usize, f32)]| -> Vec<f32> {
        path.iter()
            .flat_map(|(best, prob)| (0..4).map(move |id| if id == *best { *prob } else { (1.0 - prob) / 3.0 }))
            .collect()
    };
    let mut probs = say(&[(3, 0.97), (1, 0.97), (0, 0.97), (3, 0.97)]);
    // Third frame: "a" or nothing.
    probs[8..12].copy_from_slice(&[0.5, 0.005, 0.49, 0.005]);
    let emissions = rows(&probs, 4);
    assert_eq!(decode(&Config::default(), letters(), &emissions)[0].text, "b b");
    let model = Config { language_model: Some(model_config(0.5, 0.0)), ..Config::default() };
    assert_eq!(decode(&model, letters(), &emissions)[0].text, "b ab");
}

#[test]
fn words_and_tokens_lie_where_the_best_path_has_them() {
    // - a a - b | | - a
    let path = [0, 2, 2, 0, 3, 1, 1, 0, 2];
    let probs: Vec<f32> =
        path.iter().flat_map(|best| (0..4).map(move |id| if id == *best { 0.91 } else { 0.03 })).collect();
    let emissions = rows(&probs, 4);
    let beam = &decode(&Config::default(), letters(), &emissions)[0];
    let greedy = greedy::decode(&emissions, &letters()).expect("decodes");
    assert_eq!((&beam.text, &beam.words, &beam.tokens), (&greedy.text, &greedy.words, &greedy.tokens));
}

#[test]
fn an_impossible_frame_is_an_error_and_not_a_number() {
    let left_out = strings("a b");
    let alphabet = Alphabet::new(&strings("- a b"), "-", &WordMarks::EveryToken, &left_out).expect("fine");
    let emissions = rows(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], 3);
    let beam = PrefixBeam::new(&Config::default(), Arc::new(alphabet), None).expect("fine");
    let message = beam.decode(&emissions).expect_err("only a token that was left out").to_string();
    assert!(message.contains("frame 1"), "{message}");
}

#[test]
fn impossible_tokens_do_not_disturb() {
    // Probabilities of exactly zero and one.
    let probs = [0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    let found = decode(&Config::default(), letters(), &rows(&probs, 4));
    assert_eq!((found[0].text.as_str(), found[0].score), ("aa", 0.0));
}
