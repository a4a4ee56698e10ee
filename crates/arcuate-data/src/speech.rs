//! Speech corpora: lists of utterances in the formats that people have, compact in memory; the sound is read when it is asked for.
//!
//! Opening a source reads its lists, not its sound: only where no list says how long an utterance is, the header of its file is
//! looked at. Items that cannot be used are counted by reason, as everywhere.

mod audio;
pub mod augment;
mod builder;
pub mod common_voice;
pub mod fairseq;
pub mod folder;
pub mod kaldi;
mod lines;
mod list;
pub mod nemo;
pub mod parquet;
mod recordings;
pub mod scan;
pub(crate) mod tar;
pub mod webdataset;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use audio::Limits;
pub(crate) use audio::tolerance;
pub use recordings::Recordings;

use crate::config::ConfigProblem;
use crate::error::{BadItem, BadReason, Error, Result};
use crate::hearing::{FilterBanks, Hearing};
use crate::progress::Progress;
use audio::Samples;
use builder::Builder;
use list::List;

/// A `[data.speech.source.NAME]` table of a speech recipe: utterances in one format with one weight in the mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeechSourceConfig {
    /// Where the utterances are: `[data.speech.source.NAME.format.nemo]`, `...format.folder` and so on.
    pub format: SpeechFormat,
    /// Share of this source in the training seconds, relative to the weights of the others.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0.0))]
    pub weight: f64,
    /// How often each utterance of this source may be heard at most; then the other sources take its share. Unlimited when left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub max_repeats: Option<f64>,
    /// Language of the utterances for which the list names none, for instance `cs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// What is never split between training and held-out utterances: a `recording` (all segments of one file) or a `speaker`
    /// (the recording where none is named).
    #[serde(default)]
    pub split_by: SplitBy,
}

/// The `[data.speech]` table: recordings in place of texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeechConfig {
    /// The sources by name: `[data.speech.source.NAME]`.
    pub source: BTreeMap<String, SpeechSourceConfig>,
    /// The share of each source grows with its hours of training recordings to this power, times its `weight`: 1 is by hours, 0
    /// gives all the same, and what is between favours the small ones. Left out: by `weight` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub hours_exponent: Option<f64>,
    /// Samples a second that the network hears; recordings of another rate are resampled.
    #[serde(default = "default_sample_rate_hz")]
    #[schemars(range(min = 1000, max = 192_000))]
    pub sample_rate_hz: u32,
    /// Whether each utterance is brought to mean 0 and variance 1, filter banks band by band. Must stay as it was when a checkpoint is
    /// continued.
    pub normalise: bool,
    /// What the network hears in place of samples: `{ num_mel_bins = 80, stride = 2 }` for Wav2Vec2-BERT. Left out: samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_banks: Option<FilterBanks>,
    /// Utterances shorter than this are left out.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub min_seconds: f64,
    /// Utterances longer than this are left out. Left out: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub max_seconds: Option<f64>,
    /// Memory for decoded sound, so that an utterance is decoded once if all fit; an hour takes 230 MB at 16 kHz.
    #[serde(default = "default_decoded_cache_bytes")]
    pub decoded_cache_bytes: u64,
    /// Changes of the training recordings that keep their words. Left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<augment::Config>,
    /// Folder with a unit for each frame of every utterance, which `arcuate data units` makes; `[objective.masked_prediction]`
    /// predicts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<PathBuf>,
}

fn default_sample_rate_hz() -> u32 {
    16_000
}

fn default_decoded_cache_bytes() -> u64 {
    1 << 30
}

impl SpeechConfig {
    /// All values that cannot work, by key path.
    pub fn check(&self) -> Vec<ConfigProblem> {
        let mut found = Vec::new();
        let mut report = |key: &str, message: String, help: &str| {
            found.push(ConfigProblem { key: format!("data.speech.{key}"), message, help: help.to_owned() });
        };
        if self.source.is_empty() {
            report("source", "names no source".to_owned(), "add a `[data.speech.source.NAME]` table with a `format`");
        }
        if self.units.is_some() && self.filter_banks.is_some() {
            let message = "cannot be used with `filter_banks`: units belong to frames of samples".to_owned();
            report("units", message, "remove one of them");
        }
        if self.units.is_some() && self.augment.as_ref().is_some_and(|augment| !augment.speed.is_empty()) {
            let message = "cannot be used with `units`, which belong to the recordings as they are".to_owned();
            report("augment.speed", message, "remove it");
        }
        if let Some(exponent) = self.hours_exponent
            && !(0.0..=1.0).contains(&exponent)
        {
            let message = format!("is {exponent}, not between 0 and 1");
            report("hours_exponent", message, "write 1 for shares by hours, 0 for equal ones");
        }
        if !(1000..=192_000).contains(&self.sample_rate_hz) {
            report("sample_rate_hz", format!("is {}", self.sample_rate_hz), "16000 is what published models hear");
        }
        if !(self.min_seconds.is_finite() && self.min_seconds >= 0.0) {
            report("min_seconds", format!("is {}, not a length", self.min_seconds), "leave it out for no limit");
        }
        if let Some(most) = self.max_seconds
            && !(most.is_finite() && most > self.min_seconds)
        {
            report("max_seconds", format!("is {most}, not above `min_seconds`"), "leave it out for no limit");
        }
        if let Some(problem) = self.hearing().problem() {
            report("filter_banks", problem, "Wav2Vec2-BERT hears `{ num_mel_bins = 80, stride = 2 }` at 16000 Hz");
        }
        if self.filter_banks.is_some() && !self.normalise {
            let message = "is false, but filter banks are always brought to mean 0 and variance 1".to_owned();
            report("normalise", message, "set it to true");
        }
        found.extend(self.augment.iter().flat_map(|augment| augment.check(self)));
        found.extend(self.source.iter().flat_map(|(name, source)| source.check(name)));
        found
    }

    /// How sound is prepared for the network.
    pub fn hearing(&self) -> Hearing {
        let Self { sample_rate_hz, normalise, filter_banks, .. } = *self;
        Hearing { sample_rate_hz, normalise, filter_banks }
    }

    /// Whether an utterance of this length is left out.
    pub(crate) fn leaves_out(&self, seconds: f64) -> bool {
        seconds < self.min_seconds || self.max_seconds.is_some_and(|most| seconds > most)
    }

    /// What of this table changes rows, but for the content of other files.
    pub(crate) fn key(&self) -> String {
        let Self {
            source: _,
            hours_exponent: _,
            sample_rate_hz,
            normalise,
            filter_banks,
            min_seconds,
            max_seconds,
            decoded_cache_bytes: _,
            augment: _,
            units: _,
        } = self;
        let banks = filter_banks.map_or_else(String::new, |banks| format!(" {banks:?}"));
        format!("{sample_rate_hz} {normalise} {min_seconds} {max_seconds:?}{banks}")
    }
}

fn default_weight() -> f64 {
    1.0
}

/// What stays on one side of the split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// All segments of one file.
    #[default]
    Recording,
    /// Everything that one person said.
    Speaker,
}

impl SpeechSourceConfig {
    /// A source with every default.
    pub fn new(format: SpeechFormat) -> Self {
        Self { format, weight: default_weight(), max_repeats: None, language: None, split_by: SplitBy::default() }
    }

    /// All values of the source called `name` that cannot work, by key path.
    pub fn check(&self, name: &str) -> Vec<ConfigProblem> {
        let mut found = Vec::new();
        let mut report = |key: String, message: String, help: &str| {
            let key = format!("data.speech.source.{name}.{key}");
            found.push(ConfigProblem { key, message, help: help.to_owned() });
        };
        if !(self.weight.is_finite() && self.weight > 0.0) {
            let message = format!("is {}, not a positive number", self.weight);
            report("weight".to_owned(), message, "remove the source to leave it out");
        }
        if let Some(repeats) = self.max_repeats
            && !(repeats.is_finite() && repeats > 0.0)
        {
            let message = format!("is {repeats}, not a positive number");
            report("max_repeats".to_owned(), message, "leave it out for no limit");
        }
        if self.format.path().is_empty() {
            let key = format!("format.{}.path", self.format.name());
            report(key, "is empty".to_owned(), "name a file, a folder or a pattern");
        }
        found
    }
}

/// Reads the lists of one format.
trait Reader {
    /// Hands every utterance, and everything that is none, to `builder`.
    fn read(&self, builder: &mut Builder<'_>) -> Result<()>;
}

macro_rules! speech_formats {
    ($($variant:ident => $module:ident),* $(,)?) => {
        /// The `[data.speech.source.NAME.format.<name>]` table; exactly one name per source.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum SpeechFormat {
            $(
                #[doc = concat!("`[data.speech.source.NAME.format.", stringify!($module), "]`")]
                $variant($module::Config),
            )*
        }

        impl SpeechFormat {
            /// The names of all formats, as they stand in a recipe.
            pub const NAMES: &[&str] = &[$(stringify!($module)),*];

            /// The name of the chosen format, as it stands in a recipe.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($module)),* }
            }

            /// The file, folder or pattern that it reads.
            pub fn path(&self) -> &str {
                match self { $(Self::$variant(config) => &config.path),* }
            }

            fn reader(&self) -> &dyn Reader {
                match self { $(Self::$variant(config) => config),* }
            }
        }
    };
}

speech_formats! {
    CommonVoice => common_voice,
    Fairseq => fairseq,
    Folder => folder,
    Kaldi => kaldi,
    Nemo => nemo,
    Parquet => parquet,
    Webdataset => webdataset,
}

/// Where the sound of an utterance is.
#[derive(Debug, Clone, PartialEq)]
pub enum SoundRef {
    /// A file, or a stretch of one.
    File {
        /// The file.
        path: PathBuf,
        /// Where the stretch begins.
        start_seconds: f64,
        /// How long it is; to the end of the file when absent.
        seconds: Option<f64>,
    },
    /// A member of a tar archive.
    Member {
        /// The archive.
        archive: PathBuf,
        /// Name of the member.
        name: String,
        /// First byte of its content.
        offset: u64,
        /// Bytes of its content.
        len: u64,
    },
    /// A value of a Parquet file.
    Row {
        /// The file.
        path: PathBuf,
        /// The row group.
        row_group: u32,
        /// The row within that group.
        row: u32,
        /// The column with `{bytes, path}`.
        column: String,
    },
}

/// One utterance: where its sound is, and what was said.
#[derive(Debug, Clone, PartialEq)]
pub struct Utterance {
    /// The id that its list gives, or the name of its file.
    pub id: String,
    /// `file:line` of the list, or the sound itself where there is no list.
    pub place: String,
    /// Where its sound is.
    pub sound: SoundRef,
    /// How long it is, as its list says or its file does.
    pub seconds: f64,
    /// What was said, if that is known.
    pub transcript: Option<String>,
    /// Who said it.
    pub speaker: Option<String>,
    /// In which language.
    pub language: Option<String>,
    /// Utterances with the same group are never split between training and held-out data.
    pub group: String,
}

/// Bad items of one reason that were met while a list was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedItems {
    /// How many.
    pub count: u64,
    /// The first few.
    pub first: Vec<BadItem>,
}

impl SkippedItems {
    /// Bad items of one reason that are kept.
    const MAX_FIRST: usize = 5;

    /// Counts one more.
    pub(crate) fn add(&mut self, item: &BadItem) {
        self.count += 1;
        if self.first.len() < Self::MAX_FIRST {
            self.first.push(item.clone());
        }
    }
}

/// The utterances of a source.
#[derive(Debug)]
pub struct Utterances {
    list: List,
    skipped: BTreeMap<BadReason, SkippedItems>,
    content_hash: String,
}

impl Utterances {
    /// Reads the lists of the source called `name`. At most `max_bad_items` items are skipped; progress counts utterances.
    ///
    /// # Errors
    /// When a list does not exist or cannot be read, when too many items are bad, and when no utterance is left.
    pub fn open(name: &str, source: &SpeechSourceConfig, max_bad_items: u64, progress: &Progress<'_>) -> Result<Self> {
        if let Some(ConfigProblem { key, message, help }) = source.check(name).into_iter().next() {
            return Err(Error::Config { key, message, help });
        }
        let mut builder = Builder::new(name, source, max_bad_items, progress);
        source.format.reader().read(&mut builder)?;
        let (list, skipped, content_hash) = builder.finish()?;
        if list.len() == 0 {
            return Err(Error::NoUtterances { name: name.to_owned(), path: source.format.path().to_owned() });
        }
        Ok(Self { list, skipped, content_hash })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True without a single one; an opened source has at least one.
    pub fn is_empty(&self) -> bool {
        self.list.len() == 0
    }

    /// The utterance at a place of the list.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn get(&self, index: usize) -> Utterance {
        self.list.get(index)
    }

    /// How long the utterance at a place of the list is.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn seconds(&self, index: usize) -> f64 {
        self.list.seconds(index)
    }

    /// All of them, in the order of the sorted lists.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Utterance> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// All seconds together.
    pub fn total_seconds(&self) -> f64 {
        (0..self.len()).map(|index| self.seconds(index)).sum()
    }

    /// The samples of an utterance: one channel at `sample_rate_hz`.
    ///
    /// # Errors
    /// A bad item when the sound is missing, broken, empty, above the limits or not as long as its list says.
    pub fn load(&self, index: usize, sample_rate_hz: u32, limits: &Limits) -> Result<Vec<f32>> {
        let utterance = self.get(index);
        let mut samples = Vec::new();
        for block in Samples::open(&utterance, Some(sample_rate_hz), limits)? {
            samples.extend_from_slice(&block?);
        }
        audio::check_seconds(&utterance, samples.len() as f64 / f64::from(sample_rate_hz))?;
        Ok(samples)
    }

    /// Items that were skipped, by reason.
    pub fn skipped(&self) -> &BTreeMap<BadReason, SkippedItems> {
        &self.skipped
    }

    /// How many were skipped, by reason.
    pub(crate) fn num_skipped(&self) -> BTreeMap<BadReason, u64> {
        counts(&self.skipped)
    }

    /// One of those that were skipped.
    pub(crate) fn first_skipped(&self) -> Option<&BadItem> {
        self.skipped.values().flat_map(|skipped| skipped.first.first()).next()
    }

    /// Changes with ids, transcripts, languages, speakers, seconds and sizes of files; not with times or the place of the folder.
    pub fn content_hash(&self) -> &str {
        &self.content_hash
    }

    /// Bytes of memory that the list takes.
    pub fn memory_bytes(&self) -> usize {
        self.list.memory_bytes()
    }
}

/// How many items of each reason.
pub(crate) fn counts(items: &BTreeMap<BadReason, SkippedItems>) -> BTreeMap<BadReason, u64> {
    items.iter().map(|(reason, skipped)| (*reason, skipped.count)).collect()
}

/// A sample rounded to 16 bits, so that it is the same however it was decoded.
pub(crate) fn to_16_bits(sample: f32) -> f32 {
    (sample * 32768.0).round() / 32768.0
}

/// Endings of the sound files that folders and archives are searched for.
const ENDINGS: &[&str] = &["wav", "flac", "mp3", "ogg", "oga", "opus", "m4a", "aac"];
/// The same for messages.
const ENDINGS_SHOWN: &str = "`.wav`, `.flac`, `.mp3`, `.ogg`, `.oga`, `.opus`, `.m4a` or `.aac`";

/// Whether a name ends like a sound file.
fn is_sound(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
pub(crate) mod tests;
