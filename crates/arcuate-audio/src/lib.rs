//! Audio: decoding of any file, resampling, features, augmentation, voice activity. Knows no tensors.

mod decode;
mod error;
mod opus;
mod sniff;
mod source;
mod stream;

pub mod resample;

pub use decode::{DecodeOptions, Info, Limits, Waveform, decode_bytes, decode_file, probe_bytes, probe_file};
pub use error::{Error, Result};
pub use stream::Stream;
