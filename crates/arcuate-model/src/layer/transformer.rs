//! The encoder layer of wav2vec 2.0 and HuBERT, with the norm before or after each part, and a small adapter of a language if wanted.
//!
//! That of SpeechT5 is the same with vectors for distances, and its decoder has the same attention and feed-forward parts.
// B rows, T frames, C channels, Q queries, K keys, R distances, H head channels

use arcuate_ops::activation::{Form, activate};
use arcuate_ops::attention::{self, attention};
use arcuate_ops::feed_forward::feed_forward;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::pass::{Pass, Place};
use super::relative::attention_by_distance;
use super::{LayerNorm, Linear};

/// Epsilon of the norm of an adapter; PyTorch's default, whatever the rest of the network has.
const EPS: f64 = 1e-5;

/// Two maps with a function between them.
#[derive(Module, Debug)]
pub(crate) struct FeedForward {
    intermediate_dense: Linear,
    output_dense: Linear,
}

impl FeedForward {
    pub(crate) fn new(width: usize, inner: usize, device: &Device) -> Self {
        Self {
            intermediate_dense: Linear::new(width, inner, true, device),
            output_dense: Linear::new(inner, width, true, device),
        }
    }

    /// `x` `[B, T, C]` through both maps, plus a residual.
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        residual: Option<Tensor<3>>,
        form: Form,
        pass: &Pass,
        layer: usize,
        [inside, after]: [Place; 2],
    ) -> Tensor<3> {
        let (up, down) = (&self.intermediate_dense, &self.output_dense);
        let is_last = pass.drops(pass.rates.hidden);
        let (fused, added) = if is_last { (None, residual) } else { (residual, None) };
        let y = if pass.drops(pass.rates.activation) {
            let h = pass.drop(activate(up.forward(x), form), pass.rates.activation, layer, inside);
            match fused {
                Some(residual) => down.forward_add(h, residual),
                None => down.forward(h),
            }
        } else {
            feed_forward(x, up.parts(), down.parts(), fused, form, up.layout())
        };
        let y = pass.drop(y, pass.rates.hidden, layer, after);
        match added {
            Some(residual) => y + residual,
            None => y,
        }
    }
}

/// Attention with its maps.
#[derive(Module, Debug)]
pub(super) struct Attention {
    k_proj: Linear,
    v_proj: Linear,
    q_proj: Linear,
    pub(super) out_proj: Linear,
}

impl Attention {
    pub(super) fn new(width: usize, device: &Device) -> Self {
        let square = || Linear::new(width, width, true, device);
        Self { k_proj: square(), v_proj: square(), q_proj: square(), out_proj: square() }
    }

    /// What the queries `x` `[B, Q, C]` read in `memory` `[B, K, C]`, before the last map; `table` `[2R, H]` has a vector for
    /// each distance from `R` later to `R - 1` earlier.
    pub(super) fn mixed(
        &self,
        x: Tensor<3>,
        memory: Tensor<3>,
        table: Option<Tensor<2>>,
        how: &attention::Attention,
    ) -> Tensor<3> {
        let (q, k, v) = (self.q_proj.forward(x), self.k_proj.forward(memory.clone()), self.v_proj.forward(memory));
        match table {
            Some(table) => {
                let zero = table.dims()[0] / 2;
                attention_by_distance(q, k, v, table, zero, how)
            }
            None => attention(q, k, v, how),
        }
    }
}

/// A few weights of one language behind a layer (Pratap et al. 2023).
#[derive(Module, Debug)]
struct AttentionAdapter {
    norm: LayerNorm,
    linear_1: Linear,
    linear_2: Linear,
}

impl AttentionAdapter {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (up, down) = (&self.linear_1, &self.linear_2);
        feed_forward(self.norm.forward(x.clone()), up.parts(), down.parts(), Some(x), Form::Relu, up.layout())
    }
}

/// One layer.
#[derive(Module, Debug)]
pub(crate) struct TransformerLayer {
    attention: Attention,
    layer_norm: LayerNorm,
    feed_forward: FeedForward,
    final_layer_norm: LayerNorm,
    adapter_layer: Option<AttentionAdapter>,
    #[module(skip)]
    pre_norm: bool,
}

impl TransformerLayer {
    pub(crate) fn new(
        [width, inner]: [usize; 2],
        eps: f64,
        pre_norm: bool,
        adapter: Option<usize>,
        device: &Device,
    ) -> Self {
        let linear = |inputs, outputs| Linear::new(inputs, outputs, true, device);
        Self {
            attention: Attention::new(width, device),
            layer_norm: LayerNorm::new(width, eps, device),
            feed_forward: FeedForward::new(width, inner, device),
            final_layer_norm: LayerNorm::new(width, eps, device),
            adapter_layer: adapter.map(|size| AttentionAdapter {
                norm: LayerNorm::new(width, EPS, device),
                linear_1: linear(width, size),
                linear_2: linear(size, width),
            }),
            pre_norm,
        }
    }

    /// `x` `[B, T, C]` after this layer, number `i`; `table` `[2R, H]` has a vector for each distance, if any.
    pub(crate) fn forward(&self, x: Tensor<3>, i: usize, table: Option<Tensor<2>>, pass: &Pass) -> Tensor<3> {
        let mixed = |h: Tensor<3>| self.attention.mixed(h.clone(), h, table, &pass.attention(i));
        let places = [Place::Activation, Place::FeedForward];
        if !self.pre_norm {
            let mixed = self.attention.out_proj.forward(mixed(x.clone()));
            let x = self.layer_norm.forward_sum(pass.drop(mixed, pass.rates.hidden, i, Place::Attention), x);
            let h = self.feed_forward.forward(x.clone(), None, pass.form, pass, i, places);
            return self.final_layer_norm.forward_sum(h, x);
        }
        let mixed = mixed(self.layer_norm.forward(x.clone()));
        let out = &self.attention.out_proj;
        let x = if pass.drops(pass.rates.hidden) {
            pass.drop(out.forward(mixed), pass.rates.hidden, i, Place::Attention) + x
        } else {
            out.forward_add(mixed, x)
        };
        let h = self.final_layer_norm.forward(x.clone());
        let x = self.feed_forward.forward(h, Some(x), pass.form, pass, i, places);
        match &self.adapter_layer {
            Some(adapter) => adapter.forward(x),
            None => x,
        }
    }
}
