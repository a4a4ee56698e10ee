//! Networks by architecture, in the public checkpoint layouts.
//!
//! A field of a network is named as its public tensor is, so reading and writing a checkpoint is nearly the identity.

pub mod bert;
mod checkpoint;
mod config;
mod error;
pub mod gpt2;
pub mod hubert;
mod input;
mod layer;
pub mod llama;
mod network;
mod output;
mod params;
mod public_config;
pub mod qwen2;
pub mod speech;
pub mod speecht5;
pub mod tensors;
pub mod wav2vec2;
pub mod wav2vec2_bert;
pub mod wav2vec2_conformer;

pub use checkpoint::{Adoption, Vocabulary, common_tokens, load, save, start_from};
pub use config::ModelConfig;
pub use error::{Error, Result};
pub use input::{Input, Wanted};
pub use layer::{ConvFrontConfig, Dropout, KvCache, Seen};
pub use network::{Architecture, Head, Network};
pub use output::{Codes, Output};
pub use params::{ParameterInfo, Replace, Visit, is_buffer, with_values};
pub use public_config::TokenIds;
