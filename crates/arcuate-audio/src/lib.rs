//! Audio: decoding of any file, resampling, features, augmentation, voice activity. Knows no tensors.

mod decode;
mod error;
mod features;
mod mel;
mod mp4;
mod opus;
#[cfg(test)]
mod reference;
mod sniff;
mod source;
mod stft;
mod stream;
#[cfg(test)]
mod test_noise;

pub mod augment;
pub mod fbank;
pub mod log_mel;
pub mod normalise;
pub mod resample;
pub mod vad;
pub mod wada_snr;

pub use decode::{DecodeOptions, Info, Limits, Waveform, decode_bytes, decode_file, probe_bytes, probe_file};
pub use error::{Error, Result};
pub use features::Features;
pub use stream::Stream;
