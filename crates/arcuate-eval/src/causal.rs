//! Losses of a causal network per row of a batch.

use arcuate_data::{Batch, IGNORED_TARGET};
use arcuate_model::{Error as ModelError, Input, Network, Wanted};

use crate::{Result, RowResult};

/// Sum of losses, number of targets and right predictions of each row; `network` should have no tape ([`Network::valid`]).
pub fn causal_rows(network: &Network, batch: &Batch) -> Result<Vec<RowResult>, ModelError> {
    let vocab_size = network.architecture().vocab_size();
    if let Some(target) = batch.targets.iter().find(|t| **t >= 0 && **t as usize >= vocab_size) {
        return Err(ModelError::Unsupported(format!(
            "token {target} is outside of the model's vocabulary of {vocab_size}; use the tokenizer that lies beside the model"
        )));
    }
    let mut results = vec![RowResult::default(); batch.num_rows];
    let places: Vec<i32> = (0..).zip(&batch.targets).filter(|(_, t)| **t != IGNORED_TARGET).map(|(i, _)| i).collect();
    if places.is_empty() {
        return Ok(results);
    }
    let output = network.forward(&Input::from_batch(batch), &Wanted::Tokens(places.as_slice().into()))?;
    let targets: Vec<i32> = places.iter().map(|place| batch.targets[*place as usize]).collect();
    for ((place, target), score) in places.iter().zip(&targets).zip(output.scores(&targets)) {
        let row = &mut results[*place as usize / batch.seq_len];
        row.loss_sum += f64::from(score.loss);
        row.count += 1;
        row.correct += u64::from(score.best == Some(*target as u32));
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{causal_row, close, gpt2, llama};
    use crate::{Done, HeldOutOptions, evaluate};
    use arcuate_ops::gradcheck::values;
    use std::ops::ControlFlow;

    fn rows() -> Vec<arcuate_data::Row> {
        (0..7u32)
            .map(|r| {
                let tokens: Vec<u32> = (0..4 + 3 * r).map(|t| (t * 7 + r * 5 + t * t) % 40).collect();
                causal_row(r % 2, &tokens, u64::from(9 + r))
            })
            .collect()
    }

    #[test]
    fn losses_are_minus_log_probabilities() {
        let network = llama(32, 40);
        let row = causal_row(0, &[3, 9, 4, 30], 5);
        let batch = arcuate_data::collate(std::slice::from_ref(&row), 0, None);
        let logits = values(network.forward(&Input::from_batch(&batch), &Wanted::All).expect("runs").logits());
        let mut want = 0.0;
        for (t, target) in row.targets.iter().enumerate() {
            let logits = &logits[t * 40..][..40];
            let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            want += sum.ln() - f64::from(logits[*target as usize]);
        }
        let got = causal_rows(&network, &batch).expect("runs")[0];
        assert_eq!(got.count, 3);
        assert!((got.loss_sum - want).abs() < 1e-5, "{got:?} {want}");
    }

    #[test]
    fn the_held_out_loss_does_not_depend_on_the_batch_size() {
        for network in [llama(32, 40), gpt2(32, 40)] {
            let run = |microbatch| {
                let options = HeldOutOptions { microbatch, pad_id: 39, max_tokens: None, covers_text: true };
                let rows = rows().into_iter().map(Ok);
                let mut quiet = |_: Done| ControlFlow::Continue(());
                evaluate(rows, &[], &options, &mut quiet, |batch| causal_rows(&network, batch)).expect("runs")
            };
            let one = run(1);
            for microbatch in [2, 3, 7, 20] {
                let many = run(microbatch);
                assert!((many.total.loss / one.total.loss - 1.0).abs() < 1e-6, "{microbatch}");
                assert_eq!((many.total.tokens, many.total.accuracy), (one.total.tokens, one.total.accuracy));
                for (name, source) in &one.sources {
                    assert!((many.sources[name].loss / source.loss - 1.0).abs() < 1e-6, "{name}");
                }
            }
        }
    }

    #[test]
    fn rows_without_targets_count_nothing() {
        let mut row = causal_row(0, &[3, 9, 4], 5);
        row.targets.fill(IGNORED_TARGET);
        let batch = arcuate_data::collate(&[row, causal_row(0, &[3, 9], 5)], 0, None);
        let results = causal_rows(&llama(8, 40), &batch).expect("runs");
        assert_eq!((results[0], results[1].count), (RowResult::default(), 1));
        close(results[0].loss_sum, 0.0);
    }

    #[test]
    fn the_tokenizer_of_another_model_is_an_error() {
        let batch = arcuate_data::collate(&[causal_row(0, &[3, 41], 5)], 0, None);
        let error = causal_rows(&llama(8, 40), &batch).expect_err("token 41");
        assert!(error.to_string().contains("vocabulary of 40"), "{error}");
    }
}
