//! Speech networks: logits, projections and codes; CTC and contrastive losses as the recording library computes them.
//!
//! Its losses are sums over a batch: minus the log-likelihood of labels (CTC), or at every hidden frame the cross-entropy of
//! its own code among those at given other frames, plus a term for codes that are not used. In evaluation codes are taken
//! without noise, so that the latter has no gradient.
// B rows, T frames, V vocabulary, N hidden frames, K negatives, D numbers that are compared, G codebooks

use std::path::Path;
use std::sync::Arc;

use arcuate_data::Sound;
use arcuate_model::{Architecture, Codes, Input, Network, Wanted};
use arcuate_ops::ctc::{Ctc, ctc};
use arcuate_ops::embedding::embedding;
use arcuate_ops::gradcheck::values;
use burn::tensor::{Tensor, TensorData, activation};
use serde_json::Value;

use super::{Case, Line, Tolerance, broken, other};
use crate::{Error, Result};

/// Added to frequencies before their logarithm.
const TINY: f64 = 1e-7;
/// The least length of a vector whose direction is compared.
const LEAST_LENGTH: f64 = 1e-8;
/// Stands for a logit of minus infinity.
const NEVER: f64 = -1e30;

/// The keys of `config.json` that say how a loss is made.
struct Losses {
    blank: usize,
    zero_infinity: bool,
    is_mean: bool,
    temperature: f64,
    diversity_weight: f64,
}

impl Losses {
    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        let json: Value = serde_json::from_str(&text).map_err(|e| broken(&path, format!("is not JSON: {e}")))?;
        Ok(Self {
            blank: json["pad_token_id"].as_u64().unwrap_or(0) as usize,
            zero_infinity: json["ctc_zero_infinity"].as_bool().unwrap_or(false),
            is_mean: json["ctc_loss_reduction"].as_str() == Some("mean"),
            temperature: json["contrastive_logits_temperature"].as_f64().unwrap_or(0.1),
            diversity_weight: json["diversity_loss_weight"].as_f64().unwrap_or(0.1),
        })
    }
}

/// The sound under a prefix such as `input.` or `train.0.`.
pub(super) fn input(case: &Case, network: &Network, prefix: &str) -> Result<Input> {
    let names = ["input_values", "input_features"].map(|name| format!("{prefix}{name}"));
    let mut found = None;
    for name in &names {
        found = found.or(case.file.f32(name).map_err(other)?);
    }
    let sound = found.ok_or_else(|| broken(case.path, format!("has no `{}` or `{}`", names[0], names[1])))?;
    let (rows, steps, features) = match sound.shape[..] {
        [rows, steps] => (rows, steps, 1),
        [rows, steps, features] => (rows, steps, features),
        _ => return Err(broken(case.path, format!("has sound of shape {:?} under `{prefix}`", sound.shape))),
    };
    let mask = case.file.i64(&format!("{prefix}attention_mask")).map_err(other)?;
    let lengths = match mask {
        None => vec![steps; rows],
        Some(mask) if mask.shape == [rows, steps] => {
            let chunks = mask.data.chunks(steps.max(1));
            chunks.map(|row| row.iter().filter(|counts| **counts != 0).count()).collect()
        }
        Some(_) => {
            return Err(broken(case.path, format!("has `{prefix}attention_mask` of another shape than the sound")));
        }
    };
    let architecture = network.architecture();
    let downsampling = architecture.downsampling().unwrap_or_default();
    let frames: Vec<usize> = lengths.iter().map(|len| downsampling.num_frames(*len)).collect();
    let num_frames = downsampling.num_frames(steps);
    let mut sound = Sound::new(sound.data, steps, features, lengths, num_frames, frames);
    if let Some(hidden) = case.file.i64(&format!("{prefix}mask_time_indices")).map_err(other)? {
        if hidden.data.len() != rows * num_frames {
            return Err(broken(case.path, format!("has `{prefix}mask_time_indices` of another shape than the frames")));
        }
        sound.is_hidden = hidden.data.iter().map(|is| *is != 0).collect();
    }
    Ok(Input {
        num_rows: rows,
        seq_len: num_frames,
        ids: [].into(),
        positions: [].into(),
        may_attend: [].into(),
        token_types: [].into(),
        sound: Some(Arc::new(sound)),
        row_keys: (0..rows as u64).collect(),
        dropout: None,
        recompute: false,
        seen: None,
    })
}

fn heard(input: &Input) -> &Sound {
    input.sound.as_deref().expect("made with sound")
}

/// Which numbers of something of all frames `[B*T, C]` are of frames that are no padding.
pub(super) fn of_frames(width: usize, input: &Input) -> impl Fn(usize) -> bool {
    let sound = heard(input);
    move |i: usize| i / width % sound.num_frames < sound.frames[i / width / sound.num_frames]
}

/// Compares the recorded outputs.
pub(super) fn outputs(case: &Case, dir: &Path, network: &Network, tolerance: &Tolerance) -> Result<Vec<Line>> {
    let names = case.file.names();
    let has = |name: &str| names.iter().any(|n| n == &format!("output.{name}"));
    let network = network.valid();
    let mut lines = Vec::new();
    if has("logits") || has("last_hidden_state") {
        let input = input(case, &network, "input.")?;
        let is_last = !has("logits");
        let found = match network.architecture() {
            Architecture::Speech(a) if is_last => network.layer_output(&input, a.num_layers).map_err(other)?,
            _ => network.forward(&input, &Wanted::All).map_err(other)?.logits(),
        };
        let (name, is_frame) =
            (if is_last { "last_hidden_state" } else { "logits" }, of_frames(found.dims()[1], &input));
        lines.push(case.compare(name, &values(found), is_frame, tolerance)?);
    }
    if has("projected_states") {
        let input = input(case, &network, "input.")?;
        let sound = heard(&input);
        let all = all_frames(sound);
        let mut output = network.forward(&input, &Wanted::Codes(all)).map_err(other)?;
        let codes = output.take_codes().ok_or_else(|| broken(case.path, "has codes, which the model lacks"))?;
        let queries = output.logits();
        let is_frame = of_frames(queries.dims()[1], &input);
        lines.push(case.compare("projected_states", &values(queries.clone()), &is_frame, tolerance)?);
        lines.push(case.compare("projected_quantized_states", &values(codes.targets.clone()), &is_frame, tolerance)?);
        if has("loss") {
            let losses = Losses::read(dir)?;
            let parts = contrastive(case, "input.", sound, queries, codes, &losses)?;
            let scalars = [
                ("contrastive_loss", parts.contrastive.into_scalar::<f32>()),
                ("diversity_loss", parts.diversity),
                ("codevector_perplexity", parts.perplexity),
                ("loss", parts.loss.into_scalar::<f32>()),
            ];
            for (name, ours) in scalars {
                let Some(expected) = case.floats(&format!("output.{name}"))? else { continue };
                let theirs = f64::from(expected.first().copied().unwrap_or(f32::NAN));
                let difference = (f64::from(ours) - theirs).abs() / theirs.abs().max(1e-12);
                let what = format!("output.{name}");
                lines.push(Line { what, difference, tolerance: tolerance.loss_rel, measure: "relative" });
            }
        }
    }
    Ok(lines)
}

fn all_frames(sound: &Sound) -> Arc<[i32]> {
    (0..(sound.num_rows() * sound.num_frames) as i32).collect()
}

/// The loss of a batch as the class returns it, and the 1 that it is divided by.
pub(super) fn loss(case: &Case, dir: &Path, network: &Network, prefix: &str) -> Result<(Tensor<1>, f64)> {
    let losses = Losses::read(dir)?;
    let input = input(case, network, prefix)?;
    let sound = heard(&input);
    let Some(labels) = case.file.i64(&format!("{prefix}labels")).map_err(other)? else {
        let mut output = network.forward(&input, &Wanted::Codes(all_frames(sound))).map_err(other)?;
        let codes = output.take_codes().ok_or_else(|| broken(case.path, "has codes, which the model lacks"))?;
        return Ok((contrastive(case, prefix, sound, output.logits(), codes, &losses)?.loss, 1.0));
    };
    let rows = sound.num_rows();
    if labels.shape.first() != Some(&rows) {
        return Err(broken(case.path, format!("has `{prefix}labels` of another number of rows than the sound")));
    }
    let width = labels.data.len() / rows.max(1);
    let row =
        |row: &[i64]| -> Vec<i32> { row.iter().filter(|label| **label >= 0).map(|label| *label as i32).collect() };
    let targets: Arc<[Vec<i32>]> = labels.data.chunks(width.max(1)).map(row).collect();
    let mean = |target: &Vec<i32>| 1.0 / (target.len().max(1) * rows) as f32;
    let weights = losses.is_mean.then(|| targets.iter().map(mean).collect());
    let logits = network.forward(&input, &Wanted::All).map_err(other)?.logits();
    let vocab = logits.dims()[1];
    let fits = |label: &i32| *label as usize != losses.blank && (*label as usize) < vocab;
    if losses.blank >= vocab || !targets.iter().flatten().all(fits) {
        return Err(broken(
            case.path,
            format!("has `{prefix}labels` outside of the vocabulary, or the blank among them"),
        ));
    }
    let how = Ctc {
        targets,
        input_lengths: sound.frames.as_slice().into(),
        blank: losses.blank,
        zero_infinity: losses.zero_infinity,
        weights,
    };
    Ok((ctc(logits.reshape([rows, sound.num_frames, vocab]), &how), 1.0))
}

struct Parts {
    contrastive: Tensor<1>,
    diversity: f32,
    perplexity: f32,
    loss: Tensor<1>,
}

/// The loss of pretraining for queries and codes of all frames.
fn contrastive(
    case: &Case,
    prefix: &str,
    sound: &Sound,
    queries: Tensor<2>,
    codes: Codes,
    losses: &Losses,
) -> Result<Parts> {
    let negatives = case.file.i64(&format!("{prefix}sampled_negative_indices")).map_err(other)?;
    let negatives = negatives.ok_or_else(|| broken(case.path, format!("has no `{prefix}sampled_negative_indices`")))?;
    let frames = sound.num_rows() * sound.num_frames;
    let is_frame = |i: &i64| usize::try_from(*i).is_ok_and(|i| i < frames);
    if frames == 0 || !negatives.data.len().is_multiple_of(frames) || !negatives.data.iter().all(is_frame) {
        return Err(broken(case.path, format!("has `{prefix}sampled_negative_indices` that name no frames")));
    }
    let num = negatives.data.len() / frames;
    let places: Arc<[i32]> = sound.hidden_places().collect();
    let of_place = |place: &i32| negatives.data[*place as usize * num..][..num].iter().map(|i| *i as i32);
    // At every hidden frame its own code, then those of the others.
    let candidates: Arc<[i32]> =
        places.iter().flat_map(|place| std::iter::once(*place).chain(of_place(place))).collect();
    let (n, width) = (places.len(), queries.dims()[1]);
    let device = queries.device();
    let is_same = same_as_first(&values(codes.targets.clone()), width, &candidates, num + 1);
    let directions = |x: Tensor<2>| {
        let lengths = (x.clone() * x.clone()).sum_dim(1).sqrt().clamp_min(LEAST_LENGTH);
        x / lengths
    };
    let queries = directions(embedding(queries, &places, None)).reshape([n, 1, width]);
    let candidates = directions(embedding(codes.targets, &candidates, None)).reshape([n, num + 1, width]);
    let logits = (queries * candidates).sum_dim(2).reshape([n, num + 1]) / losses.temperature;
    let never = Tensor::<2>::from_data(TensorData::new(is_same, [n, num + 1]), &device) * NEVER;
    let chosen = activation::log_softmax(logits + never, 1).narrow(1, 0, 1);
    let contrastive = chosen.sum() * -1.0;
    let perplexity = perplexity(&codes.ids, &places, codes.usage.dims());
    let [codebooks, entries] = codes.usage.dims();
    let all = (codebooks * entries) as f64;
    let diversity = (all - perplexity) / all * n as f64;
    let loss = contrastive.clone() + losses.diversity_weight * diversity;
    Ok(Parts { contrastive, diversity: diversity as f32, perplexity: perplexity as f32, loss })
}

/// 1 for each candidate that is the same vector as the first one of its frame, though not that one itself.
fn same_as_first(vectors: &[f32], width: usize, candidates: &[i32], per_frame: usize) -> Vec<f32> {
    let vector = |i: i32| &vectors[i as usize * width..][..width];
    candidates
        .chunks(per_frame)
        .flat_map(|chunk| {
            chunk.iter().enumerate().map(|(i, other)| f32::from(u8::from(i > 0 && vector(*other) == vector(chunk[0]))))
        })
        .collect()
}

/// Sum over codebooks of the perplexity of the codes taken at some frames.
fn perplexity(ids: &[u32], places: &[i32], [codebooks, entries]: [usize; 2]) -> f64 {
    let one = |codebook: usize| {
        let mut counts = vec![0f64; entries];
        places.iter().for_each(|place| counts[ids[*place as usize * codebooks + codebook] as usize] += 1.0);
        let entropy: f64 = counts
            .iter()
            .map(|count| count / places.len().max(1) as f64)
            .map(|share| -share * (share + TINY).ln())
            .sum();
        entropy.exp()
    };
    (0..codebooks).map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexity_counts_the_codes_of_hidden_frames_alone() {
        // Two codebooks of four entries; frames 0, 1, 3 are hidden.
        let ids = [0, 1, 1, 1, 3, 3, 2, 1];
        let found = perplexity(&ids, &[0, 1, 3], [2, 4]);
        assert!((found - 4.0).abs() < 1e-5, "{found}");
        assert!((perplexity(&ids, &[], [2, 4]) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn negatives_equal_to_the_positive_are_found() {
        let vectors = [1.0, 2.0, 1.0, 2.0, 3.0, 2.0];
        assert_eq!(same_as_first(&vectors, 2, &[0, 1, 2, 2, 2, 0], 3), [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
    }
}
