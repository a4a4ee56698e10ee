//! Forced alignment.

use super::*;
use crate::ctc::align;

#[test]
fn the_best_path_of_every_sequence_is_found() {
    for seed in 0..10 {
        let emissions = noise(seed, 6, 3);
        for (tokens, (_, best)) in enumerate(&emissions, 0) {
            let (spans, score) = align(&emissions, &tokens, &labels(2)).expect("possible");
            assert!(close(score, best), "{tokens:?}: {score} {best}");
            assert_eq!(spans.iter().map(|span| span.id).collect::<Vec<_>>(), tokens);
            let mut last = 0;
            for span in &spans {
                assert!(last <= span.start_frame && span.start_frame < span.end_frame && span.end_frame <= 6);
                last = span.end_frame;
            }
        }
    }
}

#[test]
fn the_worked_example_has_its_viterbi_scores() {
    let emissions = rows(&p4()[..9], 3);
    for (tokens, prob) in [(&[1, 2][..], 0.125), (&[2], 0.075), (&[1], 0.1)] {
        let (_, score) = align(&emissions, tokens, &labels(2)).expect("possible");
        assert!((score.exp() - prob).abs() < 1e-6, "{tokens:?}");
    }
}

#[test]
fn spans_are_those_of_the_path() {
    // - a a - a b
    let path = [0, 2, 2, 0, 2, 3];
    let probs: Vec<f32> =
        path.iter().flat_map(|best| (0..4).map(move |id| if id == *best { 0.7 } else { 0.1 })).collect();
    let emissions = rows(&probs, 4);
    let (spans, score) = align(&emissions, &[2, 2, 3], &letters()).expect("possible");
    let found: Vec<_> = spans.iter().map(|span| (span.start_frame, span.end_frame)).collect();
    assert_eq!(found, [(1, 3), (4, 5), (5, 6)]);
    assert!(close(score, 6.0 * f64::from(0.7_f32.ln())) && (spans[0].confidence - 0.7).abs() < 1e-6);
    assert_eq!(words(&letters(), &spans)[0].text, "aab");
    let (none, score) = align(&emissions, &[], &letters()).expect("all blank");
    assert!(none.is_empty() && close(score, f64::from(2.0 * 0.7_f32.ln() + 4.0 * 0.1_f32.ln())));
}

#[test]
fn what_cannot_be_aligned_is_told_by_its_numbers() {
    let message = |num_frames, tokens: &[u32]| {
        align(&noise(1, num_frames, 3), tokens, &labels(2)).expect_err("impossible").to_string()
    };
    assert_eq!(message(1, &[1, 2]), "2 tokens with 0 equal neighbours need at least 2 frames, there are 1");
    assert_eq!(message(2, &[1, 1]), "2 tokens with 1 equal neighbours need at least 3 frames, there are 2");
    assert_eq!(message(4, &[1, 0]), "target 1 is token 0, which is the blank or none of the 3 tokens");
    assert!(message(4, &[3]).contains("token 3"));
    let impossible = rows(&[1.0, 0.0, 0.0], 3);
    assert!(align(&impossible, &[1], &labels(2)).expect_err("probability 0").to_string().contains("probability 0"));
    assert!(align(&noise(1, 0, 3), &[], &labels(2)).expect("no frames, no tokens").0.is_empty());
}
