//! Augmentation: what recordings go through, anew each time that they are trained on.
//!
//! # What it computes
//! One after the other: speed, room, noise, loudness on the samples; bands of silence over time and frequency on filter banks.
//! Every draw follows from the seed of the run, the source, how much of it was drawn before, and the utterance; each kind has a stream
//! of its own, so that another kind changes nothing of it. Held-out and test recordings stay as they are.
//! # Recipe
//! `[data.speech.augment]` with any of `speed`, `gain_db`, `noise`, `reverberation`, `spec_augment`
//! # Reference
//! Ko et al. 2015 (speed), 2017 (reverberation); Park et al. 2019 (SpecAugment)

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arcuate_audio::augment::{self, SpecAugment};
use arcuate_audio::{DecodeOptions, Features, Limits, decode_file};
use arcuate_ops::rng::Stream;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ENDINGS_SHOWN, SpeechConfig, is_sound};
use crate::config::ConfigProblem;
use crate::error::{Error, Result};
use crate::files;
use crate::progress::{Progress, Stage};

/// Where all of it stands in a recipe.
const TABLE: &str = "data.speech.augment";
/// Speeds that can be made.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.25..=4.0;
/// Decibels that anybody means.
const MAX_DB: f64 = 100.0;
/// The longest recording of noise; cut longer ones.
const MAX_NOISE_SECONDS: f64 = 3600.0;
/// No room sounds for longer.
const MAX_ROOM_SECONDS: f64 = 30.0;
/// Sounds that are decoded between two reports of progress.
const BATCH: usize = 64;

/// The `[data.speech.augment]` table: changes of the training recordings that keep their words. Each is off when left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Speeds, one of which is drawn for each utterance, in steps of 0.01; above 1 it is shorter and higher. Ko et al. 2015:
    /// `[0.9, 1.0, 1.1]`. A speed at which a row would be longer than `batch.max_seq_len`, or too short for its transcript, is not
    /// taken; such a row is heard as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speed: Vec<f64>,
    /// Least and most decibels that an utterance is made louder, as `[-6, 6]`. Only without `normalise`, which would undo it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain_db: Option<[f64; 2]>,
    /// Noise behind some utterances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<Noise>,
    /// Rooms around some utterances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverberation: Option<Reverberation>,
    /// Frames and bands of filter banks that are left out. For networks that hear samples, the objective hides frames
    /// (`time_mask`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_augment: Option<SpecAugmentConfig>,
    /// Memory for decoded noise and rooms; what does not fit is decoded each time that it is drawn. An hour takes 230 MB at 16 kHz.
    #[serde(default = "default_cache_bytes")]
    pub cache_bytes: u64,
}

fn default_cache_bytes() -> u64 {
    256 << 20
}

/// `[data.speech.augment.noise]`: recordings without words, such as those of MUSAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// A folder of sound files (read recursively), a pattern or one file.
    pub path: String,
    /// Least and most decibels by which the utterance is louder than the noise, as `[5, 20]`.
    pub snr_db: [f64; 2],
    /// Share of the utterances that get noise.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: f64,
}

/// `[data.speech.augment.reverberation]`: impulse responses of rooms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reverberation {
    /// A folder of sound files (read recursively), a pattern or one file.
    pub path: String,
    /// Share of the utterances that are heard in a room.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: f64,
}

/// `[data.speech.augment.spec_augment]`: what of filter banks becomes silence, which is their mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpecAugmentConfig {
    /// Stretches of time. Park et al. 2019: 2.
    pub num_time_masks: usize,
    /// The longest of them, in frames of 10 ms. Park et al. 2019: 100.
    pub max_time_frames: usize,
    /// The most of an utterance that one of them may take.
    #[serde(default = "default_max_time_share")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_time_share: f64,
    /// Groups of neighbouring bands. Park et al. 2019: 2.
    pub num_frequency_masks: usize,
    /// The widest of them. Park et al. 2019: 27 of 80.
    pub max_frequency_bins: usize,
}

fn default_max_time_share() -> f64 {
    0.2
}

impl Config {
    /// All values that cannot work with the rest of `[data.speech]`, by key path.
    pub(super) fn check(&self, speech: &SpeechConfig) -> Vec<ConfigProblem> {
        let mut found = Vec::new();
        let mut report = |key: &str, message: String, help: &str| {
            found.push(ConfigProblem { key: format!("{TABLE}.{key}"), message, help: help.to_owned() });
        };
        let is_fine = |speed: f64| SPEEDS.contains(&speed) && (speed * 100.0 - (speed * 100.0).round()).abs() < 1e-6;
        if let Some(speed) = self.speed.iter().find(|speed| !is_fine(**speed)) {
            let message = format!("has {speed}, not from {} to {} in steps of 0.01", SPEEDS.start(), SPEEDS.end());
            report("speed", message, "`[0.9, 1.0, 1.1]` is usual");
        }
        let is_range = |[low, high]: [f64; 2]| low <= high && low >= -MAX_DB && high <= MAX_DB;
        if let Some(range) = self.gain_db {
            if !is_range(range) {
                report(
                    "gain_db",
                    format!("is {range:?}, not two numbers of decibels, the lower first"),
                    "try `[-6, 6]`",
                );
            } else if speech.normalise {
                let message = "changes nothing, because `normalise` makes all utterances equally loud".to_owned();
                report("gain_db", message, "remove it");
            }
        }
        let is_share = |share: f64| share > 0.0 && share <= 1.0;
        if let Some(Noise { path, snr_db, share }) = &self.noise {
            if path.is_empty() {
                report("noise.path", "is empty".to_owned(), "name a folder of sound files");
            }
            if !is_range(*snr_db) {
                let message = format!("is {snr_db:?}, not two numbers of decibels, the lower first");
                report("noise.snr_db", message, "try `[5, 20]`");
            }
            if !is_share(*share) {
                report("noise.share", format!("is {share}, not above 0 and at most 1"), "remove `noise` for none");
            }
        }
        if let Some(Reverberation { path, share }) = &self.reverberation {
            if path.is_empty() {
                report("reverberation.path", "is empty".to_owned(), "name a folder of impulse responses");
            }
            if !is_share(*share) {
                let message = format!("is {share}, not above 0 and at most 1");
                report("reverberation.share", message, "remove `reverberation` for none");
            }
        }
        if let Some(masks) = &self.spec_augment {
            let Some(banks) = speech.filter_banks else {
                let message = "hides bands of filter banks, but the network hears samples".to_owned();
                report("spec_augment", message, "remove it; `time_mask` of the objective hides frames");
                return found;
            };
            if !is_share(masks.max_time_share) {
                let message = format!("is {}, not above 0 and at most 1", masks.max_time_share);
                report("spec_augment.max_time_share", message, "leave it out for 0.2");
            }
            if masks.num_time_masks > 0 && masks.max_time_frames == 0 {
                let message = "is 0, so nothing is hidden".to_owned();
                report("spec_augment.max_time_frames", message, "set `num_time_masks` to 0 for none");
            }
            if masks.num_frequency_masks > 0 && !(1..=banks.num_mel_bins).contains(&masks.max_frequency_bins) {
                let message =
                    format!("is {}, not from 1 to the {} bands", masks.max_frequency_bins, banks.num_mel_bins);
                report("spec_augment.max_frequency_bins", message, "set `num_frequency_masks` to 0 for none");
            }
        }
        found
    }

    /// Where sounds are read from, by key path.
    pub fn paths(&self) -> impl Iterator<Item = (String, &str)> {
        let noise = self.noise.iter().map(|noise| ("noise", noise.path.as_str()));
        let rooms = self.reverberation.iter().map(|rooms| ("reverberation", rooms.path.as_str()));
        noise.chain(rooms).map(|(name, path)| (format!("{TABLE}.{name}.path"), path))
    }

    /// All speeds that may be taken: those given, and 1 where none of them fits.
    pub(crate) fn speeds(&self) -> impl Iterator<Item = f64> {
        self.speed.iter().copied().chain([1.0])
    }

    /// What of this table changes rows.
    pub(super) fn key(&self) -> String {
        let Self { speed, gain_db, noise, reverberation, spec_augment, cache_bytes: _ } = self;
        let noise = noise.as_ref().map(|noise| (noise.snr_db, noise.share));
        let share = reverberation.as_ref().map(|rooms| rooms.share);
        format!("{speed:?} {gain_db:?} {noise:?} {share:?} {spec_augment:?}")
    }
}

/// Sounds to draw from.
struct Sounds {
    /// Of their place in the recipe.
    key: String,
    sample_rate_hz: u32,
    max_seconds: f64,
    files: Vec<PathBuf>,
    /// Those that are kept in memory.
    samples: Vec<Option<Arc<[f32]>>>,
}

impl Sounds {
    /// Decodes every sound once, so that a broken one is found now; keeps them while there is room.
    fn open(
        (key, path): (String, &str),
        (sample_rate_hz, max_seconds): (u32, f64),
        room: &AtomicU64,
        hasher: &mut blake3::Hasher,
        progress: &Progress<'_>,
    ) -> Result<Self> {
        let wrong = |message: String, help: &str| Error::Config { key: key.clone(), message, help: help.to_owned() };
        let is_wanted = |path: &std::path::Path| path.file_name().is_some_and(|name| is_sound(&name.to_string_lossy()));
        let listed = files::list("augment", path, ENDINGS_SHOWN, &is_wanted).map_err(|error| match error {
            Error::NotFound { .. } => wrong(format!("`{path}` does not exist"), "name a folder of sound files"),
            Error::NoFiles { .. } => {
                wrong(format!("`{path}` has no file that ends in {ENDINGS_SHOWN}"), "name a folder of sound files")
            }
            Error::BadPattern { detail, .. } => wrong(format!("`{path}` is no pattern ({detail})"), "correct it"),
            other => other,
        })?;
        for file in &listed {
            let len = std::fs::metadata(&file.path).map_err(|error| Error::read(&file.path, error))?.len();
            hasher.update(format!("{:?} {len}\n", file.name).as_bytes());
        }
        let files = listed.into_iter().map(|file| file.path).collect();
        let mut own = Self { key, sample_rate_hz, max_seconds, files, samples: Vec::new() };
        let keep = |index: usize| -> Result<Option<Arc<[f32]>>> {
            let samples = own.decode(index)?;
            let bytes = (samples.len() * size_of::<f32>()) as u64;
            let fits = room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok();
            Ok(fits.then_some(samples))
        };
        let num = own.files.len();
        let mut samples = Vec::with_capacity(num);
        for start in (0..num).step_by(BATCH) {
            progress.report(Stage::Scan, start as u64, num as u64)?;
            let some: Vec<_> = (start..num.min(start + BATCH)).into_par_iter().map(keep).collect::<Result<_>>()?;
            samples.extend(some);
        }
        own.samples = samples;
        Ok(own)
    }

    fn decode(&self, index: usize) -> Result<Arc<[f32]>> {
        let limits = Limits { max_seconds: self.max_seconds, ..Limits::default() };
        let options = DecodeOptions { limits, sample_rate_hz: Some(self.sample_rate_hz), ..DecodeOptions::default() };
        let file = &self.files[index];
        let wrong = |message: String| {
            let help = format!("remove `{}` from the folder, or replace it", file.display());
            Error::Config { key: self.key.clone(), message, help }
        };
        let decoded =
            decode_file(file, &options).map_err(|error| wrong(format!("has a sound that cannot be used: {error}")))?;
        if decoded.samples.iter().all(|x| *x == 0.0) {
            return Err(wrong(format!("has a silent sound, `{}`", file.display())));
        }
        Ok(decoded.samples.into())
    }

    /// One of them.
    fn draw(&self, stream: &mut Stream) -> Result<Arc<[f32]>> {
        let index = stream.below(self.files.len() as u64) as usize;
        match &self.samples[index] {
            Some(samples) => Ok(Arc::clone(samples)),
            None => self.decode(index),
        }
    }
}

/// The table with its sounds.
pub(crate) struct Augmenter {
    config: Config,
    noise: Option<Sounds>,
    rooms: Option<Sounds>,
    /// Of names and sizes of the sounds, and of what the table says.
    pub(crate) hash: String,
}

impl Augmenter {
    /// Reads noise and rooms.
    pub(crate) fn open(config: &Config, sample_rate_hz: u32, progress: &Progress<'_>) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        let room = AtomicU64::new(config.cache_bytes);
        let mut open = |name: &str, path: &str, max_seconds: f64| {
            hasher.update(name.as_bytes());
            let key = format!("{TABLE}.{name}.path");
            Sounds::open((key, path), (sample_rate_hz, max_seconds), &room, &mut hasher, progress)
        };
        // Rooms are small and come first.
        let rooms = &config.reverberation;
        let rooms = rooms.as_ref().map(|rooms| open("reverberation", &rooms.path, MAX_ROOM_SECONDS)).transpose()?;
        let noise = &config.noise;
        let noise = noise.as_ref().map(|noise| open("noise", &noise.path, MAX_NOISE_SECONDS)).transpose()?;
        hasher.update(config.key().as_bytes());
        Ok(Self { config: config.clone(), noise, rooms, hash: hasher.finalize().to_hex().to_string() })
    }

    /// The speed of an utterance; 1 where the drawn one does not fit.
    pub(crate) fn speed(&self, stream: &mut Stream, fits: impl Fn(f64) -> bool) -> f64 {
        let drawn = self.config.speed.get(stream.below(self.config.speed.len() as u64) as usize);
        drawn.copied().filter(|speed| fits(*speed)).unwrap_or(1.0)
    }

    /// The speed that makes an utterance longest, of those that fit.
    pub(crate) fn longest(&self, fits: impl Fn(f64) -> bool) -> f64 {
        self.config.speed.iter().copied().filter(|speed| fits(*speed)).fold(1.0, f64::min)
    }

    /// The samples of an utterance at a speed, with all that is drawn for it; `stream` gives that of each kind.
    pub(crate) fn samples(
        &self,
        samples: &[f32],
        speed: f64,
        stream: &impl Fn(&'static str) -> Stream,
    ) -> Result<Vec<f32>> {
        let impossible = |error: arcuate_audio::Error| Error::Config {
            key: TABLE.to_owned(),
            message: format!("cannot be applied: {error}"),
            help: "correct it, or remove it".to_owned(),
        };
        let mut samples = augment::speed(samples, speed).map_err(impossible)?;
        if let Some((Reverberation { share, .. }, rooms)) = self.config.reverberation.as_ref().zip(self.rooms.as_ref())
        {
            let mut stream = stream("reverberation");
            if stream.uniform() < *share {
                samples = augment::reverberate(&samples, &rooms.draw(&mut stream)?).map_err(impossible)?;
            }
        }
        if let Some((Noise { share, snr_db, .. }, noise)) = self.config.noise.as_ref().zip(self.noise.as_ref()) {
            let mut stream = stream("noise");
            if stream.uniform() < *share {
                let noise = noise.draw(&mut stream)?;
                let snr_db = between(*snr_db, &mut stream);
                augment::mix_noise(&mut samples, &noise, snr_db, &mut || stream.uniform());
            }
        }
        if let Some(range) = self.config.gain_db {
            augment::gain(&mut samples, between(range, &mut stream("gain")) as f32);
        }
        Ok(samples)
    }

    /// Hides stretches and bands of filter banks.
    pub(crate) fn mask(
        &self,
        values: Vec<f32>,
        num_mel_bins: usize,
        stream: &impl Fn(&'static str) -> Stream,
    ) -> Vec<f32> {
        let Some(config) = &self.config.spec_augment else { return values };
        let masks = SpecAugment {
            num_time_masks: config.num_time_masks,
            max_time_frames: config.max_time_frames,
            max_time_share: config.max_time_share,
            num_frequency_masks: config.num_frequency_masks,
            max_frequency_bins: config.max_frequency_bins,
        };
        let mut stream = stream("spec augment");
        let mut features = Features { values, num_bins: num_mel_bins };
        // The mean of normalised filter banks.
        masks.apply(&mut features, 0.0, &mut || stream.uniform());
        features.values
    }
}

fn between([low, high]: [f64; 2], stream: &mut Stream) -> f64 {
    low + (high - low) * stream.uniform()
}
