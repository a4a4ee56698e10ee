//! The decoder layer of SpeechT5: tokens read those before them, then what an encoder gives, each with the norm after it.
//!
//! # Reference
//! Vaswani et al. 2017; Ao et al. 2022 (SpeechT5)
// B rows, U tokens, T frames, C channels

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::pass::{Pass, Place};
use super::transformer::Attention;
use super::{FeedForward, LayerNorm};

/// One layer.
#[derive(Module, Debug)]
pub(crate) struct DecoderLayer {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    encoder_attn: Attention,
    encoder_attn_layer_norm: LayerNorm,
    feed_forward: FeedForward,
    final_layer_norm: LayerNorm,
}

impl DecoderLayer {
    pub(crate) fn new([width, inner]: [usize; 2], eps: f64, device: &Device) -> Self {
        let norm = || LayerNorm::new(width, eps, device);
        Self {
            self_attn: Attention::new(width, device),
            self_attn_layer_norm: norm(),
            encoder_attn: Attention::new(width, device),
            encoder_attn_layer_norm: norm(),
            feed_forward: FeedForward::new(width, inner, device),
            final_layer_norm: norm(),
        }
    }

    /// `x` `[B, U, C]` after this layer, which reads `memory` `[B, T, C]`, too.
    ///
    /// The passes are those of tokens that read tokens and of tokens that read frames. The layer counts as two for dropout,
    /// of which `i` is the number of the first.
    pub(crate) fn forward(&self, x: Tensor<3>, memory: Tensor<3>, i: usize, [own, cross]: &[Pass; 2]) -> Tensor<3> {
        let mixed = self.self_attn.mixed(x.clone(), x.clone(), None, &own.attention(i));
        let mixed = own.drop(self.self_attn.out_proj.forward(mixed), own.rates.hidden, i, Place::Attention);
        let x = self.self_attn_layer_norm.forward_sum(mixed, x);
        let read = self.encoder_attn.mixed(x.clone(), memory, None, &cross.attention(i + 1));
        let read = cross.drop(self.encoder_attn.out_proj.forward(read), cross.rates.hidden, i + 1, Place::Attention);
        let x = self.encoder_attn_layer_norm.forward_sum(read, x);
        let places = [Place::Activation, Place::FeedForward];
        let h = self.feed_forward.forward(x.clone(), None, own.form, own, i, places);
        self.final_layer_norm.forward_sum(h, x)
    }
}
