//! Loss over rows: per source and in total, whatever the batch size.
//!
//! # What it computes
//! Each row's losses are summed on their own, then rows are added in their order in f64: `loss = sum / tokens` in nats,
//! `perplexity = exp(loss)`, `bits_per_byte = sum / (ln 2 * bytes)`, `token_error_rate = errors / labels`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use arcuate_data::{Batch, Row, collate};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What one row of a batch gave.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RowResult {
    /// Sum of losses in nats.
    pub loss_sum: f64,
    /// Number of predictions.
    pub count: u64,
    /// Predictions whose most probable value was right.
    pub correct: u64,
    /// Insertions, deletions and substitutions, where a sequence of labels is read off.
    pub num_errors: u64,
    /// Labels of that sequence.
    pub num_labels: u64,
}

/// How rows are gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldOutOptions {
    /// Rows in one forward pass.
    pub microbatch: usize,
    /// The token that fills rows; never predicted, so any will do.
    pub pad_id: u32,
    /// Stop after the row that completes so many tokens; all rows when left out.
    pub max_tokens: Option<u64>,
    /// Every byte of the text is predicted, so that bits per byte mean something: causal models only.
    pub covers_text: bool,
}

/// Losses of one source, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Mean loss of a prediction in nats.
    pub loss: f64,
    /// `exp(loss)`
    pub perplexity: f64,
    /// Bits that the model needs for a byte of the text; none if the predictions do not cover the text.
    pub bits_per_byte: Option<f64>,
    /// Share of predictions whose most probable value was right.
    pub accuracy: f64,
    /// Insertions, deletions and substitutions as a share of the labels; none where no sequence of labels is read off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_error_rate: Option<f64>,
    /// Number of predictions.
    pub tokens: u64,
    /// Bytes of text that they stand for.
    pub bytes: u64,
}

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOutResult {
    /// All rows.
    pub total: Measured,
    /// By name of the source.
    pub sources: BTreeMap<String, Measured>,
    /// Number of rows.
    pub num_rows: u64,
    /// True when `max_tokens` left rows out.
    pub is_partial: bool,
}

/// How far an evaluation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Rows (or items) that are done.
    pub rows: u64,
    /// Tokens that are done.
    pub tokens: u64,
}

#[derive(Debug, Default)]
struct Sum {
    loss: f64,
    count: u64,
    correct: u64,
    bytes: u64,
    errors: u64,
    labels: u64,
}

impl Sum {
    fn add(&mut self, row: &RowResult, bytes: u64) {
        self.loss += row.loss_sum;
        self.count += row.count;
        self.correct += row.correct;
        self.bytes += bytes;
        self.errors += row.num_errors;
        self.labels += row.num_labels;
    }

    fn measured(&self, covers_text: bool) -> Measured {
        let count = self.count.max(1) as f64;
        let bits = self.loss / std::f64::consts::LN_2;
        Measured {
            loss: self.loss / count,
            perplexity: (self.loss / count).exp(),
            bits_per_byte: (covers_text && self.bytes > 0).then(|| bits / self.bytes as f64),
            accuracy: self.correct as f64 / count,
            token_error_rate: (self.labels > 0).then(|| self.errors as f64 / self.labels as f64),
            tokens: self.count,
            bytes: self.bytes,
        }
    }
}

/// Measures `rows` in microbatches with `measure`, which gives one result per row of a batch.
///
/// `source_names` are by index, as in [`arcuate_data::Corpus::source_names`]. `progress` may break off.
pub fn evaluate<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    rows: impl Iterator<Item = arcuate_data::Result<Row>>,
    source_names: &[String],
    options: &HeldOutOptions,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
    mut measure: impl FnMut(&Batch) -> Result<Vec<RowResult>, E>,
) -> Result<HeldOutResult> {
    let mut rows = rows;
    let mut total = Sum::default();
    let mut sources: BTreeMap<u32, Sum> = BTreeMap::new();
    let mut done = Done { rows: 0, tokens: 0 };
    let mut num_read = 0u64;
    let is_enough = |num_read: u64| options.max_tokens.is_some_and(|most| num_read >= most);
    loop {
        let mut batch = Vec::with_capacity(options.microbatch.max(1));
        while batch.len() < options.microbatch.max(1) && !is_enough(num_read) {
            let Some(row) = rows.next().transpose()? else { break };
            num_read += row.len() as u64;
            batch.push(row);
        }
        if batch.is_empty() {
            break;
        }
        for (row, result) in batch.iter().zip(measure_rows(&batch, options.pad_id, &mut measure)?) {
            // The text of a row that predicts nothing was not measured.
            let bytes = if result.count > 0 { row.num_bytes } else { 0 };
            total.add(&result, bytes);
            sources.entry(row.source).or_default().add(&result, bytes);
        }
        done.rows += batch.len() as u64;
        done.tokens = num_read;
        if progress(done).is_break() {
            return Err(Error::Interrupted);
        }
    }
    if total.count == 0 {
        let what = "the held-out part".to_owned();
        return Err(Error::Empty { what, remedy: "raise `held_out_fraction` or give more documents" });
    }
    let name = |source: u32| source_names.get(source as usize).cloned().unwrap_or_else(|| source.to_string());
    Ok(HeldOutResult {
        total: total.measured(options.covers_text),
        sources: sources.iter().map(|(source, sum)| (name(*source), sum.measured(options.covers_text))).collect(),
        num_rows: done.rows,
        is_partial: is_enough(num_read) && rows.next().transpose()?.is_some(),
    })
}

/// One batch of rows, measured.
pub(crate) fn measure_rows<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    rows: &[Row],
    pad_id: u32,
    measure: &mut impl FnMut(&Batch) -> Result<Vec<RowResult>, E>,
) -> Result<Vec<RowResult>> {
    let results = measure(&collate(rows, pad_id, None)).map_err(|error| Error::Measure(error.into()))?;
    if results.len() != rows.len() {
        return Err(Error::RowCount { num_rows: rows.len(), num_results: results.len() });
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{causal_row, close};

    type Never = std::convert::Infallible;

    fn options(microbatch: usize) -> HeldOutOptions {
        HeldOutOptions { microbatch, pad_id: 0, max_tokens: None, covers_text: true }
    }

    fn quiet(_: Done) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// The loss of a row is the sum of its tokens over ten; the first target counts as right.
    fn sums(batch: &Batch) -> Result<Vec<RowResult>, Never> {
        let rows = batch.targets.chunks(batch.seq_len);
        Ok(rows
            .map(|targets| {
                let counted = targets.iter().filter(|target| **target >= 0);
                RowResult {
                    loss_sum: counted.clone().map(|target| f64::from(*target) / 10.0).sum(),
                    count: counted.count() as u64,
                    correct: 1,
                    ..RowResult::default()
                }
            })
            .collect())
    }

    #[test]
    fn errors_of_sequences_are_a_share_of_all_labels() {
        let errors = |batch: &Batch| {
            let row = |targets: &[i32]| RowResult {
                count: 1,
                num_errors: 1,
                num_labels: targets.len() as u64,
                ..RowResult::default()
            };
            Ok::<_, Never>(batch.targets.chunks(batch.seq_len).map(row).collect())
        };
        let names = ["web".to_owned(), "books".to_owned()];
        let result = evaluate(rows().into_iter().map(Ok), &names, &options(1), &mut quiet, errors).expect("measured");
        // Rows of 2, 1 and 4 targets with an error each.
        close(result.total.token_error_rate.expect("labels"), 3.0 / 7.0);
        close(result.sources["books"].token_error_rate.expect("labels"), 1.0);
        assert_eq!(run(&options(2)).expect("measured").total.token_error_rate, None);
    }

    fn rows() -> Vec<Row> {
        vec![causal_row(0, &[1, 2, 3], 4), causal_row(1, &[1, 5], 2), causal_row(0, &[1, 1, 1, 1, 1], 10)]
    }

    fn run(options: &HeldOutOptions) -> Result<HeldOutResult> {
        let names = ["web".to_owned(), "books".to_owned()];
        evaluate(rows().into_iter().map(Ok), &names, options, &mut quiet, sums)
    }

    #[test]
    fn sums_are_per_source_and_in_total() {
        let result = run(&options(2)).expect("measured");
        close(result.total.loss, 1.4 / 7.0);
        close(result.total.perplexity, 0.2f64.exp());
        close(result.total.bits_per_byte.expect("covers"), 1.4 / 16.0 / std::f64::consts::LN_2);
        close(result.total.accuracy, 3.0 / 7.0);
        close(result.sources["web"].loss, 0.9 / 6.0);
        close(result.sources["books"].loss, 0.5);
        assert_eq!((result.total.tokens, result.total.bytes, result.num_rows), (7, 16, 3));
        assert!(!result.is_partial);
    }

    #[test]
    fn the_batch_size_changes_nothing() {
        let one = run(&options(1)).expect("measured");
        for microbatch in [0, 2, 3, 50] {
            assert_eq!(run(&options(microbatch)).expect("measured"), one);
        }
    }

    #[test]
    fn a_limit_ends_after_the_same_row_for_every_batch_size() {
        for microbatch in [1, 2, 9] {
            let result = run(&HeldOutOptions { max_tokens: Some(3), ..options(microbatch) }).expect("measured");
            assert_eq!((result.num_rows, result.total.tokens, result.is_partial), (2, 3, true), "{microbatch}");
        }
        let all = run(&HeldOutOptions { max_tokens: Some(7), ..options(2) }).expect("measured");
        assert!(!all.is_partial);
    }

    #[test]
    fn without_covering_the_text_there_are_no_bits_per_byte() {
        let result = run(&HeldOutOptions { covers_text: false, ..options(2) }).expect("measured");
        assert_eq!(result.total.bits_per_byte, None);
    }

    #[test]
    fn nothing_held_out_is_an_error_that_says_what_to_do() {
        let error = evaluate(std::iter::empty(), &[], &options(1), &mut quiet, sums).expect_err("empty");
        assert!(error.to_string().contains("held_out_fraction"), "{error}");
    }

    #[test]
    fn progress_counts_rows_and_can_break_off() {
        let mut seen = Vec::new();
        let mut progress = |done: Done| {
            seen.push((done.rows, done.tokens));
            if done.rows == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let error = evaluate(rows().into_iter().map(Ok), &[], &options(1), &mut progress, sums).expect_err("stopped");
        assert!(matches!(error, Error::Interrupted));
        assert_eq!(seen, [(1, 2), (2, 3)]);
    }

    #[test]
    fn errors_of_the_measure_and_wrong_counts_are_passed_on() {
        let broken = |_: &Batch| Err::<Vec<RowResult>, _>("no memory");
        let error = evaluate(rows().into_iter().map(Ok), &[], &options(1), &mut quiet, broken).expect_err("broken");
        assert_eq!(error.to_string(), "cannot measure a batch: no memory");
        let few = |_: &Batch| Ok::<_, Never>(Vec::new());
        let error = evaluate(rows().into_iter().map(Ok), &[], &options(2), &mut quiet, few).expect_err("few");
        assert!(matches!(error, Error::RowCount { num_rows: 2, num_results: 0 }));
    }
}
