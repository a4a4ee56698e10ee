//! Masked prediction: say what kind of sound each hidden frame is.
//!
//! # What it computes
//! Frames have units, found by clustering. Over the hidden frames with a unit, `sum = sum(-ln p(unit))` and `count` = how many;
//! frames that are seen enter both with `unmasked_weight`.
//! # Recipe
//! `[objective.masked_prediction]` with `mask`, optional `unmasked_weight`; the sources need units
//! # Reference
//! Hsu et al. 2021 (HuBERT)
// B rows, T frames, N predicted frames

use std::sync::Arc;

use arcuate_data::Batch;
use arcuate_data::transform::span_mask::SpanMask;
use arcuate_model::{Output, Wanted};
use arcuate_ops::linear_cross_entropy::CrossEntropy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Loss, Objective, Result, RowScore, Vocabulary, check_mask, sound, streams};

/// `[objective.masked_prediction]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is hidden of each row. HuBERT: `mask.fairseq = { mask_share = 0.8, span_length = 10, min_spans = 2 }`.
    pub mask: SpanMask,
    /// Weight of frames that are seen. HuBERT: 0, which leaves them out.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub unmasked_weight: f64,
}

pub(crate) struct MaskedPrediction {
    config: Config,
}

pub(crate) fn build(config: &Config, _: &Vocabulary) -> Result<MaskedPrediction> {
    check_mask("objective.masked_prediction.mask", &config.mask)?;
    let weight = config.unmasked_weight;
    if !(weight.is_finite() && weight >= 0.0) {
        return Err(Error(format!(
            "`unmasked_weight` is {weight}; use 0 or a number above 0 in `objective.masked_prediction`"
        )));
    }
    Ok(MaskedPrediction { config: config.clone() })
}

/// A frame that is predicted.
struct Predicted {
    /// In the flattened batch.
    place: usize,
    unit: i32,
    is_hidden: bool,
}

impl MaskedPrediction {
    fn predicted(&self, batch: &Batch) -> Vec<Predicted> {
        let sound = sound(batch);
        let at = |place: usize| {
            let is_hidden = sound.is_hidden.get(place).copied().unwrap_or(false);
            Predicted { place, unit: sound.units[place], is_hidden }
        };
        let counts = |frame: &Predicted| frame.unit >= 0 && (frame.is_hidden || self.config.unmasked_weight > 0.0);
        (0..sound.units.len()).map(at).filter(counts).collect()
    }
}

impl Objective for MaskedPrediction {
    fn prepare(&self, batch: &mut Batch, seed: u64, step: u64) {
        let mut masks = streams(batch, "span mask", seed, step);
        let Some(sound) = &mut batch.sound else { return };
        sound.is_hidden = self.config.mask.draw(&sound.frames, sound.num_frames, &mut masks);
    }

    fn wanted(&self, batch: &Batch) -> Wanted {
        Wanted::Tokens(self.predicted(batch).iter().map(|frame| frame.place as i32).collect())
    }

    fn loss(&self, batch: &Batch, output: Output) -> Loss {
        let frames = self.predicted(batch);
        let unmasked = self.config.unmasked_weight as f32;
        let weights: Arc<[f32]> = frames.iter().map(|frame| if frame.is_hidden { 1.0 } else { unmasked }).collect();
        let count = weights.iter().map(|weight| f64::from(*weight)).sum();
        let hidden = frames.iter().filter(|frame| frame.is_hidden).count() as f64;
        let how = CrossEntropy {
            weights: (unmasked > 0.0).then_some(weights),
            ..CrossEntropy::new(frames.iter().map(|frame| frame.unit).collect())
        };
        let heard = sound(batch).frames.iter().sum::<usize>() as f64;
        Loss::new(output.cross_entropy(&how), count).term("masked_share", hidden, heard)
    }

    /// Scores of the hidden frames.
    fn scores(&self, batch: &Batch, output: Output) -> Vec<RowScore> {
        let frames = self.predicted(batch);
        let targets: Vec<i32> = frames.iter().map(|frame| frame.unit).collect();
        let num_frames = sound(batch).num_frames;
        let mut rows = vec![RowScore::default(); batch.num_rows];
        for (frame, score) in frames.iter().zip(output.scores(&targets)).filter(|(frame, _)| frame.is_hidden) {
            let row = &mut rows[frame.place / num_frames];
            row.loss_sum += f64::from(score.loss);
            row.count += 1.0;
            row.correct += u64::from(score.best == Some(frame.unit as u32));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{heard, output};
    use arcuate_data::transform::span_mask::Fairseq;
    use arcuate_ops::gradcheck::{distance, random, values};
    use burn::tensor::{Device, Tensor};

    fn objective(unmasked_weight: f64) -> MaskedPrediction {
        let mask = SpanMask::Fairseq(Fairseq { mask_share: 0.6, span_length: 3, min_spans: 1, equal_counts: false });
        build(&Config { mask, unmasked_weight }, &Vocabulary::default()).expect("sound")
    }

    /// Rows of 12 and 7 frames with units 0 to 3, but for a frame of each that has none.
    fn prepared(objective: &MaskedPrediction) -> Batch {
        let mut batch = heard(&[12, 7]);
        objective.prepare(&mut batch, 1, 2);
        if let Some(sound) = &mut batch.sound {
            let unit =
                |place: usize| if place % 12 < [12, 7][place / 12] && place % 5 != 1 { (place % 4) as i32 } else { -1 };
            sound.units = (0..24).map(unit).collect();
        }
        batch
    }

    fn places(objective: &MaskedPrediction, batch: &Batch) -> Vec<i32> {
        let Wanted::Tokens(places) = objective.wanted(batch) else { panic!("frames") };
        places.to_vec()
    }

    #[test]
    fn hidden_frames_with_a_unit_are_predicted() {
        let objective = objective(0.0);
        let batch = prepared(&objective);
        let sound = sound(&batch);
        let expected: Vec<i32> = sound.hidden_places().filter(|place| sound.units[*place as usize] >= 0).collect();
        assert_eq!(places(&objective, &batch), expected);
        let n = expected.len();
        let even = objective.loss(&batch, output(random([n, 4], 1) * 0.0));
        assert!((values(even.sum)[0] - n as f32 * 4f32.ln()).abs() < 1e-4 && even.count == n as f64);
    }

    #[test]
    fn agrees_with_plain_loop_with_frames_that_are_seen() {
        let objective = objective(0.25);
        let batch = prepared(&objective);
        let places = places(&objective, &batch);
        let sound = sound(&batch);
        assert_eq!(places.len(), sound.units.iter().filter(|unit| **unit >= 0).count());
        let logits = random([places.len(), 4], 1);
        let loss = objective.loss(&batch, output(logits.clone()));
        let (mut sum, mut count) = (0.0, 0.0);
        for (logits, place) in values(logits.clone()).chunks(4).zip(&places) {
            let all: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            let weight = if sound.is_hidden[*place as usize] { 1.0 } else { 0.25 };
            sum += weight * (all.ln() - f64::from(logits[sound.units[*place as usize] as usize]));
            count += weight;
        }
        assert!((f64::from(values(loss.sum)[0]) - sum).abs() < 1e-4 && (loss.count - count).abs() < 1e-9);
        // An evaluation looks at hidden frames only.
        let hidden = places.iter().filter(|place| sound.is_hidden[**place as usize]).count() as f64;
        let rows = objective.scores(&batch, output(logits));
        assert_eq!(rows.iter().map(|row| row.count).sum::<f64>(), hidden);
    }

    #[test]
    fn the_gradient_is_a_finite_difference() {
        let objective = objective(0.5);
        let batch = prepared(&objective);
        let logits = random([places(&objective, &batch).len(), 4], 2);
        let x = Tensor::<2>::from_data(logits.to_data(), &Device::flex().autodiff()).require_grad();
        let gradients = objective.loss(&batch, output(x.clone())).sum.backward();
        let gradient = values(x.grad(&gradients).expect("tracked"));
        let slope = |i: usize| {
            let at = |by: f32| {
                let mut numbers = values(logits.clone());
                numbers[i] += by;
                let moved = burn::tensor::TensorData::new(numbers, logits.dims());
                let moved = Tensor::<2>::from_data(moved, &Device::flex());
                values(objective.loss(&batch, output(moved)).sum)[0]
            };
            (at(1e-2) - at(-1e-2)) / 2e-2
        };
        let slopes: Vec<f32> = (0..gradient.len()).map(slope).collect();
        assert!(distance(&gradient, &slopes) < 1e-2);
    }

    #[test]
    fn rows_add_up_and_a_batch_without_units_costs_nothing() {
        let objective = objective(0.0);
        let batch = prepared(&objective);
        let logits = random([places(&objective, &batch).len(), 4], 3);
        let loss = objective.loss(&batch, output(logits.clone()));
        let rows = objective.scores(&batch, output(logits));
        let sum: f64 = rows.iter().map(|row| row.loss_sum).sum();
        assert!((sum - f64::from(values(loss.sum)[0])).abs() < 1e-4);
        assert_eq!(rows.iter().map(|row| row.count).sum::<f64>(), loss.count);
        let none = heard(&[5]);
        let loss = objective.loss(&none, output(Tensor::zeros([0, 4], &Device::flex())));
        assert_eq!((values(loss.sum)[0], loss.count), (0.0, 0.0));
    }
}
