//! Layers that several architectures share; their fields carry the public tensor names.

mod basic;
mod batch_norm;
mod cache;
mod conv_front;
mod dropout;

pub(crate) use basic::{Embedding, LayerNorm, Linear, RmsNorm};
pub use batch_norm::Seen;
pub use cache::KvCache;
pub(crate) use conv_front::ConvFront;
pub use conv_front::ConvFrontConfig;
pub use dropout::Dropout;
pub(crate) use dropout::{attention_dropout, dropout};
