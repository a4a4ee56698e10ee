//! Objectives: (batch, output) to a sum and a count. They own no weights and never divide.

use std::sync::Arc;

use arcuate_data::transform::span_mask::SpanMask;
use arcuate_data::{Batch, Sound};
use arcuate_model::{Output, Wanted};
use arcuate_ops::linear_cross_entropy::CrossEntropy;
use arcuate_ops::rng::Stream;
use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod classification;
pub mod contrastive;
pub mod ctc;
pub mod distillation;
pub mod masked_lm;
pub mod masked_prediction;
pub mod next_token;
pub mod prompt;
pub mod tagging;

/// What an objective may know of the tokenizer.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    /// Number of tokens.
    pub size: usize,
    /// The token that hides another.
    pub mask: Option<u32>,
    /// Tokens that are never hidden or drawn: begin, end, padding and the like.
    pub special: Vec<u32>,
    /// Whether each token begins a word. `[V]`
    pub starts_word: Arc<[bool]>,
    /// The token of each class's word, where the objective has such words.
    pub words: Vec<u32>,
    /// Whether a token sees only earlier ones.
    pub is_causal: bool,
    /// The token that fills rows; the blank of CTC.
    pub pad: u32,
    /// Channels of a frame in the network, which channel masks hide; 0 for networks that hear nothing.
    pub num_channels: usize,
}

/// The step that evaluations are prepared with: what is hidden is always the same, and nothing is hidden that makes training
/// harder only.
pub const EVALUATION: u64 = u64::MAX;

/// A loss before any division.
pub struct Loss {
    /// Sum over everything that counts. `[1]`
    pub sum: Tensor<1>,
    /// How much counts: the divisor that makes a mean of the sum.
    pub count: f64,
    /// Numbers that are shown beside the loss and watched for collapse.
    pub terms: Vec<Term>,
}

/// A number beside the loss, before any division, so that those of microbatches add up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// Such as `blank_share`.
    pub name: &'static str,
    /// Sum over everything that counts.
    pub sum: f64,
    /// How much counts; it may differ from term to term.
    pub count: f64,
}

impl Loss {
    /// A loss with nothing beside it.
    pub fn new(sum: Tensor<1>, count: f64) -> Self {
        Self { sum, count, terms: Vec::new() }
    }

    /// The same with a number beside it.
    #[must_use]
    pub fn term(mut self, name: &'static str, sum: f64, count: f64) -> Self {
        self.terms.push(Term { name, sum, count });
        self
    }
}

/// What one row of an evaluation contributes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RowScore {
    /// Negative log-likelihood in nats, summed over what counts; without smoothing or penalties.
    pub loss_sum: f64,
    /// How much counts.
    pub count: f64,
    /// How many predictions were right.
    pub correct: u64,
    /// The most probable class, for classification.
    pub predicted: Option<u32>,
    /// Insertions, deletions and substitutions between the labels of a sequence and what is read off the most probable path.
    pub num_errors: u64,
    /// Labels of that sequence.
    pub num_labels: u64,
}

/// What is minimised.
pub trait Objective: Send + Sync {
    /// Chooses what is hidden and predicted, from streams named by (seed, step, row). Most objectives change nothing.
    fn prepare(&self, batch: &mut Batch, seed: u64, step: u64);

    /// The places for which the network gives an output.
    fn wanted(&self, batch: &Batch) -> Wanted;

    /// Sum and count for the output at the wanted places.
    fn loss(&self, batch: &Batch, output: Output) -> Loss;

    /// Plain negative log-likelihood row by row, for evaluation. `[B]`
    fn scores(&self, batch: &Batch, output: Output) -> Vec<RowScore>;
}

macro_rules! objectives {
    ($($variant:ident => $module:ident),* $(,)?) => {
        /// The `[objective.<name>]` table; exactly one name per recipe.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ObjectiveConfig {
            $(
                #[doc = concat!("`[objective.", stringify!($module), "]`")]
                $variant($module::Config)
            ),*
        }

        impl ObjectiveConfig {
            /// The names that may follow `objective.` in a recipe.
            pub const NAMES: &[&str] = &[$(stringify!($module)),*];

            /// The name of this choice.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($module)),* }
            }

            /// The objective itself.
            pub fn build(&self, vocabulary: &Vocabulary) -> Result<Box<dyn Objective>> {
                Ok(match self { $(Self::$variant(config) => Box::new($module::build(config, vocabulary)?) as Box<dyn Objective>),* })
            }
        }
    };
}

objectives! { Classification => classification, Contrastive => contrastive, Ctc => ctc, Distillation => distillation, MaskedLm => masked_lm, MaskedPrediction => masked_prediction, NextToken => next_token, Prompt => prompt, Tagging => tagging }

impl ObjectiveConfig {
    /// Whether whole rows or words are told apart by class, so that accuracy is what counts.
    pub fn is_classification(&self) -> bool {
        matches!(self, Self::Classification(_) | Self::Distillation(_) | Self::Prompt(_) | Self::Tagging(_))
    }
}

/// An objective that this tokenizer or data cannot serve.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The place of the largest number; of equal ones the first, and of none 0.
pub fn largest<T: PartialOrd>(numbers: &[T]) -> usize {
    (1..numbers.len()).fold(0, |best, i| if numbers[i] > numbers[best] { i } else { best })
}

/// The tokens of a batch that are predicted, flattened: places and targets.
fn predicted(batch: &Batch) -> (Arc<[i32]>, Arc<[i32]>) {
    let places = |keep: &dyn Fn(usize, i32) -> i32| -> Arc<[i32]> {
        batch.targets.iter().enumerate().filter(|(_, t)| **t >= 0).map(|(i, t)| keep(i, *t)).collect()
    };
    (places(&|i, _| i as i32), places(&|_, t| t))
}

/// Cross-entropy over the predicted tokens of a batch.
fn token_loss(batch: &Batch, output: Output, z_loss: f64, label_smoothing: f64) -> Loss {
    let (places, targets) = predicted(batch);
    let weights: Option<Arc<[f32]>> =
        batch.weights.as_ref().map(|weights| places.iter().map(|i| weights[*i as usize]).collect());
    let count = weights.as_ref().map_or(targets.len() as f64, |w| w.iter().map(|w| f64::from(*w)).sum());
    let how = CrossEntropy {
        weights,
        z_loss: z_loss as f32,
        label_smoothing: label_smoothing as f32,
        ..CrossEntropy::new(targets)
    };
    Loss::new(output.cross_entropy(&how), count)
}

/// Scores of the predicted tokens, gathered by row.
fn token_scores(batch: &Batch, output: Output) -> Vec<RowScore> {
    let (places, targets) = predicted(batch);
    let scores = output.scores(&targets);
    let mut rows = vec![RowScore::default(); batch.num_rows];
    for ((place, target), score) in places.iter().zip(targets.iter()).zip(scores) {
        let row = &mut rows[*place as usize / batch.seq_len];
        row.loss_sum += f64::from(score.loss);
        row.count += 1.0;
        row.correct += u64::from(score.best == Some(*target as u32));
    }
    rows
}

/// The sound of a batch for an objective that only takes speech, which is checked with the recipe.
fn sound(batch: &Batch) -> &Sound {
    batch.sound.as_ref().expect("rows of an objective for speech are heard")
}

/// A stream for each row of a batch.
fn streams(batch: &Batch, purpose: &str, seed: u64, step: u64) -> Vec<Stream> {
    batch.row_keys.iter().map(|key| Stream::new(seed, purpose, step, *key)).collect()
}

/// The first problem of a span mask, as an error with its key.
fn check_mask(table: &str, mask: &SpanMask) -> Result<()> {
    match mask.check().into_iter().next() {
        Some((_, problem)) => Err(Error(format!("{problem} in `{table}`"))),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A batch of rows that are heard: so many frames each.
    pub(crate) fn heard(frames: &[usize]) -> Batch {
        let rows: Vec<&[i32]> = frames.iter().map(|_| &[0][..]).collect();
        let longest = frames.iter().copied().max().unwrap_or(0);
        let values = vec![0.0; frames.len() * longest];
        let sound = Sound::new(values, longest, 1, frames.to_vec(), longest, frames.to_vec());
        Batch { sound: Some(sound), ..batch(&rows) }
    }

    /// An output whose logits are the given ones.
    pub(crate) fn output(logits: Tensor<2>) -> Output {
        let v = logits.dims()[1];
        let one = Tensor::eye(v, &logits.device());
        Output::new(logits, one, None)
    }

    /// A batch of the given rows without padding; nothing is predicted yet.
    pub(crate) fn batch(rows: &[&[i32]]) -> Batch {
        let seq_len = rows.iter().map(|r| r.len()).max().unwrap_or(0);
        let cells = |f: &dyn Fn(usize, usize) -> i32| -> Vec<i32> {
            (0..rows.len()).flat_map(|i| (0..seq_len).map(move |t| (i, t))).map(|(i, t)| f(i, t)).collect()
        };
        Batch {
            num_rows: rows.len(),
            seq_len,
            input_ids: cells(&|i, t| rows[i].get(t).copied().unwrap_or(0)),
            targets: cells(&|_, _| -100),
            weights: None,
            positions: cells(&|_, t| t as i32),
            may_attend: cells(&|_, _| 0).iter().map(|_| [0, seq_len as u32]).collect(),
            token_types: cells(&|_, _| 0),
            labels: vec![-100; rows.len()],
            logits: None,
            sound: None,
            is_padding: cells(&|i, t| i32::from(t >= rows[i].len())).into_iter().map(|x| x == 1).collect(),
            row_keys: (0..rows.len() as u64).collect(),
            sources: vec![0; rows.len()],
            num_bytes: 0,
        }
    }
}
