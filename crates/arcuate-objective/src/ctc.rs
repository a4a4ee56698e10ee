//! CTC: the labels of a row from its frames, without knowing which frame says which label.
//!
//! # What it computes
//! `sum = sum(-ln P(labels | frames))` over the rows, `count` = rows; `P` sums over all ways to spread the labels, with blanks
//! between, over the frames. With `divide_by_labels` the loss of a row is divided by the number of its labels first. Rows with
//! too few frames for their labels make the loss infinite; with `zero_infinity` they do not count.
//! In training, masks may hide spans of frames and of channels.
//! # Recipe
//! `[objective.ctc]` with `zero_infinity`, optional `divide_by_labels`, `time_mask`, `channel_mask`
//! # Reference
//! Graves et al. 2006; masks in fine-tuning as in Baevski et al. 2020
// B rows, T frames, V vocabulary

use arcuate_data::Batch;
use arcuate_data::transform::span_mask::SpanMask;
use arcuate_model::{Output, Wanted};
use arcuate_ops::ctc::{Ctc as Rows, ctc, ctc_rows};
use arcuate_ops::gradcheck::values;
use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{EVALUATION, Error, Loss, Objective, Result, RowScore, Vocabulary, check_mask, largest, sound, streams};

/// `[objective.ctc]`; the blank is the token that fills rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Leave out rows with too few frames for their labels instead of stopping at an infinite loss. A row needs a frame for each
    /// label and one between two equal ones.
    pub zero_infinity: bool,
    /// Divide the loss of a row by the number of its labels, so that long and short rows weigh the same.
    #[serde(default)]
    pub divide_by_labels: bool,
    /// Frames that are hidden in training. wav2vec 2.0, fine-tuning: `fairseq = { mask_share = 0.75, span_length = 10 }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_mask: Option<SpanMask>,
    /// Channels of the frames that are 0 in training. wav2vec 2.0, fine-tuning:
    /// `fairseq = { mask_share = 0.25, span_length = 64 }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_mask: Option<SpanMask>,
}

pub(crate) struct Ctc {
    config: Config,
    blank: usize,
    num_channels: usize,
}

pub(crate) fn build(config: &Config, vocabulary: &Vocabulary) -> Result<Ctc> {
    if let Some(mask) = &config.time_mask {
        check_mask("objective.ctc.time_mask", mask)?;
    }
    if let Some(mask) = &config.channel_mask {
        check_mask("objective.ctc.channel_mask", mask)?;
        if vocabulary.num_channels <= mask.span_length() {
            return Err(Error(format!(
                "`span_length` {} in `objective.ctc.channel_mask` must be less than the {} channels of a frame in this model",
                mask.span_length(),
                vocabulary.num_channels
            )));
        }
    }
    Ok(Ctc { config: config.clone(), blank: vocabulary.pad as usize, num_channels: vocabulary.num_channels })
}

/// Insertions, deletions and substitutions that make one sequence of the other.
fn distance(from: &[i32], to: &[i32]) -> u64 {
    let mut costs: Vec<u64> = (0..=to.len() as u64).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = costs[0];
        costs[0] = i as u64 + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + u64::from(a != b);
            diagonal = costs[j + 1];
            costs[j + 1] = changed.min(diagonal + 1).min(costs[j] + 1);
        }
    }
    costs[to.len()]
}

/// What the best label of every frame says once repeats and then blanks are removed.
fn collapse(best: &[i32], blank: i32) -> Vec<i32> {
    let mut labels = Vec::new();
    let mut last = blank;
    for label in best {
        if *label != last && *label != blank {
            labels.push(*label);
        }
        last = *label;
    }
    labels
}

impl Ctc {
    /// Labels and lengths of a batch for logits over so many outputs. Rows whose labels no output stands for have none and
    /// weigh nothing.
    fn rows(&self, batch: &Batch, num_outputs: usize) -> Rows {
        let labels = |row: usize| -> Vec<i32> {
            let labels = &batch.targets[row * batch.seq_len..(row + 1) * batch.seq_len];
            labels.iter().copied().filter(|label| *label >= 0).collect()
        };
        let mut targets: Vec<Vec<i32>> = (0..batch.num_rows).map(labels).collect();
        let frames = &sound(batch).frames;
        let is_output = |label: &i32| (*label as usize) < num_outputs && *label as usize != self.blank;
        let mut weights = Vec::with_capacity(targets.len());
        for (labels, frames) in targets.iter_mut().zip(frames) {
            let repeats = labels.windows(2).filter(|pair| pair[0] == pair[1]).count();
            let fits = *frames >= labels.len() + repeats;
            if !labels.iter().all(is_output) {
                labels.clear();
                weights.push(0.0);
            } else if !fits && self.config.zero_infinity {
                weights.push(0.0);
            } else if self.config.divide_by_labels {
                weights.push(1.0 / labels.len().max(1) as f32);
            } else {
                weights.push(1.0);
            }
        }
        Rows {
            targets: targets.into(),
            input_lengths: frames.as_slice().into(),
            blank: self.blank,
            zero_infinity: self.config.zero_infinity,
            weights: Some(weights.into()),
        }
    }

    /// Logits by row and frame `[B, T, V]`.
    fn logits(batch: &Batch, output: Output) -> Tensor<3> {
        let logits = output.logits();
        let num_outputs = logits.dims()[1];
        let sound = sound(batch);
        logits.reshape([sound.num_rows(), sound.num_frames, num_outputs])
    }

    /// The best label of every frame of every row, without padding.
    fn best(logits: Tensor<3>, frames: &[usize]) -> Vec<Vec<i32>> {
        let [_, longest, num_outputs] = logits.dims();
        let numbers = values(logits);
        let row = |(row, frames): (usize, &usize)| {
            let start = row * longest * num_outputs;
            let frame = |t: usize| &numbers[start + t * num_outputs..start + (t + 1) * num_outputs];
            (0..*frames).map(|t| largest(frame(t)) as i32).collect()
        };
        frames.iter().enumerate().map(row).collect()
    }
}

impl Objective for Ctc {
    fn prepare(&self, batch: &mut Batch, seed: u64, step: u64) {
        if step == EVALUATION {
            return;
        }
        let mut times = streams(batch, "time mask", seed, step);
        let mut channels = streams(batch, "channel mask", seed, step);
        let Some(sound) = &mut batch.sound else { return };
        if let Some(mask) = &self.config.time_mask {
            sound.is_hidden = mask.draw(&sound.frames, sound.num_frames, &mut times);
        }
        if let Some(mask) = &self.config.channel_mask {
            let lengths = vec![self.num_channels; sound.num_rows()];
            sound.is_hidden_channel = mask.draw(&lengths, self.num_channels, &mut channels);
        }
    }

    fn wanted(&self, _: &Batch) -> Wanted {
        Wanted::All
    }

    fn loss(&self, batch: &Batch, output: Output) -> Loss {
        let logits = Self::logits(batch, output);
        let rows = self.rows(batch, logits.dims()[2]);
        let best = Self::best(logits.clone().detach(), &rows.input_lengths);
        let blank = self.blank as i32;
        let frames = best.iter().map(Vec::len).sum::<usize>() as f64;
        let blanks = best.iter().flatten().filter(|label| **label == blank).count() as f64;
        let errors: u64 =
            best.iter().zip(rows.targets.iter()).map(|(best, labels)| distance(&collapse(best, blank), labels)).sum();
        let labels = rows.targets.iter().map(Vec::len).sum::<usize>() as f64;
        let all = rows.targets.len() as f64;
        let weights = rows.weights.iter().flat_map(|weights| weights.iter());
        let count = weights.filter(|weight| **weight > 0.0).count() as f64;
        Loss::new(ctc(logits, &rows), count)
            .term("blank_share", blanks, frames)
            .term("token_error_rate", errors as f64, labels)
            .term("rows_left_out", all - count, all)
    }

    fn scores(&self, batch: &Batch, output: Output) -> Vec<RowScore> {
        let logits = Self::logits(batch, output);
        let rows = self.rows(batch, logits.dims()[2]);
        let best = Self::best(logits.clone(), &rows.input_lengths);
        let losses = ctc_rows(logits, &rows);
        let row = |i: usize| {
            let labels = &rows.targets[i];
            let num_errors = distance(&collapse(&best[i], self.blank as i32), labels);
            let weight = rows.weights.as_ref().map_or(1.0, |weights| weights[i]);
            let counts = weight > 0.0;
            RowScore {
                loss_sum: if counts { f64::from(losses[i]) * f64::from(weight) } else { 0.0 },
                count: f64::from(u8::from(counts)),
                correct: u64::from(counts && num_errors == 0),
                num_errors,
                num_labels: labels.len() as u64,
                ..RowScore::default()
            }
        };
        (0..losses.len()).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{heard, output};
    use arcuate_data::transform::span_mask::Fairseq;
    use arcuate_ops::gradcheck::random;
    use burn::tensor::{Device, TensorData};

    fn config() -> Config {
        Config { zero_infinity: true, divide_by_labels: false, time_mask: None, channel_mask: None }
    }

    fn objective(config: Config) -> Ctc {
        build(&config, &Vocabulary { num_channels: 32, ..Vocabulary::default() }).expect("sound")
    }

    /// Rows of so many frames with these labels.
    fn said(rows: &[(usize, &[i32])]) -> Batch {
        let frames: Vec<usize> = rows.iter().map(|(frames, _)| *frames).collect();
        let seq_len = rows.iter().map(|(_, labels)| labels.len()).max().unwrap_or(0);
        let labels = |row: &(usize, &[i32])| [row.1.to_vec(), vec![-100; seq_len - row.1.len()]].concat();
        Batch { seq_len, targets: rows.iter().flat_map(labels).collect(), ..heard(&frames) }
    }

    /// Logits of probabilities for every frame, padded with another number.
    fn probabilities(rows: &[&[f64]], v: usize, device: &Device) -> Tensor<2> {
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let row = |row: &&[f64]| {
            let numbers = row.iter().map(|p| p.ln() as f32);
            numbers.chain(std::iter::repeat_n(0.7, longest - row.len())).collect::<Vec<_>>()
        };
        let numbers: Vec<f32> = rows.iter().flat_map(row).collect();
        Tensor::from_data(TensorData::new(numbers, [rows.len() * longest / v, v]), device)
    }

    const P4: [f64; 12] = [0.5, 0.3, 0.2, 0.2, 0.5, 0.3, 0.4, 0.1, 0.5, 0.25, 0.25, 0.5];

    fn sum(config: Config, rows: &[(usize, &[i32])], logits: &Tensor<2>) -> (f64, f64) {
        let loss = objective(config).loss(&said(rows), output(logits.clone()));
        (f64::from(values(loss.sum)[0]), loss.count)
    }

    #[test]
    fn rows_cost_what_the_card_says() {
        let two = [0.6, 0.4];
        for (p, v, labels, expected) in [
            (two.repeat(2), 2, &[1][..], 0.446_287),
            (two.repeat(2), 2, &[], 1.021_651),
            (two.repeat(3), 2, &[1], 0.373_966),
            (two.repeat(3), 2, &[1, 1], 2.343_407),
            (P4.to_vec(), 3, &[], 4.605_170),
            (P4.to_vec(), 3, &[1], 2.513_306),
            (P4.to_vec(), 3, &[1, 2], 1.101_868),
            (P4.to_vec(), 3, &[2, 2], 2.733_368),
            (P4.to_vec(), 3, &[1, 1], 3.015_935),
            (P4.to_vec(), 3, &[1, 2, 1], 2.497_991),
            (P4.to_vec(), 3, &[2, 1, 2], 2.590_267),
            (vec![0.2; 20], 5, &[1, 2], 3.729_701),
            (vec![0.2; 25], 5, &[1, 1], 5.339_139),
            (vec![0.2; 30], 5, &[1, 2, 3], 5.225_811),
        ] {
            let logits = probabilities(&[&p], v, &Device::flex());
            let (loss, count) = sum(config(), &[(p.len() / v, labels)], &logits);
            assert!((loss - expected).abs() < 1e-6 && count == 1.0, "{labels:?}: {loss}");
        }
    }

    #[test]
    fn gradients_are_those_of_the_card_and_add_up_to_nothing_in_each_frame() {
        let logits = probabilities(&[&P4], 3, &Device::flex().autodiff()).require_grad();
        let loss = objective(config()).loss(&said(&[(4, &[1, 2])]), output(logits.clone()));
        let gradient = values(logits.grad(&loss.sum.backward()).expect("tracked"));
        let expected = [
            0.014_673, -0.214_673, 0.2, 0.081_114, -0.252_445, 0.171_332, //
            0.096_012, 0.024_755, -0.120_767, 0.015_989, 0.25, -0.265_989,
        ];
        assert!(gradient.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-6), "{gradient:?}");
        assert!(gradient.chunks(3).all(|frame| frame.iter().sum::<f32>().abs() < 1e-6));
    }

    #[test]
    fn all_label_sequences_together_are_certain() {
        let logits = probabilities(&[&P4[..9]], 3, &Device::flex());
        let all: [&[i32]; 9] = [&[1, 2], &[2], &[1], &[2, 1], &[1, 2, 1], &[2, 1, 2], &[], &[1, 1], &[2, 2]];
        let chances: Vec<f64> = all.iter().map(|y| (-sum(config(), &[(3, y)], &logits).0).exp()).collect();
        assert!((chances.iter().sum::<f64>() - 1.0).abs() < 1e-6);
        assert!([0.311, 0.255, 0.234].iter().zip(&chances).all(|(p, chance)| (p - chance).abs() < 1e-6));
    }

    #[test]
    fn rows_that_are_too_short_are_left_out_or_infinite() {
        for (frames, labels) in [(1, &[1, 2][..]), (2, &[1, 1])] {
            let p = [0.5, 0.3, 0.2].repeat(frames);
            let logits = || probabilities(&[&p], 3, &Device::flex().autodiff()).require_grad();
            let x = logits();
            let loss = objective(config()).loss(&said(&[(frames, labels)]), output(x.clone()));
            assert_eq!((values(loss.sum.clone())[0], loss.count), (0.0, 0.0));
            assert_eq!(term(&loss, "rows_left_out"), 1.0);
            let gradient = x.grad(&loss.sum.backward()).map(values).unwrap_or_default();
            assert!(gradient.iter().all(|x| *x == 0.0));
            let strict = objective(Config { zero_infinity: false, ..config() });
            let loss = strict.loss(&said(&[(frames, labels)]), output(logits()));
            assert_eq!((values(loss.sum)[0], loss.count), (f32::INFINITY, 1.0));
        }
    }

    fn term(loss: &Loss, name: &str) -> f64 {
        let term = loss.terms.iter().find(|term| term.name == name).expect("a term of that name");
        term.sum / term.count
    }

    #[test]
    fn padding_changes_nothing_and_two_halves_add_up() {
        let rows: [(usize, &[i32]); 3] = [(5, &[1, 2]), (7, &[3, 3, 1]), (3, &[])];
        let logits = random([21, 4], 5);
        let halves: f64 = rows
            .iter()
            .enumerate()
            .map(|(i, row)| sum(config(), &[*row], &logits.clone().slice([i * 7..i * 7 + row.0])).0)
            .sum();
        let (whole, count) = sum(config(), &rows, &logits);
        assert!((whole - halves).abs() < 1e-4 && count == 3.0, "{whole} {halves}");
    }

    #[test]
    fn each_row_may_be_divided_by_its_labels() {
        let rows: [(usize, &[i32]); 3] = [(5, &[1, 2]), (7, &[3, 3, 1]), (3, &[])];
        let logits = random([21, 4], 5);
        let alone = |i: usize| sum(config(), &[rows[i]], &logits.clone().slice([i * 7..i * 7 + rows[i].0])).0;
        let divided = Config { divide_by_labels: true, ..config() };
        let expected = alone(0) / 2.0 + alone(1) / 3.0 + alone(2);
        let (loss, count) = sum(divided.clone(), &rows, &logits);
        assert!((loss - expected).abs() < 1e-4 && count == 3.0);
        let scores = objective(divided).scores(&said(&rows), output(logits));
        assert!((scores.iter().map(|row| row.loss_sum).sum::<f64>() - expected).abs() < 1e-4);
    }

    #[test]
    fn an_evaluation_counts_errors_of_the_best_path() {
        // Frames say 1 1 - 1 2 (read as 1 1 2), then - - - (nothing), then 2 (a row too short for its labels).
        let frames = [1, 1, 0, 1, 2, 0, 0, 0, 9, 9, 2, 9, 9, 9, 9];
        let numbers: Vec<f32> =
            frames.iter().flat_map(|best| (0..3).map(move |v| f32::from(u8::from(v == *best)))).collect();
        let logits = Tensor::from_data(TensorData::new(numbers, [15, 3]), &Device::flex());
        let batch = said(&[(5, &[1, 1, 2]), (3, &[2, 1]), (1, &[2, 1])]);
        let scores = objective(config()).scores(&batch, output(logits.clone()));
        let found: Vec<_> = scores.iter().map(|s| (s.count, s.correct, s.num_errors, s.num_labels)).collect();
        assert_eq!(found, [(1.0, 1, 0, 3), (1.0, 0, 2, 2), (0.0, 0, 1, 2)]);
        let loss = objective(config()).loss(&batch, output(logits));
        assert!((term(&loss, "token_error_rate") - 3.0 / 7.0).abs() < 1e-12);
        assert!((term(&loss, "blank_share") - 4.0 / 9.0).abs() < 1e-12);
        let sum: f64 = scores.iter().map(|row| row.loss_sum).sum();
        assert!((sum - f64::from(values(loss.sum)[0])).abs() < 1e-5);
    }

    #[test]
    fn labels_that_no_output_stands_for_are_left_out() {
        for label in [0, 3, 1000] {
            let batch = said(&[(4, &[1]), (4, &[1, label])]);
            let loss = objective(config()).loss(&batch, output(random([8, 3], 1)));
            assert_eq!((loss.count, term(&loss, "rows_left_out")), (1.0, 0.5));
            assert_eq!(objective(config()).scores(&batch, output(random([8, 3], 1)))[1].count, 0.0);
        }
    }

    #[test]
    fn distances_count_the_fewest_changes() {
        for (from, to, changes) in [
            (&[][..], &[][..], 0),
            (&[1, 2], &[], 2),
            (&[], &[1], 1),
            (&[1, 2, 3], &[1, 3, 4], 2),
            (&[1, 2], &[2, 1], 2),
        ] {
            assert_eq!(distance(from, to), changes, "{from:?} {to:?}");
        }
    }

    #[test]
    fn masks_hide_frames_and_channels_in_training_only() {
        let mask = |share, span_length| {
            Some(SpanMask::Fairseq(Fairseq { mask_share: share, span_length, min_spans: 0, equal_counts: false }))
        };
        let masked = objective(Config { time_mask: mask(0.5, 5), channel_mask: mask(0.5, 8), ..config() });
        let prepared = |step| {
            let mut batch = said(&[(40, &[1]), (20, &[1])]);
            masked.prepare(&mut batch, 1, step);
            batch.sound.expect("heard")
        };
        let sound = prepared(0);
        assert_eq!((sound.is_hidden.len(), sound.is_hidden_channel.len()), (80, 64));
        assert!(sound.hidden_places().all(|place| place < 60));
        assert!(sound.is_hidden.contains(&true) && sound.is_hidden_channel.contains(&true));
        assert_ne!(sound.is_hidden, prepared(1).is_hidden);
        let sound = prepared(EVALUATION);
        assert!(sound.is_hidden.is_empty() && sound.is_hidden_channel.is_empty());
        let few = Vocabulary { num_channels: 8, ..Vocabulary::default() };
        let refused = build(&Config { channel_mask: mask(0.5, 8), ..config() }, &few).err().expect("no start is left");
        assert!(refused.to_string().contains("less than the 8 channels"), "{refused}");
    }
}
