//! Decoding: from a model's output to text.

pub mod config;
pub mod ctc;
mod error;
mod frame;
mod generate;
mod sampling;
mod stop;

pub use config::{SamplesConfig, SamplingConfig};
pub use error::{Error, Result};
pub use frame::{begin_tokens, empty_context, end_tokens};
pub use generate::{GenerateConfig, Generation, Generator, Reason};
pub use sampling::{Candidate, candidates, choose};
pub use stop::StopFinder;
