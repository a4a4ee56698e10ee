//! Decoders against enumeration of all paths.

mod align;
mod lexicon;
mod prefix;
mod scorer;
mod stream;

use std::collections::HashMap;

use arcuate_text::ngram::Ngram;

use super::*;

/// Three words and their pairs, every history summing to one.
const TOY_ARPA: &str = "\\data\\
ngram 1=6
ngram 2=4

\\1-grams:
-2\t<unk>
-99\t<s>\t-0.3
-0.7\t</s>
-0.6\ta\t-0.2
-0.9\tb\t-0.4
-1.1\tab\t0

\\2-grams:
-0.3\t<s> a
-0.8\ta b
-0.4\tb ab
-0.2\tb </s>

\\end\\
";

fn strings(tokens: &str) -> Vec<String> {
    tokens.split(' ').map(str::to_owned).collect()
}

fn alphabet(tokens: &str, marks: WordMarks) -> Arc<Alphabet> {
    Arc::new(Alphabet::new(&strings(tokens), "-", &marks, &[]).expect("a good alphabet"))
}

fn letters() -> Arc<Alphabet> {
    alphabet("- | a b", WordMarks::Boundary("|".to_owned()))
}

fn labels(num: usize) -> Arc<Alphabet> {
    let tokens: Vec<String> = (1..=num).map(|label| label.to_string()).collect();
    alphabet(&format!("- {}", tokens.join(" ")), WordMarks::EveryToken)
}

fn toy_model() -> Arc<Ngram> {
    model(TOY_ARPA)
}

fn model(arpa: &str) -> Arc<Ngram> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("toy.arpa");
    std::fs::write(&path, arpa).expect("writes");
    Arc::new(Ngram::load(&path).expect("an ARPA file"))
}

/// Probabilities as emissions.
fn rows(probs_tv: &[f32], width: usize) -> Emissions<'static> {
    let log_probs_tv: Vec<f32> = probs_tv.iter().map(|prob| prob.ln()).collect();
    Emissions::from_logits(&log_probs_tv, width).expect("numbers")
}

/// Four frames of the worked example, over blank, 1, 2.
fn p4() -> [f32; 12] {
    [0.5, 0.3, 0.2, 0.2, 0.5, 0.3, 0.4, 0.1, 0.5, 0.25, 0.25, 0.5]
}

fn random(seed: u64, num: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..num).map(|_| next()).collect()
}

/// Emissions without structure.
fn noise(seed: u64, num_frames: usize, width: usize) -> Emissions<'static> {
    let logits: Vec<f32> = random(seed, num_frames * width).iter().map(|value| 6.0 * value).collect();
    Emissions::from_logits(&logits, width).expect("numbers")
}

/// All paths by what they collapse to, with the sum and the best of their log-probabilities.
fn enumerate(emissions: &Emissions, blank: u32) -> HashMap<Vec<u32>, (f64, f64)> {
    let mut found: HashMap<Vec<u32>, (f64, f64)> = HashMap::new();
    let rows: Vec<&[f32]> = emissions.frames().collect();
    let mut path = vec![0u32; rows.len()];
    loop {
        let score: f64 = rows.iter().zip(&path).map(|(row, token)| f64::from(row[*token as usize])).sum();
        let mut tokens = path.clone();
        tokens.dedup();
        tokens.retain(|token| *token != blank);
        let entry = found.entry(tokens).or_insert((f64::NEG_INFINITY, f64::NEG_INFINITY));
        *entry = (log_add(entry.0, score), entry.1.max(score));
        let Some(at) = path.iter().rposition(|token| (*token as usize) < emissions.width() - 1) else { return found };
        path[at] += 1;
        path[at + 1..].fill(0);
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-4 || a == b
}

#[test]
fn a_decoder_is_chosen_by_name_and_unknown_keys_are_refused() {
    let parse = |text: &str| serde_json::from_str::<CtcDecoderConfig>(text);
    let default = CtcDecoderConfig::PrefixBeam(prefix_beam::Config::default());
    assert_eq!(parse(r#"{"prefix_beam": {}}"#).expect("defaults"), default);
    let lexicon = CtcDecoderConfig::LexiconBeam(lexicon_beam::Config::new("words".into()));
    assert_eq!(parse(r#"{"lexicon_beam": {"lexicon": "words"}}"#).expect("defaults"), lexicon);
    assert!(matches!(parse(r#"{"greedy": {}}"#), Ok(CtcDecoderConfig::Greedy(_))));
    for wrong in [r#"{"prefix_beam": {"beam": 1}}"#, r#"{"greedy": {"a": 1}}"#, r#"{"lexicon_beam": {}}"#] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn options_that_cannot_work_are_named_with_their_value() {
    let base = prefix_beam::Config::default();
    let prefix = |config| CtcDecoderConfig::PrefixBeam(config).check().expect_err("bad").to_string();
    assert_eq!(
        prefix(prefix_beam::Config { beam_width: 0, ..base.clone() }),
        "`beam_width` is 0; it must be at least 1"
    );
    assert!(prefix(prefix_beam::Config { beam_threshold: -1.0, ..base.clone() }).contains("`beam_threshold` is -1"));
    assert!(prefix(prefix_beam::Config { hot_word_weight: f64::INFINITY, ..base.clone() }).contains("is inf"));
    assert!(prefix(prefix_beam::Config { min_token_log_prob: f64::NAN, ..base.clone() }).contains("is NaN"));
    let model = prefix_beam::LanguageModelConfig {
        path: "lm.arpa".into(),
        weight: f64::NAN,
        word_score: 0.0,
        unknown_word_score: 0.0,
    };
    let message = prefix(prefix_beam::Config { language_model: Some(model), ..base });
    assert_eq!(message, "`language_model.weight` is NaN; it must be a finite number");
    let base = lexicon_beam::Config::new("words".into());
    let lexicon = |config| CtcDecoderConfig::LexiconBeam(config).check().expect_err("bad").to_string();
    assert!(lexicon(lexicon_beam::Config { beam_width: 0, ..base.clone() }).contains("`beam_width` is 0"));
    assert!(lexicon(lexicon_beam::Config { num_tokens: Some(0), ..base.clone() }).contains("`num_tokens` is 0"));
    assert!(lexicon(lexicon_beam::Config { num_hypotheses: 0, ..base.clone() }).contains("`num_hypotheses` is 0"));
    let config = lexicon_beam::Config { language_model_weight: f64::NAN, ..base };
    assert!(lexicon(config).contains("`language_model_weight` is NaN"));
}

#[test]
fn every_decoder_refuses_emissions_of_another_width() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("words");
    std::fs::write(&path, "a\nab\n").expect("writes");
    for config in [
        CtcDecoderConfig::Greedy(greedy::Config {}),
        CtcDecoderConfig::LexiconBeam(lexicon_beam::Config::new(path)),
        CtcDecoderConfig::PrefixBeam(prefix_beam::Config::default()),
    ] {
        let decoder = CtcDecoder::load(&config, letters()).expect("loads");
        let message = decoder.decode(&noise(1, 2, 3)).expect_err("three columns").to_string();
        assert_eq!(message, "the emissions have 3 values per frame, the alphabet has 4 tokens");
        let nothing = decoder.decode(&noise(1, 0, 4)).expect("no frames");
        assert_eq!((nothing.len(), nothing[0].text.as_str(), nothing[0].score), (1, "", 0.0), "{config:?}");
        assert!(nothing[0].is_complete && nothing[0].words.is_empty() && nothing[0].tokens.is_empty());
        assert!(decoder.decode(&noise(1, 5, 4)).expect("frames")[0].score.is_finite());
        assert_eq!(decoder.stream(None).is_ok(), matches!(config, CtcDecoderConfig::PrefixBeam(_)));
    }
}

#[test]
fn greedy_is_the_best_of_all_paths() {
    for seed in 0..20 {
        let emissions = noise(seed, 5, 4);
        let found = greedy::decode(&emissions, &letters()).expect("decodes");
        let all = enumerate(&emissions, 0);
        let (tokens, (_, best)) = all.iter().max_by(|a, b| a.1.1.total_cmp(&b.1.1)).expect("paths");
        assert_eq!(&found.tokens.iter().map(|token| token.id).collect::<Vec<_>>(), tokens);
        assert!(close(found.score, *best) && found.score == found.acoustic_score && found.lm_score == 0.0);
    }
}

#[test]
fn greedy_tells_when_tokens_and_words_were_said() {
    // - a a - a b | | b
    let path = [0, 2, 2, 0, 2, 3, 1, 1, 3];
    let probs: Vec<f32> = path.iter().flat_map(|best| (0..4).map(|id| if id == *best { 0.7 } else { 0.1 })).collect();
    let mut probs = probs;
    (probs[4], probs[6]) = (0.0, 0.8);
    let found = greedy::decode(&rows(&probs, 4), &letters()).expect("decodes");
    assert_eq!(found.text, "aab b");
    let spans: Vec<_> = found.tokens.iter().map(|token| (token.id, token.start_frame, token.end_frame)).collect();
    assert_eq!(spans, [(2, 1, 3), (2, 4, 5), (3, 5, 6), (1, 6, 8), (3, 8, 9)]);
    assert!((found.tokens[0].confidence - 0.8).abs() < 1e-6, "the highest of its frames");
    let words: Vec<_> = found.words.iter().map(|word| (word.start_frame, word.end_frame)).collect();
    assert_eq!(words, [(1, 6), (8, 9)]);
    assert_eq!(found.words[1].seconds(0.5), (4.0, 4.5));
}

#[test]
fn tokens_that_were_left_out_are_never_written() {
    let alphabet = Alphabet::new(&strings("- x a"), "-", &WordMarks::EveryToken, &strings("x")).expect("fine");
    let alphabet = Arc::new(alphabet);
    let emissions = rows(&[0.1, 0.8, 0.1, 0.2, 0.2, 0.6], 3);
    assert_eq!(greedy::decode(&emissions, &alphabet).expect("decodes").text, "a");
    let beam = PrefixBeam::new(&prefix_beam::Config::default(), alphabet, None).expect("fine");
    assert_eq!(beam.decode(&emissions).expect("decodes")[0].text, "a");
}
