//! Regression: numbers predicted by a prompt, their correlation with the right ones, with bootstrap intervals.
//!
//! # What it computes
//! The prediction is `sum(p_c number_c)` over the two classes of the prompt. `pearson` and `spearman` are those of SciPy, equal
//! numbers sharing the mean of their ranks; both are 0 where all labels or all predictions are the same.

use std::ops::ControlFlow;
use std::path::Path;

use arcuate_data::Document;
use arcuate_record::statistics::{Bootstrap, Interval};
use serde::{Deserialize, Serialize};

use crate::classification::{each_document, labelled_documents};
use crate::{Done, Error, EvalModel, Result};

/// One document whose number was predicted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// The right number.
    pub label: f64,
    /// The predicted number.
    pub predicted: f64,
}

/// Scores of predicted numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegressionResult {
    /// Documents.
    pub num_documents: u64,
    /// Pearson correlation.
    pub pearson: f64,
    /// Its bootstrap interval.
    pub pearson_interval: Interval,
    /// Spearman correlation: that of the ranks.
    pub spearman: f64,
    /// Its bootstrap interval.
    pub spearman_interval: Interval,
    /// Root of the mean squared error, in units of the labels.
    pub rmse: f64,
}

fn pearson(pairs: &[(f64, f64)]) -> f64 {
    let num = pairs.len() as f64;
    let (sum_x, sum_y) = pairs.iter().fold((0.0, 0.0), |(x, y), pair| (x + pair.0, y + pair.1));
    let (mean_x, mean_y) = (sum_x / num, sum_y / num);
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        let (x, y) = (x - mean_x, y - mean_y);
        (xx, yy, xy) = (xx + x * x, yy + y * y, xy + x * y);
    }
    let scale = (xx * yy).sqrt();
    if scale > 0.0 { (xy / scale).clamp(-1.0, 1.0) } else { 0.0 }
}

/// Ranks from 1; equal numbers share the mean of theirs.
fn ranks(numbers: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|a, b| numbers[*a].total_cmp(&numbers[*b]));
    let mut ranks = vec![0.0; numbers.len()];
    for same in order.chunk_by(|a, b| numbers[*a] == numbers[*b]) {
        // Those before this stretch are the ones less than it.
        let before = order.partition_point(|i| numbers[*i] < numbers[same[0]]);
        for i in same {
            ranks[*i] = before as f64 + (same.len() + 1) as f64 / 2.0;
        }
    }
    ranks
}

fn spearman(pairs: &[(f64, f64)]) -> f64 {
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    pearson(&ranks(&x).into_iter().zip(ranks(&y)).collect::<Vec<_>>())
}

impl RegressionResult {
    /// Scores of predictions; an error without any.
    pub fn new(items: &[Predicted], bootstrap: &Bootstrap) -> Result<Self> {
        let empty = || Error::Empty { what: "the data".to_owned(), remedy: "give documents with labels" };
        let pairs = |indices: &[usize]| -> Vec<(f64, f64)> {
            indices.iter().map(|i| (items[*i].label, items[*i].predicted)).collect()
        };
        let num = items.len();
        let all = pairs(&(0..num).collect::<Vec<_>>());
        let squares: f64 = all.iter().map(|(x, y)| (x - y) * (x - y)).sum();
        Ok(Self {
            num_documents: num as u64,
            pearson_interval: bootstrap.interval(num, |indices| pearson(&pairs(indices))).ok_or_else(empty)?,
            pearson: pearson(&all),
            spearman_interval: bootstrap.interval(num, |indices| spearman(&pairs(indices))).ok_or_else(empty)?,
            spearman: spearman(&all),
            rmse: (squares / num as f64).sqrt(),
        })
    }
}

/// Predicts the numbers of documents, in microbatches; the model must have been trained with a prompt that has `regression`.
pub fn predict_numbers(
    model: &EvalModel<'_>,
    documents: impl Iterator<Item = arcuate_data::Result<Document>>,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> Result<Vec<Predicted>> {
    let Some((prompt, ends)) = model.prompt.and_then(|prompt| Some((prompt, prompt.ends()?))) else {
        let message = "this model predicts no numbers; use a checkpoint that was trained with `[objective.prompt]` and `regression`";
        return Err(Error::Unsupported(message.to_owned()));
    };
    let mut items = Vec::new();
    each_document(model, documents, progress, &mut |document, logits| {
        let label = document.label.unwrap_or_default();
        let Some([first, second]) = prompt.shares(&label) else {
            return Err(Error::UnknownLabel { place: document.place, label, known: prompt.classes() });
        };
        let share = 1.0 / (1.0 + (f64::from(logits[0]) - f64::from(logits[1])).exp());
        items.push(Predicted {
            label: first * ends[0] + second * ends[1],
            predicted: ends[0] + share * (ends[1] - ends[0]),
        });
        Ok(())
    })?;
    Ok(items)
}

/// Predicts the numbers of a file with the columns `text` and `label`.
pub fn predict_numbers_of_file(
    model: &EvalModel<'_>,
    path: &Path,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> Result<RegressionResult> {
    let items = predict_numbers(model, labelled_documents(path)?, progress)?;
    RegressionResult::new(&items, &Bootstrap { seed: model.seed, ..Bootstrap::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(labels: &[f64], predictions: &[f64]) -> RegressionResult {
        let pair = |(label, predicted): (&f64, &f64)| Predicted { label: *label, predicted: *predicted };
        let items: Vec<Predicted> = labels.iter().zip(predictions).map(pair).collect();
        RegressionResult::new(&items, &Bootstrap::default()).expect("there are some")
    }

    #[test]
    fn correlations_are_those_of_scipy() {
        let result = result(&[0.0, 1.5, 3.0, 3.0, 5.0, 4.2], &[0.3, 1.0, 3.5, 2.0, 4.0, 4.5]);
        // scipy.stats.pearsonr and spearmanr of these numbers.
        assert!((result.pearson - 0.925_667_115_473_211_5).abs() < 1e-12, "{}", result.pearson);
        assert!((result.spearman - 0.927_633_657_043_917_4).abs() < 1e-12, "{}", result.spearman);
        let by_hand: f64 = [0.3f64, 0.5, 0.5, 1.0, 1.0, 0.3].iter().map(|e| e * e).sum();
        assert!((result.rmse - (by_hand / 6.0).sqrt()).abs() < 1e-12);
        assert!(result.pearson_interval.low < result.pearson && result.pearson <= result.pearson_interval.high);
    }

    #[test]
    fn what_says_nothing_correlates_with_nothing() {
        let constant = result(&[0.0, 1.0, 2.0], &[2.5, 2.5, 2.5]);
        assert_eq!((constant.pearson, constant.spearman), (0.0, 0.0));
        let reversed = result(&[0.0, 1.0, 2.0], &[9.0, 1.0, 0.5]);
        assert_eq!(reversed.spearman, -1.0);
        assert!(RegressionResult::new(&[], &Bootstrap::default()).is_err());
    }

    #[test]
    fn equal_numbers_share_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
    }
}
