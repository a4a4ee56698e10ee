//! From an utterance to its samples, wherever they lie.

use std::fs::File;
use std::os::unix::fs::FileExt;

use arcuate_audio::{DecodeOptions, Stream};

pub use arcuate_audio::Limits;

use super::{SoundRef, Utterance, parquet};
use crate::error::{BadItem, BadReason, Error, Result};

/// The samples of an utterance, block by block, at the rate of the file unless another is asked for.
pub(super) struct Samples<'a> {
    utterance: &'a Utterance,
    pub(super) stream: Stream,
}

impl<'a> Samples<'a> {
    /// Looks at the headers.
    pub(super) fn open(utterance: &'a Utterance, sample_rate_hz: Option<u32>, limits: &Limits) -> Result<Self> {
        let mut options = DecodeOptions { limits: limits.clone(), sample_rate_hz, ..DecodeOptions::default() };
        let opened = match &utterance.sound {
            SoundRef::File { path, start_seconds, seconds } => {
                options.start_seconds = *start_seconds;
                options.seconds = *seconds;
                Stream::open_file(path, &options)
            }
            held => Stream::open_bytes(bytes(utterance, held, limits)?, ending(held), &options),
        };
        let stream = opened.map_err(|error| unusable(utterance, error))?;
        Ok(Self { utterance, stream })
    }
}

impl Iterator for Samples<'_> {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = self.stream.next()?;
        Some(block.map_err(|error| unusable(self.utterance, error)))
    }
}

/// How long an utterance is, by its sound: from the header where that says it, else by decoding without keeping anything.
pub(super) fn seconds(utterance: &Utterance) -> Result<f64> {
    let samples = Samples::open(utterance, None, &without_end())?;
    let start = match utterance.sound {
        SoundRef::File { start_seconds, .. } => start_seconds,
        SoundRef::Member { .. } | SoundRef::Row { .. } => 0.0,
    };
    let seconds = match samples.stream.info().seconds() {
        Some(whole) => whole - start,
        None => count(samples.stream).map_err(|error| unusable(utterance, error))?,
    };
    if seconds > 0.0 { Ok(seconds) } else { Err(bad(BadReason::EmptySound, utterance, "has no sound".to_owned())) }
}

/// How long a sound file in memory is.
pub(super) fn seconds_of_bytes(bytes: Vec<u8>) -> arcuate_audio::Result<f64> {
    let stream = Stream::open_bytes(bytes, None, &DecodeOptions { limits: without_end(), ..DecodeOptions::default() })?;
    match stream.info().seconds() {
        Some(seconds) => Ok(seconds),
        None => count(stream),
    }
}

/// Long recordings are no error as long as nothing is kept of them.
fn without_end() -> Limits {
    Limits { max_seconds: f64::MAX, max_decoded_bytes: u64::MAX, ..Limits::default() }
}

fn count(stream: Stream) -> arcuate_audio::Result<f64> {
    let rate = f64::from(stream.sample_rate_hz());
    let mut num_samples = 0;
    for block in stream {
        num_samples += block?.len();
    }
    Ok(num_samples as f64 / rate)
}

/// The sound file that an archive or a table holds.
fn bytes(utterance: &Utterance, held: &SoundRef, limits: &Limits) -> Result<Vec<u8>> {
    match held {
        SoundRef::File { path, .. } => std::fs::read(path).map_err(|error| Error::read(path, error)),
        SoundRef::Member { archive, offset, len, .. } => {
            let too_large = || {
                let detail = format!("has {len} bytes, more than {} that a sound may have", limits.max_decoded_bytes);
                bad(BadReason::TooLong, utterance, detail)
            };
            if *len > limits.max_decoded_bytes {
                return Err(too_large());
            }
            let file = File::open(archive).map_err(|error| Error::read(archive, error))?;
            // The archive may have been cut since its list was read.
            let now = file.metadata().map_err(|error| Error::read(archive, error))?.len();
            if now < offset.saturating_add(*len) {
                return Err(Error::Truncated { path: archive.clone(), line: 0 });
            }
            let mut bytes = vec![0; usize::try_from(*len).map_err(|_| too_large())?];
            file.read_exact_at(&mut bytes, *offset).map_err(|error| Error::read(archive, error))?;
            Ok(bytes)
        }
        SoundRef::Row { path, row_group, row, column } => parquet::value(path, *row_group, *row, column)?
            .ok_or_else(|| bad(BadReason::MissingField, utterance, format!("has no bytes in `{column}`"))),
    }
}

fn ending(held: &SoundRef) -> Option<&str> {
    match held {
        SoundRef::Member { name, .. } => name.rsplit_once('.').map(|(_, ending)| ending),
        SoundRef::File { .. } | SoundRef::Row { .. } => None,
    }
}

/// Refuses a sound that is much shorter or longer than its list says: batches are made by those seconds.
pub(super) fn check_seconds(utterance: &Utterance, seconds: f64) -> Result<()> {
    let listed = utterance.seconds;
    if (seconds - listed).abs() <= tolerance(listed) {
        return Ok(());
    }
    let detail = format!("is {seconds:.2} seconds long, not {listed:.2} as its list says; correct the list");
    Err(bad(BadReason::WrongSeconds, utterance, detail))
}

/// Seconds by which a list may be wrong: encoders pad, and lists round.
pub(crate) fn tolerance(listed: f64) -> f64 {
    0.25 + 0.02 * listed
}

/// What an error of the decoder means for a list.
fn unusable(utterance: &Utterance, error: arcuate_audio::Error) -> Error {
    use arcuate_audio::Error as Audio;
    let reason = match &error {
        Audio::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => BadReason::MissingFile,
        Audio::Empty { .. } | Audio::Segment { .. } => BadReason::EmptySound,
        Audio::TooManyChannels { .. } | Audio::SampleRate { .. } | Audio::TooLong { .. } | Audio::TooLarge { .. } => {
            BadReason::TooLong
        }
        Audio::NotFinite { .. } => BadReason::NotFinite,
        _ => BadReason::BrokenSound,
    };
    bad(reason, utterance, format!("has a sound that cannot be used: {error}"))
}

fn bad(reason: BadReason, utterance: &Utterance, detail: String) -> Error {
    Error::BadItem(BadItem { reason, place: utterance.place.clone(), detail })
}
