//! Contrastive: tell the quantized form of a hidden frame from those of other hidden frames of the same row.
//!
//! # What it computes
//! Over the hidden frames `t`, with queries `c`, quantized targets `q`, K others of the row for each, and `sim` the cosine:
//! `L_w = -sum_t ln(exp(sim(c_t, q_t)/kappa) / (exp(sim(c_t, q_t)/kappa) + sum_others exp(sim(c_t, q)/kappa)))`, where others that
//! took the same codes as `t` do not compete. With the share `p` of each entry of a codebook in a batch,
//! `PPL = sum_codebooks exp(-sum p ln(p + 1e-7))` and `L_d = (GV - PPL) / GV`; `L_f` is the mean squared feature.
//! `sum = L_w + N (diversity_weight L_d + feature_penalty_weight L_f)`, `count` = N hidden frames. The noise of the quantizer has
//! the temperature `max(start decay^step, end)`; evaluations have none. Rows of which nothing can be hidden do not count.
//! # Recipe
//! `[objective.contrastive]` with `mask`, `num_negatives`, `temperature`, `diversity_weight`, `gumbel`, optional
//! `feature_penalty_weight`
//! # Reference
//! Baevski et al. 2020 (wav2vec 2.0)
// N hidden frames, D dimensions, K negatives, G codebooks, V entries of each

use arcuate_data::transform::span_mask::{SpanMask, draw_negatives};
use arcuate_data::{Batch, Gumbel, Sound};
use arcuate_model::{Codes, Output, Wanted};
use arcuate_ops::gradcheck::values;
use burn::tensor::{Bool, Int, Tensor, TensorData, activation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{EVALUATION, Error, Loss, Objective, Result, RowScore, Vocabulary, check_mask, sound, streams};

/// Norms are at least this.
const MIN_NORM: f32 = 1e-8;
/// An entry that is used less than this times its even share is dead.
const DEAD: f64 = 0.01;

/// `[objective.contrastive]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is hidden of each row. wav2vec 2.0: `mask.fairseq = { mask_share = 0.65, span_length = 10, min_spans = 2 }`.
    pub mask: SpanMask,
    /// K: other hidden frames of the row that each hidden frame is told apart from, drawn with replacement. wav2vec 2.0: 100.
    #[schemars(range(min = 1))]
    pub num_negatives: usize,
    /// Similarities are divided by this. wav2vec 2.0: 0.1.
    #[schemars(range(min = 0.0))]
    pub temperature: f64,
    /// Weight of the loss that asks for all entries of the codebooks to be used. wav2vec 2.0: 0.1.
    #[schemars(range(min = 0.0))]
    pub diversity_weight: f64,
    /// Weight of the mean squared feature before its norm. wav2vec 2.0: 10 for the base size. 0 is off.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub feature_penalty_weight: f64,
    /// Temperature of the quantizer's noise.
    pub gumbel: Temperature,
}

/// `[objective.contrastive.gumbel]`: the temperature before a step is `max(start decay^step, end)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Temperature {
    /// Temperature of the first step. wav2vec 2.0: 2.0. Where pretraining is continued: the one that the earlier run ended with,
    /// since a higher one would spoil its codes.
    #[schemars(range(min = 0.0))]
    pub start: f64,
    /// Lowest temperature. wav2vec 2.0: 0.5 for the base size, 0.1 for the large one.
    #[schemars(range(min = 0.0))]
    pub end: f64,
    /// Factor of each step. wav2vec 2.0: 0.999995.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub decay: f64,
}

impl Temperature {
    /// The temperature before so many steps were made.
    pub fn at(&self, step: u64) -> f64 {
        (self.start * self.decay.powf(step as f64)).max(self.end)
    }
}

impl Config {
    fn check(&self) -> Result<()> {
        check_mask("objective.contrastive.mask", &self.mask)?;
        let Temperature { start, end, decay } = self.gumbel;
        let wrong = if self.num_negatives == 0 {
            "`num_negatives` is 0; use at least 1, such as 100".to_owned()
        } else if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            format!("`temperature` is {}; use a number above 0, such as 0.1", self.temperature)
        } else if !(end > 0.0 && end <= start && start.is_finite()) {
            format!("`gumbel` goes from {start} to {end}; use numbers above 0, the first not below the second")
        } else if !(decay > 0.0 && decay <= 1.0) {
            format!("`decay` is {decay}; use a number above 0 and at most 1, such as 0.999995")
        } else if let Some((key, weight)) =
            [("diversity_weight", self.diversity_weight), ("feature_penalty_weight", self.feature_penalty_weight)]
                .into_iter()
                .find(|(_, weight)| !(weight.is_finite() && *weight >= 0.0))
        {
            format!("`{key}` is {weight}; use 0 or a number above 0")
        } else {
            return Ok(());
        };
        Err(Error(format!("{wrong} in `objective.contrastive`")))
    }
}

pub(crate) struct Contrastive {
    config: Config,
}

pub(crate) fn build(config: &Config, _: &Vocabulary) -> Result<Contrastive> {
    config.check()?;
    Ok(Contrastive { config: config.clone() })
}

/// Hidden frames of each row.
fn hidden_counts(sound: &Sound) -> Vec<usize> {
    let row = |row: usize| sound.is_hidden.get(row * sound.num_frames..(row + 1) * sound.num_frames);
    let count = |row: &[bool]| row.iter().filter(|is_hidden| **is_hidden).count();
    (0..sound.num_rows()).map(|i| row(i).map_or(0, count)).collect()
}

/// Rows of length 1, or of the shortest length that does not count as nothing. `[N, D]`
fn unit(x: Tensor<2>) -> Tensor<2> {
    let norm = x.clone().powi_scalar(2).sum_dim(1).clamp_min(MIN_NORM * MIN_NORM).sqrt();
    x / norm
}

/// Perplexities of codebooks, summed: `sum exp(-sum p ln(p + 1e-7))` of shares `[G, V]`. `[1]`
fn perplexity(usage: Tensor<2>) -> Tensor<1> {
    let entropy = (usage.clone() * (usage + 1e-7).log()).sum_dim(1).neg();
    entropy.exp().sum()
}

/// How often each entry of each codebook is taken. `[G * V]`
fn shares_taken(ids: &[u32], num_books: usize, num_entries: usize) -> Vec<f64> {
    let mut shares = vec![0.0; num_books * num_entries];
    let frames = (ids.len() / num_books.max(1)) as f64;
    for (i, id) in ids.iter().enumerate() {
        if let Some(share) = shares.get_mut(i % num_books.max(1) * num_entries + *id as usize) {
            *share += 1.0 / frames;
        }
    }
    shares
}

/// The same sum as [`perplexity`] of numbers on the host.
fn host_perplexity(shares: &[f64], num_entries: usize) -> f64 {
    let entropy = |book: &[f64]| -book.iter().map(|p| p * (p + 1e-7).ln()).sum::<f64>();
    shares.chunks(num_entries.max(1)).map(|book| entropy(book).exp()).sum()
}

/// Loss of a frame from its logits, its own first, and whether its own is the largest (and they are not all equal).
fn judge(logits: &[f32]) -> (f64, bool) {
    let (own, others) = (f64::from(logits[0]), &logits[1..]);
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - top).exp()).sum();
    let is_largest = others.iter().all(|x| *x <= logits[0]);
    let is_smallest = others.iter().all(|x| *x >= logits[0]);
    (f64::from(top) + sum.ln() - own, is_largest && !is_smallest)
}

impl Contrastive {
    /// Logits of the hidden frames: of the own target first, then of the others. `[N, 1 + K]`
    ///
    /// All similarities between the hidden frames of a row are one product, from which those of the others are picked: the
    /// targets of all others are never laid side by side.
    fn logits(&self, sound: &Sound, queries: Tensor<2>, codes: &Codes) -> Tensor<2> {
        let (k, device) = (self.config.num_negatives, queries.device());
        let (queries, targets) = (unit(queries), unit(codes.targets.clone()));
        let books = codes.ids.len() / targets.dims()[0].max(1);
        let taken = |frame: usize| &codes.ids[frame * books..(frame + 1) * books];
        let mut first = 0;
        let mut rows = Vec::new();
        for count in hidden_counts(sound).into_iter().filter(|count| *count > 0) {
            let frames = first..first + count;
            let mut places = Vec::with_capacity(count * (k + 1));
            let mut is_same = Vec::with_capacity(count * (k + 1));
            for frame in frames.clone() {
                places.push((frame - first) as i32);
                is_same.push(false);
                for other in &sound.negatives[frame * k..(frame + 1) * k] {
                    places.push(*other - first as i32);
                    is_same.push(books > 0 && taken(frame) == taken(*other as usize));
                }
            }
            let shape = [count, k + 1];
            let places = Tensor::<2, Int>::from_data(TensorData::new(places, shape), &device);
            let is_same = Tensor::<2, Bool>::from_data(TensorData::new(is_same, shape), &device);
            let similarity =
                queries.clone().slice([frames.clone()]).matmul(targets.clone().slice([frames]).transpose());
            rows.push(similarity.gather(1, places).mask_fill(is_same, f32::NEG_INFINITY));
            first += count;
        }
        Tensor::cat(rows, 0) / self.config.temperature
    }
}

impl Objective for Contrastive {
    fn prepare(&self, batch: &mut Batch, seed: u64, step: u64) {
        let mut masks = streams(batch, "span mask", seed, step);
        let mut others = streams(batch, "negatives", seed, step);
        let Some(sound) = &mut batch.sound else { return };
        sound.is_hidden = self.config.mask.draw(&sound.frames, sound.num_frames, &mut masks);
        sound.negatives =
            draw_negatives(&mut sound.is_hidden, sound.num_frames, self.config.num_negatives, &mut others);
        let temperature = self.config.gumbel.at(step);
        sound.gumbel = (step != EVALUATION).then_some(Gumbel { temperature, seed, step });
    }

    fn wanted(&self, batch: &Batch) -> Wanted {
        Wanted::Codes(sound(batch).hidden_places().collect())
    }

    fn loss(&self, batch: &Batch, mut output: Output) -> Loss {
        let sound = sound(batch);
        let counts = hidden_counts(sound);
        let count = counts.iter().sum::<usize>() as f64;
        let rows = sound.num_rows() as f64;
        let left_out = rows - counts.iter().filter(|count| **count > 0).count() as f64;
        let codes = output.take_codes();
        let queries = output.logits();
        let Some(codes) = codes.filter(|_| count > 0.0) else {
            return Loss::new(Tensor::zeros([1], &queries.device()), 0.0).term("rows_left_out", left_out, rows);
        };
        let logits = self.logits(sound, queries, &codes);
        let competing = self.config.num_negatives + 1;
        let (mut told, mut right) = (0.0, 0.0);
        for frame in values(logits.clone().detach()).chunks(competing) {
            let (loss, is_right) = judge(frame);
            told += loss;
            right += f64::from(u8::from(is_right));
        }
        let [books, entries] = codes.usage.dims();
        let all = (books * entries) as f64;
        let usage: Vec<f64> = values(codes.usage.clone().detach()).into_iter().map(f64::from).collect();
        let dead = usage.iter().filter(|share| **share < DEAD / entries as f64).count() as f64;
        let taken = host_perplexity(&shares_taken(&codes.ids, books, entries), entries);
        let mut sum = activation::log_softmax(logits, 1).slice([0..count as usize, 0..1]).sum().neg();
        if self.config.diversity_weight > 0.0 {
            let unused = perplexity(codes.usage).neg() / all + 1.0;
            sum = sum + unused * (count * self.config.diversity_weight);
        }
        let penalty = f64::from(values(codes.feature_penalty.clone().detach()).first().copied().unwrap_or(0.0));
        if self.config.feature_penalty_weight > 0.0 {
            sum = sum + codes.feature_penalty * (count * self.config.feature_penalty_weight);
        }
        let frames = sound.frames.iter().sum::<usize>() as f64;
        let loss = Loss::new(sum, count)
            .term("contrastive_loss", told, count)
            .term("contrastive_accuracy", right, count)
            .term("contrastive_chance", (competing as f64).ln() * count, count)
            .term("code_perplexity", taken * count, count)
            .term("codebook_perplexity", taken / books as f64 * count, count)
            .term("probability_perplexity", host_perplexity(&usage, entries) * count, count)
            .term("dead_entries", dead / all * count, count)
            .term("feature_penalty", penalty * count, count)
            .term("masked_share", count, frames)
            .term("rows_left_out", left_out, rows);
        match sound.gumbel {
            Some(gumbel) => loss.term("gumbel_temperature", gumbel.temperature * count, count),
            None => loss,
        }
    }

    fn scores(&self, batch: &Batch, mut output: Output) -> Vec<RowScore> {
        let sound = sound(batch);
        let counts = hidden_counts(sound);
        let codes = output.take_codes().filter(|_| counts.iter().any(|count| *count > 0));
        let logits = codes.map(|codes| values(self.logits(sound, output.logits(), &codes))).unwrap_or_default();
        let mut frames = logits.chunks(self.config.num_negatives + 1);
        let row = |count: &usize| {
            let mut score = RowScore { count: *count as f64, ..RowScore::default() };
            for (loss, is_right) in frames.by_ref().take(*count).map(judge) {
                score.loss_sum += loss;
                score.correct += u64::from(is_right);
            }
            score
        };
        counts.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests;
