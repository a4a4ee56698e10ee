//! Layers that several architectures share; their fields carry the public tensor names.

mod basic;
mod cache;
mod dropout;

pub(crate) use basic::{Embedding, LayerNorm, Linear, RmsNorm};
pub use cache::KvCache;
pub use dropout::Dropout;
pub(crate) use dropout::{attention_dropout, dropout};
