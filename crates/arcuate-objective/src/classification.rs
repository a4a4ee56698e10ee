//! Classification: one label for a whole row.
//!
//! # What it computes
//! `sum = sum((1-s) (-ln p(label)) + s mean(-ln p))` over the rows that have a label, `count` = how many.
//! # Recipe
//! `[objective.classification]` with optional `label_smoothing`; the sources need `label_column`
//! # Reference
//! Devlin et al. 2019

use std::sync::Arc;

use arcuate_data::Batch;
use arcuate_model::{Output, Wanted};
use arcuate_ops::linear_cross_entropy::CrossEntropy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Loss, Objective, Result, RowScore, Vocabulary};

/// `[objective.classification]`; the labels come from `label_column` of the sources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Probability mass spread evenly over the labels. 0 is off.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub label_smoothing: f64,
}

pub(crate) struct Classification {
    config: Config,
}

pub(crate) fn build(config: &Config, _: &Vocabulary) -> Result<Classification> {
    Ok(Classification { config: config.clone() })
}

impl Objective for Classification {
    fn prepare(&self, _: &mut Batch, _: u64, _: u64) {}

    fn wanted(&self, _: &Batch) -> Wanted {
        Wanted::Rows
    }

    fn loss(&self, batch: &Batch, output: Output) -> Loss {
        let targets: Arc<[i32]> = batch.labels.as_slice().into();
        let how = CrossEntropy { label_smoothing: self.config.label_smoothing as f32, ..CrossEntropy::new(targets) };
        row_loss(batch, output, how)
    }

    fn scores(&self, batch: &Batch, output: Output) -> Vec<RowScore> {
        row_scores(batch, output)
    }
}

/// Cross-entropy over the rows that have a label.
pub(crate) fn row_loss(batch: &Batch, output: Output, how: CrossEntropy) -> Loss {
    let count = batch.labels.iter().filter(|label| **label >= 0).count() as f64;
    Loss::new(output.cross_entropy(&how), count)
}

/// Scores of the rows that have a label.
pub(crate) fn row_scores(batch: &Batch, output: Output) -> Vec<RowScore> {
    let scores = output.scores(&batch.labels);
    scores
        .iter()
        .zip(&batch.labels)
        .map(|(score, label)| RowScore {
            loss_sum: f64::from(score.loss),
            count: if *label >= 0 { 1.0 } else { 0.0 },
            correct: u64::from(*label >= 0 && score.best == Some(*label as u32)),
            predicted: score.best,
            ..RowScore::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{batch, output};
    use arcuate_ops::gradcheck::{random, values};

    #[test]
    fn rows_without_a_label_do_not_count() {
        let o = Classification { config: Config { label_smoothing: 0.0 } };
        let mut b = batch(&[&[1], &[2], &[3]]);
        b.labels = vec![0, -100, 2];
        let out = output(random([3, 3], 1));
        let loss = o.loss(&b, out.clone());
        let rows = o.scores(&b, out);
        assert_eq!(loss.count, 2.0);
        assert_eq!(rows.iter().map(|r| r.count).sum::<f64>(), 2.0);
        let sum: f64 = rows.iter().map(|r| r.loss_sum).sum();
        assert!((sum - f64::from(values(loss.sum)[0])).abs() < 1e-5);
    }

    #[test]
    fn even_logits_cost_log_of_the_classes() {
        let o = Classification { config: Config { label_smoothing: 0.3 } };
        let mut b = batch(&[&[1]]);
        b.labels = vec![1];
        assert!((values(o.loss(&b, output(random([1, 5], 1) * 0.0)).sum)[0] - 5f32.ln()).abs() < 1e-6);
    }
}
