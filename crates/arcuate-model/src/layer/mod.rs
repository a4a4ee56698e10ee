//! Layers that several architectures share; their fields carry the public tensor names.

mod adapter;
mod basic;
mod batch_norm;
mod cache;
mod conformer;
mod conv_encoder;
mod conv_front;
mod decoder;
mod dropout;
mod pass;
mod position_conv;
mod quantizer;
mod relative;
mod transformer;

pub(crate) use adapter::Adapter;
pub(crate) use basic::{Embedding, LayerNorm, Linear, RmsNorm};
pub use batch_norm::Seen;
pub use cache::KvCache;
pub(crate) use conformer::ConformerLayer;
pub(crate) use conv_encoder::ConvEncoder;
pub(crate) use conv_front::ConvFront;
pub use conv_front::ConvFrontConfig;
pub(crate) use decoder::DecoderLayer;
pub use dropout::Dropout;
pub(crate) use dropout::{attention_dropout, dropout};
pub(crate) use pass::{Pass, Place};
pub(crate) use position_conv::PositionConv;
pub(crate) use quantizer::{Quantized, Quantizer, gumbel};
pub(crate) use transformer::{FeedForward, TransformerLayer};
