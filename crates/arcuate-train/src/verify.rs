//! Holds a checkpoint folder against what another library recorded for it: outputs, loss, gradients, optimiser steps.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arcuate_model::tensors::TensorFile;
use arcuate_model::{Head, Input, Network, Wanted};
use arcuate_ops::gradcheck::{distance, values};
use arcuate_ops::linear_cross_entropy::CrossEntropy;
use burn::tensor::{Device, Tensor};
use serde::Deserialize;

use crate::optimizer::{Gradients, Optimizer, OptimizerConfig, adamw};
use crate::run::{Collect, global_norm};
use crate::{Error, Result};

mod decoder;
mod speech;

/// One line of the table.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Line {
    /// What is compared.
    pub what: String,
    /// How far apart the two are.
    pub difference: f64,
    /// How far apart they may be.
    pub tolerance: f64,
    /// `absolute`, `relative` or `relative L2`.
    pub measure: &'static str,
}

impl Line {
    /// Whether the difference is within the tolerance; one that is no number never is.
    pub fn holds(&self) -> bool {
        self.difference <= self.tolerance
    }
}

#[derive(Deserialize)]
struct Reference {
    tolerance: Tolerance,
    trajectory: Option<Trajectory>,
}

#[derive(Deserialize)]
struct Tolerance {
    output_abs: f64,
    loss_rel: f64,
    trajectory_rel: f64,
}

#[derive(Deserialize)]
struct Trajectory {
    steps: u64,
    lr: f64,
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    warmup: Option<String>,
    clip_global_norm: Option<f64>,
}

/// Gradients may differ by so much: relative L2 distance.
const GRADIENT_TOLERANCE: f64 = 1e-3;

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Hook(Box::new(error))
}

fn broken(path: &Path, what: impl Into<String>) -> Error {
    let what = what.into();
    Error::Reference { path: path.to_path_buf(), what }
}

struct Case<'a> {
    path: &'a Path,
    file: TensorFile,
}

impl Case<'_> {
    /// The inputs under a prefix such as `input.` or `train.0.`, and the tokens that count.
    fn input(&self, prefix: &str) -> Result<(Input, Vec<bool>)> {
        let ids = self.file.i64(&format!("{prefix}input_ids")).map_err(other)?;
        let ids = ids.ok_or_else(|| broken(self.path, format!("has no `{prefix}input_ids`")))?;
        let [rows, len] = ids.shape[..] else {
            return Err(broken(
                self.path,
                format!("has `{prefix}input_ids` of shape {:?}, not [rows, tokens]", ids.shape),
            ));
        };
        let optional = |name: &str| self.file.i64(&format!("{prefix}{name}")).map_err(other);
        let mask: Vec<bool> =
            optional("attention_mask")?.map_or_else(Vec::new, |m| m.data.iter().map(|x| *x != 0).collect());
        let fits = |n: usize| n == 0 || n == rows * len;
        if !fits(mask.len()) {
            return Err(broken(self.path, format!("has `{prefix}attention_mask` of another shape than the tokens")));
        }
        let ids: Vec<i32> = ids.data.iter().map(|x| *x as i32).collect();
        let mut input = Input::from_rows(rows, len, ids, &mask).ok_or_else(|| {
            broken(
                self.path,
                format!("has an `{prefix}attention_mask` with holes; only padding at the ends is supported"),
            )
        })?;
        if let Some(types) = optional("token_type_ids")?.filter(|t| fits(t.data.len())) {
            input.token_types = types.data.iter().map(|x| *x as i32).collect();
        }
        if let Some(positions) = optional("position_ids")?.filter(|p| p.data.len() == rows * len) {
            input.positions = positions.data.iter().map(|x| *x as i32).collect();
        }
        Ok((input, mask))
    }

    fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        Ok(self.file.f32(name).map_err(other)?.map(|v| v.data))
    }

    /// Compares `output.NAME` with our numbers where they count.
    fn compare(&self, name: &str, ours: &[f32], counts: impl Fn(usize) -> bool, tolerance: &Tolerance) -> Result<Line> {
        let what = format!("output.{name}");
        let expected = self.floats(&what)?.unwrap_or_default();
        if ours.len() != expected.len() {
            return Err(broken(self.path, format!("has `{what}` of another shape than the model gives")));
        }
        let apart = (0..ours.len()).filter(|i| counts(*i)).map(|i| f64::from((ours[i] - expected[i]).abs()));
        Ok(Line { what, difference: worst(apart), tolerance: tolerance.output_abs, measure: "absolute" })
    }
}

/// Whether a model has one output for a whole row.
fn classifies(network: &Network) -> bool {
    matches!(network.architecture().head(), Head::Classes(_))
}

/// Places and targets of a training batch: class labels, or token labels that a causal model shifts by one.
fn targets(network: &Network, labels: &[i64], input: &Input) -> (Wanted, Arc<[i32]>) {
    if classifies(network) {
        return (Wanted::Rows, labels.iter().map(|x| *x as i32).collect());
    }
    let shift = usize::from(network.architecture().is_causal());
    let pairs: Vec<(i32, i32)> = (0..input.ids.len())
        .filter(|i| i % input.seq_len + shift < input.seq_len)
        .map(|i| (i as i32, labels[i + shift] as i32))
        .filter(|(_, target)| *target >= 0)
        .collect();
    (Wanted::Tokens(pairs.iter().map(|p| p.0).collect()), pairs.iter().map(|p| p.1).collect())
}

/// Compares the model in `dir`, computed on a device, with the reference file; one line per comparison.
///
/// The options of the recording (optimiser, tolerances) lie beside the file as `reference.json`.
pub fn verify(dir: &Path, reference: &Path, device: &Device) -> Result<Vec<Line>> {
    let device = device.clone().autodiff();
    let json = reference.with_extension("json");
    let text = std::fs::read_to_string(&json).map_err(|e| Error::io("read", &json, e))?;
    let options: Reference =
        serde_json::from_str(&text).map_err(|e| broken(&json, format!("is not a reference: {e}")))?;
    let case = Case { path: reference, file: TensorFile::open(reference).map_err(other)? };
    let names = case.file.names();
    let mut lines = Vec::new();
    let mut network = arcuate_model::load(dir, &device).map_err(other)?;

    let architecture = network.architecture();
    let (hears, has_decoder) = (architecture.downsampling().is_some(), *architecture.head() == Head::Decoder);
    if has_decoder {
        lines.extend(decoder::outputs(&case, &network, &options.tolerance)?);
    } else if hears {
        lines.extend(speech::outputs(&case, dir, &network, &options.tolerance)?);
    } else if names.iter().any(|name| name == "output.logits") {
        let (input, mask) = case.input("input.")?;
        let classes = classifies(&network);
        let wanted = if classes { Wanted::Rows } else { Wanted::All };
        let logits = network.valid().forward(&input, &wanted).map_err(other)?.logits();
        let width = logits.dims()[1];
        let counts = |i: usize| classes || mask.is_empty() || mask[i / width];
        lines.push(case.compare("logits", &values(logits), counts, &options.tolerance)?);
    }

    let given = |i: usize| ["input_ids", "input_values", "input_features"].map(|name| format!("train.{i}.{name}"));
    let num_batches = (0..).take_while(|i| given(*i).iter().any(|name| names.contains(name))).count();
    if num_batches == 0 {
        return Ok(lines);
    }
    let batch = |network: &Network, i: usize| -> Result<(f64, Gradients, f64)> {
        let prefix = format!("train.{i}.");
        let (sum, count) = match (has_decoder, hears) {
            (true, _) => decoder::loss(&case, network, &prefix)?,
            (false, true) => speech::loss(&case, dir, network, &prefix)?,
            (false, false) => text_loss(&case, network, &prefix)?,
        };
        let loss = f64::from(sum.clone().into_scalar::<f32>()) / count;
        let mut grads = Gradients::new();
        network.visit(&mut Collect { from: sum.backward(), into: &mut grads });
        Ok((loss, grads, count))
    };
    let (loss, grads, count) = batch(&network, 0)?;
    let relative = |what: &str, ours: f64, theirs: f64, tolerance: f64| Line {
        what: what.to_string(),
        difference: (ours - theirs).abs() / theirs.abs().max(1e-12),
        tolerance,
        measure: "relative",
    };
    if let Some(expected) = case.floats("grad.loss")? {
        lines.push(relative("grad.loss", loss, f64::from(expected[0]), options.tolerance.loss_rel));
    }
    let special = ["grad.loss", "grad.global_norm"];
    for name in names.iter().filter(|n| n.starts_with("grad.") && !special.contains(&n.as_str())) {
        let expected = case.floats(name)?.unwrap_or_default();
        let parameter = &name["grad.".len()..];
        let ours: Vec<f32> = match grads.get(parameter) {
            Some(grad) => values(grad.clone()).iter().map(|g| g / count as f32).collect(),
            None => return Err(broken(reference, format!("has a gradient of `{parameter}`, which the model lacks"))),
        };
        if ours.len() != expected.len() {
            return Err(broken(reference, format!("has `{name}` of another shape than the parameter")));
        }
        let difference = gradient_distance(&ours, &expected, global_norm(&grads, count));
        lines.push(Line { what: name.clone(), difference, tolerance: GRADIENT_TOLERANCE, measure: "relative L2" });
    }
    if let Some(expected) = case.floats("grad.global_norm")? {
        let ours = global_norm(&grads, count);
        lines.push(relative("grad.global_norm", ours, f64::from(expected[0]), GRADIENT_TOLERANCE));
    }
    let (Some(t), Some(losses), Some(norms)) =
        (options.trajectory, case.floats("trajectory.loss")?, case.floats("trajectory.grad_norm")?)
    else {
        return Ok(lines);
    };
    drop(grads);
    let mut optimizer = Optimizer::new(OptimizerConfig::Adamw(adamw::Config {
        peak_learning_rate: t.lr,
        beta1: t.betas[0],
        beta2: t.betas[1],
        epsilon: t.eps,
        weight_decay: t.weight_decay,
        max_grad_norm: t.clip_global_norm,
    }));
    let warmup = warmup_steps(t.warmup.as_deref().unwrap_or_default());
    let mut apart: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for step in 0..t.steps.min(losses.len().min(norms.len()) as u64) {
        let (loss, grads, count) = batch(&network, step as usize % num_batches)?;
        let norm = global_norm(&grads, count);
        let add = |list: &mut Vec<f64>, ours: f64, theirs: f32| {
            list.push((ours - f64::from(theirs)).abs() / f64::from(theirs).abs().max(1e-12));
        };
        add(apart.entry("trajectory.loss").or_default(), loss, losses[step as usize]);
        add(apart.entry("trajectory.grad_norm").or_default(), norm, norms[step as usize]);
        let factor = ((step + 1) as f64 / warmup).min(1.0);
        network = optimizer.update(network, grads, count, norm, factor);
    }
    for (what, differences) in apart {
        lines.push(Line {
            what: format!("{what} ({} steps)", differences.len()),
            difference: worst(differences.into_iter()),
            tolerance: options.tolerance.trajectory_rel,
            measure: "relative",
        });
    }
    Ok(lines)
}

/// Sum of the losses of a batch of texts, and how many are counted.
fn text_loss(case: &Case, network: &Network, prefix: &str) -> Result<(Tensor<1>, f64)> {
    let (input, _) = case.input(prefix)?;
    let labels = case.file.i64(&format!("{prefix}labels")).map_err(other)?;
    let labels = labels.ok_or_else(|| broken(case.path, format!("has no `{prefix}labels`")))?;
    let wanted_len = if classifies(network) { input.num_rows } else { input.ids.len() };
    if labels.data.len() != wanted_len {
        return Err(broken(case.path, format!("has `{prefix}labels` of another shape than the tokens")));
    }
    let (wanted, targets) = targets(network, &labels.data, &input);
    let count = targets.iter().filter(|t| **t >= 0).count().max(1) as f64;
    let output = network.forward(&input, &wanted).map_err(other)?;
    Ok((output.cross_entropy(&CrossEntropy::new(targets)), count))
}

/// The largest difference; not a number if any is not.
fn worst(differences: impl Iterator<Item = f64>) -> f64 {
    differences.fold(0.0, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) })
}

/// Relative L2 distance; a gradient that is zero but for rounding (a bias before a softmax) is measured against the whole.
fn gradient_distance(ours: &[f32], theirs: &[f32], global_norm: f64) -> f64 {
    let size = theirs.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let relative = distance(ours, theirs);
    if size < 1e-6 * global_norm { relative * size / global_norm } else { relative }
}

/// The number of warm-up steps in a text such as `lr * min(1, (step + 1) / 4)`.
fn warmup_steps(text: &str) -> f64 {
    let digits: String = text
        .rsplit_once('/')
        .map(|(_, tail)| tail.trim_start().chars().take_while(char::is_ascii_digit).collect())
        .unwrap_or_default();
    digits.parse().unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_is_read_from_its_formula() {
        assert_eq!(warmup_steps("learning rate = lr * min(1, (step + 1) / 4), step from 0"), 4.0);
        assert_eq!(warmup_steps(""), 1.0);
    }

    #[test]
    fn a_difference_that_is_no_number_never_holds() {
        let line = |difference| Line { what: String::new(), difference, tolerance: 1.0, measure: "absolute" };
        assert!(line(1.0).holds() && !line(1.1).holds());
        assert!(!line(worst([0.0, f64::NAN, 0.5].into_iter())).holds());
    }
}
