//! Prompt: classification by the word that a language model finds most probable in the open place of a sentence.
//!
//! # What it computes
//! With `z_c` the logit of class c's word at the open place of a row: `sum = sum(-ln softmax(z)(label))` over the rows that
//! have a label, where only the words of the classes compete; `count` = how many. The open place holds the mask token; for a
//! causal model it is what follows the last token. With `regression`, labels are numbers and `u` the share of each of two classes:
//! `sum = sum(KL(u || softmax(z)))`.
//! # Recipe
//! `[objective.prompt]` with `template` and `words`; the sources need `label_column`
//! # Reference
//! Schick and Schuetze 2021; Gao et al. 2021; Shi and Lipani 2023

use std::sync::Arc;

use arcuate_data::Batch;
use arcuate_model::{Output, Wanted};
use arcuate_ops::gradcheck::values;
use arcuate_ops::linear_cross_entropy::{CrossEntropy, Targets};

use crate::classification::{row_loss, row_scores};
use crate::distillation::softmax;
use crate::{Error, Loss, Objective, Result, RowScore, Vocabulary, largest};

use arcuate_data::Regression;

pub use arcuate_data::Prompt as Config;

pub(crate) struct Prompt {
    /// The token in the open place; none for causal models.
    mask: Option<u32>,
    words: Vec<u32>,
    regression: Option<Regression>,
}

pub(crate) fn build(config: &Config, vocabulary: &Vocabulary) -> Result<Prompt> {
    if let Some((problem, help)) = config.problems().into_iter().next() {
        return Err(Error(format!("{problem}; {help}")));
    }
    let mask = if vocabulary.is_causal {
        if !config.ends_open() {
            let message = format!(
                "`{}` goes on after `{{mask}}`, which a causal model cannot see; put `{{mask}}` last",
                config.template
            );
            return Err(Error(message));
        }
        None
    } else {
        let missing = || {
            Error("the tokenizer has no mask token, which `[objective.prompt]` needs for this model; use `[tokenizer.wordpiece]`".to_owned())
        };
        Some(vocabulary.mask.ok_or_else(missing)?)
    };
    Ok(Prompt { mask, words: vocabulary.words.clone(), regression: config.regression })
}

impl Objective for Prompt {
    fn prepare(&self, _: &mut Batch, _: u64, _: u64) {}

    fn wanted(&self, batch: &Batch) -> Wanted {
        Wanted::Tokens(open_places(batch, self.mask))
    }

    fn loss(&self, batch: &Batch, output: Output) -> Loss {
        let output = output.only(&self.words);
        let Some(regression) = self.regression else {
            return row_loss(batch, output, CrossEntropy::new(batch.labels.as_slice().into()));
        };
        // Both losses are a weighted cross-entropy less what does not depend on the network.
        let shares = shares(batch);
        let (weights, constant): (Vec<f32>, f64) = match regression {
            Regression::Kl => (
                shares.iter().map(|u| *u as f32).collect(),
                shares.iter().filter(|u| **u > 0.0).map(|u| u * u.ln()).sum(),
            ),
            Regression::Published => (
                shares.iter().map(|u| (u.exp() / 2.0) as f32).collect(),
                shares.iter().map(|u| u * u.exp() / 2.0).sum(),
            ),
        };
        let targets = Targets::Soft { classes: [0, 1].repeat(batch.num_rows).into(), probabilities: weights.into() };
        let how = CrossEntropy { targets, ..CrossEntropy::new(Vec::<i32>::new().into()) };
        Loss::new(output.cross_entropy(&how) + constant, batch.num_rows as f64)
    }

    fn scores(&self, batch: &Batch, output: Output) -> Vec<RowScore> {
        let output = output.only(&self.words);
        if self.regression.is_none() {
            return row_scores(batch, output);
        }
        let logits = values(output.logits());
        let row = |((shares, logits), label): ((&[f64], &[f32]), &i32)| {
            let probabilities = softmax(logits, 1.0);
            let divergence = |(u, p): (&f64, &f64)| if *u > 0.0 { u * (u.ln() - p.ln()) } else { 0.0 };
            let predicted = largest(logits) as u32;
            RowScore {
                loss_sum: shares.iter().zip(&probabilities).map(divergence).sum(),
                count: 1.0,
                correct: u64::from(*label == predicted as i32),
                predicted: Some(predicted),
                ..RowScore::default()
            }
        };
        shares(batch).chunks(2).zip(logits.chunks(2)).zip(&batch.labels).map(row).collect()
    }
}

/// The share of each of two classes in the number of each row. `[B x 2]`
fn shares(batch: &Batch) -> Vec<f64> {
    batch.logits.iter().flatten().map(|logit| f64::from(*logit).exp()).collect()
}

/// The open place of each row in the flattened batch: where the mask token stands, or the last token.
pub fn open_places(batch: &Batch, mask: Option<u32>) -> Arc<[i32]> {
    let place = |row: usize| {
        let places = row * batch.seq_len..(row + 1) * batch.seq_len;
        let found = match mask {
            Some(mask) => places.clone().find(|place| batch.input_ids[*place] == mask as i32),
            None => places.clone().rev().find(|place| !batch.is_padding[*place]),
        };
        // A row without an open place cannot come from a template; its first token keeps the shapes right.
        found.unwrap_or(places.start) as i32
    };
    (0..batch.num_rows).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{batch, output};
    use arcuate_ops::gradcheck::{random, values};
    use burn::tensor::{Device, Tensor, TensorData};

    fn config(template: &str) -> Config {
        let words = [("0", "terrible"), ("1", "great")];
        Config {
            template: template.to_owned(),
            words: words.iter().map(|(class, word)| ((*class).to_owned(), (*word).to_owned())).collect(),
            soft: false,
            regression: None,
        }
    }

    fn vocabulary(is_causal: bool) -> Vocabulary {
        Vocabulary { size: 8, mask: Some(4), words: vec![1, 3], is_causal, ..Vocabulary::default() }
    }

    /// One row whose logits over a vocabulary of 8 are 1 for `terrible`, 3 for `great` and 5 for a word of no class.
    fn loss(label: i32) -> f32 {
        let objective = build(&config("{text} {mask}"), &vocabulary(false)).expect("sound");
        let mut b = batch(&[&[7, 4]]);
        b.labels = vec![label];
        let logits =
            Tensor::from_data(TensorData::new(vec![0.0, 1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 0.0], [1, 8]), &Device::flex());
        values(objective.loss(&b, output(logits)).sum)[0]
    }

    #[test]
    fn only_the_words_of_the_classes_compete() {
        assert!((loss(1) - 0.126_928).abs() < 1e-5);
        assert!((loss(0) - 2.126_928).abs() < 1e-5);
        assert_eq!(loss(-100), 0.0);
    }

    #[test]
    fn the_open_place_is_the_mask_or_the_end() {
        let b = batch(&[&[7, 4, 2], &[4, 7]]);
        assert_eq!(open_places(&b, Some(4)).to_vec(), [1, 3]);
        assert_eq!(open_places(&b, None).to_vec(), [2, 4]);
    }

    /// A label of 3 out of 0 to 5, and the logits of the words of both ends.
    fn number(regression: Regression, label: f64, logits: Tensor<2>) -> (Loss, Vec<RowScore>) {
        let words = [("0", "No"), ("5", "Yes")];
        let words = words.iter().map(|(class, word)| ((*class).to_owned(), (*word).to_owned())).collect();
        let config = Config { words, regression: Some(regression), ..config("{text} {mask} , {second}") };
        let objective = build(&config, &vocabulary(false)).expect("sound");
        let mut b = batch(&[&[7, 4]]);
        b.labels = vec![i32::from(label >= 2.5)];
        let shares = config.shares(&label.to_string()).expect("a number between");
        b.logits = Some(shares.iter().map(|share| share.ln() as f32).collect());
        (objective.loss(&b, output(logits.clone())), objective.scores(&b, output(logits)))
    }

    fn pair(device: &Device, no: f32, yes: f32) -> Tensor<2> {
        Tensor::from_data(TensorData::new(vec![0.0, no, 0.0, yes, 0.0, 5.0, 0.0, 0.0], [1, 8]), device)
    }

    #[test]
    fn numbers_cost_what_the_paper_card_says() {
        let loss = |regression, label| {
            let (loss, scores) = number(regression, label, pair(&Device::flex(), 0.2, 0.8));
            assert_eq!((loss.count, scores[0].predicted), (1.0, Some(1)));
            (f64::from(values(loss.sum)[0]), scores[0].loss_sum)
        };
        let (sum, score) = loss(Regression::Kl, 3.0);
        assert!((sum - 0.004_476).abs() < 1e-6 && (score - 0.004_476).abs() < 1e-6, "{sum} {score}");
        assert!((loss(Regression::Published, 3.0).0 - 2.017_453).abs() < 2e-6);
        // At an end the other class has no share: only -ln p is left.
        assert!((loss(Regression::Kl, 5.0).0 - 0.437_488).abs() < 1e-6);
        assert!((loss(Regression::Kl, 0.0).1 - 1.037_488).abs() < 1e-6);
    }

    #[test]
    fn the_gradients_of_numbers_are_finite_differences() {
        for regression in [Regression::Kl, Regression::Published] {
            let logits = pair(&Device::flex().autodiff(), 0.2, 0.8).require_grad();
            let gradients = number(regression, 3.0, logits.clone()).0.sum.backward();
            let gradient = values(logits.grad(&gradients).expect("tracked"));
            let at = |yes: f32| f64::from(values(number(regression, 3.0, pair(&Device::flex(), 0.2, yes)).0.sum)[0]);
            let slope = (at(0.9) - at(0.7)) / 0.2;
            assert!((f64::from(gradient[3]) - slope).abs() < 1e-3, "{} {slope}", gradient[3]);
            assert_eq!((gradient[0], gradient[5]), (0.0, 0.0));
        }
    }

    #[test]
    fn rows_add_up() {
        let objective = build(&config("{text} {mask}"), &vocabulary(true)).expect("sound");
        let mut b = batch(&[&[7, 5], &[5, 7]]);
        b.labels = vec![1, 0];
        let logits = random([2, 8], 3);
        let both = values(objective.loss(&b, output(logits.clone())).sum)[0];
        let scores = objective.scores(&b, output(logits));
        assert!((scores.iter().map(|score| score.loss_sum).sum::<f64>() - f64::from(both)).abs() < 1e-5);
    }

    #[test]
    fn what_the_model_or_tokenizer_cannot_serve_is_refused() {
        let refused = |template: &str, vocabulary: Vocabulary| match build(&config(template), &vocabulary) {
            Err(error) => error.to_string(),
            Ok(_) => "none".to_owned(),
        };
        assert!(refused("{text} {mask} .", vocabulary(true)).contains("put `{mask}` last"));
        assert!(refused("{text} {mask} .", Vocabulary { mask: None, ..vocabulary(false) }).contains("no mask token"));
        assert!(refused("{text}", vocabulary(false)).contains("0 open places"));
    }
}
