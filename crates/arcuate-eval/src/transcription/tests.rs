//! A hand-made case, and a tiny network whose answers must not depend on the batch.

use std::sync::Arc;

use arcuate_data::RowSound;
use arcuate_decode::ctc::{Alphabet, CtcDecoderConfig};
use arcuate_model::Head;
use arcuate_text::{Tokenizer, TokenizerConfig};
use serde_json::json;

use super::*;

fn tokenizer() -> Tokenizer {
    let config: TokenizerConfig = serde_json::from_value(
        json!({"chars": {"normalise": {"case": "lower", "punctuation": "remove", "digits": "keep"}}}),
    )
    .expect("a tokenizer");
    Tokenizer::train(&config, ["ab ba".to_owned()].into_iter()).expect("trains")
}

fn decoders(names: &[&str], num_outputs: usize) -> Vec<CtcDecoder> {
    let alphabet = Arc::new(Alphabet::of_tokenizer(&tokenizer(), num_outputs).expect("fits"));
    let decoder = |name: &&str| {
        let config: CtcDecoderConfig = serde_json::from_value(json!({*name: {}})).expect("a decoder");
        CtcDecoder::load(&config, alphabet.clone()).expect("loads")
    };
    names.iter().map(decoder).collect()
}

/// A row whose sound is a wave of so many samples.
fn row(key: u64, num_samples: usize, num_frames: usize) -> Row {
    let wave = (0..num_samples).map(|at| ((at * (3 + key as usize)) as f32 * 0.1).sin());
    let sound = RowSound { values: wave.collect(), num_features: 1, num_frames, units: Vec::new() };
    let row = crate::rows::document_row(0, 0, &[], &[], 0);
    Row { key, sound: Some(sound), ..row }
}

fn transcription(decoders: &[CtcDecoder], rows: usize, tokens: Option<u64>, equal_lengths: bool) -> Transcription<'_> {
    Transcription { decoders, limits: MicrobatchLimits { rows, tokens }, equal_lengths, pad_id: 0 }
}

/// Logits that say one token in each frame; the tokens of a row follow from its key, padding says another one.
fn spell(batch: &Batch) -> arcuate_model::Result<Vec<f32>> {
    // <pad> <unk> | a b
    let spelled: [&[usize]; 3] = [&[3, 3, 0, 3, 4], &[4, 2, 2, 3], &[0, 1]];
    let sound = batch.sound.as_ref().expect("sound");
    let mut logits = Vec::new();
    for key in &batch.row_keys {
        for frame in 0..sound.num_frames {
            let said = spelled[*key as usize].get(frame).copied().unwrap_or(4);
            logits.extend((0..5).map(|token| if token == said { 9.0 } else { 0.0 }));
        }
    }
    Ok(logits)
}

#[test]
fn every_frame_of_a_row_and_no_padding_is_read() {
    let decoders = decoders(&["greedy", "prefix_beam"], 5);
    let rows = [row(2, 4, 2), row(0, 10, 5), row(1, 8, 4)];
    let mut seen = Vec::new();
    let heard = transcription(&decoders, 2, None, false)
        .run(
            rows.into_iter().map(Ok),
            &mut spell,
            &mut |row, emissions| {
                seen.push((row.key, emissions.num_frames()));
                Ok(())
            },
            &mut |_| ControlFlow::Continue(()),
        )
        .expect("transcribed");
    assert_eq!(seen, [(2, 2), (0, 5), (1, 4)]);
    let texts: Vec<(u64, [&str; 2])> =
        heard.iter().map(|heard| (heard.key, [heard.texts[0].as_str(), heard.texts[1].as_str()])).collect();
    assert_eq!(texts, [(2, ["", ""]), (0, ["aab", "aab"]), (1, ["b a", "b a"])]);
}

#[test]
fn batches_keep_their_limits() {
    let rows = [row(0, 10, 5), row(1, 8, 4), row(2, 8, 4), row(0, 4, 2)];
    let batches = |rows_limit, tokens, equal| transcription(&[], rows_limit, tokens, equal).batches(&rows);
    assert_eq!(batches(8, None, false), [vec![0, 1, 2, 3]]);
    assert_eq!(batches(2, None, false), [vec![0, 1], vec![2, 3]]);
    assert_eq!(batches(8, Some(9), false), [vec![0], vec![1, 2], vec![3]]);
    assert_eq!(batches(8, Some(1), false).len(), 4);
    assert_eq!(batches(8, None, true), [vec![0], vec![1, 2], vec![3]]);
}

#[test]
fn a_network_writes_the_same_in_every_batch() {
    for norm in ["layer", "group"] {
        let keys = json!({"wav2vec2": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 16,
            "conv_channels": 8, "conv_kernels": [5, 3], "conv_strides": [4, 2], "conv_bias": true, "feature_norm": norm,
            "pre_norm": norm == "layer", "position_kernel": 4, "position_groups": 2, "initializer_range": 0.5}});
        let network = crate::testing::network(keys, 5, Head::Tokens);
        let downsampling = network.architecture().downsampling().expect("a speech network");
        let rows: Vec<Row> = [200, 120, 121, 40, 333, 200, 80]
            .into_iter()
            .zip(0..)
            .map(|(len, key)| row(key, len, downsampling.num_frames(len)))
            .collect();
        let decoders = decoders(&["greedy"], 5);
        let equal = hears_padding(&network.architecture());
        assert_eq!(equal, norm == "group");
        let run = |limit: usize, tokens| {
            let mut logits = Vec::new();
            let heard = transcription(&decoders, limit, tokens, equal)
                .run(
                    rows.iter().cloned().map(Ok),
                    &mut |batch| frame_logits(&network, batch),
                    &mut |_, emissions| {
                        logits.extend(emissions.frames().flatten().copied());
                        Ok(())
                    },
                    &mut |_| ControlFlow::Continue(()),
                )
                .expect("transcribed");
            (heard, logits)
        };
        let (alone, numbers) = run(1, None);
        assert!(alone.iter().any(|heard| !heard.texts[0].is_empty()), "{alone:?}");
        for (limit, tokens) in [(2, None), (7, None), (7, Some(60))] {
            let (heard, other) = run(limit, tokens);
            assert_eq!(heard, alone, "{norm} {limit}");
            assert!(numbers.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-3), "{norm} {limit}");
        }
    }
}

#[test]
fn stopping_and_rows_without_sound_are_errors() {
    let decoders = decoders(&["greedy"], 5);
    let run = |row: Row, answer: ControlFlow<()>| {
        transcription(&decoders, 1, None, false)
            .run([Ok(row)].into_iter(), &mut spell, &mut |_, _| Ok(()), &mut |_| answer)
            .expect_err("no result")
            .to_string()
    };
    assert_eq!(run(row(0, 10, 5), ControlFlow::Break(())), "interrupted");
    let silent = Row { sound: None, ..row(0, 1, 1) };
    assert!(run(silent, ControlFlow::Continue(())).contains("no sound"));
}
