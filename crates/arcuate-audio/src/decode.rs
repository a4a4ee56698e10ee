//! Whole files and segments to mono samples: what a caller asks for, what a file says of itself, and the limits.

use std::path::Path;
use std::sync::Arc;

use crate::stream::Stream;
use crate::{Error, Result};

/// What audio may take at most; held before memory is taken for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Length of what is read: the segment where one is asked for, else the file.
    pub max_seconds: f64,
    /// Channels of the file.
    pub max_channels: u16,
    /// Rate of the file and of the result.
    pub max_sample_rate_hz: u32,
    /// Samples of all channels as `f32`, counted while they are decoded.
    pub max_decoded_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_seconds: 6.0 * 3600.0, max_channels: 8, max_sample_rate_hz: 384_000, max_decoded_bytes: 8 << 30 }
    }
}

/// What the headers of a file say, before any sample is decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// The rate of its samples.
    pub sample_rate_hz: u32,
    /// Its channels.
    pub num_channels: u16,
    /// Samples for each channel, where the headers know.
    pub num_frames: Option<u64>,
    /// The form of the samples, such as `pcm_s16le`, `flac`, `mp3`, `opus`.
    pub codec: String,
}

impl Info {
    /// The length, where the headers know.
    pub fn seconds(&self) -> Option<f64> {
        self.num_frames.map(|frames| frames as f64 / f64::from(self.sample_rate_hz))
    }
}

/// Mono audio: the mean of the channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Waveform {
    /// Full scale is 1.
    pub samples: Vec<f32>,
    /// The rate of the samples.
    pub sample_rate_hz: u32,
}

impl Waveform {
    /// The length.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.sample_rate_hz.max(1))
    }
}

/// Which part of a file is wanted, and how.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DecodeOptions {
    /// What the file may take.
    pub limits: Limits,
    /// Resamples to this rate; `None` keeps the rate of the file.
    pub sample_rate_hz: Option<u32>,
    /// Where to begin.
    pub start_seconds: f64,
    /// How much to read at most; `None` reads to the end.
    pub seconds: Option<f64>,
    /// Takes what is readable of a damaged or cut-off file: lost packets become silence, a lost end is left out.
    pub accept_damaged: bool,
}

impl DecodeOptions {
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |key, message: String| Err(Error::Config { key, message });
        if !(self.start_seconds >= 0.0 && self.start_seconds.is_finite()) {
            return wrong("start_seconds", format!("is {}; must be 0 or more", self.start_seconds));
        }
        if let Some(seconds) = self.seconds.filter(|seconds| !(*seconds > 0.0 && seconds.is_finite())) {
            return wrong("seconds", format!("is {seconds}; must be more than 0"));
        }
        let max = self.limits.max_sample_rate_hz;
        if let Some(rate) = self.sample_rate_hz.filter(|rate| *rate == 0 || *rate > max) {
            return wrong("sample_rate_hz", format!("is {rate}; must be from 1 to {max}"));
        }
        Ok(())
    }
}

fn whole(limits: &Limits) -> DecodeOptions {
    DecodeOptions { limits: limits.clone(), ..DecodeOptions::default() }
}

/// What the headers of a file say. Fails as decoding would, as far as headers tell.
pub fn probe_file(path: &Path, limits: &Limits) -> Result<Info> {
    Ok(Stream::open_file(path, &whole(limits))?.info().clone())
}

/// As [`probe_file`], of bytes in memory. The extension stands in messages only: the content decides.
pub fn probe_bytes(bytes: impl Into<Arc<[u8]>>, extension_hint: Option<&str>, limits: &Limits) -> Result<Info> {
    Ok(Stream::open_bytes(bytes, extension_hint, &whole(limits))?.info().clone())
}

/// A file, or a segment of it, as mono samples.
pub fn decode_file(path: &Path, options: &DecodeOptions) -> Result<Waveform> {
    collect(Stream::open_file(path, options)?)
}

/// As [`decode_file`], of bytes in memory. The extension stands in messages only: the content decides.
pub fn decode_bytes(
    bytes: impl Into<Arc<[u8]>>,
    extension_hint: Option<&str>,
    options: &DecodeOptions,
) -> Result<Waveform> {
    collect(Stream::open_bytes(bytes, extension_hint, options)?)
}

fn collect(stream: Stream) -> Result<Waveform> {
    let sample_rate_hz = stream.sample_rate_hz();
    let mut samples = Vec::new();
    for block in stream {
        samples.extend_from_slice(&block?);
    }
    samples.shrink_to_fit();
    Ok(Waveform { samples, sample_rate_hz })
}
