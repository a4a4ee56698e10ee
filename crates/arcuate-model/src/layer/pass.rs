//! What the layers of one forward pass of a speech network share.
// B rows, T frames, C channels

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arcuate_ops::activation::Form;
use arcuate_ops::attention::Attention;
use arcuate_ops::rng::Stream;
use arcuate_ops::rope::Rotation;
use burn::tensor::{Tensor, TensorData};

use super::{Dropout, Seen, attention_dropout, dropout};
use crate::speech::Rates;

/// Places of a layer where something is dropped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    Attention,
    Activation,
    FeedForward,
    Conv,
    SecondActivation,
    SecondFeedForward,
}

/// Dropout sites of a layer.
const SITES: u64 = 8;

/// What all layers share.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    /// Heads, and the keys that are no padding.
    pub(crate) attention: Attention,
    /// The function inside feed-forward layers.
    pub(crate) form: Form,
    /// How much is dropped where.
    pub(crate) rates: Rates,
    /// Where masks come from; none in evaluation.
    pub(crate) dropout: Option<Dropout>,
    /// True where a frame is no padding `[B*T]`; empty: everywhere.
    pub(crate) is_frame: Arc<[bool]>,
    /// Sines of relative positions from the farthest later key to the farthest earlier one `[2T-1, C]`; empty: none.
    pub(crate) distances: Arc<[f32]>,
    /// Rotary positions.
    pub(crate) rotation: Option<Rotation>,
}

impl Pass {
    /// `x` `[B, T, C]` with zeros where padding is.
    pub(crate) fn without_padding(&self, x: Tensor<3>) -> Tensor<3> {
        if self.is_frame.is_empty() {
            return x;
        }
        let [b, t, _] = x.dims();
        let keep: Vec<f32> = self.is_frame.iter().map(|is| f32::from(u8::from(*is))).collect();
        // Made beside `x`: a layer may be computed off the tape.
        let keep = Tensor::<3>::from_data(TensorData::new(keep, [b, t, 1]), &x.device());
        x * keep
    }

    /// Dropout with a rate at a place of a layer.
    pub(crate) fn drop<const D: usize>(&self, x: Tensor<D>, rate: f64, layer: usize, place: Place) -> Tensor<D> {
        dropout(x, rate, SITES * (layer as u64 + 1) + place as u64, self.dropout.as_ref())
    }

    /// Dropout with a rate before or after all layers.
    pub(crate) fn drop_outside<const D: usize>(&self, x: Tensor<D>, rate: f64, site: u64) -> Tensor<D> {
        debug_assert!(site < SITES, "{site}");
        dropout(x, rate, site, self.dropout.as_ref())
    }

    /// Whether dropout with a rate would change anything.
    pub(crate) fn drops(&self, rate: f64) -> bool {
        self.dropout.is_some() && rate > 0.0
    }

    /// Whether a layer is left out.
    pub(crate) fn skips(&self, layer: usize) -> bool {
        let Some(name) = self.dropout.as_ref().filter(|_| self.rates.layer > 0.0) else { return false };
        Stream::new(name.seed, "layer drop", name.step, layer as u64).uniform() < self.rates.layer
    }

    /// The attention of a layer.
    pub(crate) fn attention(&self, layer: usize) -> Attention {
        let dropout = attention_dropout(self.rates.attention, layer as u64, self.dropout.as_ref());
        Attention { dropout, ..self.attention.clone() }
    }
}

/// Where the batch norm of one layer leaves its statistics: once, though a layer may be computed again.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    seen: Seen,
    norm: usize,
    is_taken: Arc<AtomicBool>,
}

impl Sight {
    pub(crate) fn new(seen: &Seen, norm: usize) -> Self {
        Self { seen: seen.clone(), norm, is_taken: Arc::default() }
    }

    /// Keeps the first statistics.
    pub(crate) fn keep(&self, statistics: arcuate_ops::batch_norm::Statistics) {
        if !self.is_taken.swap(true, Ordering::Relaxed) {
            self.seen.push(self.norm, statistics);
        }
    }
}
