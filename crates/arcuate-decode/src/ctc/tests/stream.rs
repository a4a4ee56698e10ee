//! Decoding as frames come.

use super::*;
use prefix_beam::{Config, LanguageModelConfig};

/// Letters, boundaries and blanks that are mostly but not always clear.
fn speech(seed: u64, num_frames: usize) -> Vec<f32> {
    let draws = random(seed, num_frames * 6);
    let row = |draws: &[f32]| -> Vec<f32> {
        let best = if draws[4] < 0.5 { 0 } else { 1 + (draws[5] * 3.0) as usize };
        let boost = |id: usize| if id == best { 7.0 } else { 0.0 };
        (0..4).map(|id| 3.0 * draws[id] + boost(id)).collect()
    };
    draws.chunks_exact(6).flat_map(row).collect()
}

fn beam(beam_width: usize) -> Arc<PrefixBeam> {
    let model = LanguageModelConfig { path: "toy.arpa".into(), weight: 0.7, word_score: 0.5, unknown_word_score: -1.0 };
    let config = Config { beam_width, num_hypotheses: 5, language_model: Some(model), ..Config::default() };
    Arc::new(PrefixBeam::new(&config, letters(), Some(toy_model())).expect("fine"))
}

fn emissions(logits: &[f32]) -> Emissions<'static> {
    Emissions::from_logits(logits, 4).expect("numbers")
}

#[test]
fn a_stream_ends_with_what_the_whole_gives_however_it_is_cut() {
    let beam = beam(20);
    let mut num_settled = 0;
    for seed in 0..4 {
        let logits = speech(seed, 203);
        let whole = beam.decode(&emissions(&logits)).expect("decodes");
        assert!(whole.len() == 5 && whole[0].words.len() > 5);
        for num_frames in [1, 7, 16, 64, 203] {
            let mut stream = CtcStream::new(beam.clone(), None).expect("fine");
            let mut settled = Vec::new();
            for chunk in logits.chunks(4 * num_frames) {
                let partial = stream.push(&emissions(chunk)).expect("decodes");
                settled.extend(partial.settled);
            }
            let found = stream.finish();
            assert_eq!(found, whole, "cut into {num_frames}");
            assert_eq!(settled[..], whole[0].words[..settled.len()], "settled words stay");
            num_settled += settled.len();
        }
    }
    assert!(num_settled > 10, "{num_settled} words are settled before the end");
}

#[test]
fn memory_does_not_grow_with_the_recording() {
    let mut stream = CtcStream::new(beam(20), None).expect("fine");
    let mut most = 0;
    for part in 0..40 {
        stream.push(&emissions(&speech(part, 100))).expect("decodes");
        if part == 9 {
            most = stream.num_held();
        }
    }
    assert!(stream.num_held() < 4 * most.max(200), "{} after {most}", stream.num_held());
}

#[test]
fn with_a_limit_words_are_settled_in_time() {
    // Two readings of the first letter that nothing ever decides between, then clear words.
    let mut probs = vec![0.01, 0.01, 0.49, 0.49];
    for at in 0..100 {
        let said = [1, 2, 1, 3][at % 4];
        probs.extend((0..4).map(|id| if id == said { 0.97 } else { 0.01 }));
    }
    let logits: Vec<f32> = probs.iter().map(|prob: &f32| prob.ln()).collect();
    let config = Config { beam_threshold: 100.0, ..Config::default() };
    let beam = Arc::new(PrefixBeam::new(&config, letters(), None).expect("fine"));
    let settled = |limit| {
        let mut stream = CtcStream::new(beam.clone(), limit).expect("fine");
        let mut waited = 0;
        let mut num_words = 0;
        for (frame, row) in (1u32..).zip(logits.chunks(4)) {
            for word in stream.push(&emissions(row)).expect("decodes").settled {
                waited = waited.max(frame - word.end_frame);
                num_words += 1;
            }
        }
        (num_words, waited, stream.finish()[0].words.len())
    };
    assert_eq!(settled(None).0, 0, "the first letter stays open");
    let (num_words, waited, num_all) = settled(Some(20));
    // The limit, up to 16 frames until it is looked at, and the boundary that ends the word.
    assert!(num_words >= 30 && waited <= 20 + 16 + 2 && num_all == 51, "{num_words} {waited} {num_all}");
    assert_eq!(settled(Some(1000)), settled(None), "a limit that is never reached changes nothing");
    let error = CtcStream::new(beam.clone(), Some(0)).expect_err("no frames at all");
    assert_eq!(error.to_string(), "`max_pending_frames` is 0; it must be at least 1");
}
