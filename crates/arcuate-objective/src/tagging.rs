//! Tagging: one tag for each word, at its first token.
//!
//! # What it computes
//! `sum = sum(-ln p(tag))` over the words; with `crf` `sum = sum(ln sum_y exp(score(y)) - score(tags))` over the rows, where the
//! score of a sequence of tags adds up its logits and the learned transition from each tag to the next. `count` = words in both
//! cases, so that a row counts by its length and losses with and without `crf` compare.
//! # Recipe
//! `[objective.tagging]` with optional `crf`; the sources need `tags_column`
//! # Reference
//! Devlin et al. 2019; Lafferty et al. 2001

use arcuate_data::Batch;
use arcuate_model::{Output, Wanted};
use arcuate_ops::crf::Crf;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Loss, Objective, Result, RowScore, Vocabulary, predicted, token_loss, token_scores};

/// `[objective.tagging]`; the tags come from `tags_column` of the sources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Learn which tags follow each other, too, and choose the tags of a text together: a linear-chain CRF.
    #[serde(default)]
    pub crf: bool,
}

pub(crate) struct Tagging {
    config: Config,
}

pub(crate) fn build(config: &Config, _: &Vocabulary) -> Result<Tagging> {
    Ok(Tagging { config: config.clone() })
}

/// The tags of a batch, row by row.
fn chains(batch: &Batch) -> Crf {
    let row = |row: usize| &batch.targets[row * batch.seq_len..(row + 1) * batch.seq_len];
    let lengths = (0..batch.num_rows).map(|i| row(i).iter().filter(|tag| **tag >= 0).count()).collect();
    Crf { tags: predicted(batch).1, lengths }
}

impl Objective for Tagging {
    fn prepare(&self, _: &mut Batch, _: u64, _: u64) {}

    fn wanted(&self, batch: &Batch) -> Wanted {
        Wanted::Tokens(predicted(batch).0)
    }

    fn loss(&self, batch: &Batch, output: Output) -> Loss {
        if !self.config.crf {
            return token_loss(batch, output, 0.0, 0.0);
        }
        let chains = chains(batch);
        let count = chains.tags.len() as f64;
        Loss::new(output.crf(&chains), count)
    }

    fn scores(&self, batch: &Batch, output: Output) -> Vec<RowScore> {
        if !self.config.crf {
            return token_scores(batch, output);
        }
        let chains = chains(batch);
        let (losses, best) = output.crf_rows(&chains);
        let mut start = 0;
        let row = |(loss, len): (f32, &usize)| {
            let places = start..start + len;
            start += len;
            let right = places.filter(|at| chains.tags[*at] == best[*at] as i32).count();
            RowScore { loss_sum: f64::from(loss), count: *len as f64, correct: right as u64, ..RowScore::default() }
        };
        losses.into_iter().zip(chains.lengths.iter()).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{batch, output};
    use arcuate_ops::gradcheck::{random, values};
    use burn::tensor::Tensor;

    fn objective(crf: bool) -> Tagging {
        Tagging { config: Config { crf } }
    }

    /// Rows of 3, 1 and 0 words.
    fn tagged() -> Batch {
        let mut batch = batch(&[&[1, 5, 6, 7, 8, 2], &[1, 5, 2], &[1, 2]]);
        for (place, tag) in [(1, 0), (3, 2), (4, 1), (7, 2)] {
            batch.targets[place] = tag;
        }
        batch
    }

    #[test]
    fn only_tagged_places_are_wanted_and_count() {
        for crf in [false, true] {
            let Wanted::Tokens(places) = objective(crf).wanted(&tagged()) else { panic!("tokens") };
            assert_eq!(&*places, [1, 3, 4, 7]);
            let loss = objective(crf).loss(&tagged(), output(random([4, 3], 1)));
            assert_eq!(loss.count, 4.0);
            let even = objective(crf).loss(&tagged(), output(random([4, 3], 1) * 0.0));
            assert!((values(even.sum)[0] - 4.0 * 3f32.ln()).abs() < 1e-5);
        }
    }

    #[test]
    fn without_transitions_a_crf_is_cross_entropy() {
        let logits = random([4, 3], 2) * 2.0;
        let sum = |crf| values(objective(crf).loss(&tagged(), output(logits.clone())).sum)[0];
        assert!((sum(false) - sum(true)).abs() < 1e-5);
        let scores = |crf| objective(crf).scores(&tagged(), output(logits.clone()));
        for (plain, crf) in scores(false).iter().zip(scores(true)) {
            assert!((plain.loss_sum - crf.loss_sum).abs() < 1e-5);
            assert_eq!((plain.count, plain.correct), (crf.count, crf.correct));
        }
    }

    #[test]
    fn rows_add_up_and_padding_changes_nothing() {
        let logits = random([4, 3], 3);
        for crf in [false, true] {
            let rows = objective(crf).scores(&tagged(), output(logits.clone()));
            assert_eq!(rows.iter().map(|row| row.count).collect::<Vec<_>>(), [3.0, 1.0, 0.0]);
            let sum: f64 = rows.iter().map(|row| row.loss_sum).sum();
            let whole = objective(crf).loss(&tagged(), output(logits.clone()));
            assert!((sum - f64::from(values(whole.sum)[0])).abs() < 1e-5);
            let mut alone = batch(&[&[1, 5, 2]]);
            alone.targets[1] = 2;
            let alone = objective(crf).loss(&alone, output(logits.clone().narrow(0, 3, 1)));
            assert!((f64::from(values(alone.sum)[0]) - rows[1].loss_sum).abs() < 1e-6);
        }
    }

    #[test]
    fn a_batch_without_words_costs_nothing() {
        let none = batch(&[&[1, 2]]);
        for crf in [false, true] {
            let logits = Tensor::zeros([0, 3], &arcuate_ops::device::cpu());
            let loss = objective(crf).loss(&none, output(logits.clone()));
            assert_eq!((values(loss.sum)[0], loss.count), (0.0, 0.0));
            assert_eq!(objective(crf).scores(&none, output(logits)), [RowScore::default()]);
        }
    }
}
