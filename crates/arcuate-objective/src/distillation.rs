//! Distillation: a classifier learns what another one said of each row.
//!
//! # What it computes
//! With the stored logits `z_T` of a row, `p_T = softmax(z_T / temperature)` and `p` the network's probabilities at the same
//! temperature: `sum = sum(KL(p_T || p))`, or with `target = "label"` `sum = sum(-ln p(argmax z_T))`; `count` = rows. With
//! `masked_lm` the rows are masked for it, and its mean over the hidden tokens of the batch is added to the mean over rows.
//! # Recipe
//! `[objective.distillation]` with `target`, optional `temperature` and `[objective.distillation.masked_lm]`; the sources need
//! `logits_column`
//! # Reference
//! Hinton et al. 2015; as a stage of pretraining: Guo 2020
// B rows, C classes

use std::sync::Arc;

use arcuate_data::Batch;
use arcuate_model::{Output, Wanted};
use arcuate_ops::linear_cross_entropy::{CrossEntropy, Targets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::masked_lm::{self, MaskedLm};
use crate::{Loss, Objective, Result, RowScore, Vocabulary, largest, predicted};

/// `[objective.distillation]`; what another model said comes from `logits_column` of the sources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is learned: all probabilities, or only the most probable class.
    pub target: Target,
    /// Divides the logits of both: above 1 small probabilities count more.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,
    /// Hide tokens as `[objective.masked_lm]` does, and predict them too; left out: rows are read as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked_lm: Option<masked_lm::Config>,
}

fn one() -> f64 {
    1.0
}

/// What is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The probabilities of all classes.
    Logits,
    /// The most probable class.
    Label,
}

pub(crate) struct Distillation {
    config: Config,
    masked_lm: Option<MaskedLm>,
}

pub(crate) fn build(config: &Config, vocabulary: &Vocabulary) -> Result<Distillation> {
    let masked_lm = config.masked_lm.as_ref().map(|masked| masked_lm::build(masked, vocabulary)).transpose()?;
    Ok(Distillation { config: config.clone(), masked_lm })
}

/// Softmax of one row, in double precision.
pub(crate) fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|x| (f64::from(x - top) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

impl Distillation {
    /// What the other model said, row by row; nothing where a row has no logits.
    fn rows<'a>(&self, batch: &'a Batch) -> impl Iterator<Item = &'a [f32]> {
        let logits = batch.logits.as_deref().unwrap_or_default();
        logits.chunks((logits.len() / batch.num_rows.max(1)).max(1))
    }
}

impl Objective for Distillation {
    fn prepare(&self, batch: &mut Batch, seed: u64, step: u64) {
        if let Some(masked_lm) = &self.masked_lm {
            masked_lm.prepare(batch, seed, step);
        }
    }

    fn wanted(&self, batch: &Batch) -> Wanted {
        match self.masked_lm {
            Some(_) => Wanted::RowsAndTokens(predicted(batch).0),
            None => Wanted::Rows,
        }
    }

    fn loss(&self, batch: &Batch, mut output: Output) -> Loss {
        let tokens = output.take_tokens();
        let temperature = self.config.temperature;
        let (targets, entropy) = match self.config.target {
            Target::Label => {
                let labels: Arc<[i32]> = self.rows(batch).map(|row| largest(row) as i32).collect();
                (Targets::Classes(labels), 0.0)
            }
            Target::Logits => {
                let teacher: Vec<f64> = self.rows(batch).flat_map(|row| softmax(row, temperature)).collect();
                // KL is the cross-entropy less the teacher's own entropy.
                let entropy = -teacher.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>();
                let num_classes = teacher.len() / batch.num_rows.max(1);
                let classes: Arc<[i32]> =
                    (0..batch.num_rows).flat_map(|_| (0..num_classes).map(|class| class as i32)).collect();
                let probabilities: Arc<[f32]> = teacher.iter().map(|p| *p as f32).collect();
                (Targets::Soft { classes, probabilities }, entropy)
            }
        };
        let how =
            CrossEntropy { targets, temperature: temperature as f32, ..CrossEntropy::new(Vec::<i32>::new().into()) };
        let count = batch.num_rows as f64;
        let mut sum = output.cross_entropy(&how) - entropy;
        if let (Some(masked_lm), Some(tokens)) = (&self.masked_lm, tokens) {
            let hidden = masked_lm.loss(batch, tokens);
            sum = sum + hidden.sum * (count / hidden.count.max(1.0));
        }
        Loss::new(sum, count)
    }

    fn scores(&self, batch: &Batch, output: Output) -> Vec<RowScore> {
        // Against the class that the other model finds most probable.
        let labels: Vec<i32> = self.rows(batch).map(|row| largest(row) as i32).collect();
        let scores = output.scores(&labels);
        let row = |(score, label): (&arcuate_ops::linear_cross_entropy::Score, &i32)| RowScore {
            loss_sum: f64::from(score.loss),
            count: 1.0,
            correct: u64::from(score.best == Some(*label as u32)),
            predicted: score.best,
            ..RowScore::default()
        };
        scores.iter().zip(&labels).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{batch, output};
    use arcuate_ops::gradcheck::{self, values};
    use burn::tensor::{Device, Tensor, TensorData};

    fn objective(target: Target) -> Distillation {
        Distillation { config: Config { target, temperature: 1.0, masked_lm: None }, masked_lm: None }
    }

    /// One row for each pair of a teacher's and a student's logits.
    fn rows(teacher: &[[f32; 3]], student: &[[f32; 3]], device: &Device) -> (Batch, Tensor<2>) {
        let ids: Vec<&[i32]> = teacher.iter().map(|_| &[1][..]).collect();
        let mut batch = batch(&ids);
        batch.logits = Some(teacher.concat());
        (batch, Tensor::from_data(TensorData::new(student.concat(), [student.len(), 3]), device))
    }

    fn loss(target: Target, teacher: [f32; 3], student: [f32; 3]) -> f32 {
        let (batch, logits) = rows(&[teacher], &[student], &Device::flex());
        values(objective(target).loss(&batch, output(logits)).sum)[0]
    }

    #[test]
    fn values_and_gradients_are_those_of_the_paper_card() {
        let (teacher, student) = ([2.0, 0.0, -1.0], [1.0, 0.0, 0.0]);
        assert!((loss(Target::Logits, teacher, student) - 0.183_383).abs() < 1e-6);
        assert!((loss(Target::Label, teacher, student) - 0.551_445).abs() < 1e-6);
        let gradient = |target| {
            let (batch, logits) = rows(&[teacher], &[student], &Device::flex().autodiff());
            let logits = logits.require_grad();
            let grads = objective(target).loss(&batch, output(logits.clone())).sum.backward();
            values(logits.grad(&grads).expect("tracked"))
        };
        assert!(gradcheck::distance(&gradient(Target::Logits), &[-0.267_678, 0.097_746, 0.169_931]) < 1e-5);
        assert!(gradcheck::distance(&gradient(Target::Label), &[-0.423_883, 0.211_942, 0.211_942]) < 1e-5);
    }

    #[test]
    fn a_student_that_agrees_costs_nothing_whatever_is_added_to_the_logits() {
        assert!(loss(Target::Logits, [2.0, 0.5, -1.0], [5.0, 3.5, 2.0]).abs() < 1e-6);
    }

    #[test]
    fn a_sure_teacher_is_a_label() {
        let (teacher, student) = ([50.0, 0.0, 0.0], [0.3, -0.2, 0.9]);
        assert!((loss(Target::Logits, teacher, student) - loss(Target::Label, teacher, student)).abs() < 1e-6);
    }

    #[test]
    fn the_order_of_rows_changes_nothing() {
        let (teacher, student) = ([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0]], [[1.0, 0.0, 0.0], [0.5, 0.1, -2.0]]);
        let sum = |teacher: &[[f32; 3]], student: &[[f32; 3]]| {
            let (batch, logits) = rows(teacher, student, &Device::flex());
            values(objective(Target::Logits).loss(&batch, output(logits)).sum)[0]
        };
        let turned = sum(&[teacher[1], teacher[0]], &[student[1], student[0]]);
        assert!((sum(&teacher, &student) - turned).abs() < 1e-6);
        let alone: f32 = (0..2).map(|i| loss(Target::Logits, teacher[i], student[i])).sum();
        assert!((turned - alone).abs() < 1e-5);
    }

    #[test]
    fn hidden_tokens_are_predicted_beside_the_classes() {
        let masked = masked_lm::Config {
            mask_fraction: 0.5,
            replace_with_mask: 1.0,
            replace_with_random: 0.0,
            whole_word: false,
            independent: false,
            random_may_be_special: false,
        };
        let vocabulary = Vocabulary { size: 6, mask: Some(5), ..Vocabulary::default() };
        let config = Config { target: Target::Logits, temperature: 1.0, masked_lm: Some(masked) };
        let objective = build(&config, &vocabulary).expect("sound");
        let mut batch = batch(&[&[1, 2, 3, 4], &[4, 3, 2, 1]]);
        batch.logits = Some(vec![2.0, 0.0, -1.0, 2.0, 0.0, -1.0]);
        objective.prepare(&mut batch, 1, 1);
        assert_eq!(batch.input_ids.iter().filter(|id| **id == 5).count(), 4);
        let Wanted::RowsAndTokens(places) = objective.wanted(&batch) else { panic!("both") };
        assert!(places.iter().all(|place| batch.input_ids[*place as usize] == 5));
        let tensor =
            |data: Vec<f32>, shape: [usize; 2]| Tensor::from_data(TensorData::new(data, shape), &Device::flex());
        let classes = output(tensor([1.0, 0.0, 0.0].repeat(2), [2, 3]));
        // Even logits over 6 tokens cost ln 6 each.
        let both = classes.with_tokens(output(tensor(vec![0.0; 24], [4, 6])));
        let loss = objective.loss(&batch, both);
        assert!((values(loss.sum)[0] - 2.0 * (0.183_383 + 6f32.ln())).abs() < 1e-5);
        assert_eq!(loss.count, 2.0);
    }

    #[test]
    fn an_evaluation_counts_agreement_with_the_other_model() {
        let (batch, logits) =
            rows(&[[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]], &[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], &Device::flex());
        let scores = objective(Target::Logits).scores(&batch, output(logits));
        assert_eq!(scores.iter().map(|score| score.correct).collect::<Vec<_>>(), [1, 0]);
    }
}
