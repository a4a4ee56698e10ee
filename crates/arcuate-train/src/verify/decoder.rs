//! Networks with an encoder of sound and a decoder of text: frames, logits of tokens, and the cross-entropy of labels.
// B rows, T frames, U tokens

use std::sync::Arc;

use arcuate_model::{Input, Network, Wanted};
use arcuate_ops::gradcheck::values;
use arcuate_ops::linear_cross_entropy::CrossEntropy;
use burn::tensor::Tensor;

use super::{Case, Line, Tolerance, broken, other, speech};
use crate::Result;

/// The sound under a prefix with the tokens that the decoder reads, and which of them count; where no tokens were recorded
/// they come from the labels.
fn input(case: &Case, network: &Network, prefix: &str) -> Result<(Input, Vec<bool>)> {
    let sound = speech::input(case, network, prefix)?;
    let optional = |name: &str| case.file.i64(&format!("{prefix}{name}")).map_err(other);
    let shaped = |what: &str| broken(case.path, format!("has `{prefix}{what}` of another shape than [rows, tokens]"));
    let (ids, len) = match (optional("decoder_input_ids")?, optional("labels")?) {
        (Some(ids), _) => match ids.shape[..] {
            [rows, len] if rows == sound.num_rows && len > 0 => (whole(&ids.data), len),
            _ => return Err(shaped("decoder_input_ids")),
        },
        (None, Some(labels)) => match labels.shape[..] {
            [rows, len] if rows == sound.num_rows && len > 0 => {
                let ids = network.architecture().decoder_inputs(&whole(&labels.data), len);
                (ids.ok_or_else(|| broken(case.path, "has labels for a decoder, which the model lacks"))?, len)
            }
            _ => return Err(shaped("labels")),
        },
        (None, None) => {
            return Err(broken(case.path, format!("has no `{prefix}decoder_input_ids` or `{prefix}labels`")));
        }
    };
    let mask: Vec<bool> = optional("decoder_attention_mask")?
        .map_or_else(Vec::new, |mask| mask.data.iter().map(|counts| *counts != 0).collect());
    if !mask.is_empty() && mask.len() != ids.len() {
        return Err(shaped("decoder_attention_mask"));
    }
    let tokens = Input::from_rows(sound.num_rows, len, ids, &mask).ok_or_else(|| {
        let what = format!("has a `{prefix}decoder_attention_mask` with holes; only padding at the ends is supported");
        broken(case.path, what)
    })?;
    Ok((Input { sound: sound.sound, row_keys: sound.row_keys, ..tokens }, mask))
}

/// Numbers of a file as tokens or labels; those that are neither become -1, which no vocabulary has.
fn whole(numbers: &[i64]) -> Vec<i32> {
    numbers.iter().map(|number| i32::try_from(*number).unwrap_or(-1)).collect()
}

/// Compares the recorded outputs.
pub(super) fn outputs(case: &Case, network: &Network, tolerance: &Tolerance) -> Result<Vec<Line>> {
    let names = case.file.names();
    let has = |name: &str| names.iter().any(|n| n == &format!("output.{name}"));
    let mut lines = Vec::new();
    if !has("logits") && !has("encoder_last_hidden_state") {
        return Ok(lines);
    }
    let network = network.valid();
    let (input, mask) = input(case, &network, "input.")?;
    if has("encoder_last_hidden_state") {
        let frames = network.layer_output(&input, network.architecture().num_layers()).map_err(other)?;
        let is_frame = speech::of_frames(frames.dims()[1], &input);
        lines.push(case.compare("encoder_last_hidden_state", &values(frames), is_frame, tolerance)?);
    }
    if has("logits") {
        let logits = network.forward(&input, &Wanted::All).map_err(other)?.logits();
        let width = logits.dims()[1];
        let counts = |i: usize| mask.is_empty() || mask[i / width];
        lines.push(case.compare("logits", &values(logits), counts, tolerance)?);
    }
    Ok(lines)
}

/// Sum of the cross-entropy of the labels that are predicted, and how many these are.
pub(super) fn loss(case: &Case, network: &Network, prefix: &str) -> Result<(Tensor<1>, f64)> {
    let (input, _) = input(case, network, prefix)?;
    let labels = case.file.i64(&format!("{prefix}labels")).map_err(other)?;
    let labels = labels.ok_or_else(|| broken(case.path, format!("has no `{prefix}labels`")))?;
    if labels.data.len() != input.ids.len() {
        return Err(broken(case.path, format!("has `{prefix}labels` of another shape than the tokens")));
    }
    let vocab = network.architecture().vocab_size() as i64;
    if labels.data.iter().any(|label| *label >= vocab) {
        return Err(broken(case.path, format!("has `{prefix}labels` outside of the vocabulary")));
    }
    let counted = || (0..).zip(&labels.data).filter(|(_, label)| **label >= 0);
    let places: Arc<[i32]> = counted().map(|(place, _)| place).collect();
    let targets: Arc<[i32]> = counted().map(|(_, label)| *label as i32).collect();
    let count = targets.len().max(1) as f64;
    let output = network.forward(&input, &Wanted::Tokens(places)).map_err(other)?;
    Ok((output.cross_entropy(&CrossEntropy::new(targets)), count))
}
