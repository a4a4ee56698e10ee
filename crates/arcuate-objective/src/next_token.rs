//! Next token: cross-entropy of a causal model.
//!
//! # What it computes
//! `sum = sum w ((1-s) (-ln p(y)) + s mean(-ln p) + z ln(Z)^2)` over the predicted tokens, `count` = sum of the weights `w`.
//! # Recipe
//! `[objective.next_token]` with optional `z_loss` and `label_smoothing`
//! # Reference
//! Szegedy et al. 2016 (label smoothing); Chowdhery et al. 2022 (z-loss)

use arcuate_data::Batch;
use arcuate_model::{Output, Wanted};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Loss, Objective, Result, RowScore, Vocabulary, predicted, token_loss, token_scores};

/// `[objective.next_token]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Weight of `log(Z)^2`, which keeps the normaliser near 1. 0 is off.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub z_loss: f64,
    /// Probability mass spread evenly over the vocabulary. 0 is off.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub label_smoothing: f64,
}

pub(crate) struct NextToken {
    config: Config,
}

pub(crate) fn build(config: &Config, _: &Vocabulary) -> Result<NextToken> {
    Ok(NextToken { config: config.clone() })
}

impl Objective for NextToken {
    fn prepare(&self, _: &mut Batch, _: u64, _: u64) {}

    fn wanted(&self, batch: &Batch) -> Wanted {
        Wanted::Tokens(predicted(batch).0)
    }

    fn loss(&self, batch: &Batch, output: Output) -> Loss {
        token_loss(batch, output, self.config.z_loss, self.config.label_smoothing)
    }

    fn scores(&self, batch: &Batch, output: Output) -> Vec<RowScore> {
        token_scores(batch, output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{batch, output};
    use arcuate_ops::gradcheck::{random, values};

    fn objective(z_loss: f64, label_smoothing: f64) -> NextToken {
        NextToken { config: Config { z_loss, label_smoothing } }
    }

    fn plain(logits: &[f32], v: usize, targets: &[i32], weights: &[f64], z: f64, s: f64) -> f64 {
        let mut sum = 0.0;
        for ((row, y), w) in logits.chunks(v).zip(targets).zip(weights) {
            let lse = row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            let right = lse - f64::from(row[*y as usize]);
            let even = row.iter().map(|x| lse - f64::from(*x)).sum::<f64>() / v as f64;
            sum += w * ((1.0 - s) * right + s * even + z * lse * lse);
        }
        sum
    }

    #[test]
    fn agrees_with_plain_loop() {
        let mut b = batch(&[&[1, 2, 3], &[4, 5, 6]]);
        b.targets = vec![2, 3, -100, 5, 6, 0];
        b.weights = Some(vec![1.0, 0.5, 1.0, 2.0, 1.0, 0.25]);
        let logits = random([5, 7], 1);
        for (z, s) in [(0.0, 0.0), (0.01, 0.1)] {
            let loss = objective(z, s).loss(&b, output(logits.clone()));
            let wanted = plain(&values(logits.clone()), 7, &[2, 3, 5, 6, 0], &[1.0, 0.5, 2.0, 1.0, 0.25], z, s);
            assert!((f64::from(values(loss.sum)[0]) - wanted).abs() < 1e-4);
            assert!((loss.count - 4.75).abs() < 1e-6);
        }
    }

    #[test]
    fn only_predicted_places_are_wanted() {
        let mut b = batch(&[&[1, 2, 3]]);
        b.targets = vec![2, -100, 4];
        let Wanted::Tokens(places) = objective(0.0, 0.0).wanted(&b) else { panic!("tokens are wanted") };
        assert_eq!(&*places, &[0, 2]);
    }

    #[test]
    fn two_halves_add_up() {
        let logits = random([4, 7], 1);
        let mut whole = batch(&[&[1, 2], &[3, 4]]);
        whole.targets = vec![2, 3, 4, 5];
        let half = |row: usize| {
            let mut b = batch(&[&[1, 2]]);
            b.targets = whole.targets[row * 2..row * 2 + 2].to_vec();
            values(objective(0.0, 0.0).loss(&b, output(logits.clone().narrow(0, row * 2, 2))).sum)[0]
        };
        let sum = values(objective(0.0, 0.0).loss(&whole, output(logits.clone())).sum)[0];
        assert!((half(0) + half(1) - sum).abs() < 1e-5);
    }

    #[test]
    fn scores_leave_out_smoothing() {
        let mut b = batch(&[&[1, 2], &[3, 4]]);
        b.targets = vec![2, -100, 4, 5];
        let logits = random([3, 7], 1);
        let rows = objective(0.5, 0.5).scores(&b, output(logits.clone()));
        let wanted = plain(&values(logits), 7, &[2, 4, 5], &[1.0; 3], 0.0, 0.0);
        assert_eq!((rows[0].count, rows[1].count), (1.0, 2.0));
        assert!((rows[0].loss_sum + rows[1].loss_sum - wanted).abs() < 1e-5);
    }
}
