//! Corpora to batches: readers, token cache, order, mixture, packing, transforms; knows no tensors.

mod cache;
mod collate;
mod config;
mod corpus;
pub mod draw;
mod encoder;
mod error;
pub mod fetch;
mod files;
mod hashes;
mod held_out;
mod mapped;
mod mixture;
pub mod pack;
mod plan;
mod progress;
mod prompt;
pub mod reader;
mod row;
mod rows;
mod sampler;
mod scan;
mod sound;
pub mod speech;
mod speech_corpus;
mod split;
mod store;
mod summary;
mod text_corpus;
mod texts;
pub mod transform;
mod words;

#[cfg(test)]
mod testing;

pub use collate::{Batch, collate};
pub use config::{ConfigProblem, DataConfig, SourceConfig};
pub use corpus::Corpus;
pub use error::{BadItem, BadReason, Error, Result};
pub use held_out::HeldOut;
pub use mixture::LedgerEntry;
pub use pack::PackingConfig;
pub use progress::{Progress, Stage};
pub use prompt::{Prompt, Regression, SoftToken};
pub use reader::Document;
pub use row::{Framing, IGNORED_TARGET, Row};
pub use sampler::{MicrobatchLimits, Sampler, SamplerState, SourceProgress};
pub use scan::{FindingKind, ScanFinding, ScanOptions, ScanReport, SourceScan, scan};
pub use sound::{Downsampling, Gumbel, RowSound, Sound};
pub use speech::{SpeechConfig, Utterance};
pub use speech_corpus::{SpeechOptions, frames_needed};
pub use split::Split;
pub use summary::SourceSummary;
pub use text_corpus::CorpusOptions;
pub use texts::{Failure, Texts};
pub use words::Words;
